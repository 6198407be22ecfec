"""``fapilog check``: one record through every configured sink, and what became of it.

The record takes the real way up to fan-out - settings, resource, redaction,
limits - in a runtime of its own.  Each sink is then called directly, once and
without retries, so that its answer is shown here instead of counted somewhere.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from fapilog.cli.terminal import BOLD, GREEN, RED, YELLOW, Terminal, Text
from fapilog.errors import AccessDeniedError, PermanentError, RetryableError
from fapilog.native import monotonic
from fapilog.runtime.runtime import Runtime
from fapilog.settings import Settings
from fapilog.severity import INFO
from fapilog.sinks.console import ConsoleSink
from fapilog.sinks.factory import make_sinks
from fapilog.sinks.loki.sink import LokiSink
from fapilog.sinks.memory import MemorySink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_PROXY_FIX: Final = (
    ("HTTP 407", "response code 407"),
    "give the proxy's credentials in its URL: HTTPS_PROXY=http://user:password@host:port",
)

# What to do about an answer, by words in it: the first row that fits.
_FIXES: Final = (
    (
        ("illegal request line", "HTTP/2", "disconnected"),
        "do protocol and port agree? 4318 is HTTP, 4317 is gRPC: OTEL_EXPORTER_OTLP_PROTOCOL",
    ),
    (("WRONG_VERSION",), "the backend does not speak TLS there: http:// instead of https://?"),
    (("CERTIFICATE_VERIFY",), "trust its authority: OTEL_EXPORTER_OTLP_CERTIFICATE=FILE"),
    (("not known", "lookup"), "is the name of the host right?"),
    (
        ("refused", "UNAVAILABLE"),
        "is a backend listening there? If it is elsewhere, set OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    (
        ("no complete answer", "DEADLINE_EXCEEDED"),
        "is a firewall in between, or the backend slow?",
    ),
    _PROXY_FIX,
    (
        ("HTTP 401", "HTTP 403", "UNAUTHENTICATED", "PERMISSION_DENIED"),
        "set credentials: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN",
    ),
    (
        ("HTTP 404", "HTTP 405", "UNIMPLEMENTED"),
        "nothing takes OTLP logs at this address; over HTTP the usual path is /v1/logs",
    ),
)

_LOKI_FIXES: Final = (
    (("WRONG_VERSION",), "the backend does not speak TLS there: http:// instead of https://?"),
    (("CERTIFICATE_VERIFY",), "trust its authority: FAPILOG_LOKI__CERTIFICATE=FILE"),
    (("not known", "lookup"), "is the name of the host right?"),
    (("refused",), "is Loki listening there? If it is elsewhere, set FAPILOG_LOKI__URL"),
    (("no complete answer",), "is a firewall in between, or Loki slow?"),
    (
        ("HTTP 401", "HTTP 403"),
        "set FAPILOG_LOKI__TOKEN, or FAPILOG_LOKI__USERNAME and _PASSWORD, and a TENANT if need be",
    ),
    _PROXY_FIX,
    (("HTTP 404", "HTTP 405"), "nothing takes a push at this address; Loki's port is 3100"),
)

# What errors of a sink mean: the first row that fits.
_FAILURES: Final = (
    (PermanentError, "rejected"),
    (AccessDeniedError, "access denied"),
    (RetryableError, "not delivered"),
)


class Verdict(NamedTuple):
    """What became of the record at one sink."""

    delivered: bool
    text: str
    fix: str = ""


def check(
    sinks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Sinks to check instead of the configured ones: otlp:URL,file:PATH,console."
            " May be repeated.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time a sink may take.")
    ] = 10.0,
) -> None:
    """Send one record through every sink.

    The sinks are the configured ones, or those of --sinks.  Says of each what
    became of the record, and how to mend what stands in its way.  Exits with 0
    when every sink delivered it, else with 1.
    """
    settings = Settings() if not sinks else Settings(sinks=",".join(sinks))
    opened = make_sinks(settings)
    terminal = Terminal()
    if not opened:
        terminal.line(Text("no sink is configured", RED), ": set FAPILOG_SINKS, or give --sinks")
        raise typer.Exit(1)
    record = make_record(settings)
    verdicts = send_to_console(terminal, opened, record, timeout)
    width = max(map(len, opened))
    for name, sink in opened.items():
        verdict = verdicts.get(name) or send_one(sink, record, timeout)
        verdicts[name] = verdict
        mark = Text("✓", GREEN) if verdict.delivered else Text("✗", RED)
        terminal.line(mark, " ", name.ljust(width), "  ", verdict.text)
        if verdict.fix:
            terminal.line(" " * (width + 4), Text(verdict.fix, YELLOW))
    if not all(verdict.delivered for verdict in verdicts.values()):
        raise typer.Exit(1)


def make_record(settings: Settings) -> LogRecord:
    """Return a record as the sinks of a runtime with these settings would get it."""
    memory = MemorySink()
    # What would keep this record from this sink is not what is to be checked.
    open_to_all = {"level": INFO, "levels": {}, "routes": {}}
    with Runtime(settings.model_copy(update=open_to_all), sinks=memory) as runtime:
        runtime.get_logger("fapilog.check").info("fapilog check: this record can be ignored")
    return memory.records[0]


def send_to_console(
    terminal: Terminal, sinks: Mapping[str, Sink[Any]], record: LogRecord, timeout: float
) -> dict[str, Verdict]:
    """Let the sinks that write where we write do so first, with a heading of their own."""
    verdicts = {}
    for name, sink in sinks.items():
        if isinstance(sink, ConsoleSink):
            terminal.line(Text(f"The record as {name} writes it:", BOLD))
            verdicts[name] = send_one(sink, record, timeout)
            terminal.line()
    return verdicts


def send_one(sink: Sink[Any], record: LogRecord, timeout: float) -> Verdict:
    """Send ``record`` by itself and close the sink.  Blocks up to ``timeout`` seconds."""
    # A sink on standard output writes below its buffer.
    sys.stdout.flush()
    began = monotonic()
    try:
        with contextlib.closing(sink):
            outcome = sink.send([sink.encode(record)], timeout)
            took = f"delivered in {(monotonic() - began) * 1000:.0f} ms"
    except Exception as error:  # noqa: BLE001 - a sink's own code; shown to the user
        what = next((words for kind, words in _FAILURES if isinstance(error, kind)), "failed")
        return _failed(sink, what, error)
    if outcome is None:
        return Verdict(delivered=True, text=took)
    if outcome.rejected:
        return _failed(sink, "rejected", outcome.message)
    return Verdict(delivered=True, text=f"{took}; the backend says: {outcome.message}")


def _failed(sink: Sink[Any], what: str, answer: object) -> Verdict:
    text = str(answer) or type(answer).__name__
    known = _LOKI_FIXES if isinstance(sink, LokiSink) else _FIXES
    fixes = (fix for words, fix in known if any(word in text for word in words))
    return Verdict(delivered=False, text=f"{what}: {text}", fix=next(fixes, ""))
