"""Moves records from a sink's backlog in memory to the spool, a queue on disk, and back.

The spool's own thread moves records to disk, oldest first, while the backend is down, while the
backlog is more than half full, or when a record has waited too long.  In the mode ``always``,
the thread moves every record.  While records wait on disk, all newer records are also written to
disk, so that the records stay in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog.delivery.backlog import Batch
from fapilog.diagnostics import describe
from fapilog.native import monotonic
from fapilog.process.give_way import give_way
from fapilog.process.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.delivery.state import DeliveryState
    from fapilog.spool import Frame, Spool

#: Seconds between two checks of the backlog by the spool's thread while records wait.  In the
#: mode ``always``, SIGKILL therefore loses only the records of the last 0.05 seconds.
LOOK: Final = 0.05
#: The longest wait for ``DeliveryState.lock`` in a call that must not wait for the disk, in
#: seconds.  The spool's thread holds this lock while it writes to the disk.
_GLANCE: Final = 0.01
#: A record is written to disk if it has been in memory for ``BatchLimits.delay`` plus this number
#: of seconds.
_PATIENCE: Final = 2.0
#: Seconds between two searches for spool directories of dead processes.
_ADOPT_EVERY: Final = 30.0
#: Seconds until the next search if the latest search did not adopt all spool directories of dead
#: processes.
_ADOPT_SOON: Final = 1.0
#: Seconds that a process without new records waits before it adopts spool directories of dead
#: processes, because it may be a server that is still forking its workers.
_QUIET: Final = 2.0
#: The maximum number of spool files that are examined to find deleted files: ``_SOME`` files in
#: each regular check, and ``_MOST`` files in the check before the spool is closed.
_SOME: Final = 128
_MOST: Final = 4096
#: Seconds between a failed write to the spool and the next attempt to write.
_AGAIN: Final = 1.0


class Spooling:
    """Moves one sink's batches to disk, and reads them again for the delivery threads.

    Args:
        state: the state of the sink's delivery.
        spool: the sink's spool, already opened.
        wake: a function that wakes the delivery threads.

    Attributes:
        active: whether new records are written to disk before they are sent.
    """

    def __init__(self, state: DeliveryState, spool: Spool, wake: Callable[[], object]) -> None:
        self._state = state
        self._sink: Any = state.sink
        self._spool = spool
        self._backlog = state.backlog
        self._wake_senders = wake
        self.worker = Worker(f"fapilog-{state.name}-spool", self._run, finish=self._finish)
        self._next: Batch | None = None  # a batch read from disk that take() has not returned yet
        self._always = self.active = state.options.spool_mode == "always"
        self._ending = False
        self._is_early = False  # whether adopt_orphans(), not a new record, started the thread
        self._adopt_at = 0.0
        self._announced = 0  # the number of adopted records reported on stderr so far

    def notice(self) -> None:
        """Wake the spool's thread if it sleeps, because the backlog has new records.

        Does not block.
        """
        if self.worker.idle:
            self.worker.wake()

    def adopt_orphans(self) -> None:
        """Start the spool's thread now if dead processes left records on disk.

        Otherwise the thread starts when the backlog gets its first record.
        """
        if self._spool.has_orphans:
            self._is_early = True
            self.worker.has_thread()

    @property
    def comes_first(self) -> bool:
        """Whether the next batch to send is on disk, or is about to be written to disk."""
        if len(self):
            return True
        if self.active and not self._always and not self._is_needed():
            self.active = False
        # If the disk fails or the spool has no thread, records are sent directly from memory.
        return self.active and self._state.may_write and self.worker.has_thread()

    def __len__(self) -> int:
        """Return the number of records on disk that :meth:`take` has not returned yet."""
        following = self._next  # read once: another thread may be inside take()
        return self._spool.unread_records + (len(following) if following else 0)

    def take(self) -> Batch:
        """Return the oldest batch on disk, or an empty batch if no records wait on disk.

        The caller must hold ``DeliveryState.lock``.
        """
        batch, self._next = self._next or Batch(), None
        if batch:
            self._state.in_flight.remove(batch)
        while frame := self._spool.read():
            following = self._batch_of(frame)
            total = len(batch) + len(following), batch.size + following.size
            if batch and following and not self._backlog.fits_a_batch(*total):
                self._next = following
                self._state.put_in_flight(following)
                break
            batch.extend(following)
            batch.frames += following.frames
        return batch

    def _batch_of(self, frame: Frame) -> Batch:
        """Return the records of ``frame``, a batch that was read from the spool.

        If the records cannot be decoded, drop them and return an empty batch.
        """
        items: Any = frame.item
        if items is None:
            try:
                items = self._sink.unpack(frame.body)
            except ValueError as error:
                self._state.announce("unpack", f"a spooled batch cannot be read: {error}")
                items = ()
        ledger = self._state.ledger
        if frame.is_adopted:
            ledger.settled_adopted += len(frame.severities)
        if len(items) != len(frame.severities):
            ledger.drops.add_all("spool_unreadable", frame.severities)
            self._spool.ack(frame)
            return Batch()
        return Batch(list(items), list(frame.severities), len(frame.body), frames=[frame])

    @property
    def holds_everything(self) -> bool:
        """Whether every record that is still to be sent is on disk.

        Also False if ``DeliveryState.lock`` cannot be acquired within 0.01 seconds.
        """
        state = self._state
        if not state.lock.acquire(timeout=_GLANCE):
            return False
        try:
            is_on_disk = not self._backlog and all(batch.is_on_disk for batch in state.in_flight)
            return is_on_disk and self._spool.is_whole
        finally:
            state.lock.release()

    def finish(self, deadline: float) -> None:
        """Write the remaining records to disk, and close the spool.

        Blocks until the spool's thread has done this, or until ``deadline``.
        """
        self._ending = True
        if self.worker.is_alive:
            self.worker.wake()
        elif not self.worker.ended:
            self.worker.run_inline()
        self.worker.join(max(deadline - monotonic(), 0.1))

    def _run(self) -> None:
        if self._is_early:
            self._is_early = False
            self.worker.sleep(_QUIET)  # the first record wakes the thread earlier
        while not self._ending:
            if self._is_needed():
                self._spill()
            is_adopting = self._adopt()
            self._restore()
            self._spool.sync()
            if not is_adopting:
                self._rest()
        self._write_the_end()

    def _rest(self) -> None:
        self.worker.idle = True
        is_busy = len(self._backlog) or self._state.in_flight or self._spool.pending_records
        self.worker.sleep(LOOK if is_busy else max(self._adopt_at - monotonic(), LOOK))
        self.worker.idle = False

    def _is_needed(self) -> bool:
        state = self._state
        if self._always or len(self) or state.circuit.opened_at is not None:
            return True
        if self._backlog.pending_bytes > state.options.capacity // 2:
            return True
        oldest = [self._backlog.waiting_since, *(batch.born for batch in list(state.in_flight))]
        longest = state.limits.delay + _PATIENCE
        return any(since and monotonic() - since > longest for since in oldest)

    def _spill(self) -> None:
        """Move the records in memory to the spool, batch by batch, oldest first."""
        moved = False
        while self._state.may_write:
            with self._state.lock:
                in_flight = self._state.in_flight
                batch = next((b for b in in_flight if b.parts and not b.is_on_disk), None)
                if not (self._write_rest(batch) if batch else self._write_waiting()):
                    break
                moved = self.active = True
        if moved:
            self._wake_senders()

    def _write_waiting(self) -> bool:
        """Move the oldest batch from the backlog to the spool.

        Return False if the backlog is empty or the write fails.
        """
        batch = self._backlog.oldest()  # the batch stays in the backlog until it is written
        if not batch.items or self._write(batch, is_in_flight=False) is None:
            return False
        self._backlog.remove(batch)
        self._backlog.release(batch)
        return True

    def _write_rest(self, batch: Batch) -> bool:
        """Write an in-flight batch's remaining records to disk.  Return False if this fails."""
        rest = batch.rest()
        # Until acknowledge() returns, the records are in two frames (batches on disk).  The number
        # of spooled records does not include ``unacked`` records, so no record is counted twice.
        self._state.unacked += len(rest)
        frame = self._write(rest, is_in_flight=True)
        if frame is not None:
            self._state.acknowledge(batch)
            batch.frames.append(frame)
        self._state.unacked -= len(rest)
        return frame is not None

    def _write(self, batch: Batch, *, is_in_flight: bool) -> Frame | None:
        try:
            packed = self._sink.pack(batch.items)
            return self._spool.append(packed, batch.severities, batch.items, read=is_in_flight)
        except Exception as error:  # noqa: BLE001 - announced; the records stay in memory
            self._pause_writing(error)
            self._wake_senders()  # the delivery threads now send from memory
            return None

    def _restore(self, most: int = _SOME) -> None:
        """Check up to ``most`` spool files, and write the records of deleted files again."""
        state, has_more = self._state, True
        with state.lock:
            self._spool.check(most)
        while has_more and state.may_write:
            with state.lock:
                try:
                    has_more = self._spool.mend()
                except Exception as error:  # noqa: BLE001 - announced; it is tried again
                    self._pause_writing(error)
            if has_more:
                give_way()

    def _pause_writing(self, error: Exception) -> None:
        self._state.no_write_before = monotonic() + _AGAIN
        self._state.announce("spool", f"cannot spool, records stay in memory: {describe(error)}")

    def _write_the_end(self) -> None:
        """Write all undelivered records to disk before the spool is closed.

        If the backend has already accepted some records of a frame (a batch on disk), a frame
        with the other records replaces it, so that no process sends duplicates.
        """
        self._announce_adopted()
        self._state.no_write_before = 0.0
        self._restore(_MOST)
        self._spill()
        with self._state.lock:
            for batch in self._state.in_flight:
                if batch.unacked and not self._write_rest(batch):
                    break

    def _adopt(self) -> bool:
        """Spend about ``LOOK`` seconds adopting the records that dead processes left on disk.

        Return True if more records remain to be adopted.
        """
        now = monotonic()
        if now >= self._adopt_at:
            has_left = self._spool.look_for_orphans()
            self._adopt_at = now + (_ADOPT_SOON if has_left else _ADOPT_EVERY)
        before = self._spool.adopted
        has_more = True
        while has_more and not self._ending and monotonic() < now + LOOK:
            has_more = self._spool.adopt_step(self._state.lock)
            give_way()
        if self._spool.adopted > before:
            with self._state.lock:
                self.active = True
            self._wake_senders()
        if not has_more:
            self._announce_adopted()
        return has_more

    def _announce_adopted(self) -> None:
        found = self._spool.adopted - self._announced
        self._announced += found
        if found:
            message = f"adopted {found} records that an earlier process left on disk"
            self._state.announce("adopt", message)

    def _finish(self) -> None:
        self._spool.close()
        left = self._spool.pending_records
        if left:
            heirs = "the next process, or for `fapilog spool replay`"
            self._state.announce("spooled", f"{left} records wait in the spool for {heirs}")
