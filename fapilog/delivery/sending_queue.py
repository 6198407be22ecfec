"""One sink's way out: its backlog in memory and on disk, its threads, and its circuit.

The pipeline's worker encodes records into the backlog; the sink's own threads
take batches from it and send them, so a slow or dead backend delays nobody
else.  Encoding stays with the worker on purpose: all of a record's CPU time is
then spent in one cooperative thread, and a sink's threads need the interpreter
only around their I/O.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.backlog import Backlog, Batch
from fapilog.delivery.circuit import Circuit
from fapilog.delivery.intake import Intake
from fapilog.delivery.ledger import Drops, SinkLedger, Stats, sum_of_drops
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.route import Route
from fapilog.delivery.sender import Sender
from fapilog.delivery.spooling import Spooling
from fapilog.diagnostics import announce, describe
from fapilog.native import monotonic
from fapilog.process.give_way import give_way, set_busy
from fapilog.process.worker import Worker
from fapilog.protocols import as_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_NEVER: Final = 1 << 62
_LOOK: Final = 0.01
#: Of the time to the deadline, what is kept for writing the rest to disk, and
#: seconds of it at most.
_RESERVE: Final = 0.2
_MAX_RESERVE: Final = 1.0


class SendingQueue:
    """Backlog, threads and delivery around one sink.

    ``meant``, ``hand``, ``take_in`` and ``divert`` belong to the pipeline's worker;
    everything else may be used from any thread.

    Args:
        sink: an opened sink; with a spool or quarantine a ``DurableSink``.
        name: the sink's name in the ledger, unique in its pipeline.
        options: how records are kept and sent.
        route: which records are meant for the sink; its ``sink`` is not looked at.
        fallback: gets what this one has no room for, and without a spool
            everything while the circuit has been open for the route's
            ``fallback_after`` seconds.
        is_fallback: whether the sink gets nothing but such records.
    """

    def __init__(
        self,
        sink: Sink[Any],
        *,
        name: str | None = None,
        options: DeliveryOptions | None = None,
        route: Route | None = None,
        fallback: SendingQueue | None = None,
        is_fallback: bool = False,
    ) -> None:
        self.sink = sink
        self.name = name or sink.name
        self.is_fallback = is_fallback
        self._options = options or DeliveryOptions()
        self._route = route or Route(sink)
        self.fallback = fallback
        limits = sink.limits
        width = getattr(sink, "concurrency", 1)  # a sink need not inherit from Sink
        # Batches that are being sent leave half of the backlog free, and a full
        # one always holds a batch that is due.
        most = self._options.capacity // (2 * width) + 1
        self._limits = replace(limits, size=min(limits.size, most))
        self._worker = Worker(
            f"fapilog-{self.name}", self._run, width=width, finish=self._close_sink
        )
        self._reset()

    def _reset(self) -> None:
        options = self._options
        self.ledger = SinkLedger()
        self.circuit = Circuit(options.retry, 2 * options.export_timeout)
        self._backlog = Backlog(self._limits)
        self._in_flight: list[Batch] = []
        self._intake = Intake(
            self.sink,
            self.name,
            self._backlog,
            ledger=self.ledger,
            options=options,
            route=self._route,
            circuit=self.circuit,
            notice=self._look_after,
            makes_room=self._makes_room,
            fallback=self.fallback.divert if self.fallback else None,
        )
        self._wake_at = 1
        self._flush_target = 0
        self._is_closing_sink = False
        self._end = math.inf  # when everything has to be over
        self._taking = native.Lock()  # one thread at a time waits for a batch
        self._sender = Sender(
            self.sink,
            self.name,
            self.circuit,
            self.ledger,
            self._settled,
            export_timeout=options.export_timeout,
            unknown_attempts=options.retry.unknown_attempts,
            keep=self._keep if options.quarantine else None,
        )
        self._lock = self._sender.lock
        self._spooling = self._make_spooling()

    def _make_spooling(self) -> Spooling | None:
        durable, options = as_durable(self.sink), self._options
        if durable is None or options.spool is None or options.spool_mode == "never":
            return None
        self._sender.rest_is_safe = True
        return Spooling(
            self.name,
            durable,
            options.spool,
            self._backlog,
            self._limits,
            always=options.spool_mode == "always",
            capacity=options.capacity,
            circuit=self.circuit,
            ledger=self.ledger,
            lock=self._lock,
            in_flight=self._in_flight,
            wake=self._worker.wake,
        )

    # ---- the pipeline's worker

    def meant(self, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Return those that are meant for this sink.  Never raises."""
        return () if self.is_fallback else self._intake.meant(records)

    def hand(self, records: Sequence[LogRecord], skipped: int = 0) -> None:
        """Note what the worker is about to bring in by :meth:`take_in`.  Does not block.

        Args:
            records: what :meth:`meant` returned of a slice.
            skipped: how many of the slice it left out.
        """
        self._intake.hand(records, skipped)

    def take_in(self) -> None:
        """Encode the records that were handed or diverted to this sink; never raises.

        Waits only for room, as the overflow policy says.
        """
        try:
            self._intake.take_in()
        except BaseException as error:  # noqa: BLE001 - no memory: the other sinks get theirs
            self._intake.lose(error)

    def offer(self, records: Sequence[LogRecord]) -> None:
        """Do both."""
        self.hand(records)
        self.take_in()

    def divert(self, records: Sequence[LogRecord]) -> bool:
        """Keep what other sinks cannot take for :meth:`take_in`; this is their fallback.

        What two sinks divert is taken once.  False when this sink is closed.
        """
        return self._intake.divert(records)

    def _makes_room(self) -> bool:
        if self._options.overflow == "spill":
            return self._spooling is not None and self._spooling.makes_room
        return self._options.overflow == "block"

    def _look_after(self) -> None:
        """Tell the threads that there may be work."""
        if self._spooling is not None:
            self._spooling.notice()
        backlog = self._backlog
        if len(backlog) >= self._wake_at or (self._wake_at != _NEVER and backlog.is_due):
            self._wake_at = _NEVER
            self._worker.wake()
        elif self._is_overdue():
            self._widen()

    def _widen(self) -> None:
        """Start another thread where all there are are sending, perhaps for long."""
        if len(self._in_flight) >= self._worker.threads and len(self._backlog):
            self._worker.widen()

    def _is_overdue(self) -> bool:
        """Whether a batch in memory should be on its way."""
        since = self._backlog.waiting_since
        aged = since and monotonic() - since > self._limits.delay
        return bool(aged) or self._backlog.is_due

    @property
    def takes_all(self) -> bool:
        """Whether every record is meant for this sink."""
        return not self.is_fallback and self._route.takes_all

    # ---- any thread

    @property
    def pending_bytes(self) -> int:
        """Bytes in the backlog and in flight."""
        return self._backlog.pending_bytes

    @property
    def spooled(self) -> int:
        """Records on disk that are not settled."""
        return self._spooling.records if self._spooling else 0

    @property
    def spooled_bytes(self) -> int:
        """Bytes of them."""
        return self._spooling.size if self._spooling else 0

    @property
    def adopted(self) -> int:
        """Records taken over from dead processes."""
        return self._spooling.adopted if self._spooling else 0

    @property
    def access_denied(self) -> bool:
        """Whether the backend refuses our credentials."""
        return self._sender.access_denied

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on a thread of this sink."""
        spooling = self._spooling
        return self._worker.is_current or (spooling is not None and spooling.is_current)

    def stats(self, entered: Callable[[], int], shared: Drops) -> Stats:
        """Return the sink's ledger as it is now.  Does not block.

        Args:
            entered: reads the records the pipeline has accepted.  It is called
                last: a record counts as accepted before it counts as anything
                else, so ``pending`` is never below what it was.
            shared: drops before fan-out, which count for every sink.
        """
        ledger = self.ledger
        skipped = ledger.skipped
        dropped, drops = sum_of_drops((shared, ledger.overflow, ledger.drops))
        delivered, rejected, quarantined = ledger.delivered, ledger.rejected, ledger.quarantined
        if self._spooling is not None and (damaged := self._spooling.damaged):
            # Nobody can tell any more how severe they were.
            drops["spool_damaged"] = {"UNKNOWN": damaged}
            dropped += damaged
        spooled, adopted = self.spooled, self.adopted
        accepted = entered() - skipped + adopted
        return Stats(
            accepted=accepted,
            delivered=delivered,
            rejected=rejected,
            dropped=dropped,
            pending=accepted - delivered - rejected - dropped - quarantined - spooled,
            drops=drops,
            quarantined=quarantined,
            spooled=spooled,
            adopted=adopted,
            skipped=skipped,
            resent=ledger.resent,
        )

    @property
    def _done(self) -> int:
        """Records of the backlog whose fate is known."""
        damaged = self._spooling.own_damaged if self._spooling else 0
        return self.ledger.settled + damaged - self.ledger.settled_adopted

    def start_flush(self) -> int:
        """Send what is in the backlog without waiting for full batches.

        Returns:
            What :meth:`flush_done` needs to tell whether that has happened.
        """
        self._flush_target = self.ledger.taken
        if not self.flush_done(self._flush_target):
            self._worker.wake()
            self._widen()
        return self._flush_target

    def flush_done(self, target: int) -> bool:
        """Whether all up to ``target`` is settled, or on disk while the backend is down."""
        if self._done >= target:
            return True
        spooling = self._spooling
        is_down = self.circuit.opened_at is not None
        return spooling is not None and is_down and spooling.holds_everything

    def has_thread(self) -> bool:
        """Start the threads that delivery needs; False if the interpreter refuses one."""
        spooling = self._spooling
        return self._worker.has_thread() and (spooling is None or spooling.has_thread())

    def start_threads(self) -> None:
        """Start the thread that will close the sink, if there is none yet."""
        self._worker.wake()

    def start_end(self) -> None:
        """Wait for room in the backlog no longer than ``block_timeout`` from now on in all."""
        self._intake.patience = min(self._intake.patience, self._options.block_timeout)

    def start_close(self, deadline: float) -> None:
        """Let the threads drain the backlog and end.  Does not block.

        Args:
            deadline: ``monotonic()`` after which nothing is sent; of
                several calls the earliest counts.
        """
        self._end = min(self._end, deadline)
        if self._spooling is not None:
            left = max(deadline - monotonic(), 0.0)
            deadline -= min(left * _RESERVE, _MAX_RESERVE)
        sender = self._sender
        sender.deadline = deadline if sender.deadline is None else min(sender.deadline, deadline)
        self.circuit.hurry()
        if self._worker.is_alive:
            self._worker.wake()
            self._widen()

    def finish_close(self) -> None:
        """Wait for the threads until the deadline; write to disk, or drop and count, the rest.

        Further calls, from other threads or from a signal handler, wait too
        and count nothing again.
        """
        deadline = self._sender.deadline or monotonic()
        if not self._worker.is_alive and not self._worker.wake():
            self._worker.run_inline()  # no thread is to be had: this one drains and closes
        if not self._worker.join(deadline - monotonic()):
            # One more moment for a send that was told the same deadline.
            self._worker.join(0.1)
        with self._lock:
            self._sender.abandoned = True
        held = self._intake.close()
        if self._spooling is not None:
            self._spooling.finish(self._end)
        self._count_rest(held)
        if self._is_closing_sink:
            announce(
                f"close {self.name}",
                f"{self.name}: close() has not returned at the deadline of the shutdown; "
                "it is cut short if the process ends before it returns",
            )

    def _count_rest(self, left: list[int]) -> None:
        """Count what is neither settled nor on disk as dropped; what was counted, not again.

        Args:
            left: severities of the records that the pipeline's worker still holds.
        """
        with self._lock:
            sending = [batch for batch in self._in_flight if not batch.is_on_disk]
            for batch in sending:
                self._in_flight.remove(batch)
                while batch.parts:
                    left += batch.parts.pop().severities
            while batch := self._backlog.take():
                left += batch.severities
                sending.append(batch)
            for batch in sending:
                self._backlog.release(batch)
            self.ledger.drops.add_all("shutdown", left)
        if left:
            announce(
                f"shutdown {self.name}",
                f"{self.name}: {len(left)} records were not delivered before the deadline",
            )

    def after_fork(self) -> None:
        """Begin afresh in a forked child: the parent sends its own backlog."""
        self._reset()
        self._worker.after_fork()
        if self._worker.ended:
            return  # the sink is closed
        try:
            if self._options.spool is not None:
                self._options.spool.after_fork()
            self.sink.after_fork()
        except Exception as error:  # noqa: BLE001 - the other sinks must go on in the child
            announce(f"fork {self.name}", f"{self.name}: after_fork failed: {describe(error)}")

    # ---- the sink's threads

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                set_busy(self._is_due())
                give_way()
                self._sender.deliver(batch)
                if batch.parts:  # given up: finish_close() looks after it
                    return
        finally:
            set_busy(False)  # of the application's own thread, where this runs inline

    def _close_sink(self) -> None:
        self._is_closing_sink = True
        try:
            self.sink.close()
        except BaseException as error:  # noqa: BLE001 - shutdown goes on whatever a sink does
            announce(f"close {self.name}", f"{self.name}: close failed: {describe(error)}")
        finally:
            self._is_closing_sink = False

    def _next_batch(self) -> Batch:
        """Wait for a batch that is due; empty when closed and drained."""
        with self._taking:
            while not self._sender.abandoned:
                if not self._wait_for_batch():
                    break
                with self._lock:
                    batch = self._take()
                    if batch.items:
                        batch.parts = [batch]
                        self._in_flight.append(batch)
                if batch.items:
                    if self._is_due():
                        self._worker.widen()
                    return batch
        return Batch()

    @property
    def _waiting(self) -> int:
        """Records a thread could take now."""
        spooling = self._spooling
        if spooling is not None and spooling.comes_first:
            return spooling.unread
        return len(self._backlog)

    def _take(self) -> Batch:
        """Return the oldest batch, of disk or memory; under the lock."""
        spooling = self._spooling
        if spooling is not None and spooling.comes_first:
            batch = spooling.take()
            self.ledger.settled_adopted += batch.adopted
            return batch
        return self._backlog.take()

    def _wait_for_batch(self) -> bool:
        """Wait until enough records are there, or some for long enough; False at the end."""
        sender = self._sender
        while not self._waiting:
            if sender.deadline is not None and not len(self._backlog):
                return False
            self._wake_at = 1
            if not self._waiting:
                # What waits in memory for the disk at the end is there in a moment.
                self._worker.sleep(None if sender.deadline is None else _LOOK)
            self._wake_at = _NEVER
            if sender.abandoned:
                return False
        due = (self._backlog.waiting_since or monotonic()) + self._limits.delay
        while not self._is_due():
            wait = due - monotonic()
            if wait <= 0 or sender.deadline is not None or self._done < self._flush_target:
                break
            self._wake_at = self._limits.count
            if not self._is_due():
                self._worker.sleep(wait)
            self._wake_at = _NEVER
        return True

    def _is_due(self) -> bool:
        return self._backlog.is_due or self._waiting >= self._limits.count

    def _settled(self, batch: Batch, count: int) -> None:
        """Take note that ``count`` more records of a batch are settled; under the lock."""
        if self._spooling is not None and batch.frames:
            self._spooling.settle(batch, count)
        if not batch.parts:
            self._backlog.release(batch)
            if batch in self._in_flight:  # a signal handler may have closed meanwhile
                self._in_flight.remove(batch)

    def _keep(self, part: Batch, reason: str) -> bool:
        """Put a refused batch in quarantine; False when that cannot be."""
        quarantine = self._options.quarantine
        sink: Any = self.sink
        try:
            packed = sink.pack(part.items)
            return quarantine is not None and quarantine.add(packed, part.severities, reason)
        except Exception as error:  # noqa: BLE001 - announced; counted as rejected instead
            announce(f"quarantine {self.name}", f"{self.name}: quarantine: {describe(error)}")
            return False
