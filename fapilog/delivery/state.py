"""The state of one sink's delivery, and the operations that change this state.

Each sink has one :class:`DeliveryState` per process.  The pipeline's worker thread, the sink's
delivery threads and the spool's thread share this object.
"""

from __future__ import annotations

import math
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.backlog import Backlog, Batch
from fapilog.delivery.ledger import SinkLedger, Stats, sum_of_drops
from fapilog.delivery.sender import Delivery
from fapilog.diagnostics import describe
from fapilog.errors import AccessDeniedError, PermanentError
from fapilog.native import monotonic
from fapilog.protocols import as_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from fapilog.delivery.ledger import Drops
    from fapilog.delivery.options import DeliveryOptions
    from fapilog.protocols import Outcome, Sink

#: The longest single sleep of a thread that waits for the circuit breaker, in seconds.  After
#: each sleep, the thread checks whether a shutdown has begun.
_LOOK: Final = 0.1
#: The fraction of the time limit of a shutdown that is reserved for writing the remaining records
#: to disk.
_RESERVE: Final = 0.2
#: The longest time that is reserved for writing the remaining records to disk, in seconds.
_MAX_RESERVE: Final = 1.0
#: A function that is called after a batch was sent.  Its arguments are the seconds since the first
#: attempt began, and ``Batch.failure``.
Observer: TypeAlias = "Callable[[float, str], object]"
#: The maximum number of attempts to read two related counters without a change in between.
_LOOKS: Final = 5


