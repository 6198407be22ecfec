"""A queue on disk between a sink's backlog and its delivery threads, used when needed.

The spool's own thread moves records from memory to the spool, oldest first,
while the backend is down, the backlog fills up, or a record waits too long; in
mode ``always``, it does so at any time.  As long as records of this process are
unread on disk, all later records go there too, so the order is first in, first out.
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

#: Seconds between two checks of the backlog while there is work.  A SIGKILL can lose
#: about this many seconds of the records in memory.
LOOK: Final = 0.05
#: The longest wait for the lock when the caller must not wait for the disk, seconds.
_GLANCE: Final = 0.01
#: The longest time that a record waits in memory beyond the delay of a batch, in seconds.
_PATIENCE: Final = 2.0
#: Seconds between two searches for directories of dead processes.
_ADOPT_EVERY: Final = 30.0
#: The same interval, if more directories were found than can be adopted at a time.
_ADOPT_SOON: Final = 1.0
#: Seconds without a record until a process adopts all the same: time to fork its children.
_QUIET: Final = 2.0
#: The segments that one check looks at, and the last check at the end.
_SOME: Final = 128
_MOST: Final = 4096
#: Seconds between a failed write and the next one.
_AGAIN: Final = 1.0


class Spooling:
    """Moves batches to disk and gives them back.  Headings name each section's threads.

    Args:
        state: the state of the sink's delivery; its sink packs and unpacks.
        spool: the opened spool of the state.
        wake: a function that notifies the delivery threads of new work.

    Attributes:
        active: whether records go to disk before they are sent.
        worker: the spool's thread.
    """

    def __init__(self, state: DeliveryState, spool: Spool, wake: Callable[[], object]) -> None:
        self._state = state
        self._sink: Any = state.sink
        self._spool = spool
        self._backlog = state.backlog
        self._lock = state.lock
        self._wake_senders = wake
        self.worker = Worker(f"fapilog-{state.name}-spool", self._run, finish=self._finish)
        self._next: Frame | None = None  # read, but it did not fit into the last batch
        self._always = self.active = state.options.spool_mode == "always"
        self._ending = False
        self._is_early = False  # whether the thread was started before the first record
        self._adopt_at = 0.0
        self._announced = 0  # adopted records that were announced

    # ---- the pipeline's worker

    def notice(self) -> None:
        """Wake the spool's thread for new records in the backlog.  Does not block."""
        if self.worker.idle:
            self.worker.wake()

    # ---- the thread that configures

    def adopt_orphans(self) -> None:
        """Start the spool's thread if dead processes have left records.

        A service that logs nothing delivers them, too.  Blocks for names on disk.
        """
        if self._spool.has_orphans:
            self._is_early = True
            self.worker.has_thread()

    # ---- the delivery threads, under the lock

    @property
    def comes_first(self) -> bool:
        """Whether the next batch is on disk, or will be soon."""
        if len(self):
            return True
        if self.active and not self._always and not self._is_needed():
            self.active = False
        # If the disk fails, or no thread writes to it, records are sent straight from memory.
        return self.active and self._state.may_write and self.worker.has_thread()

    def __len__(self) -> int:
        """The number of records on disk that no delivery thread has taken."""
        return self._spool.unread_records + (len(self._next.severities) if self._next else 0)

    def take(self) -> Batch:
        """Return the oldest batch on disk; an empty batch if no record waits there."""
        batch, limits = Batch(), self._state.limits
        while frame := self._next or self._spool.read():
            self._next = None
            if batch.items and (
                len(batch) + len(frame.severities) > limits.count
                or batch.size + len(frame.body) > limits.size
            ):
                self._next = frame
                break
            self._add(batch, frame)
        self._state.ledger.settled_adopted += batch.adopted
        return batch

    def _add(self, batch: Batch, frame: Frame) -> None:
        items: Any = frame.item
        if items is None:
            try:
                items = self._sink.unpack(frame.body)
            except ValueError as error:
                self._state.announce("unpack", f"a spooled batch cannot be read: {error}")
                items = ()
        if len(items) != len(frame.severities):
            ledger = self._state.ledger
            if frame.is_adopted:
                ledger.settled_adopted += len(frame.severities)
            ledger.drops.add_all("spool_unreadable", frame.severities)
            self._spool.ack(frame)
            return
        batch.items += items
        batch.severities += frame.severities
        batch.size += len(frame.body)
        batch.frames.append(frame)
        if frame.is_adopted:
            batch.adopted += len(items)

    # ---- any thread

    @property
    def holds_everything(self) -> bool:
        """Whether every record that is not settled is on disk; False while the disk is busy."""
        if not self._lock.acquire(timeout=_GLANCE):
            return False
        try:
            in_flight = self._state.in_flight
            if len(self._backlog) or not all(batch.is_on_disk for batch in in_flight):
                return False
            return self._spool.is_whole and not (self._next and self._next.is_lost)
        finally:
            self._lock.release()

    def finish(self, deadline: float) -> None:
        """Write the remaining records to disk and close the spool, by ``deadline``.  Blocks.

        The delivery threads have been told to stop.
        """
        self._ending = True
        if self.worker.is_alive:
            self.worker.wake()
        elif not self.worker.ended:
            self.worker.run_inline()
        self.worker.join(max(deadline - monotonic(), 0.1))

    # ---- the spool's thread

    def _run(self) -> None:
        if self._is_early:
            self._is_early = False
            self.worker.sleep(_QUIET)  # until the first record at most
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
        """Sleep for a moment; if no record waits, until one arrives or the next adoption is due."""
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
        """Move the records in memory to disk, batch by batch, oldest first."""
        moved = False
        while self._state.may_write:
            with self._lock:
                in_flight = self._state.in_flight
                batch = next((b for b in in_flight if b.parts and not b.is_on_disk), None)
                if not (self._write_rest(batch) if batch else self._write_waiting()):
                    break
                moved = self.active = True
        if moved:
            self._wake_senders()

    def _write_waiting(self) -> bool:
        """Move the oldest batch of the backlog; return False if there is no batch or no room."""
        # The batch stays in the backlog until it is on disk.  Otherwise senders
        # that a failed write wakes would find nothing and go back to sleep, and
        # at the end they would not see the batch.
        batch = self._backlog.oldest()
        if not batch.items or self._write(batch, is_in_flight=False) is None:
            return False
        self._backlog.remove(batch)
        self._backlog.release(batch)
        return True

    def _write_rest(self, batch: Batch) -> bool:
        """Write the unsettled records of a batch in flight; return False if there is no room."""
        rest = batch.rest()
        self._state.unacked += len(rest)  # for a moment they may be on disk twice
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
            self._wake_senders()  # they send from memory now
            return None

    def _restore(self, most: int = _SOME) -> None:
        """Rewrite records that another process deleted; check up to ``most`` segments."""
        with self._lock:
            self._spool.check(most)
        while self._state.may_write and self._restores_one():
            give_way()

    def _restores_one(self) -> bool:
        with self._lock:
            try:
                frame = self._next
                if frame is not None and frame.is_lost:
                    self._spool.append(frame.body, frame.severities, frame.item)
                    self._next = None
                    if frame.is_adopted:  # the new frame belongs to this process
                        self._state.ledger.settled_adopted += len(frame.severities)
                return self._spool.mend()
            except Exception as error:  # noqa: BLE001 - announced; it is tried again
                self._pause_writing(error)
                return False

    def _pause_writing(self, error: Exception) -> None:
        self._state.no_write_before = monotonic() + _AGAIN
        self._state.announce("spool", f"cannot spool, records stay in memory: {describe(error)}")

    def _write_the_end(self) -> None:
        """Leave on disk exactly the records that are not settled."""
        self._announce_adopted()
        self._state.no_write_before = 0.0
        self._restore(_MOST)
        self._spill()
        with self._lock:
            frame = self._next
            if frame is not None and frame.is_lost:
                self._next = None
                self._state.ledger.drops.add_all("shutdown", frame.severities)
            for batch in self._state.in_flight:
                if batch.unacked and not self._write_rest(batch):
                    break

    def _adopt(self) -> bool:
        """Adopt records of dead processes for a moment; return True if more remain."""
        now = monotonic()
        if now >= self._adopt_at:
            has_left = self._spool.look_for_orphans()
            self._adopt_at = now + (_ADOPT_SOON if has_left else _ADOPT_EVERY)
        before = self._spool.adopted
        has_more = True
        while has_more and not self._ending and monotonic() < now + LOOK:
            has_more = self._spool.adopt_step(self._lock)
            give_way()
        if self._spool.adopted > before:
            with self._lock:
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
