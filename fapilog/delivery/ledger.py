"""Counters of the records of one sink: delivered, refused, dropped and waiting records.

Reading the counters needs no lock.  The values may be slightly out of date, but ``pending`` is
computed from the other values, so the values of every snapshot add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fapilog.severity import range_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The upper bounds of the histogram of send durations, in seconds.
BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)


#: The reasons for drops that the application or its configuration asked for.
INTENDED: Final = frozenset({"filtered", "not_routed", "not_released"})
#: The largest number of logger names that ``LoggerCounts`` counts separately.  With six ranges of
#: severities, the metrics stay below the SDK's limit of 2,000 combinations of attributes.
MAX_LOGGERS: Final = 300
#: The name under which ``LoggerCounts`` counts the records of all further loggers.
OTHER_LOGGERS: Final = "(other)"


class Drops:
    """Counts dropped records by reason and severity range.

    Only one thread at a time may change the counts.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    @property
    def total(self) -> int:
        """The number of records dropped for any reason."""
        return sum(self.snapshot().values())

    def add(self, reason: str, severity_number: int, count: int = 1) -> None:
        """Add ``count`` records that were dropped for ``reason``."""
        key = (reason, range_name(severity_number))
        # A signal handler that also calls this method cannot interrupt this statement: CPython
        # runs signal handlers only at calls and jumps, and the statement contains neither.
        self._counts[key] += count

    def merge(self, other: Drops) -> None:
        """Add the counts of ``other`` to the counts of this object."""
        for key, count in other.snapshot().items():
            self._counts[key] += count

    def plus(self, other: Drops) -> Drops:
        """Return the sum of ``self`` and ``other``, or ``self`` if ``other`` is empty."""
        if not other.snapshot():
            return self
        both = Drops()
        both.merge(self)
        both.merge(other)
        return both

    def add_all(self, reason: str, severities: Iterable[int]) -> None:
        """Count one dropped record for each number in ``severities``, under ``reason``."""
        for number in severities:
            self.add(reason, number)

    def snapshot(self) -> dict[tuple[str, str], int]:
        """Return a copy of the counts, whose keys are (reason, severity range)."""
        return dict(self._counts)


class LoggerCounts:
    """Counts records by logger name and severity range.

    Only the pipeline's worker thread may call :meth:`add`.  After :data:`MAX_LOGGERS` names, the
    records of new names are counted together, under :data:`OTHER_LOGGERS`.
    """

    __slots__ = ("_counts", "_names")

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._names: set[str] = set()

    def add(self, name: str, severity_number: int) -> None:
        """Add one record of the logger ``name``."""
        if name not in self._names:
            if len(self._names) < MAX_LOGGERS:
                self._names.add(name)
            else:
                name = OTHER_LOGGERS
        key = (name, severity_number)
        self._counts[key] = self._counts.get(key, 0) + 1

    def snapshot(self) -> dict[tuple[str, str], int]:
        """Return a copy of the counts, whose keys are (logger name, severity range)."""
        found: dict[tuple[str, str], int] = {}
        for (name, number), count in self._counts.copy().items():
            key = (name, range_name(number))
            found[key] = found.get(key, 0) + count
        return found


@dataclass(slots=True, eq=False)
class SinkLedger:
    """The counters of one sink's records.

    The pipeline's worker thread writes ``skipped`` and ``overflow``.  The sink's threads write
    the other counters, under one lock.  :class:`Stats` describes the attributes that are not
    listed here.

    Attributes:
        overflow: the records that were dropped before they entered the backlog.
        drops: the records that were dropped later.
        settled_adopted: the number of records that dead processes left in the spool and that this
            process has read.  These records never entered the backlog, so
            ``DeliveryState.settled`` does not include them.
        retries: the number of attempts that failed and were followed by another attempt.
        sends: the number of all attempts.
        durations: a histogram of the durations of attempts, with the upper bounds in
            :data:`BUCKETS`; the last bucket has no upper bound.
        duration_sum: the sum of the durations of all attempts, in seconds.
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
        """The number of delivered, rejected and quarantined records, plus those in ``drops``."""
        return self.delivered + self.rejected + self.quarantined + self.drops.total

    def observe_send(self, seconds: float) -> None:
        """Add one attempt to send, which took ``seconds``."""
        self.sends += 1
        self.duration_sum += seconds
        self.durations[bisect_left(BUCKETS, seconds)] += 1


@dataclass(frozen=True)
class Stats:
    """A snapshot of the counters of one sink, or of the totals for all sinks.

    The counters start at 0 when fapilog is configured, and again in a forked child.
    ``accepted == delivered + rejected + dropped + quarantined + spooled + pending`` always holds.

    Attributes:
        accepted: the number of records that were logged at an enabled level, plus ``adopted``.
            The value for one sink does not include the records in ``skipped``.
        delivered: the number of records that the backend accepted.
        rejected: the number of records that the backend refused permanently and that fapilog did
            not store in quarantine.
        dropped: the number of records that fapilog dropped, for one of the reasons in ``drops``.
        quarantined: the number of records that the backend refused permanently and that fapilog
            stored on disk.
        spooled: the number of records that wait on disk to be sent.
        pending: the number of records that are only in memory and wait or are being sent.
        drops: ``{reason: {severity range: count}}``.  Three reasons are not failures:
            ``filtered`` (a processor returned None), ``not_routed`` (the routes of all sinks
            exclude the record) and ``not_released`` (a ``hold()`` block discarded the records
            that it had buffered).  If a spool file is damaged, or another program deleted the
            file, its records are counted under the reason ``spool_damaged`` with the severity
            range ``UNKNOWN``.
        sinks: the statistics of each sink, by the sink's name; empty in the statistics of one
            sink.  The sink ``traces`` counts spans, which the totals do not include.
        processor_errors: the number of exceptions that processors raised.  After such an
            exception, the record was masked.
        redacted: the number of values that redaction masked in records.  In the statistics of
            the sink of spans, the number of values in spans; 0 in those of other sinks.
        adopted: the number of records from the spools of earlier processes, which this process
            sends.
        skipped: the number of records that the sink's route excludes or that the sink's
            fallback got instead; 0 in the totals.
        resent: the number of records that were sent again because the previous attempt got no
            answer.  The backend may contain up to this number of duplicates.  In the totals for
            all sinks, this is the sum of the values of the sinks.
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

    def _repr_pretty_(self, printer: Any, _is_cycle: bool) -> None:
        """Show a line for all sinks and a line for each sink below a notebook's cell.

        Source: https://ipython.readthedocs.io/en/stable/api/generated/IPython.lib.pretty.html
        """
        lines = [str(self), *(f"{name}: {stats}" for name, stats in self.sinks.items())]
        printer.text("\n".join(lines))


def sum_of_drops(tables: Iterable[Drops]) -> tuple[int, dict[str, dict[str, int]]]:
    """Return the number of all dropped records in ``tables``, and the sums of their counts.

    The sums have the form ``{reason: {severity range: count}}``.
    """
    drops: dict[str, dict[str, int]] = {}
    dropped = 0
    for table in tables:
        for (reason, severity), count in table.snapshot().items():
            by_severity = drops.setdefault(reason, {})
            by_severity[severity] = by_severity.get(severity, 0) + count
            dropped += count
    return dropped, drops
