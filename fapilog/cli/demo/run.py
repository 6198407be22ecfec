"""Runs ``fapilog demo``: serves the shop, sends requests to it, and prints the results.

fapilog sends the log records of the shop, and the OpenTelemetry SDK sends the spans.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

import uvicorn
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import fapilog
from fapilog.cli.check import make_record, send_one
from fapilog.cli.demo import report
from fapilog.cli.demo.app import create_app
from fapilog.cli.demo.traffic import SECRETS, send_requests
from fapilog.cli.demo.verify import verify
from fapilog.cli.receiver import Receiver
from fapilog.settings import Settings
from fapilog.sinks.otlp.sink import OTLPSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi import FastAPI
    from opentelemetry.sdk.trace import ReadableSpan

    from fapilog.cli.terminal import Terminal

SERVICE: Final = {"service.name": "shop"}
#: The time limit, in seconds, for the delivery of all records at the end of the demo.
PATIENCE: Final = 6.0
_OTLP: Final = "OTEL_EXPORTER_OTLP_"


def run(terminal: Terminal, endpoint: str | None, protocol: str, count: int) -> bool:
    """Run the demo and print the results.  Blocks for some seconds.

    Args:
        terminal: the terminal on which the results are printed.
        endpoint: the base URL to which logs and spans are sent.  If it is None, they are sent to
            a receiver in this process, and the received data is checked.
        protocol: the OTLP protocol of the logs, such as ``grpc``.
        count: the number of requests that are sent to the shop.

    Returns:
        True if all records were delivered and every check passed.

    Raises:
        ConfigurationError: the endpoint is not a URL.
        KeyboardInterrupt: the user pressed Ctrl-C; raised after the shutdown.
    """
    app = create_app()
    with ExitStack() as stack:
        receiver = None
        target = endpoint
        if target is None:
            isolate()
            receiver = stack.enter_context(Receiver())
            target = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        provider, exporter = stack.enter_context(telemetry(app, str(target), protocol))
        report.show_title(terminal, protocol, endpoint)
        with serve(app) as url:
            exchanges = send_requests(url, count)
        drained = fapilog.flush(PATIENCE)
        provider.force_flush()
        stats = fapilog.stats()
        report.show_requests(terminal, exchanges)
        if receiver is None:
            report.show_sent(terminal, stats, exporter.sent, str(endpoint))
            arrived = drained and stats.delivered == stats.accepted
            if not arrived:
                record = make_record(Settings())
                report.show_obstacle(terminal, send_one(OTLPSink(), record, PATIENCE / 2))
            report.show_next(terminal)
            return arrived
        findings = verify(stats, receiver.logs, receiver.spans, SECRETS)
        report.show_failure(terminal, exchanges, receiver.logs, receiver.spans)
        report.show_redacted(terminal, receiver.logs, stats)
        report.show_ledger(terminal, stats, findings)
        report.show_next(terminal)
        return all(finding.passed for finding in findings)


def isolate() -> None:
    """Remove environment variables that configure fapilog, OpenTelemetry or HTTP proxies."""
    for name in list(os.environ):
        if name.startswith(("FAPILOG_", "OTEL_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"


@contextmanager
def telemetry(
    app: FastAPI, endpoint: str, protocol: str
) -> Iterator[tuple[TracerProvider, CountingExporter]]:
    """Send logs and the spans of ``app`` to ``endpoint`` while the block runs.

    At the end of the block, deliver the remaining data, and shut down fapilog and the
    OpenTelemetry SDK.
    """
    for signal in ("", "LOGS_", "TRACES_"):
        os.environ.pop(f"{_OTLP}{signal}ENDPOINT", None)
        os.environ.pop(f"{_OTLP}{signal}PROTOCOL", None)
    os.environ[f"{_OTLP}ENDPOINT"] = endpoint
    os.environ[f"{_OTLP}LOGS_PROTOCOL"] = protocol
    fapilog.configure(
        sinks="otlp",
        level="info",
        levels={"httpx": "warn"},  # hides records of httpx, which sends the requests
        redact=True,
        redact_allow=(),
        resource=SERVICE,
        shutdown_timeout=2.0,
    )
    fapilog.install_stdlib("info")
    provider = TracerProvider(
        resource=Resource.create(SERVICE), sampler=ALWAYS_ON, shutdown_on_exit=False
    )
    exporter = CountingExporter(_span_exporter(protocol))
    # The queue size of 65,536 is enough for all spans.  If the queue were full, the SDK would drop
    # spans.
    provider.add_span_processor(BatchSpanProcessor(exporter, 1 << 16, schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, exclude_spans=["receive", "send"]
    )
    try:
        yield provider, exporter
    finally:
        fapilog.shutdown()
        provider.shutdown()


def _span_exporter(protocol: str) -> SpanExporter:
    """Return the OpenTelemetry SDK's span exporter for gRPC, or for protobuf over HTTP."""
    wire = "grpc" if protocol == "grpc" else "http"
    module = import_module(f"opentelemetry.exporter.otlp.proto.{wire}.trace_exporter")
    exporter: SpanExporter = module.OTLPSpanExporter(timeout=3)
    return exporter


class CountingExporter(SpanExporter):
    """A span exporter that wraps another exporter and counts the delivered spans.

    Attributes:
        sent: the number of delivered spans.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export ``spans`` through the wrapped exporter, and count them on success.  Blocks."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def shutdown(self) -> None:
        """Shut down the wrapped exporter."""
        self._exporter.shutdown()


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve ``app`` on a free local port, in a new thread, and yield the server's URL."""
    # asyncio disables Nagle's algorithm only if the protocol is IPPROTO_TCP, not the default 0.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # lets clients connect before the server runs
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_config=None,  # stops uvicorn from adding handlers, so that its records reach fapilog
        log_level="info",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)

    def run_server() -> None:
        with listener:  # closes the socket even if Ctrl-C arrives before the server runs
            server.run([listener])

    thread = threading.Thread(target=run_server, name="shop")
    try:
        thread.start()
        yield url
    finally:
        server.should_exit = True
        if thread.is_alive():
            thread.join()
