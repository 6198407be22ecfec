"""The state that the parts of one sink's delivery share, and every change to it.

Each sink has one object per process, which the intake, the delivery threads and
the spool's thread use.  It is also the :class:`Delivery` that
:func:`~fapilog.delivery.sender.send_until_settled` calls.
"""

from __future__ import annotations

import math
from dataclasses import replace
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
    from collections.abc import Callable

    from fapilog.delivery.ledger import Drops
    from fapilog.delivery.options import DeliveryOptions
    from fapilog.protocols import Outcome, Sink

#: The longest sleep while a thread waits for the circuit, in seconds.
_LOOK: Final = 0.1
#: The part of the time to the deadline that is reserved for writing the remaining
#: records to disk, and its upper bound in seconds.
_RESERVE: Final = 0.2
_MAX_RESERVE: Final = 1.0
#: The maximum number of attempts to read two counts that change together.
_LOOKS: Final = 5


class DeliveryState(Delivery):
    """The state that the parts of one sink's delivery share.  Headings name each section's threads.

    Args:
        sink: the opened sink.
        name: the sink's name in the ledger and in messages.
        options: the options that decide how records are kept and sent.

    Attributes:
        limits: the bounds of a batch.
        ledger: the counts of the sink's records.
        backlog: the batches that wait in memory.
        spool: the store on disk; None if it is not used.
        in_flight: the batches being sent, oldest first.
        lock: the lock that is held while batches move or change, and while
            records are counted.
        deadline: the time after which nothing is sent; None before a shutdown.
        end: the time after which nothing is written to disk either.
        abandoned: whether the deadline has passed; after it, the delivery
            threads neither send nor count.
        no_write_before: the time until which the spool is not tried again
            after a failed write.
        unacked: the number of settled records whose frames are still on disk.
    """

    def __init__(self, sink: Sink[Any], name: str, options: DeliveryOptions) -> None:
        super().__init__(sink, name, options.retry, 2 * options.export_timeout)
        self.options = options
        # With this limit, batches in flight leave half of the backlog free, and a
        # full backlog always holds a batch that is due.  A sink need not inherit from Sink.
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

    # ---- room and disk: any thread

    @property
    def may_write(self) -> bool:
        """Whether the spool is used, and has not just failed to write."""
        return self.spool is not None and monotonic() >= self.no_write_before

    @property
    def makes_room(self) -> bool:
        """Whether it makes sense to wait for room in a full backlog."""
        policy = self.options.overflow
        return policy == "block" or (policy == "spill" and self.may_write and len(self.backlog) > 0)

    # ---- sending: the loop calls these on a delivery thread

    def wait(self, seconds: float) -> bool:
        """Wait for the circuit; return False at the deadline or if the delivery was abandoned.

        With a spool, a shutdown does not wait for an open circuit: the remaining
        records go to the spool.
        """
        if seconds > 0 and not self.abandoned:
            deadline = self.deadline
            if deadline is not None and (self.spool is not None or monotonic() >= deadline):
                return False
            # Short sleeps, because locks and events cannot be set safely in signal handlers.
            native.sleep(min(seconds, _LOOK))
        return not self.abandoned

    def time_limit(self) -> float:
        """Return ``export_timeout``, or the time to the deadline if that is less."""
        limit, deadline = self.options.export_timeout, self.deadline
        return limit if deadline is None else min(limit, max(deadline - monotonic(), 0.001))

    def count_attempt(self, seconds: float, copies: int) -> None:
        """Count an attempt, and the copies that it may have made."""
        with self.lock:
            self.ledger.observe_send(seconds)
            self.ledger.resent += copies

    def fail(self, error: BaseException, attempt: int) -> None:  # noqa: ARG002
        """Announce a failed attempt and count it."""
        if isinstance(error, AccessDeniedError):
            why = "ALARM: the backend refuses our credentials, records are kept and tried again"
            self.announce("access", f"{why}: {describe(error)}")
        else:
            self.announce("retry", f"will try again: {describe(error)}")
        with self.lock:
            self.ledger.retries += 1

    def accept(self, batch: Batch, outcome: Outcome) -> None:
        """Count the first part as delivered, except for the records that were rejected."""
        with self.lock:
            part = self._settle_part(batch)
            if part is None:
                return
            self.ledger.rejected += outcome.rejected
            self.ledger.delivered += len(part) - outcome.rejected
        self.announce_outcome(outcome)

    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        """Put the first part in quarantine, or count it as rejected or dropped."""
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
        if is_kept:
            records = f"{len(part)} records refused for good"
            self.announce("quarantine", f"{records} are in quarantine: {reason}")
        else:
            self.announce_lost(len(part), reason)

    def _quarantine(self, part: Batch, reason: str) -> bool:
        """Put a refused part in quarantine; return False if that is not possible."""
        quarantine = self.options.quarantine
        if quarantine is None:
            return False
        sink: Any = self.sink
        try:
            return quarantine.add(sink.pack(part.items), part.severities, reason)
        except Exception as error:  # noqa: BLE001 - announced; counted as rejected instead
            self.announce("quarantine", f"quarantine: {describe(error)}")
            return False

    # ---- batches: any thread that holds the lock

    def put_in_flight(self, batch: Batch) -> None:
        """Note that a thread is about to send ``batch``."""
        batch.parts = [batch]
        self.in_flight.append(batch)

    def _settle_part(self, batch: Batch) -> Batch | None:
        """Remove and return the first part; None if its records are counted already."""
        if self.abandoned:
            return None
        try:
            part = batch.parts.pop(0)  # the thread that removes a part counts it
        except IndexError:  # a signal handler has closed the delivery
            return None
        if batch.frames:
            batch.unacked += len(part)
            self.unacked += len(part)
        if not batch.parts:
            self.acknowledge(batch)
            self.backlog.release(batch)
            if batch in self.in_flight:  # a signal handler may have removed it
                self.in_flight.remove(batch)
        return part

    def acknowledge(self, batch: Batch) -> None:
        """Remove the frames of a batch from disk."""
        if self.spool is not None:
            for frame in batch.frames:
                self.spool.ack(frame)
        self.unacked -= batch.unacked
        batch.unacked = 0
        batch.frames = []

    # ---- counts: any thread

    @property
    def spooled(self) -> int:
        """The number of unsettled records on disk; if in doubt, the lower number."""
        if self.spool is None:
            return 0
        # The frame of a settled record may stay on disk until its whole batch is settled.
        for _ in range(_LOOKS):
            unacked = self.unacked
            records = self.spool.pending_records
            if unacked == self.unacked:
                break
        return max(records - unacked, 0)

    @property
    def settled(self) -> int:
        """The number of settled records that entered the backlog."""
        damaged = 0
        if self.spool is not None:
            corrupt = self.spool.corrupt
            damaged = corrupt.records - corrupt.adopted
        return self.ledger.settled + damaged - self.ledger.settled_adopted

    def stats(self, entered: Callable[[], int], shared: Drops) -> Stats:
        """Return the sink's ledger as it is now.  Does not block.

        Args:
            entered: a function that reads the number of records that the
                pipeline has accepted.  It is called last: a record counts as
                accepted before it counts as anything else, so ``pending`` is
                never too low.
            shared: the drops before fan-out, which count for every sink.
        """
        ledger, spool = self.ledger, self.spool
        skipped = ledger.skipped
        dropped, drops = sum_of_drops((shared, ledger.overflow, ledger.drops))
        delivered, rejected, quarantined = ledger.delivered, ledger.rejected, ledger.quarantined
        if spool is not None and (damaged := spool.corrupt.records):
            by_severity = drops.setdefault("spool_damaged", {})
            by_severity["UNKNOWN"] = by_severity.get("UNKNOWN", 0) + damaged  # not known any more
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

    # ---- the end: the thread that closes

    def limit_time(self, deadline: float) -> None:
        """Send nothing after ``deadline``; the earliest deadline of several calls applies."""
        self.end = min(self.end, deadline)
        if self.spool is not None:
            left = max(deadline - monotonic(), 0.0)
            deadline -= min(left * _RESERVE, _MAX_RESERVE)
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)
        self.circuit.hurry()

    def abandon(self) -> None:
        """Stop the delivery threads from sending and counting anything."""
        with self.lock:
            self.abandoned = True

    def count_lost_quarantine(self) -> None:
        """Count records whose quarantine somebody else has deleted as dropped."""
        lost = self.options.quarantine.take_lost() if self.options.quarantine else []
        if not lost:
            return
        with self.lock:
            self.ledger.quarantined -= len(lost)
            self.ledger.drops.add_all("spool_damaged", lost)
        self.announce(
            "quarantine lost",
            f"{len(lost)} refused records are lost, because somebody else deleted the quarantine's "
            "directory; they count as dropped (spool_damaged)",
        )

    def drop_rest(self, left: list[int]) -> None:
        """Count every record that is neither settled nor on disk as dropped, once.

        Args:
            left: the severities of the records that the pipeline's worker
                still holds.
        """
        with self.lock:
            sending = [batch for batch in self.in_flight if not batch.is_on_disk]
            for batch in sending:
                self.in_flight.remove(batch)
                while batch.parts:
                    left += batch.parts.pop().severities
            while batch := self.backlog.take():
                left += batch.severities
                sending.append(batch)
            for batch in sending:
                self.backlog.release(batch)
            self.ledger.drops.add_all("shutdown", left)
        if left:
            message = f"{len(left)} records were not delivered before the deadline"
            self.announce("shutdown", message)