class DeliveryState(Delivery):
    """The state of one sink's delivery, shared by ``Intake``, ``Spooling`` and the sender.

    Attributes:
        options: the options of the delivery.
        limits: the sink's limits of a batch, with a smaller size if the backlog is small.
        ledger: the counters of the sink's records.
        backlog: the records that wait in memory.
        spool: the queue on disk, or None if records stay in memory.
        in_flight: the batches that were removed from the backlog or read from disk, and whose
            delivery is not finished.
        lock: the lock that a thread holds while it moves or changes batches, and while a
            delivery thread changes the counters in ``ledger``.
        deadline: the monotonic time at which sending must stop; None before a shutdown.
        end: the monotonic time at which writing to disk must stop; infinite before a shutdown.
        abandoned: whether the delivery threads must neither send nor count records, because
            the deadline has passed.
        no_write_before: the earliest monotonic time of the next write to the spool after a
            failed write.
        unacked: the number of records that need not be sent again, but are still in the spool.
        observers: the functions that a delivery thread calls after each batch, when every record
            of the batch was delivered, refused or dropped.
    """

    def __init__(
        self,
        sink: Sink[Any],
        name: str,
        options: DeliveryOptions,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(sink, name, options.retry, 2 * options.export_timeout)
        self.options = options
        # With this maximum size of a batch, the batches in flight use at most half of the
        # backlog's capacity, so a full backlog always contains a full batch.
        most = options.capacity // (2 * getattr(sink, "concurrency", 1)) + 1
        self.limits = replace(sink.limits, size=min(sink.limits.size, most))
        self.ledger = SinkLedger()
        self.backlog = Backlog(self.limits)
        is_spooled = options.spool_mode != "never" and as_durable(sink) is not None
        self.spool = options.spool if is_spooled else None
        self.in_flight: list[Batch] = []
        self.deadline: float | None = None
        self.end = math.inf
        self.abandoned = False
        self.no_write_before = 0.0
        self.unacked = 0
        self.observers = observers

    @property
    def may_write(self) -> bool:
        """Whether the sink has a spool to which no write has failed in the last second."""
        return self.spool is not None and monotonic() >= self.no_write_before

    @property
    def makes_room(self) -> bool:
        """Whether a new record may wait for space in a full backlog, instead of being dropped.

        Under the overflow policy ``spill``, True only while records can be moved to the spool.
        """
        policy = self.options.overflow
        return policy == "block" or (policy == "spill" and self.may_write and len(self.backlog) > 0)

    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``.  Return False if sending must stop.

        With a spool, this method does not wait during a shutdown but returns False, because the
        remaining records are written to disk.
        """
        if seconds > 0 and not self.abandoned:
            deadline = self.deadline
            if deadline is not None and (self.spool is not None or monotonic() >= deadline):
                return False
            native.sleep(min(seconds, _LOOK))  # a short sleep, because a shutdown may begin
        return not self.abandoned

    def time_limit(self) -> float:
        """Return ``export_timeout``, or the time until the deadline if this is shorter."""
        limit, deadline = self.options.export_timeout, self.deadline
        return limit if deadline is None else min(limit, max(deadline - monotonic(), 0.001))

    def count_attempt(self, seconds: float, copies: int) -> None:
        """Count an attempt that took ``seconds`` and may have created ``copies`` duplicates."""
        with self.lock:
            self.ledger.observe_send(seconds)
            self.ledger.resent += copies

    def fail(self, error: BaseException, attempt: int) -> None:  # noqa: ARG002
        """Count a failed attempt that will be repeated, and write a message about it."""
        kind, why = "retry", "will try again"
        if isinstance(error, AccessDeniedError):
            kind = "access"
            why = "ALARM: the backend refuses our credentials, records are kept and tried again"
        self.announce(kind, f"{why}: {describe(error)}")
        with self.lock:
            self.ledger.retries += 1

    def accept(self, batch: Batch, outcome: Outcome) -> None:
        """Remove the first batch from ``batch.parts``, and count its records.

        Each record is counted as delivered or rejected.
        """
        with self.lock:
            part = self._settle_part(batch)
            if part is None:
                return
            self.ledger.rejected += outcome.rejected
            self.ledger.delivered += len(part) - outcome.rejected
        if outcome.rejected:
            batch.failure = "rejected"
        self._observe(batch)
        self.announce_outcome(outcome)

    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        """Put the records of ``part`` into quarantine, or count them as rejected or dropped.

        Remove ``part`` from ``batch.parts``.
        """
        reason = describe(error)
        is_refused = isinstance(error, PermanentError)
        is_kept = is_refused and self._quarantine(part, reason)
        with self.lock:
            if self._settle_part(batch) is None:
                return
            if is_kept:
                self.ledger.quarantined += len(part)
            elif is_refused:
                self.ledger.rejected += len(part)
            else:
                self.ledger.drops.add_all("sink_error", part.severities)
        batch.failure = type(error).__name__
        self._observe(batch)
        if is_kept:
            records = f"{len(part)} records refused for good"
            self.announce("quarantine", f"{records} are in quarantine: {reason}", len(part))
        else:
            self.announce_lost(len(part), reason)

    def _observe(self, batch: Batch) -> None:
        if batch.parts:
            return  # some of the records must still be sent
        seconds = monotonic() - batch.began
        for observe in self.observers:
            observe(seconds, batch.failure)

    def _quarantine(self, part: Batch, reason: str) -> bool:
        quarantine = self.options.quarantine
        if quarantine is None:
            return False
        sink: Any = self.sink
        try:
            return quarantine.add(sink.pack(part.items), part.severities, reason)
        except Exception as error:  # noqa: BLE001 - announced; counted as rejected instead
            self.announce("quarantine", f"quarantine: {describe(error)}")
            return False

    def put_in_flight(self, batch: Batch) -> None:
        """Add ``batch``, which was removed from the backlog or read from disk, to ``in_flight``.

        The caller must hold ``lock``.
        """
        batch.parts = [batch]
        self.in_flight.append(batch)

    def _settle_part(self, batch: Batch) -> Batch | None:
        """Remove the first batch from ``batch.parts``, and return it.

        If ``batch.parts`` is then empty, also remove ``batch`` from the spool and from
        ``in_flight``.  Return None if a shutdown has already counted the records.
        """
        if self.abandoned:
            return None
        try:
            part = batch.parts.pop(0)
        except IndexError:  # a shutdown in a signal handler has emptied the list
            return None
        if batch.frames:
            batch.unacked += len(part)
            self.unacked += len(part)
        if not batch.parts:
            self.acknowledge(batch)
            self.backlog.release(batch)
            if batch in self.in_flight:  # a shutdown in a signal handler may have removed it
                self.in_flight.remove(batch)
        return part

    def acknowledge(self, batch: Batch) -> None:
        """Release the copies of ``batch`` in the spool, so that no process sends them again.

        The caller has finished sending the records, or has written them to disk again.  The
        caller must hold ``lock``.
        """
        if self.spool is not None:
            for frame in batch.frames:
                self.spool.ack(frame)
        self.unacked -= batch.unacked
        batch.unacked = 0
        batch.frames = []

    @property
    def spooled(self) -> int:
        """The number of records that wait on disk to be sent.

        The number may be too low while a thread changes the counters.
        """
        if self.spool is None:
            return 0
        for _ in range(_LOOKS):
            unacked = self.unacked
            records = self.spool.pending_records
            if unacked == self.unacked:  # no thread has changed `unacked` between the reads
                break
        return max(records - unacked, 0)

    @property
    def unsettled(self) -> int:
        """The number of records in the backlog, in flight and on disk.

        The number may be slightly wrong while a thread changes the counters.
        """
        entered, lost = self.backlog.entered, 0
        if self.spool is not None:
            entered += self.spool.adopted
            lost = self.spool.corrupt.records
        return max(entered - self.ledger.settled - lost, 0)

    @property
    def spool_age(self) -> float:
        """The seconds since the oldest batch on disk was written; 0.0 if there is no batch."""
        if self.spool is None:
            return 0.0
        times = [frame.time_ns for batch in list(self.in_flight) for frame in batch.frames]
        if waiting_since := self.spool.unread_since_ns:
            times.append(waiting_since)
        return max(time_ns() - min(times), 0) / 1e9 if times else 0.0

    @property
    def lag(self) -> float:
        """The age of the oldest record that was not delivered, refused or dropped, in seconds.

        The age counts from the time when the record entered the backlog, or when it was written
        to disk.  0.0 if there is no such record.
        """
        times = [self.backlog.waiting_since, *(batch.born for batch in list(self.in_flight))]
        ages = [monotonic() - since for since in times if since]
        return max([self.spool_age, *ages])

    @property
    def settled(self) -> int:
        """The number of records that entered the backlog and need not be sent again."""
        damaged = 0
        if self.spool is not None:
            corrupt = self.spool.corrupt
            damaged = corrupt.records - corrupt.adopted
        return self.ledger.settled + damaged - self.ledger.settled_adopted

    def stats(self, entered: Callable[[], int], shared: Drops) -> Stats:
        """Return a snapshot of the sink's counters.  Does not block.

        Args:
            entered: a function that returns how many records the pipeline has accepted.  The
                function is called after the counters are read, so ``pending`` is never too low.
            shared: the records that were dropped before they were routed to sinks.  The
                snapshot includes these records for every sink.
        """
        ledger, spool = self.ledger, self.spool
        skipped = ledger.skipped
        dropped, drops = sum_of_drops((shared, ledger.overflow, ledger.drops))
        delivered, rejected, quarantined = ledger.delivered, ledger.rejected, ledger.quarantined
        if spool is not None and (damaged := spool.corrupt.records):
            by_severity = drops.setdefault("spool_damaged", {})
            by_severity["UNKNOWN"] = by_severity.get("UNKNOWN", 0) + damaged
            dropped += damaged
        spooled, adopted = self.spooled, spool.adopted if spool is not None else 0
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

    def limit_time(self, deadline: float) -> None:
        """Stop sending at ``deadline``.  After several calls, the earliest deadline applies.

        With a spool, sending stops a little earlier, to leave time for writing records to disk.
        """
        self.end = min(self.end, deadline)
        if self.spool is not None:
            left = max(deadline - monotonic(), 0.0)
            deadline -= min(left * _RESERVE, _MAX_RESERVE)
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)
        self.circuit.hurry()

    def abandon(self) -> None:
        """Stop the delivery threads from sending and counting records."""
        with self.lock:
            self.abandoned = True

    def count_lost_quarantine(self) -> None:
        """Count the quarantined records as dropped if another program deleted the quarantine."""
        lost = self.options.quarantine.take_lost() if self.options.quarantine else []
        if lost:
            with self.lock:
                self.ledger.quarantined -= len(lost)
                self.ledger.drops.add_all("spool_damaged", lost)
            self.announce(
                "quarantine lost",
                f"{len(lost)} refused records are lost, because somebody else deleted the "
                "quarantine's directory; they count as dropped (spool_damaged)",
            )

    def drop_rest(self, left: list[int]) -> None:
        """Drop and count every record that is still to be sent and is not on disk.

        Args:
            left: the severity numbers of the records that were not put into the backlog, as
                returned by ``Intake.close()``.
        """
        with self.lock:
            for batch in [one for one in self.in_flight if not one.is_on_disk]:
                self.in_flight.remove(batch)
                while batch.parts:
                    left += batch.parts.pop().severities
                self.backlog.release(batch)
            while batch := self.backlog.take():
                left += batch.severities
                self.backlog.release(batch)
            self.ledger.drops.add_all("shutdown", left)
        if left:
            fix = "; the option spool.directory keeps such records on disk"
            if self.spool is not None or as_durable(self.sink) is None:
                fix = ""
            self.announce(
                "shutdown",
                f"{len(left)} records were not delivered before the deadline{fix}",
                len(left),
            )
