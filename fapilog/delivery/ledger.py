"""The ledger: what became of every record, per sink; it balances at every moment.

Each counter has one writer (the pipeline's worker or a sink's own thread),
so counting takes no lock; a reader sees values that were true a moment ago
and derives ``pending`` from the others, so the sum holds in every snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fapilog.severity import range_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Upper bounds of the send duration histogram, seconds.
BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)


class Drops:
    """Dropped records by reason and severity range.  One writer."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    @property
    def total(self) -> int:
        """Records dropped for any reason."""
        # Summed, not kept: a second counter would be behind the first for a moment.
        return sum(self.snapshot().values())

    def add(self, reason: str, severity_number: int, count: int = 1) -> None:
        """Count records dropped for ``reason``."""
        key = (reason, range_name(severity_number))
        # No call between reading and writing: a signal handler that counts
        # something itself cannot come between them.
        self._counts[key] += count

    def merge(self, other: Drops) -> None:
        """Add the counts of ``other``."""
        for key, count in other.snapshot().items():
            self._counts[key] += count

    def plus(self, other: Drops) -> Drops:
        """Return the counts of both; this table itself if ``other`` is empty."""
        if not other.snapshot():
            return self
        both = Drops()
        both.merge(self)
        both.merge(other)
        return both

    def add_all(self, reason: str, severities: Iterable[int]) -> None:
        """Count one record for each severity number given."""
        for number in severities:
            self.add(reason, number)

    def snapshot(self) -> dict[tuple[str, str], int]:
        """Return counts by (reason, severity range)."""
        return dict(self._counts)


class SinkLedger:
    """What became of the records handed to one sink.

    Attributes:
        skipped: records that were not meant for the sink, or went to its
            fallback instead (pipeline's worker).
        taken: records that entered the sink's backlog (pipeline's worker).
        delivered, rejected, quarantined: settled by the backend (the sink's
            threads, under one lock).
        overflow: dropped before the backlog (pipeline's worker).
        drops: dropped after it (the sink's threads).
        settled_adopted: how many of those settled, or about to be, an earlier
            process had left on disk; they never were in the backlog.
        retries, sends: attempts that failed retryably, and all attempts.
        resent: records sent again after an attempt without an answer; the
            backend may have as many copies.
        durations: histogram counts of send durations over :data:`BUCKETS`,
            the last one unbounded; ``duration_sum`` in seconds.
    """

    __slots__ = (
        "delivered",
        "drops",
        "duration_sum",
        "durations",
        "overflow",
        "quarantined",
        "rejected",
        "resent",
        "retries",
        "sends",
        "settled_adopted",
        "skipped",
        "taken",
    )

    def __init__(self) -> None:
        self.skipped = 0
        self.taken = 0
        self.delivered = 0
        self.rejected = 0
        self.quarantined = 0
        self.settled_adopted = 0
        self.retries = 0
        self.resent = 0
        self.sends = 0
        self.overflow = Drops()
        self.drops = Drops()
        self.durations = [0] * (len(BUCKETS) + 1)
        self.duration_sum = 0.0

    @property
    def settled(self) -> int:
        """Records of the backlog whose fate is known."""
        return self.delivered + self.rejected + self.quarantined + self.drops.total

    def observe_send(self, seconds: float) -> None:
        """Count one attempt that took ``seconds``."""
        self.sends += 1
        self.duration_sum += seconds
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.durations[index] += 1
                return
        self.durations[-1] += 1


@dataclass(frozen=True)
class Stats:
    """A ledger at one moment; every field counts records since start-up.

    ``accepted == delivered + rejected + dropped + quarantined + spooled +
    pending`` holds in each.

    Attributes:
        accepted: records logged at an enabled level, and adopted ones; of a
            sink, without those it ``skipped``.
        delivered: records a sink's backend took.
        rejected: records a backend refused for good.
        dropped: records given up, for a reason in ``drops``.
        quarantined: refused for good, and kept on disk.
        spooled: waiting on disk.
        pending: waiting or being sent, in memory alone.
        drops: ``{reason: {severity range: count}}``; the reasons ``filtered``
            (a processor returned None), ``not_routed`` (no sink takes it) and
            ``not_released`` (a hold was left without) are the intended ones.
            What a file of the spool held that is damaged, or was deleted by
            somebody else, counts as ``spool_damaged`` of severity ``UNKNOWN``.
        sinks: the same by sink name; empty in a sink's own ledger.
        processor_errors: processors that raised; their records were masked.
        redacted: values masked by redaction.
        adopted: records that an earlier process left on disk.
        skipped: of a sink, records that are not meant for it by its route, or
            went to its fallback instead; 0 in the totals.
        resent: records sent again because the attempt before had no answer; the
            backend may hold as many copies.  In the totals, of all sinks.
    """

    accepted: int = 0
    delivered: int = 0
    rejected: int = 0
    dropped: int = 0
    pending: int = 0
    drops: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sinks: Mapping[str, Stats] = field(default_factory=dict)
    processor_errors: int = 0
    redacted: int = 0
    quarantined: int = 0
    spooled: int = 0
    adopted: int = 0
    skipped: int = 0
    resent: int = 0

    def __str__(self) -> str:
        disk = "".join(
            f" + {name} {count}"
            for name, count in (("quarantined", self.quarantined), ("spooled", self.spooled))
            if count
        )
        line = (
            f"accepted {self.accepted} = delivered {self.delivered} + rejected {self.rejected}"
            f" + dropped {self.dropped}{disk} + pending {self.pending}"
        )
        reasons = (f"{reason} {sum(by.values())}" for reason, by in sorted(self.drops.items()))
        listed = ", ".join(reasons)
        if self.resent:
            line += f"; resent {self.resent}"
        return f"{line} ({listed})" if listed else line


def sum_of_drops(tables: Iterable[Drops]) -> tuple[int, dict[str, dict[str, int]]]:
    """Return the records dropped in all, and their counts by reason and severity range."""
    drops: dict[str, dict[str, int]] = {}
    dropped = 0
    for table in tables:
        for (reason, severity), count in table.snapshot().items():
            by_severity = drops.setdefault(reason, {})
            by_severity[severity] = by_severity.get(severity, 0) + count
            dropped += count
    return dropped, drops
