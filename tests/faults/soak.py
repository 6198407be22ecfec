"""Ten minutes of outages at 1,000 records per second: ``make soak``.

    python -m tests.faults.soak [--minutes 10] [--sink otlp-http]

The backend refuses the credentials for a twentieth of the time and is down for
half of it.  In the middle of the outage the application is killed with SIGKILL
and started again.  Exits with 1 if a record is lost although the last
ledger called it settled or on disk, or if anything else went wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.processes import Ended, Lives, reserve_port, run_application
from tests.faults.rows import SINKS, Life, Row, Run
from tests.faults.script import ALWAYS, Books, Step
from tests.faults.suite import options_of

RATE: Final = 1000  # records per second
#: The share of the time after which each event happens.
DENIED, ADMITTED, DOWN, KILLED, UP = 0.1, 0.15, 0.2, 0.5, 0.7
#: The seconds that the last records may take after the end of all outages.
PATIENCE: Final = 120.0


@dataclass
class Soak:
    """The result of the soak.

    Attributes:
        killed, following: how the two processes of the application ended.
        logged: the records that the killed process had logged by its last ledger.
        second: the records that the following process logged.
        arrived: the number of records of both that arrived.
        missing: the numbers of the records that should have arrived and did not.
        lost: the records of the killed process that did not arrive.
        in_memory: the records that were only in memory by its last ledger.
        books: the backend's books.
        seconds: the duration.
    """

    killed: Ended
    following: Ended
    logged: int
    second: int
    arrived: int
    missing: int
    lost: int
    in_memory: int
    books: Books
    seconds: float

    def problems(self) -> Iterable[str]:
        """Yield the errors."""
        if self.missing:
            yield f"{self.missing} records that were settled or on disk did not arrive"
        if self.lost > self.in_memory:
            yield f"{self.lost} records were lost, {self.in_memory} were only in memory"
        if not self.books.met["status"]:
            yield "no request met the refusal of credentials"
        for exception in self.following.report.get("exceptions", ("no report",)):
            yield f"raised {exception}"
        for name in ("dropped", "rejected", "pending", "spooled"):
            if count := self.following.report.get(name, 0):
                yield f"{count} records {name}"
        if not self.following.report.get("adopted"):
            yield "nothing was adopted"

    def __str__(self) -> str:
        report = self.following.report
        lines = {
            "time": f"{self.seconds:.0f} s",
            "logged": f"{self.logged + self.second:,} records, {self.logged:,} before the SIGKILL",
            "arrived": f"{self.arrived:,}, {self.books.duplicates:,} copies beside them",
            "lost at the SIGKILL": (
                f"{self.lost:,} records; {self.in_memory:,} were only in memory"
            ),
            "adopted after it": f"{report.get('adopted', 0):,} records",
            "dropped, rejected": f"{report.get('dropped')}, {report.get('rejected')}",
            "requests refused by 401": f"{self.books.met['status']}",
            "call p99.9": f"{report.get('call', 0.0):.0f} us",
            "peak memory": f"{report.get('memory', 0.0):.0f} MiB",
            "exceptions": f"{len(report.get('exceptions', ()))}",
        }
        return "\n".join(f"{name:<24} {value}" for name, value in lines.items())


def row_of(minutes: float) -> Row:
    """Return the soak as a row."""
    seconds = minutes * 60
    first = Life(
        (
            Step("none", seconds=DENIED * seconds),
            Step("status", seconds=(ADMITTED - DENIED) * seconds, status=401),
            Step("none", ALWAYS),
        ),
        lasts=DOWN * seconds,
    )
    before = int(KILLED * seconds * RATE)
    after = int((1 - KILLED) * seconds * RATE)
    deadline = seconds + PATIENCE
    return Row(
        "soak",
        lives=(first, Life(after=(UP - DOWN) * seconds)),
        # It is killed after half of its records.
        runs=(
            Run(2 * before, "killed logging", deadline),
            Run(after, "drained", deadline),
        ),
        spool="overflow",
        pause=20 / RATE,
        settings={"retry_maximum": 5.0},
        sink={"limits": {"count": 2048, "delay": 1.0}, "timeout": 10.0},
    )


def soak(minutes: float, sink_name: str) -> Soak:
    """Play the soak; blocks for the given minutes and some seconds."""
    row, sink = row_of(minutes), SINKS[sink_name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fapilog-soak-") as name, reserve_port() as port:
        directory = Path(name)
        spool = directory / "spool"
        spool.mkdir(mode=0o700)
        journal = directory / "journal"
        number: int = port.getsockname()[1]
        lives = Lives(row, sink, number, journal, {})
        lives.start()
        try:
            first, ended = 0, []
            for run in row.runs:
                options = options_of(row, sink, run, number, directory, spool)
                options["first"] = first
                ended.append(run_application(run, options, directory, lives.logging))
                first += run.records
        finally:
            lives.stop()
        if lives.error is not None:
            raise lives.error
        return _result(row, ended, Books.read(journal), time.monotonic() - began)


def _result(row: Row, ended: list[Ended], books: Books, seconds: float) -> Soak:
    last = ended[0].report
    safe = last["accepted"] - last["pending"]
    start, second = row.runs[0].records, row.runs[1].records
    due = {*range(safe), *range(start, start + second)}
    arrived = set(books.accepted)
    logged = set(range(last["accepted"]))
    return Soak(
        killed=ended[0],
        following=ended[1],
        logged=last["accepted"],
        second=second,
        arrived=len(arrived),
        missing=len(due - arrived),
        lost=len(logged - arrived),
        in_memory=last["pending"],
        books=books,
        seconds=seconds,
    )


def main() -> int:
    """Run the soak of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sink", choices=SINKS, default="otlp-http")
    arguments = parser.parse_args()
    result = soak(arguments.minutes, arguments.sink)
    print(result)
    problems = list(result.problems())
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        print(result.killed.stderr, result.following.stderr, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
