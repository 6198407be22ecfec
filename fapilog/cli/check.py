"""Implements ``fapilog check``, which sends a test record through every configured sink.

The command logs the test record with the user's settings, so that the record has the usual
resource and its secrets are masked.  Then it calls the method ``send`` of each sink once,
without a queue or retries, so that it can print the result or the exact error.  The module
``faults`` finds the reason for a failure, and ``read_back`` asks the backend for the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from fapilog.cli.faults import NOT_OTLP, Fault, find_fault, lost
from fapilog.cli.read_back import RECORD_ID, read_back
from fapilog.cli.settings_lines import SettingsLines
from fapilog.cli.terminal import BOLD, RED, YELLOW, Terminal, Text, mark
from fapilog.errors import AccessDeniedError, PermanentError, RetryableError
from fapilog.native import monotonic
from fapilog.runtime.runtime import Runtime
from fapilog.settings import Settings
from fapilog.severity import INFO
from fapilog.sinks.console import ConsoleSink
from fapilog.sinks.exporter import ExporterSink
from fapilog.sinks.factory import make_sinks, span_sink, wanted_sinks
from fapilog.sinks.loki.sink import LokiSink
from fapilog.sinks.memory import MemorySink
from fapilog.sinks.otlp.sink import OTLPSink
from fapilog.span import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fapilog.protocols import Outcome, Sink
    from fapilog.record import LogRecord

_COLLECTOR: Final = "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318"
#: The name of fapilog's exporter of spans.
_EXPORTER: Final = "fapilog_otlp"

# The words that ``fapilog check`` prints before the message of an exception, by exception class.
# If an exception matches several classes, ``fapilog check`` uses the first class.
_FAILURES: Final = (
    (PermanentError, "rejected"),
    (AccessDeniedError, "access denied"),
    (RetryableError, "not delivered"),
)


class Verdict(NamedTuple):
    """The result of sending the test record through one sink.

    Attributes:
        delivered: whether the sink delivered the record.
        text: the duration of the delivery, or the message of the error.
        fault: the reason why the delivery failed, or None if it is not known.
        is_read_back: whether the backend was asked for the record and has it, or None if the
            backend cannot be asked.
        note: something that is probably wrong although the record was delivered, or "".
    """

    delivered: bool
    text: str
    fault: Fault | None = None
    is_read_back: bool | None = None
    note: str = ""

    @property
    def advice(self) -> list[str]:
        """The note, or the reason of the failure and the line that corrects it."""
        found = (self.note, *(self.fault[1:] if self.fault else ()))
        return [text for text in found if text]


def check(
    sinks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Sinks to check instead of the configured sinks: otlp:URL,file:PATH,console."
            " May be repeated.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time limit per sink.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send one record through every sink, and ask Loki for it.

    Checks the configured sinks, or the sinks in --sinks.  If the variables of zero code let
    spans go through fapilog, sends one span, too.  Shows whether each sink
    delivered the record, and if not, the reason and a line to copy that corrects it.
    Exits with 0 if every sink delivered the record, and with 1 otherwise.
    """
    settings = Settings() if not sinks else Settings(sinks=",".join(sinks))
    record = make_record(settings)
    opened = make_sinks(settings, resource=record.resource)
    specs = [str(spec) for spec in wanted_sinks(settings) if str(spec).strip().lower() != "none"]
    lines = {
        name: SettingsLines(sink, specs, position, is_argument=bool(sinks))
        for position, (name, sink) in enumerate(opened.items())
        if isinstance(sink, OTLPSink | LokiSink)
    }
    records: dict[str, LogRecord] = dict.fromkeys(opened, record)
    if not sinks and exports_spans():
        of_spans = span_sink(settings)
        of_spans.open()
        name = of_spans.name if of_spans.name not in opened else f"{of_spans.name}-2"
        opened[name], records[name] = of_spans, make_span(record)
        lines[name] = SettingsLines(of_spans)

    def send(name: str) -> Verdict:
        return send_one(opened[name], records[name], timeout, lines.get(name))

    warning = _warning(settings, opened.values())
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):  # console sinks write there, not into the JSON
            verdicts = {name: send(name) for name in opened}
        typer.echo(json.dumps(_document(record, verdicts, warning), indent=2))
    else:
        verdicts = _show(Terminal(), opened, send, warning)
    if not opened or not all(verdict.delivered for verdict in verdicts.values()):
        raise typer.Exit(1)


