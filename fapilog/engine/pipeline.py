"""The pipeline: a bounded queue, one worker, the processors, and the sinks' sending queues.

Loggers append to ``queue`` on the caller's thread and return.  All expensive work
happens on the worker, in slices so small that the worker never holds the
interpreter lock for long.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.delivery.admission import Admission
from fapilog.delivery.ledger import Drops, Stats, sum_of_drops
from fapilog.diagnostics import announce
from fapilog.engine.entry import SEVERITY, withdraw
from fapilog.engine.prepare import Processing, count_lost
from fapilog.engine.prompt import Prompt
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.process.give_way import give_way
from fapilog.process.worker import Worker
from fapilog.values import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fapilog.delivery.sending_queue import SendingQueue
    from fapilog.engine.entry import Entry
    from fapilog.protocols import Processor
    from fapilog.record import LogRecord, Resource
    from fapilog.settings import Settings

# A slice is the group of entries that the worker takes from the queue at once.  A small
# slice keeps the worker from holding the interpreter lock for long.  In a burst, callers
# wait for space in the queue, so the worker takes a larger slice, which empties it faster.
_SLICE: Final = 64
_BURST_SLICE: Final = 256
#: Number of waiting entries from which the worker takes a burst slice.
_BURST: Final = 1024
#: Seconds that the worker waits for more entries before it takes a slice.
_LINGER: Final = 0.01
#: Seconds between two checks of a condition that a thread waits for.
_POLL: Final = 0.002


class Pipeline:
    """Queue, worker, processors and sending queues of one runtime.

    Thread-safe.  The methods from ``_run`` to ``_lose`` run on the worker.

    Attributes:
        closed: whether the pipeline refuses every record.  Code that appends to
            ``queue`` without :meth:`put` must read ``closed`` afterwards, and
            call :func:`withdraw` if it is True.
        patience: the longest time that a caller waits for space in the queue, in seconds.
        bell: the worker, or the :class:`Prompt` that wakes the worker.  If ``bell.idle`` is
            True after a caller has appended to ``queue``, the caller must wake the bell.
        successor: the pipeline that now serves this pipeline's loggers, or None.

    Args:
        settings: the options of the queue, and the limits of one record.
        sinks: the sending queues of the sinks, which are already open.
        processors: the processors, called in order for each record.
        resource: the resource of loggers' records, and of offered records without a resource.
    """

    def __init__(
        self,
        settings: Settings,
        sinks: Sequence[SendingQueue],
        processors: Sequence[Processor],
        resource: Resource,
    ) -> None:
        self.resource = resource
        protect = int(settings.protect_level)  # an int compares faster than a Severity
        self.admission = Admission(settings.queue_size, settings.overflow, protect)
        self.queue: deque[Entry] = deque()
        self.worker = Worker("fapilog-pipeline", self._run)
        self._sinks = tuple(sinks)
        read = [queue for queue in sinks if getattr(queue.sink, "is_interactive", False)]
        self.bell: Worker | Prompt = Prompt(self, read) if read else self.worker
        self._may_have_no_sink = not any(sink.intake.takes_all for sink in self._sinks)
        limits = Limits(
            attributes=settings.attribute_count_limit,
            attribute_text=settings.attribute_value_length_limit,
        )
        self.processing = Processing(processors, limits)
        callers_wait = settings.overflow in {"block", "spill"}
        self.patience = settings.block_timeout if callers_wait else 0.0
        self._deadline: float | None = None
        self.closed = False
        self.successor: Pipeline | None = None
        self._reset()
        fork.register("pipelines", in_child=self.after_fork)

    def _reset(self) -> None:
        self.queue.clear()
        self.processing.errors = 0
        # This lock is held while a counter changes, and while entries pass from the queue to
        # the worker or from the worker to the sinks.  It is re-entrant, because a finaliser or
        # a signal handler may log meanwhile.
        self._counting = native.RLock()
        self._taken = 0  # number of entries that the worker has taken from the queue
        self._handed = 0  # number of entries whose records reached the sinks or were dropped
        self._refused = Drops()  # records that never entered the queue
        self._dropped = Drops()  # records that left the queue and reached no sink
        # Entries that the worker has taken and not yet passed to the sinks.
        self._in_hand: Sequence[Entry] = ()
        self._abandoned = False  # whether the worker's results are ignored
        self._hurry = False

    # ---- methods for any thread

    def has_room(self, severity_number: int) -> bool:
        """Whether a record of this severity may enter the queue now."""
        return not self.closed and len(self.queue) < self.admission.limit(severity_number)

    def make_room(self, severity_number: int, deadline: float | None = None) -> bool:
        """Wait for space in a full queue, if the overflow policy allows the caller to wait.

        Args:
            severity_number: the severity number of the record that needs space.
            deadline: the ``monotonic()`` time at which the wait ends; None
                means ``patience`` seconds from now.

        Returns:
            True if there is space; False if the record must be refused.
        """
        if self.has_room(severity_number):
            return True
        if self.closed or not self.patience or not _may_wait() or self.is_own_thread():
            return False
        if deadline is None:
            deadline = monotonic() + self.patience
        self.worker.wake()  # the worker may sleep to collect more entries
        while not self.has_room(severity_number):
            if self.closed or monotonic() >= deadline:
                return False
            if self.worker.idle and not self.worker.wake():
                return False
            native.pause(_POLL / 2)
        return True

    def put(self, entry: Entry, deadline: float | None = None) -> None:
        """Append an entry, or refuse and count its record.  Never raises.

        May wait until ``deadline``, as :meth:`make_room` does.  For speed, ``LoggerCore.emit``
        does the same without calling this method.
        """
        full = len(self.queue) >= self.admission.lowest
        if (self.closed or full) and not self.make_room(entry[SEVERITY], deadline):
            self.refuse(entry[SEVERITY])
            return
        self.queue.append(entry)
        if self.closed and withdraw(self.queue, entry):
            self.refuse(entry[SEVERITY])
        elif self.bell.idle:
            self.bell.wake()

    def hurry(self) -> bool:
        """Let the worker take the waiting entries without a pause.  Does not block.

        Returns False if the interpreter refuses to start the worker.
        """
        self._hurry = True
        return self.worker.wake()

    def has_handed(self, target: int) -> bool:
        """Whether the first ``target`` entries have reached the sinks or were dropped."""
        return self._handed >= target

    def refuse(self, severity_number: int, reason: str = "") -> None:
        """Count and announce a record that does not enter the queue.

        If ``reason`` is "", it is ``closed`` for a closed pipeline, else ``queue_full``.
        """
        reason = reason or ("closed" if self.closed else "queue_full")
        with self._counting:
            self._refused.add(reason, severity_number)
        if reason == "closed":
            announce("closed", "a record was logged after shutdown() and dropped")
        elif reason != "queue_full":
            announce(reason, f"a record was dropped before it entered the queue: {reason}")
        else:
            capacity = self.admission.capacity
            announce(
                "queue",
                f"the queue of {capacity} records is full; records are dropped; raise queue_size",
            )

    def refuse_all(self, reason: str, severities: Iterable[int]) -> None:
        """Count records that a hold has dropped.

        The drop is announced unless ``reason`` is ``not_released``, which is the usual case.

        Args:
            reason: the reason under which the records are counted.
            severities: the severity number of each record.
        """
        with self._counting:
            self._refused.add_all(reason, severities)
        if reason != "not_released":
            announce(reason, f"a hold was full: its oldest records are dropped ({reason})")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every sink has settled all records accepted before this call.

        Blocks up to ``timeout`` seconds (30 if None).  Returns False if the time
        limit passes, or if every remaining record needs a thread that the
        interpreter refuses to start.  Returns False immediately on one of the
        pipeline's own threads.
        """
        if self.is_own_thread():
            return False
        deadline = monotonic() + (30.0 if timeout is None else timeout)
        target = self.entered()
        self._hurry = True
        if target > self._handed and not self.worker.wake():
            return False
        if not _wait_until(lambda: self._handed >= target, deadline):
            return False
        targets = [(sink, sink.start_flush()) for sink in self._sinks]
        # A sink that cannot start its thread keeps its records until shutdown(), so it is not
        # waited for.
        _wait_until(
            lambda: all(s.flush_done(t) or not s.has_thread() for s, t in targets), deadline
        )
        return all(sink.flush_done(target) for sink, target in targets)

    def close(self, deadline: float) -> None:
        """Refuse new records, deliver the accepted records, and end all threads.

        Blocks until ``deadline`` (a ``monotonic()`` time) at the latest.  Records that are
        not settled by then are dropped and counted as ``shutdown``.  A second call from
        another thread waits too; the earlier deadline applies to both calls.
        """
        self.closed = True
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        for sink in self._sinks:
            sink.start_end()
        if (self.worker.is_alive or self.queue) and not self.worker.wake():
            self.worker.run_inline()  # the interpreter refuses a new thread
        self.worker.join(deadline - monotonic())
        if not self.worker.ended:
            self._abandon()
        for sink in self._sinks:
            sink.start_close(deadline)
        for sink in self._sinks:
            sink.finish_close()
        self._drop_rest()

    def start_threads(self) -> None:
        """Start every thread that :meth:`close` will need.

        Called before the interpreter exits, because an exiting interpreter refuses to start
        threads.
        """
        self.worker.wake()
        for sink in self._sinks:
            sink.has_thread()

    def stats(self) -> Stats:
        """Return the counts of the pipeline and of each sink.  Does not block.

        The counts of the pipeline are those of the sink that has delivered the fewest
        records.  Records that this sink skipped, and records that other sinks adopted from
        an earlier process's spool, are counted as delivered.
        """
        shared = Drops()
        shared.merge(self._refused)
        shared.merge(self._dropped)
        by_name = {sink.name: sink.state.stats(self._accepted, shared) for sink in self._sinks}
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

    def sending_queues(self) -> tuple[SendingQueue, ...]:
        """Return the sinks' sending queues."""
        return self._sinks

    def after_fork(self) -> None:
        """Start with an empty queue in a forked child; the parent delivers its own records."""
        self._reset()
        self.worker.after_fork()
        for sink in self._sinks:
            sink.after_fork()

    def is_own_thread(self) -> bool:
        """Whether the current thread belongs to the worker or to a sink."""
        return self.worker.is_current or any(sink.is_current for sink in self._sinks)

    def _accepted(self) -> int:
        return self._refused.total + self.entered()

    def entered(self) -> int:
        """Return the number of records that have entered the queue since the start."""
        with self._counting:
            return self._taken + len(self.queue)

    # ---- methods that run on the worker

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
        except BaseException as error:  # noqa: BLE001 - the worker must survive a MemoryError
            self._lose(drops, error)
        finally:
            self._handed = self._taken

    def _take_slice(self) -> Sequence[Entry]:
        """Take the oldest entries from the queue, or none after the deadline of :meth:`close`."""
        queue = self.queue
        waiting = len(queue)
        count = min(waiting, _SLICE if waiting < _BURST else _BURST_SLICE)
        popleft = queue.popleft
        # All memory is allocated before the first entry is taken.  Otherwise, a
        # MemoryError could lose entries before they are counted.
        entries: list[Entry] = [()] * count
        taken, places = self._taken + count, iter(range(count))
        with self._counting:
            if self._abandoned:
                return ()
            try:
                for place in places:  # allocates nothing: numbers below 257 are cached
                    entries[place] = popleft()
            except IndexError:  # a logger withdrew an entry in the meantime
                entries = entries[:place]
                taken = self._taken + place
            finally:
                self._taken = taken
                self._in_hand = entries
        return entries

    def _fan_out(self, records: Sequence[LogRecord], drops: Drops) -> None:
        # Each sink's route is asked only once per record, because it may be a function of the
        # application, which may give another answer the second time.
        meant = [sink.intake.meant(records) for sink in self._sinks]
        if self._may_have_no_sink:
            known = {id(record) for some in meant for record in some}
            lost = [record.severity_number for record in records if id(record) not in known]
            drops.add_all("not_routed", lost)
            records = [record for record in records if id(record) in known]
        hands = [
            (sink, some, len(records) - len(some))
            for sink, some in zip(self._sinks, meant, strict=True)
        ]
        dropped = self._dropped.plus(drops)
        with self._counting:
            if self._abandoned:
                return
            self._dropped = dropped
            for sink, some, skipped in hands:
                sink.intake.hand(some, skipped)
            self._in_hand = ()
        for sink in self._sinks:
            sink.intake.take_in()

    def _lose(self, drops: Drops, error: BaseException) -> None:
        """Count records that were taken from the queue but did not reach the sinks.

        ``error`` is the reason; ``drops`` counts those of these records that are already
        counted.
        """
        with self._counting:
            left = [entry[SEVERITY] for entry in self._in_hand][drops.total :]
            if self._in_hand:
                count_lost(drops, left, error)
                self._dropped = self._dropped.plus(drops)
            self._in_hand = ()

    # ---- methods that close() calls

    def _abandon(self) -> None:
        """Drop the records that a processor still has at the deadline of :meth:`close`.

        If the processor returns later, its results are ignored.
        """
        with self._counting:
            self._abandoned = True
            left = [entry[SEVERITY] for entry in self._in_hand]
            self._in_hand = ()
            self._dropped.add_all("shutdown", left)
            self._handed = self._taken
        if left:
            announce(
                "shutdown processors",
                f"a processor did not return by the deadline; its {len(left)} records are dropped",
            )

    def _drop_rest(self) -> None:
        """Drop and count the entries that are still in the queue at the deadline."""
        left: list[Entry] = []  # freed after the lock is released, because a finaliser may log
        with self._counting:
            while self.queue:
                left.append(self.queue.popleft())
            self._taken += len(left)
            self._dropped.add_all("shutdown", [entry[SEVERITY] for entry in left])
        if left:
            announce(
                "shutdown",
                f"{len(left)} records were still in the queue at the deadline and are dropped; "
                "raise shutdown_timeout",
            )


def _seen_from(stats: Stats, adopted: int) -> Stats:
    """Return the counts of the pipeline, as computed from the counts of one sink.

    ``adopted`` is the number of records that all sinks together have adopted.
    """
    others = stats.skipped + adopted - stats.adopted
    return replace(
        stats,
        accepted=stats.accepted + others,
        delivered=stats.delivered + others,
        adopted=adopted,
        skipped=0,
    )


def _may_wait() -> bool:
    """Whether the current thread may block; a thread that runs an event loop must not."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is None or asyncio._get_running_loop() is None  # noqa: SLF001 - raises nothing


def _wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    # Unlike a condition variable, polling adds no cost per record, and a fork cannot break it.
    while not condition():
        if monotonic() >= deadline:
            return False
        native.pause(_POLL)
    return True
