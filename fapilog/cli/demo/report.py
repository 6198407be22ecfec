"""Prints the results of ``fapilog demo``: requests, a failed request, masked values, counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog.cli.demo.app import REQUEST_ID
from fapilog.cli.demo.options import in_options
from fapilog.cli.terminal import CYAN, DIM, RED, YELLOW, Terminal, Text, cut, mark, mask_url
from fapilog.cli.timeline import Timeline
from fapilog.processors.redact import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fapilog.cli.check import Verdict
    from fapilog.cli.demo.traffic import Call, Exchange
    from fapilog.cli.demo.verify import Finding
    from fapilog.cli.receiver import ReceivedLog, ReceivedSpan
    from fapilog.delivery.ledger import Stats

_SERVER_ERROR: Final = 500
_MOST_REDACTED: Final = 8  # the maximum number of rows in the table of masked values


def show_title(terminal: Terminal, protocol: str, endpoint: str | None) -> None:
    """Print the title of the demo's output, and the destination of the logs."""
    where = mask_url(endpoint) if endpoint else "an embedded receiver"
    terminal.heading("fapilog demo", f"a FastAPI shop; logs by OTLP {protocol} to {where}")


def show_requests(terminal: Terminal, exchanges: Sequence[Exchange]) -> None:
    """Show the requests in a table, with one row per kind of request and status."""
    terminal.heading(f"{len(exchanges)} request{'s' * (len(exchanges) > 1)}")
    kinds: dict[tuple[Call, int], list[float]] = {}
    for exchange in exchanges:
        kinds.setdefault((exchange.call, exchange.status), []).append(exchange.seconds * 1000)
    terminal.table(
        [
            [
                f"{len(took)} x",
                call.method,
                call.path,
                Text(str(status), RED if status >= _SERVER_ERROR else ""),
                _duration(took),
                Text(call.note, DIM),
            ]
            for (call, status), took in kinds.items()
        ]
    )


def _duration(took: Sequence[float]) -> str:
    least, most = f"{min(took):.0f}", f"{max(took):.0f}"
    return f"{most} ms" if least == most else f"{least} to {most} ms"


def show_failure(
    terminal: Terminal,
    exchanges: Sequence[Exchange],
    logs: Sequence[ReceivedLog],
    spans: Sequence[ReceivedSpan],
) -> None:
    """Show the spans and the records of the first request that failed with a 5xx status."""
    failed = [e.request_id for e in exchanges if e.status >= _SERVER_ERROR]
    roots = [span for span in spans if span.attributes.get(REQUEST_ID) in failed[:1]]
    if not roots:
        return
    trace_id = roots[0].trace_id
    terminal.heading("One failing request as it arrived", f"trace {trace_id}")
    Timeline(
        terminal,
        [log for log in logs if log.trace_id == trace_id],
        [span for span in spans if span.trace_id == trace_id],
        hidden=[REQUEST_ID],
    ).draw()


def show_redacted(terminal: Terminal, logs: Sequence[ReceivedLog], stats: Stats) -> None:
    """Show the record fields in which secrets were masked, with their received values."""
    masked: dict[tuple[str, str], str] = {}
    for log in logs:
        for name, value in {"body": log.body, **log.attributes}.items():
            for path, text in _texts(name, value):
                if MASK in text:
                    masked.setdefault((log.scope.name, path), text)
    terminal.heading("Redacted before it left the process", f"{stats.redacted} values")
    # The widths of the table's columns.  Longer strings are cut, so that a row fits on one line.
    fifth, rest = terminal.width // 5, terminal.width // 2 - 6
    terminal.table(
        [
            [Text(cut(scope, fifth), CYAN), cut(path, fifth * 3 // 2), cut(text, rest)]
            for (scope, path), text in list(masked.items())[:_MOST_REDACTED]
        ]
    )


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each string in ``value``, with its dotted path, which begins with ``path``.

    ``value`` is a string, or a dict that contains strings and further dicts.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(f"{path}.{name}", inner)
    elif isinstance(value, str):
        yield path, value


def show_ledger(terminal: Terminal, stats: Stats, findings: Sequence[Finding]) -> None:
    """Show fapilog's counters of accepted and delivered records, and the results of the checks."""
    terminal.heading("Ledger", str(stats))
    for finding in findings:
        terminal.line("  ", mark(passed=finding.passed), " ", finding.text)


def show_sent(terminal: Terminal, stats: Stats, spans: int, endpoint: str) -> None:
    """Show how many records and spans the collector at ``endpoint`` accepted."""
    terminal.heading("Sent", f"to {mask_url(endpoint)}")
    passed = mark(passed=stats.delivered == stats.accepted)
    terminal.line("  ", passed, f" {stats.delivered} of {stats.accepted} records delivered")
    terminal.line("    ", f"{spans} spans delivered")
    terminal.heading("Ledger", str(stats))


def show_obstacle(terminal: Terminal, verdict: Verdict) -> None:
    """Show the result of sending a test record to the collector, and advice for the user."""
    terminal.heading("The problem", "one more record, sent by itself")
    terminal.line("  ", mark(passed=verdict.delivered), " ", in_options(verdict.text))
    slow = ["try again: the collector was slow, or has just started"]
    for text in slow if verdict.delivered else verdict.advice:
        terminal.line("    ", Text(in_options(text), YELLOW))


def show_next(terminal: Terminal) -> None:
    """Show commands that the user can try next."""
    terminal.heading("Next")
    terminal.table(
        [
            [Text("fapilog demo --endpoint URL", CYAN), "send the demo's data to your collector"],
            [Text("fapilog config", CYAN), "show every option with its value and its source"],
            [Text("fapilog check", CYAN), "send one record through every configured sink"],
        ]
    )