def _show(
    terminal: Terminal,
    sinks: Mapping[str, Sink[Any]],
    send: Callable[[str], Verdict],
    warning: tuple[str, str],
) -> dict[str, Verdict]:
    """Call ``send`` for each name, and print the results.  Return a dict from names to results."""
    verdicts = {}
    for name, sink in sinks.items():
        if isinstance(sink, ConsoleSink):
            terminal.line(Text(f"The record as {name} writes it:", BOLD))
            verdicts[name] = send(name)
            terminal.line()
    width = max(map(len, sinks), default=0)
    for name in sinks:
        verdict = verdicts[name] = verdicts.get(name) or send(name)
        terminal.line(mark(passed=verdict.delivered), " ", name.ljust(width), "  ", verdict.text)
        for text in verdict.advice:
            terminal.line(" " * (width + 4), Text(text, YELLOW))
    words, fix = warning
    if words:
        terminal.line(Text(words, YELLOW if sinks else RED))
        terminal.line("  ", Text(fix, YELLOW))
    return verdicts


def _document(
    record: LogRecord, verdicts: Mapping[str, Verdict], warning: tuple[str, str]
) -> dict[str, Any]:
    """Return the results as an object for JSON."""
    return {
        "delivered": bool(verdicts) and all(verdict.delivered for verdict in verdicts.values()),
        "record_id": record.attributes[RECORD_ID],
        "warning": warning[0] or None,
        "sinks": [
            {
                "name": name,
                "delivered": verdict.delivered,
                "read_back": verdict.is_read_back,
                "text": verdict.text,
                "fault": verdict.fault.name if verdict.fault else None,
                "reason": verdict.fault.words if verdict.fault else None,
                "fix": (verdict.fault.fix or None) if verdict.fault else None,
                "note": verdict.note or None,
            }
            for name, verdict in verdicts.items()
        ],
    }


def _warning(settings: Settings, sinks: Iterable[Sink[Any]]) -> tuple[str, str]:
    """Return a warning if no record leaves the process, and a line to copy.

    Both strings are "" if a sink sends records somewhere, or writes them to a file.
    """
    kinds = {type(sink) for sink in sinks}
    if kinds - {ConsoleSink, MemorySink}:
        return "", ""
    if not kinds:
        return (
            "no sink is configured, so no record leaves this process; for a collector:",
            _COLLECTOR,
        )
    kept = "are only written to the console" if ConsoleSink in kinds else "only stay in memory"
    if settings.otel_disabled:
        return (
            f"OTEL_SDK_DISABLED is true, so records {kept} and are not sent; to send them:",
            f"OTEL_SDK_DISABLED=false {_COLLECTOR}",
        )
    if settings.sinks is None:
        words = f"nothing is configured, so nothing leaves this process: records {kept}"
        return f"{words}; for a collector:", _COLLECTOR
    words = f"nothing leaves this process: records {kept}"
    return f"{words}; for a collector, add otlp:", "FAPILOG_SINKS=console,otlp"


def make_record(settings: Settings) -> LogRecord:
    """Log a test record with ``settings``, and return the record that a sink would receive."""
    memory = MemorySink()
    # Ignore the user's levels and routes, because they might drop the test record, and do not
    # count the record among those of the user's processes.
    open_to_all = {"level": INFO, "levels": {}, "routes": {}, "metrics_directory": None}
    unique = {RECORD_ID: uuid.uuid4().hex}
    with Runtime(settings.model_copy(update=open_to_all), sinks=memory) as runtime:
        log = runtime.get_logger("fapilog.check")
        log.info("fapilog check: this record can be ignored", **unique)
    return memory.records[0]


