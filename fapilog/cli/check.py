"""Implements ``fapilog check``, which sends a test record through every configured sink.

The command logs the test record with the user's settings, so that the record has the usual
resource and its secrets are masked.  Then it calls the method ``send`` of each sink once,
without a queue or retries, so that it can print the result or the exact error.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from fapilog.cli.terminal import BOLD, RED, YELLOW, Terminal, Text, mark
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

# Each row contains parts of error messages, and advice for the user.  If the error message of a
# sink contains one of the parts, ``fapilog check`` prints the advice.  If several rows match,
# ``fapilog check`` uses the first row.
_NETWORK_FIXES: Final = (
    (("WRONG_VERSION",), "the backend does not use TLS: write http:// instead of https://"),
    (("not known", "lookup"), "check the host name"),
    (
        ("HTTP 407", "response code 407"),
        "put the proxy's credentials in its URL: HTTPS_PROXY=http://user:password@host:port",
    ),
    (
        ("no complete answer", "DEADLINE_EXCEEDED"),
        "check whether a firewall blocks the connection, or whether the backend is slow",
    ),
)
_OTLP_FIXES: Final = (
    (("use port 4318",), ""),  # the error message already contains the advice
    (
        ("disconnected",),
        "use port 4318 for HTTP and 4317 for gRPC, or change OTEL_EXPORTER_OTLP_PROTOCOL",
    ),
    *_NETWORK_FIXES,
    (("CERTIFICATE_VERIFY",), "trust the backend's authority: OTEL_EXPORTER_OTLP_CERTIFICATE=FILE"),
    (
        ("refused", "UNAVAILABLE"),
        "check that a backend listens at this address, or set OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    (
        ("HTTP 401", "HTTP 403", "UNAUTHENTICATED", "PERMISSION_DENIED"),
        "set credentials: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN",
    ),
    (
        ("HTTP 404", "HTTP 405", "UNIMPLEMENTED"),
        "this address accepts no OTLP logs; over HTTP the usual path is /v1/logs",
    ),
)
_LOKI_FIXES: Final = (
    *_NETWORK_FIXES,
    (("CERTIFICATE_VERIFY",), "trust Loki's authority: FAPILOG_LOKI__CERTIFICATE=FILE"),
    (("refused",), "check that Loki listens at this address, or set FAPILOG_LOKI__URL"),
    (
        ("HTTP 401", "HTTP 403"),
        "set FAPILOG_LOKI__TOKEN, or _USERNAME and _PASSWORD, and _TENANT if Loki has tenants",
    ),
    (("HTTP 404", "HTTP 405"), "this address accepts no push; Loki's usual port is 3100"),
)

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
        text: the duration of the delivery, or the reason why it failed.
        fix: advice for the user after a failure, or "".
    """

    delivered: bool
    text: str
    fix: str = ""


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
) -> None:
    """Send one record through every sink.

    Checks the configured sinks, or the sinks in --sinks.  Shows whether each sink
    delivered the record, and if not, the reason and the fix.  Exits with 0 if every
    sink delivered the record, and with 1 otherwise.
    """
    settings = Settings() if not sinks else Settings(sinks=",".join(sinks))
    record = make_record(settings)
    opened = make_sinks(settings, resource=record.resource)
    terminal = Terminal()
    if not opened:
        terminal.line(Text("no sink is configured", RED), ": set FAPILOG_SINKS or use --sinks")
        raise typer.Exit(1)
    verdicts = send_to_console(terminal, opened, record, timeout)
    width = max(map(len, opened))
    for name, sink in opened.items():
        verdict = verdicts.get(name) or send_one(sink, record, timeout)
        verdicts[name] = verdict
        terminal.line(mark(passed=verdict.delivered), " ", name.ljust(width), "  ", verdict.text)
        if verdict.fix:
            terminal.line(" " * (width + 4), Text(verdict.fix, YELLOW))
    if not all(verdict.delivered for verdict in verdicts.values()):
        raise typer.Exit(1)


def make_record(settings: Settings) -> LogRecord:
    """Log a test record with ``settings``, and return the record that a sink would receive."""
    memory = MemorySink()
    # Ignore the user's levels and routes, because they might drop the test record, and do not
    # count the record among those of the user's processes.
    open_to_all = {"level": INFO, "levels": {}, "routes": {}, "metrics_directory": None}
    with Runtime(settings.model_copy(update=open_to_all), sinks=memory) as runtime:
        runtime.get_logger("fapilog.check").info("fapilog check: this record can be ignored")
    return memory.records[0]


def send_to_console(
    terminal: Terminal, sinks: Mapping[str, Sink[Any]], record: LogRecord, timeout: float
) -> dict[str, Verdict]:
    """Write the record to each console sink.  Return a dict from sink names to results."""
    verdicts = {}
    for name, sink in sinks.items():
        if isinstance(sink, ConsoleSink):
            terminal.line(Text(f"The record as {name} writes it:", BOLD))
            verdicts[name] = send_one(sink, record, timeout)
            terminal.line()
    return verdicts


def send_one(sink: Sink[Any], record: LogRecord, timeout: float) -> Verdict:
    """Send ``record`` through ``sink``, then close the sink.  Blocks up to ``timeout`` seconds."""
    sys.stdout.flush()  # keeps the output in order: a console sink bypasses this buffer
    began = monotonic()
    try:
        with contextlib.closing(sink):
            outcome = sink.send([sink.encode(record)], timeout)
            took = f"delivered in {(monotonic() - began) * 1000:.0f} ms"
    except Exception as error:  # noqa: BLE001 - a sink may raise anything; shown to the user
        result = next((words for kind, words in _FAILURES if isinstance(error, kind)), "failed")
        return _failed(sink, result, error)
    if outcome is None:
        return Verdict(delivered=True, text=took)
    if outcome.rejected:
        return _failed(sink, "rejected", outcome.message)
    return Verdict(delivered=True, text=f"{took}; the backend says: {outcome.message}")


def _failed(sink: Sink[Any], result: str, answer: object) -> Verdict:
    text = str(answer) or type(answer).__name__
    known = _LOKI_FIXES if isinstance(sink, LokiSink) else _OTLP_FIXES
    fixes = (fix for words, fix in known if any(word in text for word in words))
    return Verdict(delivered=False, text=f"{result}: {text}", fix=next(fixes, ""))
