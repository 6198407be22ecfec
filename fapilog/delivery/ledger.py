"""The ledger of a sink, which counts the outcome of every record.

Reading the ledger takes no lock.  The counts may be slightly out of date, but ``pending`` is
computed from the other counts, so the counts of every snapshot add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fapilog.severity import range_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The upper bounds of the histogram of send durations, in seconds.
BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)


class Drops:
    """Counts dropped records by reason and severity range.  Only one thread may write at a time."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    @property
    def total(self) -> int:
        """The number of records dropped for any reason."""
        return sum(self.snapshot().values())

    def add(self, reason: str, severity_number: int, count: int = 1) -> None:
        """Count ``count`` records that were dropped for ``reason``."""
        key = (reason, range_name(severity_number))
        # A signal handler that also counts cannot interrupt the addition, because the addition
        # calls no Python function.
        self._counts[key] += count

    def merge(self, other: Drops) -> None:
        """Add the counts of ``other`` to this table."""
        for key, count in other.snapshot().items():
            self._counts[key] += count

    def plus(self, other: Drops) -> Drops:
        """Return the sum of this table and ``other``, or ``self`` if ``other`` is empty."""
        if not other.snapshot():
            return self
        both = Drops()
        both.merge(self)
        both.merge(other)
        return both

    def add_all(self, reason: str, severities: Iterable[int]) -> None:
        """For each severity number, count one record that was dropped for ``reason``."""
        for number in severities:
            self.add(reason, number)

    def snapshot(self) -> dict[tuple[str, str], int]:
        """Return the counts by (reason, severity range)."""
        return dict(self._counts)


@dataclass(slots=True, eq=False)
class SinkLedger:
    """The counts of one sink's records.

    The pipeline's worker writes ``skipped`` and ``overflow``; the sink's threads write the
    other counts, under one lock.  :class:`Stats` describes the counts that are not listed
    here.

    Attributes:
        overflow: the records that were dropped before they entered the backlog.
        drops: the records that were dropped after they entered the backlog.
        settled_adopted: records from an earlier process's spool that are settled or in flight.
            Such records never entered the backlog.
        retries: the failed attempts after which the records are sent again.
        sends: all attempts.
        durations: the number of attempts per duration in :data:`BUCKETS`;
            the last bucket has no upper bound.
        duration_sum: the sum of all durations, in seconds.
    """

    skipped: int = 0
    delivered: int = 0
    rejected: int = 0
    quarantined: int = 0
    overflow: Drops = field(default_factory=Drops)
    drops: Drops = field(default_factory=Drops)
    settled_adopted: int = 0
    retries: int = 0
    sends: int = 0
    resent: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    duration_sum: float = 0.0

    @property
    def settled(self) -> int:
        """The number of records that are delivered, rejected, quarantined or dropped."""
        return self.delivered + self.rejected + self.quarantined + self.drops.total

    def observe_send(self, seconds: float) -> None:
        """Count one send attempt that took ``seconds``."""
        self.sends += 1
        self.duration_sum += seconds
        self.durations[bisect_left(BUCKETS, seconds)] += 1


@dataclass(frozen=True)
class Stats:
    """A snapshot of one sink's ledger, or of the totals.  Every count begins at start-up.

    ``accepted == delivered + rejected + dropped + quarantined + spooled +
    pending`` always holds.

    Attributes:
        accepted: records logged at an enabled level, plus adopted records.  The statistics of
            a sink do not include the records that the sink ``skipped``.
        delivered: records that a sink's backend accepted.
        rejected: records that a backend refused for good and that are lost.
        dropped: records that fapilog gave up, for one of the reasons in ``drops``.
        quarantined: records that a backend refused for good and that are kept
            on disk.
        spooled: records that wait on disk.
        pending: records that are only in memory and wait or are being sent.
        drops: ``{reason: {severity range: count}}``.  The reasons ``filtered``
            (a processor returned None), ``not_routed`` (no sink takes the
            record) and ``not_released`` (a hold ended without a release) are
            intended.  Records in a spool file that is damaged, or that another
            program deleted, count as ``spool_damaged`` with severity ``UNKNOWN``.
        sinks: the statistics of each sink, by name; empty in the statistics of one sink.
        processor_errors: the number of errors that processors raised.  The records concerned
            were masked.
        redacted: the number of values that redaction masked.
        adopted: records that an earlier process left in its spool and this process adopted.
        skipped: for a sink, records that its route excludes or that went to its fallback
            instead; 0 in the totals.
        resent: records that were sent again because the previous attempt had no answer.  The
            backend may hold up to this number of duplicates.  The total is the sum over all
            sinks.
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
        on_disk = [name for name in ("quarantined", "spooled") if getattr(self, name)]
        names = ("delivered", "rejected", "dropped", *on_disk, "pending")
        terms = " + ".join(f"{name} {getattr(self, name)}" for name in names)
        reasons = [f"{reason} {sum(by.values())}" for reason, by in sorted(self.drops.items())]
        line = f"accepted {self.accepted} = {terms}"
        line += f"; resent {self.resent}" if self.resent else ""
        return f"{line} ({', '.join(reasons)})" if reasons else line


def sum_of_drops(tables: Iterable[Drops]) -> tuple[int, dict[str, dict[str, int]]]:
    """Return the sum of the tables: all dropped records, and the counts by reason and severity.

    The counts have the form ``{reason: {severity range: count}}``.
    """
    drops: dict[str, dict[str, int]] = {}
    dropped = 0
    for table in tables:
        for (reason, severity), count in table.snapshot().items():
            by_severity = drops.setdefault(reason, {})
            by_severity[severity] = by_severity.get(severity, 0) + count
            dropped += count
    return dropped, drops
