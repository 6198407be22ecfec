"""Logs fifty cases through every bridge and compares the records: ``make golden``.

    python -m tests.golden          prints the table of docs/bridges.md

Exits with 1 and names the case if a record is not the expected one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import loguru
from opentelemetry import trace

import fapilog
from fapilog.record import LogRecord
from fapilog.sinks import MemorySink
from tests.golden.bridges import BRIDGES, Bridge
from tests.golden.cases import CASES, SPAN_ID, TRACE_ID, Case, expected

SPAN = trace.NonRecordingSpan(
    trace.SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=trace.TraceFlags(1))
)
SAME, DIFFERENT = "=", "FAILED"


def play(bridge: Bridge) -> dict[str, list[LogRecord]]:
    """Log every case that users of a bridge can write; return the records by case."""
    sink = MemorySink()
    carried = [case for case in CASES if not bridge.cannot(case)]
    fapilog.configure(sinks=[sink], level=1)
    try:
        with bridge.open() as log:
            for case in carried:
                with contextlib.ExitStack() as around:
                    if case.in_span:
                        around.enter_context(trace.use_span(SPAN))
                    if case.bound:
                        around.enter_context(fapilog.bind(**case.bound))
                    log(case)
            loguru.logger.complete()
            fapilog.flush(60)
    finally:
        fapilog.shutdown(5)
    # Every bridge keeps the order.  If the count is wrong, no record can be assigned.
    records = list(sink.records)
    if len(records) != len(carried):
        return {case.name: records for case in carried}
    return {case.name: [record] for case, record in zip(carried, records, strict=True)}


def shown(record: LogRecord) -> dict[str, Any]:
    """Return the fields to compare; a stack trace is replaced by whether it is one."""
    attributes = dict(record.attributes)
    stack = attributes.get("exception.stacktrace")
    if isinstance(stack, str):
        attributes["exception.stacktrace"] = "cases.py" in stack and stack.endswith("\n")
    return {
        "severity": record.severity_number,
        "body": record.body,
        "attributes": attributes,
        "event": record.event_name,
        "ids": (record.trace_id, record.span_id, record.trace_flags),
        "scope": record.scope.name,
    }


def difference(case: Case, records: Sequence[LogRecord], golden: Sequence[LogRecord]) -> str:
    """Return how the records of a case differ from the expected one, or "".

    Args:
        case: the case.
        records: the records that arrived.
        golden: the records of fapilog's own logger, whose stack traces must be equal.
    """
    if len(records) != 1:
        return f"{len(records)} records"
    found, wanted = shown(records[0]), expected(case)
    for key, value in wanted.items():
        if found[key] != value:
            return f"{key} is {found[key]!r}, not {value!r}"
    if [r.attributes for r in records] != [r.attributes for r in golden]:
        return f"attributes are {records[0].attributes!r}, not {golden[0].attributes!r}"
    return ""


def table() -> tuple[str, list[str]]:
    """Play all bridges; return a Markdown table with its notes, and the differences."""
    notes: list[str] = []
    problems: list[str] = []
    golden = play(BRIDGES[0])
    columns: list[list[str]] = []
    for bridge in BRIDGES:
        arrived = golden if bridge is BRIDGES[0] else play(bridge)
        column = []
        for case in CASES:
            reason = bridge.cannot(case)
            if reason:
                if reason not in notes:
                    notes.append(reason)
                column.append(f"({notes.index(reason) + 1})")
                continue
            wrong = difference(case, arrived[case.name], golden[case.name])
            if wrong:
                problems.append(f"{case.name}, {bridge.title}: {wrong}")
            column.append(DIFFERENT if wrong else SAME)
        columns.append(column)
    names = [case.name for case in CASES]
    rows = [["case", *(bridge.title for bridge in BRIDGES)]]
    rows += [["---"] * len(rows[0])]
    rows += [list(row) for row in zip(names, *columns, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"({number}) {note}.\\" for number, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip("\\"), problems


def main() -> int:
    """Print the table."""
    text, problems = table()
    print(text)
    for problem in problems:
        print(problem[:1000], file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
