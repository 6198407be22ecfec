"""Runs the threads that deliver one sink's records.

The pipeline's worker thread encodes records and puts them into the sink's backlog, a queue in
memory.  The sink's own threads remove batches from the backlog and send them, so a slow or dead
backend does not delay other sinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.backlog import Batch
from fapilog.delivery.intake import Intake
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.route import Route
from fapilog.delivery.sender import send_until_settled
from fapilog.delivery.spooling import Spooling
from fapilog.delivery.state import DeliveryState
from fapilog.diagnostics import describe
from fapilog.native import monotonic
from fapilog.process.give_way import give_way, set_busy
from fapilog.process.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.delivery.backlog import Backlog
    from fapilog.delivery.state import Observer
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_NEVER: Final = 1 << 62
#: During a shutdown, a delivery thread without records checks at this interval, in seconds,
#: whether the spool's thread has written records to disk.
_LOOK: Final = 0.01


class SendingQueue:
    """Buffers and delivers the records of one sink.

    Only the pipeline's worker thread may use ``intake`` and call :meth:`offer`.  Any thread may
    call the other methods.

    Args:
        sink: the opened sink; a ``DurableSink`` if ``options`` has a spool or a quarantine.
        name: the sink's name in statistics and messages, unique in its pipeline; ``sink.name``
            by default.
        options: the options for buffering and sending records.
        route: the route that selects the sink's records; by default, it selects all records.
        fallback: the sending queue of the fallback sink that ``route`` names, or None.

    Attributes:
        observers: the functions that are called after each batch, on one of the sink's threads;
            see :class:`DeliveryState`.  They must neither block nor raise.
    """

    def __init__(
        self,
        sink: Sink[Any],
        *,
        name: str | None = None,
        options: DeliveryOptions | None = None,
        route: Route | None = None,
        fallback: SendingQueue | None = None,
    ) -> None:
        self.sink = sink
        self.name = name or sink.name
        self.options = options or DeliveryOptions()
        self._route = route or Route(sink)
        self.fallback = fallback
        self.worker = Worker(
            f"fapilog-{self.name}",
            self._run,
            width=getattr(sink, "concurrency", 1),  # a custom sink may lack the attribute
            finish=self._close_sink,
        )
        self.observers: list[Observer] = []
        self._reset()

    def _reset(self) -> None:
        self.state = state = DeliveryState(self.sink, self.name, self.options, self.observers)
        self.intake = Intake(state, self._route, self._notice, self._divert)
        self.spooling = Spooling(state, state.spool, self.worker.wake) if state.spool else None
        self._wake_at = 1
        self._flush_target = 0
        self._taking = native.Lock()  # held by the delivery thread that waits for a batch

    def offer(self, records: Sequence[LogRecord]) -> None:
        """Put records into the backlog.

        Waits for space in a full backlog only if the overflow policy says so.
        """
        self.intake.hand(records)
        self.intake.take_in()

    def _divert(self, records: Sequence[LogRecord]) -> bool:
        return self.fallback is not None and self.fallback.intake.divert(records)

    def _notice(self) -> None:
        """Wake or start the sink's threads if records are ready to be sent or spooled."""
        if self.spooling is not None:
            self.spooling.notice()
        state, backlog = self.state, self.state.backlog
        if len(backlog) >= self._wake_at or (self._wake_at != _NEVER and backlog.is_due):
            self._wake_at = _NEVER
            self.worker.wake()
        elif backlog.is_due or 0 < backlog.waiting_since < monotonic() - state.limits.delay:
            self._widen()

    def _widen(self) -> None:
        if len(self.state.in_flight) >= self.worker.threads and len(self.state.backlog):
            self.worker.widen()

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is one of this sink's threads."""
        spooling = self.spooling
        return self.worker.is_current or (spooling is not None and spooling.worker.is_current)

    def start_flush(self) -> int:
        """Make the threads send all waiting records now, even in batches that are not full.

        Does not block.  Returns the argument for :meth:`flush_done`.
        """
        self._flush_target = self.state.backlog.entered
        if not self.flush_done(self._flush_target):
            self.worker.wake()
            self._widen()
        return self._flush_target

    def flush_done(self, target: int) -> bool:
        """Return whether a flush is complete.

        A flush is complete if the total number of delivered, refused and dropped records has
        reached ``target``.  While the backend is down, a flush is also complete if all waiting
        records are on disk.

        Args:
            target: the number that :meth:`start_flush` returned.
        """
        state, spooling = self.state, self.spooling
        if state.settled >= target:
            return True
        is_down = state.circuit.opened_at is not None
        return spooling is not None and is_down and spooling.holds_everything

    def adopt_orphans(self) -> None:
        """Start to send the records that dead processes left on disk.

        Without this call, these records would be sent only after this process has logged a record.
        """
        if self.spooling is not None:
            self.spooling.adopt_orphans()

    def has_thread(self) -> bool:
        """Start the sink's threads if they are not running.  Return False if this fails."""
        spooling = self.spooling
        return self.worker.has_thread() and (spooling is None or spooling.worker.has_thread())

    def start_end(self) -> None:
        """Limit the remaining waits for space in the backlog, because a shutdown has begun.

        Together, these waits may take at most ``block_timeout`` seconds.
        """
        self.intake.patience = min(self.intake.patience, self.options.block_timeout)

    def start_close(self, deadline: float) -> None:
        """Make the threads end when the backlog is delivered, or at ``deadline``.

        Does not block.
        """
        self.state.limit_time(deadline)
        if self.worker.is_alive:
            self.worker.wake()
            self._widen()

    def finish_close(self) -> None:
        """Wait for the threads until the deadline of :meth:`start_close`, and close the queue.

        With a spool, the remaining records are written to disk.  Otherwise they are dropped.
        """
        state = self.state
        deadline = state.deadline or monotonic()
        if not self.worker.is_alive and not self.worker.wake():
            self.worker.run_inline()  # no thread can be started, so send on this thread
        if not self.worker.join(deadline - monotonic()):
            self.worker.join(0.1)  # so that an attempt that ends at the deadline is counted
        state.abandon()
        held = self.intake.close()
        if self.spooling is not None:
            self.spooling.finish(state.end)
        state.drop_rest(held)
        state.count_lost_quarantine()
        if self.worker.ended and self.worker.is_alive:
            what = "close() has not returned at the deadline of the shutdown"
            state.announce("close", f"{what}; it is cut short if the process ends first")

    def after_fork(self) -> None:
        """Empty the queue in a forked child.  The parent sends the records that were queued."""
        self._reset()
        self.worker.after_fork()
        if self.worker.ended:
            return  # the sink is already closed
        try:
            for part in (self.options.spool, self.options.quarantine, self.sink):
                if part is not None:
                    part.after_fork()
        except Exception as error:  # noqa: BLE001 - the child still needs the other sinks
            self.state.announce("fork", f"after_fork failed: {describe(error)}")

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                set_busy(self._is_due())
                give_way()
                send_until_settled(batch, self.state)
                if batch.parts:  # after the deadline, finish_close() spools or drops the parts
                    return
        finally:
            set_busy(False)  # reset: run_inline() calls _run() on a thread of the application

    def _close_sink(self) -> None:
        try:
            self.sink.close()
        except BaseException as error:  # noqa: BLE001 - a sink's error must not stop the shutdown
            self.state.announce("close", f"close failed: {describe(error)}")

    def _next_batch(self) -> Batch:
        """Wait until a batch can be sent, and return it.  An empty batch ends the thread."""
        state = self.state
        with self._taking:
            while self._wait_for_batch():
                with state.lock:
                    if state.abandoned:
                        break
                    batch = self._source.take()
                    if not batch:
                        continue
                    state.put_in_flight(batch)
                if self._is_due():
                    self.worker.widen()
                return batch
        return Batch()

    @property
    def _source(self) -> Spooling | Backlog:
        """The queue with the oldest waiting records: the spool or the backlog."""
        spooling = self.spooling
        return spooling if spooling is not None and spooling.comes_first else self.state.backlog

    def _wait_for_batch(self) -> bool:
        """Wait until a batch is full or has waited long enough to be sent.

        Return False if the queue is being closed and contains no records.
        """
        state = self.state
        while not len(self._source):
            if state.deadline is not None and not len(state.backlog):
                return False
            self._wake_at = 1
            if not len(self._source):
                # During a shutdown, sleep only briefly: the spool's thread is about to write the
                # records of the backlog to disk, and then this thread sends them.
                self.worker.sleep(None if state.deadline is None else _LOOK)
            self._wake_at = _NEVER
            if state.abandoned:
                return False
        due = (state.backlog.waiting_since or monotonic()) + state.limits.delay
        while not self._is_due():
            wait = due - monotonic()
            if wait <= 0 or state.deadline is not None or state.settled < self._flush_target:
                break
            self._wake_at = state.limits.count
            if not self._is_due():
                self.worker.sleep(wait)
            self._wake_at = _NEVER
        return True

    def _is_due(self) -> bool:
        return self.state.backlog.is_due or len(self._source) >= self.state.limits.count