def exports_spans() -> bool:
    """Whether the variables let zero code, or an SDK, export spans through fapilog."""
    is_zero_code = os.environ.get("OTEL_PYTHON_DISTRO") == "fapilog"
    default = _EXPORTER if is_zero_code else ""
    exporters = os.environ.get("OTEL_TRACES_EXPORTER") or default
    return _EXPORTER in [name.strip() for name in exporters.split(",")]


def make_span(record: LogRecord) -> Span:
    """Return a span with the resource and the scope of ``record``, and with new ids."""
    return Span(
        "fapilog check: this span can be ignored",
        trace_id=secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        start=record.timestamp,
        end=record.timestamp,
        attributes={RECORD_ID: record.attributes[RECORD_ID]},
        scope=record.scope,
        resource=record.resource,
    )


def send_one(
    sink: Sink[Any], record: LogRecord, timeout: float, lines: SettingsLines | None = None
) -> Verdict:
    """Send ``record`` through ``sink``, ask the backend for it, then close the sink.

    Blocks up to ``timeout`` seconds, and after a failure up to about ten seconds more, in which
    the reason is searched.  ``lines`` makes the lines to copy, or is None for the usual lines.
    """
    sys.stdout.flush()  # keeps the output in order: a console sink bypasses this buffer
    if lines is None and isinstance(sink, OTLPSink | LokiSink):
        lines = SettingsLines(sink)
    began = monotonic()
    try:
        with contextlib.closing(sink):
            outcome: Outcome | None = sink.send([sink.encode(record)], timeout)
    except Exception as error:  # noqa: BLE001 - a sink may raise anything; shown to the user
        result = next((words for kind, words in _FAILURES if isinstance(error, kind)), "failed")
        text = f"{result}: {str(error) or type(error).__name__}"
        return Verdict(False, text, _fault(sink, error, lines, timeout))
    said = outcome.message if outcome is not None else ""
    if outcome is not None and outcome.rejected:
        return Verdict(False, f"rejected: {said}", _fault(sink, said, lines, timeout))
    if NOT_OTLP in said:
        return Verdict(False, f"not delivered: {said}", _fault(sink, said, lines, timeout))
    if not isinstance(sink, OTLPSink | LokiSink | ExporterSink):
        return Verdict(True, _with(said, f"delivered in {_ms(began)}"))
    accepted = f"accepted in {_ms(began)}"
    verdict = _read(sink, record, began, timeout, accepted)
    if verdict.is_read_back is False and lines is not None:
        verdict = verdict._replace(fault=lost(lines))
    return verdict._replace(text=_with(said, verdict.text))


def _fault(
    sink: Sink[Any], failure: object, lines: SettingsLines | None, timeout: float
) -> Fault | None:
    return find_fault(sink, failure, lines, timeout) if lines is not None else None


def _read(
    sink: Sink[Any], record: LogRecord, began: float, timeout: float, accepted: str
) -> Verdict:
    """Ask the backend for the record that it has accepted, until ``timeout`` has passed."""
    answer = read_back(sink, record, began + timeout)
    if answer.found:
        text = f"delivered and read back from {answer.words} in {_ms(began)}"
        return Verdict(True, text, None, True, answer.note)
    record_id = f"look for {RECORD_ID} {record.attributes[RECORD_ID]}"
    if answer.found is None:
        return Verdict(True, f"{accepted}; not read back: {answer.words}; {record_id}")
    text = f"{accepted}, but not in {answer.words} {monotonic() - began:.1f} s later; {record_id}"
    return Verdict(False, text, None, False)


def _with(said: str, text: str) -> str:
    return f"{text}; the backend says: {said}" if said else text


def _ms(began: float) -> str:
    return f"{(monotonic() - began) * 1000:.0f} ms"
