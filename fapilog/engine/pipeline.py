"""The pipeline: a bounded queue, one worker, processors, and the way to every sink.

Loggers append to ``queue`` on the caller's thread and return; everything that
costs time happens on the worker, in small slices, so that it never keeps the
interpreter from the application for long.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.delivery.ledger import Drops, Stats, sum_of_drops
from fapilog.delivery.overflow import Admission
from fapilog.diagnostics import announce
from fapilog.engine.entry import SEVERITY, withdraw
from fapilog.engine.hold_buffer import drop_held_for
from fapilog.engine.prepare import Processing, count_lost
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.process.give_way import give_way
from fapilog.process.worker import Worker
from fapilog.severity import WARN
from fapilog.values import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fapilog.delivery.overflow import OverflowPolicy
    from fapilog.delivery.sending_queue import SendingQueue
    from fapilog.engine.entry import Entry
    from fapilog.protocols import Processor
    from fapilog.record import LogRecord, Resource

# A slice is what the worker takes at once.  The small one keeps the interpreter
# for some tenths of a millisecond; the large one serves a burst, where waiting
# callers need throughput more than they need the interpreter.
_SLICE: Final = 64
_BURST_SLICE: Final = 256
_BURST: Final = 1024
#: Seconds the worker waits for company before it takes a slice, unless it is woken.
_LINGER: Final = 0.01
#: How often a count is tried again that the worker is just changing: what
#: suspends it, a signal handler for one, may be the one who counts.
_LOOKS: Final = 200
_LOOK: Final = 0.00005
_POLL: Final = 0.002

#: Policies under which a caller waits for room.
_WAITING: Final = ("block", "spill")


class Pipeline:
    """Queue, worker, processors and sending queues of one runtime.

    Thread-safe, except for ``_``-methods, which belong to the worker.

    Attributes:
        closed: set when nothing is taken any more.  Whoever appends to
            ``queue`` without :meth:`put` looks afterwards whether that has
            happened meanwhile, and calls :func:`withdraw` if so.
        patience: seconds a caller may wait for room.
        successor: the pipeline that has taken over the loggers of this one.
        admission: how full the queue may be for which severity.
        processing: what the worker does to entries before fan-out.

    Args:
        sinks: the ways out, opened.
        processors: called in order for each record.
        resource: of records that are offered without one.
        capacity: records the queue holds.
        overflow: what a full queue does to the caller: ``block`` waits for
            room, at most ``block_timeout`` seconds and never in a thread that
            runs an event loop; ``spill`` waits as well, for what is less
            severe earlier, while the backlogs empty to disk; ``drop_newest``
            and ``drop_lowest`` do not wait.  What finds no room is dropped and
            counted as ``queue_full``.
        block_timeout: seconds.
        protect: severity number from which the whole queue may be used.
        limits: bounds of one record.
    """

    def __init__(
        self,
        sinks: Sequence[SendingQueue],
        processors: Sequence[Processor] = (),
        *,
        resource: Resource,
        capacity: int = 32_768,
        overflow: OverflowPolicy = "block",
        block_timeout: float = 1.0,
        protect: int = WARN,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.resource = resource
        self.admission = Admission(capacity, overflow, protect)
        self.queue: deque[Entry] = deque()
        self.worker = Worker("fapilog-pipeline", self._run)
        self._sinks = tuple(sinks)
        self._may_have_no_sink = not any(sink.takes_all for sink in self._sinks)
        self.processing = Processing(processors, limits)
        self.patience = block_timeout if overflow in _WAITING else 0.0
        self._deadline: float | None = None
        self.closed = False
        self.successor: Pipeline | None = None
        self._reset()
        fork.register("pipelines", in_child=self.after_fork)

    def _reset(self) -> None:
        self.queue.clear()
        self.processing.errors = 0
        self._taken = 0
        self._version = 0  # odd while records are between queue and _taken
        self._handed = 0
        self._refused = Drops()
        self._dropped = Drops()  # by the worker
        self._left = Drops()  # by close()
        self._refusing = native.RLock()  # a signal handler may log while a record is refused
        # What the worker has taken out of the queue, and not handed to the sinks.
        self._in_hand: Sequence[Entry] = ()
        self._handing = native.RLock()  # held while it changes hands
        self._abandoned = False  # the worker is not heard any more
        self._hurry = False

    # ---- any thread

    def has_room(self, severity_number: int) -> bool:
        """Whether a record of this severity may enter the queue now."""
        return not self.closed and len(self.queue) < self.admission.limit(severity_number)

    def make_room(self, severity_number: int, deadline: float | None = None) -> bool:
        """Wait for room in a full queue as the overflow policy allows.

        Args:
            severity_number: of the record that needs it.
            deadline: ``monotonic()`` until which to wait at most; None
                waits as long as a call may.

        Returns:
            True when there is room; False when the caller has to give up.
        """
        if self.has_room(severity_number):
            return True
        if self.closed or not self.patience or not _may_wait() or self._is_own_thread():
            return False
        if deadline is None:
            deadline = monotonic() + self.patience
        self.worker.wake()  # it may be waiting for company, of which there is enough
        while not self.has_room(severity_number):
            if self.closed or monotonic() >= deadline:
                return False
            if self.worker.idle and not self.worker.wake():
                return False
            native.pause(_POLL / 2)
        return True

    def put(self, entry: Entry) -> None:
        """Append an entry, or refuse and count it.  Never raises.

        Loggers do the same in line (``fapilog.engine.logger``); this is for bridges.
        """
        self._put(entry, None)

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Do so with each, in order; wait for room as long as for one, in all."""
        deadline = monotonic() + self.patience
        for entry in entries:
            self._put(entry, deadline)

    def _put(self, entry: Entry, deadline: float | None) -> None:
        full = len(self.queue) >= self.admission.lowest
        if (self.closed or full) and not self.make_room(entry[SEVERITY], deadline):
            self.refuse(entry[SEVERITY])
            return
        self.queue.append(entry)
        if self.closed and withdraw(self.queue, entry):
            self.refuse(entry[SEVERITY])
        elif self.worker.idle:
            self.worker.wake()

    def refuse(self, severity_number: int, reason: str = "") -> None:
        """Count a record that found no room, or came after the end.

        Args:
            severity_number: of the record.
            reason: what else there was no room in.
        """
        reason = reason or ("closed" if self.closed else "queue_full")
        with self._refusing:
            self._refused.add(reason, severity_number)
        if reason == "closed":
            announce("closed", "a record was logged after shutdown() and dropped")
        elif reason != "queue_full":
            announce(reason, f"a record was dropped: {reason}")
        else:
            capacity = self.admission.capacity
            announce("queue", f"the queue of {capacity} records is full; records are dropped")

    def refuse_all(self, reason: str, counts: Mapping[int, int]) -> None:
        """Count records that a hold has dropped.

        Args:
            reason: why; all but ``not_released`` is announced.
            counts: how many, by severity number.
        """
        with self._refusing:
            for number, count in counts.items():
                self._refused.add(reason, number, count)
        if reason != "not_released":
            announce(reason, f"a hold was full: its oldest records are dropped ({reason})")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every record accepted so far is settled by every sink.

        Blocks up to ``timeout`` seconds (None: 30).  False at the time limit,
        at once on one of the pipeline's own threads, and as soon as nothing is
        left but what needs a thread that the interpreter refuses.
        """
        if self._is_own_thread():
            return False
        deadline = monotonic() + (30.0 if timeout is None else timeout)
        target = self._entered()
        self._hurry = True
        if target > self._handed and not self.worker.wake():
            return False
        if not _wait_until(lambda: self._handed >= target, deadline):
            return False
        targets = [(sink, sink.start_flush()) for sink in self._sinks]
        # A sink that gets no thread waits for shutdown(); the others are waited for.
        _wait_until(
            lambda: all(s.flush_done(t) or not s.has_thread() for s, t in targets), deadline
        )
        return all(sink.flush_done(target) for sink, target in targets)

    def close(self, deadline: float) -> None:
        """Take nothing more, deliver what there is, end all threads.

        Blocks until ``deadline`` (``monotonic()``) at most; what is not
        settled then is dropped and counted as ``shutdown``.  A further call,
        from another thread or from a signal handler that interrupts this one,
        waits for the same end; the earliest deadline counts.
        """
        self.closed = True
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        for sink in self._sinks:
            sink.start_end()
        if (self.worker.is_alive or self.queue) and not self.worker.wake():
            self.worker.run_inline()  # no thread is to be had
        self.worker.join(deadline - monotonic())
        if not self.worker.ended:
            self._abandon()
        for sink in self._sinks:
            sink.start_close(deadline)
        for sink in self._sinks:
            sink.finish_close()
        self._drop_rest()
        if self.successor is None:
            drop_held_for(self)

    def start_threads(self) -> None:
        """Start every thread that the end will need."""
        self.worker.wake()
        for sink in self._sinks:
            sink.start_threads()

    def stats(self) -> Stats:
        """Return the ledger.  Does not block.

        The totals are those of the sink that has delivered least: a record
        counts as delivered once the slowest has it.  What the sink skipped
        does not concern it, nor what another one has adopted: in the totals
        these count as delivered.
        """
        shared = Drops()
        shared.merge(self._refused)
        shared.merge(self._dropped)
        shared.merge(self._left)
        by_name = {sink.name: sink.stats(self._accepted, shared) for sink in self._sinks}
        adopted = sum(stats.adopted for stats in by_name.values())
        totals = [_seen_from(stats, adopted) for stats in by_name.values()]
        if not totals:
            dropped, drops = sum_of_drops([shared])
            accepted = self._accepted()
            totals = [Stats(accepted, dropped=dropped, pending=accepted - dropped, drops=drops)]
        total = min(totals, key=lambda stats: (stats.delivered, -stats.pending))
        return replace(
            total,
            sinks=by_name,
            processor_errors=self.processing.errors,
            resent=sum(stats.resent for stats in by_name.values()),
        )

    @property
    def has_sinks(self) -> bool:
        """Whether records go anywhere."""
        return bool(self._sinks)

    def sending_queues(self) -> tuple[SendingQueue, ...]:
        """Return the ways out, for the metrics."""
        return self._sinks

    def after_fork(self) -> None:
        """Begin afresh in a forked child: the parent delivers what it accepted."""
        self._reset()
        self.worker.after_fork()
        for sink in self._sinks:
            sink.after_fork()

    def _is_own_thread(self) -> bool:
        return self.worker.is_current or any(sink.is_current for sink in self._sinks)

    def _accepted(self) -> int:
        return self._refused.total + self._entered()

    def _entered(self) -> int:
        """Records that ever entered the queue."""
        for _ in range(_LOOKS):
            version = self._version
            entered = self._taken + len(self.queue)
            if version == self._version and not version & 1:
                break
            native.sleep(_LOOK)
        return entered

    # ---- the worker

    def _run(self) -> None:
        while True:
            if self.queue:
                self._step()
                if len(self.queue) >= _SLICE or self._in_a_hurry():
                    give_way()
                else:
                    self.worker.sleep(_LINGER)
            elif self._deadline is not None:
                return
            else:
                self._hurry = False
                self.worker.idle = True
                if not self.queue and self._deadline is None:
                    self.worker.sleep(None)
                self.worker.idle = False
                if not self._in_a_hurry():
                    self.worker.sleep(_LINGER)
            if self._deadline is not None and monotonic() >= self._deadline:
                return

    def _in_a_hurry(self) -> bool:
        return self._hurry or self._deadline is not None

    def _step(self) -> None:
        drops = Drops()
        entries = self._take_slice()
        try:
            self._fan_out(self.processing.records(entries, drops), drops)
        except BaseException as error:  # noqa: BLE001 - no memory: the worker goes on
            self._lose(drops, error)
        finally:
            self._handed = self._taken

    def _take_slice(self) -> Sequence[Entry]:
        """Take the oldest entries into the worker's hands; none once it is abandoned."""
        queue = self.queue
        waiting = len(queue)
        count = min(waiting, _SLICE if waiting < _BURST else _BURST_SLICE)
        popleft = queue.popleft
        # The memory that counting takes is asked for first: where there is none,
        # nothing has been taken yet, and nothing is lost between two counters.
        entries: list[Entry] = [()] * count
        version, taken = self._version, self._taken + count
        busy, done, places = version + 1, version + 2, iter(range(count))
        with self._handing:
            if self._abandoned:
                return ()
            self._version = busy
            try:
                for place in places:  # no object is made anew: these numbers exist
                    entries[place] = popleft()
            except IndexError:  # a logger has withdrawn an entry meanwhile
                entries = entries[:place]
                taken = self._taken + place
            finally:
                self._taken = taken
                self._in_hand = entries
                self._version = done
        return entries

    def _fan_out(self, records: Sequence[LogRecord], drops: Drops) -> None:
        # Each route is asked once: a function of the application's own may
        # answer otherwise the next time.
        meant = [sink.meant(records) for sink in self._sinks]
        if self._may_have_no_sink:
            records = self._routed(records, meant, drops)
        hands = [
            (sink, some, len(records) - len(some))
            for sink, some in zip(self._sinks, meant, strict=True)
        ]
        dropped = self._dropped.plus(drops)
        with self._handing:
            if self._abandoned:
                return
            self._dropped = dropped
            for sink, some, skipped in hands:
                sink.hand(some, skipped)
            self._in_hand = ()
        for sink in self._sinks:
            sink.take_in()

    def _lose(self, drops: Drops, error: BaseException) -> None:
        """Count what an error has cost of the records in the worker's hands."""
        with self._handing:
            left = [entry[SEVERITY] for entry in self._in_hand][drops.total :]
            if self._in_hand:
                count_lost(drops, left, error)
                self._dropped = self._dropped.plus(drops)
            self._in_hand = ()

    def _abandon(self) -> None:
        """Count what the worker holds at the deadline; if it returns, it is not heard.

        A processor that never returns has these records.
        """
        with self._handing:
            self._abandoned = True
            left = [entry[SEVERITY] for entry in self._in_hand]
            self._in_hand = ()
            self._left.add_all("shutdown", left)
            self._handed = self._taken
        if left:
            announce(
                "shutdown processors",
                f"{len(left)} records were with the processors at the deadline and are dropped",
            )

    @staticmethod
    def _routed(
        records: Sequence[LogRecord], meant: Sequence[Sequence[LogRecord]], drops: Drops
    ) -> list[LogRecord]:
        """Return the records that some sink gets; count the others."""
        known = {id(record) for some in meant for record in some}
        lost = [record.severity_number for record in records if id(record) not in known]
        drops.add_all("not_routed", lost)
        return [record for record in records if id(record) in known]

    def _drop_rest(self) -> None:
        """Count what the worker did not get to before the deadline."""
        with self._handing:
            left = len(self.queue)
            while self.queue:
                entry = self.queue.popleft()
                self._taken += 1
                self._left.add("shutdown", entry[SEVERITY])
        if left:
            announce("shutdown", f"{left} records were still queued at the deadline")


def _seen_from(stats: Stats, adopted: int) -> Stats:
    """Return the totals as one sink's ledger has them."""
    others = stats.skipped + adopted - stats.adopted
    return replace(
        stats,
        accepted=stats.accepted + others,
        delivered=stats.delivered + others,
        adopted=adopted,
        skipped=0,
    )


def _may_wait() -> bool:
    """Whether the calling thread may block: not when it runs an event loop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is None or asyncio._get_running_loop() is None  # noqa: SLF001 - raises nothing


def _wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    # Polling survives forks and signal handlers, and costs nothing per record.
    while not condition():
        if not monotonic() < deadline:  # NaN is no deadline
            return False
        native.pause(_POLL)
    return True
