"""Finds the place where every record of a row ended, and checks that it is the right place.

The application's ledger gives the number of records; the backend's books and the
files on disk give their identities.  Both must agree, and every record must be in
exactly one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.faults.disk import OnDisk
from tests.faults.processes import SIGNALS, Ended
from tests.faults.rows import PROXY_CREDENTIALS, PROXY_PASSWORD, Place, Row, Run
from tests.faults.script import Books

#: Seconds that the interpreter itself may take to end on a busy machine.
MARGIN: Final = 2.0


@dataclass
class Result:
    """One line of the table.

    Attributes:
        counts: the number of records per place.
        accepted: the records that the application's ledger accounts for.
        duplicates: the value of :attr:`Books.duplicates`.
        exceptions: the number of exceptions raised into the application.
        call: the 99.9th percentile of a log call, in microseconds.
        exit: the seconds from the last log call to the end of the process.
        memory: the application's largest resident size in MiB.
        stall: the longest time that another thread of the application waited for
            the interpreter, in milliseconds.
        problems: the reasons why the row fails.
        stderr: the application's standard error.
    """

    row: str
    sink: str
    counts: Counter[Place] = field(default_factory=Counter)
    accepted: int = 0
    duplicates: int = 0
    exceptions: int = 0
    call: float = 0.0
    exit: float = 0.0
    memory: float = 0.0
    stall: float = 0.0
    problems: list[str] = field(default_factory=list)
    stderr: str = ""

    @property
    def unaccounted(self) -> int:
        """U: accepted records that are in none of the places; negative if some are in two."""
        return self.accepted - sum(self.counts.values())


def balance(row: Row, sink: str, runs: Sequence[Ended], books: Books, disk: OnDisk) -> Result:
    """Return the row's line, as the module describes it."""
    numbers = _known(row.runs, runs)
    places: dict[Place, frozenset[int]] = {
        "arrived": numbers & frozenset(books.accepted),
        "quarantined": numbers & disk.quarantined,
        "spooled": numbers & disk.spooled,
    }
    found = frozenset[int]().union(*places.values())
    places["rejected"] = (numbers & books.refused) - found
    places["lost"] = numbers - found - places["rejected"]
    result = Result(row.name, sink, duplicates=books.duplicates)
    result.accepted = len(numbers)
    result.counts.update({place: len(ids) for place, ids in places.items()})
    # Only the application's ledger counts the records that it rejected or dropped.
    result.counts["lost"] = _total(runs, "dropped")
    result.counts["rejected"] = _total(runs, "rejected")
    if result.unaccounted:
        result.problems.append(f"U = {result.unaccounted}")
    result.problems += _misplaced(row, places)
    result.problems += _disagreements(row, result, runs, places)
    result.problems += _unmet(row, sink, books)
    if row.copies is not None and result.duplicates > row.copies:
        result.problems.append(
            f"{result.duplicates} duplicates, but at most {row.copies} are allowed"
        )
    for run, ended in zip(row.runs, runs, strict=True):
        result.problems += _ending(run, ended)
    _measure(result, runs)
    return result


def _known(runs: Sequence[Run], ended: Sequence[Ended]) -> frozenset[int]:
    """Return the numbers that the ledgers account for.

    A process that was killed while logging has to account for the records that its
    last ledger calls settled, because records settle in the order in which they were
    logged.  Adopted records settle in between, so the ledger cannot tell which of the
    settled records are the process's own.
    """
    numbers: set[int] = set()
    first = 0
    for run, end in zip(runs, ended, strict=True):
        count = run.records
        if run.end == "killed logging":
            count = end.report["accepted"] - end.report["pending"]
            count = 0 if end.report["adopted"] else count
        numbers.update(range(first, first + count))
        first += run.records
    return frozenset(numbers)


def _total(runs: Iterable[Ended], name: str) -> int:
    return sum(ended.report.get(name, 0) for ended in runs)


def _misplaced(row: Row, places: Mapping[Place, frozenset[int]]) -> Iterable[str]:
    """Yield the records that are in a wrong place, and the places that lack records."""
    bad = frozenset(n for ids in places.values() for n in ids if row.is_bad(n))
    for place, ids in places.items():
        for what, some, allowed in (("good", ids - bad, row.good), ("bad", ids & bad, row.bad)):
            if some and place not in allowed:
                yield f"{len(some)} {what} records {place}, the first is {min(some)}"
            elif not some and place in allowed:
                yield f"no {what} record {place}"


def _disagreements(
    row: Row, result: Result, runs: Sequence[Ended], places: Mapping[Place, frozenset[int]]
) -> Iterable[str]:
    """Yield the differences between the ledgers and the record numbers."""
    counted = {
        "accepted": _total(runs, "accepted") - _total(runs, "adopted"),
        "lost": _total(runs, "dropped"),
        "rejected": _total(runs, "rejected"),
        "quarantined": _total(runs, "quarantined"),
        "spooled": _total(runs, "spooled") - _total(runs, "adopted"),
        "arrived": _total(runs, "delivered"),
    }
    if any(run.end in {"terminated", "killed logging"} for run in row.runs):
        # The process worked on after its last ledger.
        counted = {name: counted[name] for name in ("lost", "rejected", "quarantined")}
    named: dict[str, int] = {place: len(ids) for place, ids in places.items()}
    named["accepted"] = result.accepted
    for name, count in counted.items():
        if count != named[name]:
            yield f"the ledger says {count} {name}, the records say {named[name]}"
    pending = sum(
        ended.report.get("pending", 0)
        for run, ended in zip(row.runs, runs, strict=True)
        if run.end not in {"terminated", "killed logging"}
    )
    if pending:
        yield f"the ledger says {pending} pending"


def _unmet(row: Row, sink: str, books: Books) -> Iterable[str]:
    """Yield the faults that no request met; without these faults, the row proves nothing."""
    for life in row.lives:
        for step in life.steps:
            # gRPC's server refuses a large request before the script sees it.
            asked = not (step.fault == "too large" and sink == "otlp-grpc")
            if step.fault != "none" and asked and step.fault not in books.met:
                yield f"no request met the fault {step.fault!r}"


def _ending(run: Run, ended: Ended) -> Iterable[str]:
    """Yield the errors in the way that one process ended."""
    if "Traceback" in ended.stderr:
        yield "a traceback on stderr"
    if PROXY_PASSWORD in ended.stderr or PROXY_CREDENTIALS in ended.stderr:
        yield "a password on stderr"
    expected = -SIGNALS[run.end] if run.end in SIGNALS else 0
    if ended.code != expected:
        yield f"exit code {ended.code}"
    if ended.exit is not None and ended.exit > run.deadline + MARGIN:
        yield f"the end took {ended.exit:.1f} s, the deadline was {run.deadline:g} s"
    if run.reports and "exceptions" not in ended.report:
        yield "no report"
    for exception in ended.report.get("exceptions", ()):
        yield f"raised {exception}"
    if run.end in {"flush", "drained"} and not ended.report.get("drained"):
        yield f"not everything was settled within {run.deadline:g} s"


def _measure(result: Result, runs: Sequence[Ended]) -> None:
    result.stderr = "".join(ended.stderr for ended in runs)
    reports = [ended.report for ended in runs]
    result.exceptions = sum(len(report.get("exceptions", ())) for report in reports)
    result.call = max(report.get("call", 0.0) for report in reports)
    result.memory = max(report.get("memory", 0.0) for report in reports)
    result.stall = max(report.get("stall", 0.0) for report in reports)
    result.exit = max(ended.exit or 0.0 for ended in runs)
