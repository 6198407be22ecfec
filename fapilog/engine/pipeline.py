"""The ``Pipeline`` of a runtime: a queue, a worker thread, processors, and a queue per sink.

A log call only appends an entry to the pipeline's bounded queue.  The worker thread makes a log
record from each entry, calls the processors, and adds the record to the queues of the sinks.
It processes a few entries at a time, so that it never keeps the interpreter lock for a long
time.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.delivery.admission import Admission
from fapilog.delivery.ledger import Drops, LoggerCounts, Stats, sum_of_drops
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
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fapilog.delivery.direct_queue import DirectQueue
    from fapilog.delivery.sending_queue import SendingQueue
    from fapilog.engine.entry import Entry
    from fapilog.protocols import Processor
    from fapilog.record import LogRecord, Resource
    from fapilog.settings import Settings

# The number of entries that the worker removes from the queue and processes together.  It is
# small, so that the worker does not keep the interpreter lock for a long time.  If many entries
# are waiting, ``_BURST_SLICE`` applies instead, because larger groups empty the queue faster.
_SLICE: Final = 64
_BURST_SLICE: Final = 256
#: If at least this number of entries is waiting, the worker removes ``_BURST_SLICE`` entries
#: instead of ``_SLICE`` entries.
_BURST: Final = 1024
#: The time in seconds that the worker waits, so that it can process several entries together.
_LINGER: Final = 0.01
#: The time between two checks of a condition that a thread waits for, in seconds.
_POLL: Final = 0.002


@dataclass(frozen=True)
class Progress:
    """How many records have entered a pipeline, and what became of them before the sinks.

    Attributes:
        waiting: the number of records in the queue.
        in_hand: the number of records that the worker has removed from the queue and is
            processing.
        processed: the number of records that have left the queue and were passed to the sinks
            or dropped.
        refused: the numbers of records that were dropped before they entered the queue, by
            reason and severity range.
        dropped: the numbers of records in ``processed`` that were dropped, in the same form.
    """

    waiting: int
    in_hand: int
    processed: int
    refused: Mapping[tuple[str, str], int]
    dropped: Mapping[tuple[str, str], int]


class Pipeline:
    """The queue, the worker thread, the processors and the sinks' queues of one runtime.

    Thread-safe.  The private methods from ``_run`` to ``_lose`` run on the worker thread.

    Attributes:
        ended: whether :meth:`close` has returned.
        closed: whether the pipeline drops every new record.  Code that appends to ``queue``
            without :meth:`put` must read ``closed`` afterwards, and call :func:`withdraw` if it
            is True.
        patience: the longest time that a caller waits for space in the queue, in seconds.
        bell: the worker, or the :class:`Prompt` that wakes the worker.  A caller that has
            appended to ``queue`` must call ``bell.wake()`` if ``bell.idle`` is True.
        successor: the pipeline that has replaced this pipeline for its loggers, or None.
        on_step: a function that the worker calls after each slice of entries, or None.  It must
            neither block nor raise.

    Args:
        settings: the options of the queue, and the limits of one record.
        sinks: the sending queues of the sinks; the sinks are already open.
        processors: the functions that are called in order for each record.
        resource: the OpenTelemetry resource of each record that has no resource yet.
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
        self._direct: tuple[DirectQueue, ...] = ()
        read = [queue for queue in sinks if getattr(queue.sink, "is_interactive", False)]
        self.bell: Worker | Prompt = Prompt(self, read) if read else self.worker
        self._may_have_no_sink = not any(sink.intake.takes_all for sink in self._sinks)
        limits = Limits(
            attributes=settings.attribute_count_limit,
            attribute_text=settings.attribute_value_length_limit,
        )
        counts = LoggerCounts() if settings.otel_metrics_by_logger else None
        self.processing = Processing(processors, limits, counts)
        callers_wait = settings.overflow in {"block", "spill"}
        self.patience = settings.block_timeout if callers_wait else 0.0
        self._deadline: float | None = None
        self.closed = self.ended = False
        self.successor: Pipeline | None = None
        self.on_step: Callable[[], None] | None = None
        self._reset()
        fork.register("pipelines", in_child=self.after_fork)

    def _reset(self) -> None:
        self.queue.clear()
        self.processing.reset()
        # This lock protects the counters, and each step that moves entries from the queue to the
        # worker or from the worker to the sinks.  It is re-entrant, because a finaliser or a
        # signal handler may log in a thread that already holds the lock.
        self._counting = native.RLock()
        self._taken = 0  # number of entries that the worker has removed from the queue
        self._handed = 0  # number of entries whose records reached the sinks or were dropped
        self._refused = Drops()  # records that were dropped before they entered the queue
        self._dropped = Drops()  # records that were dropped after they left the queue
        # The entries that the worker has removed from the queue and not yet passed to the sinks.
        self._in_hand: Sequence[Entry] = ()
        self._abandoned = False  # True after close() has stopped waiting for the worker
        self._hurry = False

    def has_room(self, severity_number: int) -> bool:
        """Whether the pipeline is open and its queue has space for a record of this severity."""
        return not self.closed and len(self.queue) < self.admission.limit(severity_number)

    def make_room(self, severity_number: int, deadline: float | None = None) -> bool:
        """Wait for space in a full queue, if the overflow policy allows the caller to wait.

        Args:
            severity_number: the severity number of the record that needs space.
            deadline: the ``monotonic()`` time at which the wait ends; None means ``patience``
                seconds from now.

        Returns:
            True if there is space; False if the record must be dropped.
        """
        if self.has_room(severity_number):
            return True
        if self.closed or not self.patience or not may_wait() or self.is_own_thread():
            return False
        if deadline is None:
            deadline = monotonic() + self.patience
        self.worker.wake()  # the worker may be waiting for more entries
        while not self.has_room(severity_number):
            if self.closed or monotonic() >= deadline:
                return False
            if self.worker.idle and not self.worker.wake():
                return False
            native.pause(_POLL / 2)
        return True

    def put(self, entry: Entry, deadline: float | None = None) -> None:
        """Append ``entry`` to the queue, or count its record as dropped if there is no space.

        May wait for space until ``deadline``, as :meth:`make_room` does.  Never raises.  For
        speed, ``LoggerCore.emit`` does the same without calling this method.
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
        """Let the worker process the waiting entries without a pause.  Does not block.

        Returns False if the interpreter refuses to start the worker's thread.
        """
        self._hurry = True
        return self.worker.wake()

    def has_handed(self, target: int) -> bool:
        """Whether the first ``target`` entries have reached the sinks or were dropped."""
        return self._handed >= target

    def refuse(self, severity_number: int, reason: str = "") -> None:
        """Count a record as dropped before it entered the queue, and report it on stderr.

        ``reason`` is the reason in the statistics.  By default, it is ``closed`` if the
        pipeline is closed, and otherwise ``queue_full``.
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
        """Count records from the buffer of a ``hold()`` block as dropped.

        Reports the drop on stderr, unless ``reason`` is ``not_released``, because a block
        usually ends without a release.

        Args:
            reason: the reason under which the statistics count the records.
            severities: the severity number of each record.
        """
        with self._counting:
            self._refused.add_all(reason, severities)
        if reason != "not_released":
            announce(reason, f"a hold was full: its oldest records are dropped ({reason})")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every sink has finished all records that were accepted before this call.

        A sink has finished a record when its backend has accepted or refused the record, or
        when the record was dropped.  While a backend is down, a sink has also finished the
        records that it has stored on disk.

        Blocks up to ``timeout`` seconds (30 if None).  Returns False if the time limit passes,
        or if every remaining record needs a thread that the interpreter refuses to start.
        Returns False immediately if a thread of the pipeline calls this method.
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
        targets = [(sink, sink.start_flush()) for sink in self.all_queues()]
        # Do not wait for a sink whose thread cannot be started; shutdown() will send its records.
        _wait_until(
            lambda: all(s.flush_done(t) or not s.has_thread() for s, t in targets), deadline
        )
        return all(sink.flush_done(target) for sink, target in targets)

    def close(self, deadline: float) -> None:
        """Refuse new records, deliver the accepted records, and end all threads.

        Blocks until ``deadline`` (a ``monotonic()`` time) at the latest.  Records that are not
        delivered by then are dropped, for the reason ``shutdown`` in the statistics, unless the
        spool of a sink stores them on disk.  If a second thread calls this method, it waits
        too, and the earlier deadline applies to both calls.
        """
        self.closed = True
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        with self._counting:  # the caller of add_direct() closes a queue that is added later
            queues = self.all_queues()
        for queue in queues:
            queue.start_end()
        if (self.worker.is_alive or self.queue) and not self.worker.wake():
            # The interpreter refuses to start a thread, so run the worker in this thread.
            self.worker.run_inline()
        self.worker.join(deadline - monotonic())
        if not self.worker.ended:
            self._abandon()
        for queue in queues:
            queue.start_close(deadline)
        for queue in queues:
            queue.finish_close()
        self._drop_rest()
        self.ended = True

    def start_threads(self) -> None:
        """Start every thread that :meth:`close` will need.

        Called before the interpreter exits, because an exiting interpreter refuses to start
        threads.
        """
        self.worker.wake()
        for queue in self.all_queues():
            queue.has_thread()

    def stats(self) -> Stats:
        """Return the statistics of the pipeline and of each sink.  Does not block.

        The pipeline's own numbers are those of the sink that has delivered the fewest records.
        Its ``delivered`` also includes records that this sink did not receive: records that its
        route excludes, records that went to its fallback, and records that other sinks read
        from the spool of an earlier process.  Direct queues, which contain spans, are among the
        sinks, but do not affect the pipeline's own numbers.
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
            sinks={**by_name, **{queue.name: queue.stats() for queue in self._direct}},
            processor_errors=self.processing.errors,
            resent=sum(stats.resent for stats in by_name.values()),
        )

    def progress(self) -> Progress:
        """Return how many records have entered the pipeline and left it.  Does not block."""
        with self._counting:
            return Progress(
                len(self.queue),
                len(self._in_hand),
                self._taken - len(self._in_hand),
                self._refused.snapshot(),
                self._dropped.snapshot(),
            )

    def sending_queues(self) -> tuple[SendingQueue, ...]:
        """Return the sending queues of the sinks for log records."""
        return self._sinks

    def all_queues(self) -> tuple[SendingQueue, ...]:
        """Return the sending queues of all sinks, including direct queues."""
        return (*self._sinks, *self._direct)

    def add_direct(self, queue: DirectQueue) -> bool:
        """Add a queue that other threads fill, so that it is flushed, counted and closed, too.

        Returns False if the pipeline is closed.  Then the caller must close the queue.
        """
        with self._counting:
            self._direct += (queue,)
            return not self.closed

    def after_fork(self) -> None:
        """Empty the queue in a forked child; the parent process delivers the queued records."""
        self._reset()
        self.worker.after_fork()
        for queue in self.all_queues():
            queue.after_fork()

    def is_own_thread(self) -> bool:
        """Whether the current thread is the worker's thread or a thread of a sink."""
        return self.worker.is_current or any(queue.is_current for queue in self.all_queues())

    def _accepted(self) -> int:
        return self._refused.total + self.entered()

    def entered(self) -> int:
        """Return the number of records that have entered the queue so far."""
        with self._counting:
            return self._taken + len(self.queue)

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
        if self.on_step is not None:
            self.on_step()

    def _take_slice(self) -> Sequence[Entry]:
        """Remove and return the oldest entries of the queue.

        Returns an empty sequence if :meth:`close` has stopped waiting for the worker.
        """
        queue = self.queue
        waiting = len(queue)
        count = min(waiting, _SLICE if waiting < _BURST else _BURST_SLICE)
        popleft = queue.popleft
        # All memory is allocated before the first entry is removed from the queue.  Otherwise, a
        # MemoryError could lose entries that are not counted yet.
        entries: list[Entry] = [()] * count
        taken, places = self._taken + count, iter(range(count))
        with self._counting:
            if self._abandoned:
                return ()
            try:
                for place in places:  # allocates no memory: integers up to 256 are cached
                    entries[place] = popleft()
            except IndexError:  # a log call has removed an entry since ``waiting`` was read
                entries = entries[:place]
                taken = self._taken + place
            finally:
                self._taken = taken
                self._in_hand = entries
        return entries

    def _fan_out(self, records: Sequence[LogRecord], drops: Drops) -> None:
        # Each sink's route is evaluated only once per record.  The route may be a function of the
        # application, and a second call might return a different result.
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
        """Count the entries in ``_in_hand`` as dropped, because of ``error``.

        Entries that ``drops`` already contains are not counted a second time.
        """
        with self._counting:
            left = [entry[SEVERITY] for entry in self._in_hand][drops.total :]
            if self._in_hand:
                count_lost(drops, left, error)
                self._dropped = self._dropped.plus(drops)
            self._in_hand = ()

    def _abandon(self) -> None:
        """Drop the records that a processor has not returned by the deadline of :meth:`close`.

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
        """Drop and count the entries that are still in the queue at the deadline of a shutdown."""
        # This list keeps the entries alive until the lock is released, because their finalisers
        # may log.
        left: list[Entry] = []
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
    """Return statistics of the whole pipeline, computed from the statistics of one sink.

    ``adopted`` is the number of records that all sinks together have read from the spools of
    earlier processes.
    """
    others = stats.skipped + adopted - stats.adopted
    return replace(
        stats,
        accepted=stats.accepted + others,
        delivered=stats.delivered + others,
        adopted=adopted,
        skipped=0,
    )


def may_wait() -> bool:
    """Whether the current thread may block; a thread that runs an event loop must not."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is None or asyncio._get_running_loop() is None  # noqa: SLF001 - raises nothing


def _wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    # Polling, unlike a condition variable, adds no cost per record and still works after a fork.
    while not condition():
        if monotonic() >= deadline:
            return False
        native.pause(_POLL)
    return True
