"""Between a sink's backlog and its delivery threads: a queue on disk, when it is needed.

A thread of its own moves what waits in memory to the spool, oldest first,
while the backend is down, the backlog fills up, something waits too long, or
always.  As long as anything of this process is unread on disk, all that
follows goes there too, so records stay first in, first out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fapilog.delivery.backlog import Backlog, Batch
from fapilog.diagnostics import announce, describe
from fapilog.native import monotonic
from fapilog.process.give_way import give_way
from fapilog.process.worker import Worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from fapilog.delivery.circuit import Circuit
    from fapilog.delivery.ledger import SinkLedger
    from fapilog.protocols import BatchLimits, DurableSink
    from fapilog.spool import Frame, Spool

#: ``overflow`` uses the disk when memory overflows or the backend is down,
#: ``always`` for every record before it is sent.
SpoolMode: TypeAlias = Literal["overflow", "always", "never"]

#: Seconds from one look at the backlog to the next while there is work: about
#: what a SIGKILL can cost of records that wait in memory.
LOOK: Final = 0.05
#: Seconds to wait for the lock where nobody may wait for the disk.
_GLANCE: Final = 0.01
#: Seconds beyond the usual delay that a record waits in memory at most.
_PATIENCE: Final = 2.0
#: Seconds between two looks for what dead processes left.
_ADOPT_EVERY: Final = 30.0
#: The same when there were more than can be taken over at a time.
_ADOPT_SOON: Final = 1.0
#: Segments that are looked at in one check whether they are still there, and in the last one.
_SOME: Final = 128
_MOST: Final = 4096
#: How often two counts are read that change together.
_LOOKS: Final = 5
#: Seconds after a failed write until the next.
_AGAIN: Final = 1.0


class Spooling:
    """Moves batches to disk and gives them back.  Thread-safe as each method says.

    Args:
        name: of the sink.
        sink: packs and unpacks.
        spool: opened.
        backlog: what waits in memory.
        limits: bounds of a batch.
        always: whether every record goes to disk.
        capacity: bytes of the backlog, of which half may fill before it is moved.
        circuit: tells whether the backend is down.
        ledger: counts frames that cannot be read back.
        lock: the delivery threads', held for each batch that is moved or taken.
        in_flight: batches being sent, oldest first; changed under ``lock``.
        wake: tells the delivery threads of new work.

    Attributes:
        active: whether records go to disk before they are sent.
    """

    def __init__(
        self,
        name: str,
        sink: DurableSink[Any],
        spool: Spool,
        backlog: Backlog,
        limits: BatchLimits,
        *,
        always: bool,
        capacity: int,
        circuit: Circuit,
        ledger: SinkLedger,
        lock: threading.RLock,
        in_flight: Sequence[Batch],
        wake: Callable[[], object],
    ) -> None:
        self._name = name
        self._sink = sink
        self._spool = spool
        self._backlog = backlog
        self._limits = limits
        self._always = always
        self._half = capacity // 2
        self._circuit = circuit
        self._ledger = ledger
        self._lock = lock
        self._in_flight = in_flight
        self._wake_senders = wake
        self._worker = Worker(f"fapilog-{name}-spool", self._run, finish=self._finish)
        self._next: Frame | None = None  # read, but for another batch
        self._ahead = 0  # settled records whose frames are not
        self.active = always
        self._ending = False
        self._no_write_before = 0.0
        self._adopt_at = 0.0
        self._announced = 0  # adopted records
        self._sync_at = 0.0

    # ---- the pipeline's worker

    def notice(self) -> None:
        """Look after a record that has come into the backlog.  Does not block."""
        if self._worker.idle:
            self._worker.wake()

    @property
    def makes_room(self) -> bool:
        """Whether the disk takes what waits in memory."""
        is_writing = not self._ending and monotonic() >= self._no_write_before
        return is_writing and len(self._backlog) > 0

    # ---- the delivery threads, under the lock

    @property
    def comes_first(self) -> bool:
        """Whether the next batch is on disk, or will be in a moment."""
        if self.unread:
            return True
        if self.active and not self._always and not self._is_needed():
            self.active = False
        # If the disk takes nothing, or no thread writes to it, records go straight from memory.
        return self.active and monotonic() >= self._no_write_before and self.has_thread()

    @property
    def unread(self) -> int:
        """Records on disk that no delivery thread has taken."""
        return self._spool.unread_records + (len(self._next.severities) if self._next else 0)

    def take(self) -> Batch:
        """Return the oldest batch on disk; an empty one when there is none."""
        batch = Batch()
        while frame := self._next or self._spool.read():
            self._next = None
            if batch.items and (
                len(batch) + len(frame.severities) > self._limits.count
                or batch.size + len(frame.body) > self._limits.size
            ):
                self._next = frame
                break
            self._add(batch, frame)
        return batch

    def _add(self, batch: Batch, frame: Frame) -> None:
        items: Any = frame.item
        if items is None:
            try:
                items = self._sink.unpack(frame.body)
            except ValueError as error:
                announce(f"unpack {self._name}", f"{self._name}: a spooled batch: {error}")
                items = ()
        if len(items) != len(frame.severities):
            if frame.is_adopted:
                self._ledger.settled_adopted += len(frame.severities)
            self._ledger.drops.add_all("spool_unreadable", frame.severities)
            self._spool.ack(frame)
            return
        batch.items += items
        batch.severities += frame.severities
        batch.size += len(frame.body)
        batch.frames.append(frame)
        if frame.is_adopted:
            batch.adopted += len(items)

    def settle(self, batch: Batch, count: int) -> None:
        """Take note that ``count`` more records of a batch on disk are settled."""
        batch.ahead += count
        self._ahead += count
        if not batch.parts:
            self._forget_frames(batch)

    def _forget_frames(self, batch: Batch) -> None:
        for frame in batch.frames:
            self._spool.ack(frame)
        self._ahead -= batch.ahead
        batch.ahead = 0
        batch.frames = []

    # ---- any thread

    @property
    def records(self) -> int:
        """Records on disk that are not settled; rather too few than too many while they change."""
        # What is settled is counted as such; its frame may wait for the rest of its batch.
        for _ in range(_LOOKS):
            ahead = self._ahead
            records = self._spool.pending_records
            if ahead == self._ahead:
                break
        return max(records - ahead, 0)

    @property
    def size(self) -> int:
        """Bytes of them."""
        return self._spool.pending_bytes

    @property
    def adopted(self) -> int:
        """Records taken over from dead processes so far."""
        return self._spool.adopted

    @property
    def damaged(self) -> int:
        """Records that were on disk and cannot be read back."""
        return self._spool.corrupt.records

    @property
    def own_damaged(self) -> int:
        """Records of these that this process has spooled itself."""
        corrupt = self._spool.corrupt
        return corrupt.records - corrupt.adopted

    @property
    def holds_everything(self) -> bool:
        """Whether nothing that is not settled is in memory alone; False while the disk is busy."""
        if not self._lock.acquire(timeout=_GLANCE):
            return False
        try:
            if len(self._backlog) or not all(batch.is_on_disk for batch in self._in_flight):
                return False
            return self._spool.is_whole and not (self._next and self._next.is_lost)
        finally:
            self._lock.release()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the spool's thread."""
        return self._worker.is_current

    def has_thread(self) -> bool:
        """Start the spool's thread if there was none; False when the interpreter refuses it."""
        return self._worker.has_thread()

    def finish(self, deadline: float) -> None:
        """Write what is left to disk and close the spool; blocks until ``deadline`` at most.

        The delivery threads have been told to stop.
        """
        self._ending = True
        if self._worker.is_alive:
            self._worker.wake()
        elif not self._worker.ended:
            self._worker.run_inline()
        self._worker.join(max(deadline - monotonic(), 0.1))

    # ---- the spool's thread

    def _run(self) -> None:
        while not self._ending:
            if self._is_needed():
                self._spill()
            is_adopting = self._adopt()
            self._mend()
            self._sync()
            if not is_adopting:
                self._rest()
        self._write_the_end()

    def _rest(self) -> None:
        """Sleep for a moment; where nothing waits, until something comes or it is time to adopt."""
        worker = self._worker
        worker.idle = True
        is_busy = len(self._backlog) or self._in_flight or self._spool.pending_records
        worker.sleep(LOOK if is_busy else max(self._adopt_at - monotonic(), LOOK))
        worker.idle = False

    def _is_needed(self) -> bool:
        if self._always or self.unread or self._circuit.opened_at is not None:
            return True
        if self._backlog.pending_bytes > self._half:
            return True
        oldest = [self._backlog.waiting_since, *(batch.born for batch in list(self._in_flight))]
        longest = self._limits.delay + _PATIENCE
        return any(since and monotonic() - since > longest for since in oldest)

    def _spill(self) -> None:
        """Move what is in memory to disk, batch by batch, oldest first."""
        moved = False
        while monotonic() >= self._no_write_before:
            with self._lock:
                batch = next((b for b in self._in_flight if b.parts and not b.is_on_disk), None)
                if not (self._write_rest(batch) if batch else self._write_waiting()):
                    break
                moved = self.active = True
        if moved:
            self._wake_senders()

    def _write_waiting(self) -> bool:
        """Move the oldest batch of the backlog; False when there is none, or no room."""
        # It waits in the backlog until it is on disk.  Taken out before, it would
        # be nowhere for a moment: senders that are woken by a write that fails
        # would go back to sleep, and at the end they would leave it behind.
        batch = self._backlog.oldest()
        if not batch.items or self._write(batch, is_in_flight=False) is None:
            return False
        self._backlog.remove(batch)
        self._backlog.release(batch)
        return True

    def _write_rest(self, batch: Batch) -> bool:
        """Write what is left of a batch that is being sent; False when there is no room."""
        rest = batch.rest()
        self._ahead += len(rest)  # for a moment it may be on disk twice
        frame = self._write(rest, is_in_flight=True)
        if frame is not None:
            self._forget_frames(batch)
            batch.frames.append(frame)
        self._ahead -= len(rest)
        return frame is not None

    def _write(self, batch: Batch, *, is_in_flight: bool) -> Frame | None:
        try:
            packed = self._sink.pack(batch.items)
            return self._spool.append(packed, batch.severities, batch.items, read=is_in_flight)
        except Exception as error:  # noqa: BLE001 - announced; the records stay in memory
            self._pause_writing(error)
            self._wake_senders()  # which take what waits from memory now
            return None

    def _mend(self, most: int = _SOME) -> None:
        """Write again what somebody took away from the disk, of so many segments at most."""
        with self._lock:
            self._spool.check(most)
        while monotonic() >= self._no_write_before and self._mends_one():
            give_way()

    def _mends_one(self) -> bool:
        with self._lock:
            try:
                frame = self._next
                if frame is not None and frame.is_lost:
                    self._spool.append(frame.body, frame.severities, frame.item)
                    self._next = None
                    if frame.is_adopted:  # it comes back as one of this process
                        self._ledger.settled_adopted += len(frame.severities)
                return self._spool.mend()
            except Exception as error:  # noqa: BLE001 - announced; it is tried again
                self._pause_writing(error)
                return False

    def _pause_writing(self, error: Exception) -> None:
        self._no_write_before = monotonic() + _AGAIN
        announce(
            f"spool {self._name}",
            f"{self._name}: cannot spool, records stay in memory: {describe(error)}",
        )

    def _write_the_end(self) -> None:
        """Have on disk, at the end, what is not settled and nothing else."""
        self._announce_adopted()
        self._no_write_before = 0.0
        self._mend(_MOST)
        self._spill()
        with self._lock:
            frame = self._next
            if frame is not None and frame.is_lost:
                self._next = None
                self._ledger.drops.add_all("shutdown", frame.severities)
            for batch in self._in_flight:
                if batch.ahead and not self._write_rest(batch):
                    break

    def _adopt(self) -> bool:
        """Look through what dead processes left, for a moment; whether there is more."""
        now = monotonic()
        if now >= self._adopt_at:
            has_left = self._spool.look_for_orphans()
            self._adopt_at = now + (_ADOPT_SOON if has_left else _ADOPT_EVERY)
        before = self._spool.adopted
        goes_on = True
        while goes_on and not self._ending and monotonic() < now + LOOK:
            goes_on = self._spool.adopt_step(self._lock)
            give_way()
        if self._spool.adopted > before:
            with self._lock:
                self.active = True
            self._wake_senders()
        if not goes_on:
            self._announce_adopted()
        return goes_on

    def _announce_adopted(self) -> None:
        found = self._spool.adopted - self._announced
        self._announced += found
        if found:
            announce(
                f"adopt {self._name}",
                f"{self._name}: {found} records that an earlier process left are taken over",
            )

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except Exception as error:  # noqa: BLE001 - announced; written again is nothing
            announce(f"sync {self._name}", f"{self._name}: {describe(error)}")

    def _finish(self) -> None:
        try:
            self._spool.close()
        except Exception as error:  # noqa: BLE001 - the end goes on whatever a disk does
            announce(f"close {self._name}", f"{self._name}: spool: {describe(error)}")
        left = self._spool.pending_records
        if left:
            announce(
                f"spooled {self._name}",
                f"{self._name}: {left} records wait in the spool for the next process, "
                "or for `fapilog spool replay`",
            )
