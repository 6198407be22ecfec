"""Plays every fault against every remote sink and prints a table: ``make faults``.

    python -m tests.faults [--only NAME]... [--sink NAME]... [--list]

Exits with 1 if a row fails, and prints the reasons below the table.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.faults.balance import Result
from tests.faults.rows import SINKS, Row, rows
from tests.faults.suite import NotPossibleError, play

#: The most characters of the application's standard error that are shown for a failed row.
LAST_WORDS = 2000

COLUMNS: dict[str, Callable[[Result], str]] = {
    "fault": lambda result: result.row,
    "sink": lambda result: result.sink,
    "U": lambda result: str(result.unaccounted),
    "accepted": lambda result: str(result.accepted),
    "arrived": lambda result: str(result.counts["arrived"]),
    "rejected": lambda result: str(result.counts["rejected"]),
    "dropped": lambda result: str(result.counts["lost"]),
    "quarantined": lambda result: str(result.counts["quarantined"]),
    "spooled": lambda result: str(result.counts["spooled"]),
    "duplicates": lambda result: str(result.duplicates),
    "exceptions": lambda result: str(result.exceptions),
    "call p99.9": lambda result: f"{result.call:.0f} us" if result.call else "",
    "exit": lambda result: f"{result.exit:.1f} s",
    "memory": lambda result: f"{result.memory:.0f} MiB" if result.memory else "",
    "stall": lambda result: f"{result.stall:.0f} ms",
    "row": lambda result: "FAILED" if result.problems else "ok",
}


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    body = [[show(result) for show in COLUMNS.values()] for result in results]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(list(COLUMNS)), line(["-" * w for w in widths]), *map(line, body)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="rows whose names contain NAME"
    )
    parser.add_argument("--sink", action="append", choices=SINKS, help="rows of one sink")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument("--at-once", type=int, default=2, help="rows played at a time")
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> list[tuple[Row, str]]:
    return [
        (row, sink)
        for row in rows()
        for sink in row.sinks
        if (not arguments.only or any(part in row.name for part in arguments.only))
        and (not arguments.sink or sink in arguments.sink)
    ]


def played(pair: tuple[Row, str]) -> Result | str:
    """Play a row; return the reason if the machine cannot play it."""
    row, sink = pair
    try:
        result = play(row, sink)
    except NotPossibleError as error:
        return f"{row.name}, {sink}: {error}"
    except Exception as error:  # a row that cannot be judged has failed; the other rows continue
        result = Result(row.name, sink, problems=[f"the suite itself failed: {error!r}"])
    verdict = "; ".join(result.problems) or "ok"
    print(f"{row.name}, {sink}: {verdict}", file=sys.stderr, flush=True)
    return result


def main() -> int:
    arguments = parse()
    pairs = chosen(arguments)
    if arguments.list:
        print("\n".join(f"{row.name}, {sink}" for row, sink in pairs))
        return 0
    if not pairs:
        print("no row has that name; see --list", file=sys.stderr)
        return 1
    began = time.monotonic()
    with ThreadPoolExecutor(arguments.at_once) as pool:
        done = list(pool.map(played, pairs))
    results = [one for one in done if isinstance(one, Result)]
    print(table(results))
    longest = max((result.stall for result in results), default=0.0)
    print(
        f"\n{len(results)} rows in {time.monotonic() - began:.0f} s, longest stall {longest:.0f} ms"
    )
    for reason in done:
        if isinstance(reason, str):
            print(f"\nNot played: {reason}")
    failed = [result for result in results if result.problems]
    for result in failed:
        print(f"\nFAILED: {result.row}, {result.sink}: {'; '.join(result.problems)}")
        print(textwrap.indent(result.stderr[-LAST_WORDS:], "    "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
