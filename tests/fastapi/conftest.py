"""Fixtures of the tests of fapilog-fastapi."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from fapilog_fastapi import server_logs
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import fapilog
from fapilog import diagnostics
from fapilog.record import LogRecord
from fapilog.sinks import MemorySink


class Logged:
    """The records that have been logged so far."""

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink

    def __call__(self, event: str | None = None) -> list[LogRecord]:
        """Return the records, or those of one event."""
        assert fapilog.flush(30)
        return [r for r in self.sink.records if event is None or r.event_name == event]

    def completed(self) -> LogRecord:
        """Return the one completion record."""
        (record,) = self("http.server.request.completed")
        return record

    def closed(self) -> LogRecord:
        """Return the one record of a WebSocket."""
        (record,) = self("http.server.websocket.closed")
        return record

    def bodies(self) -> list[object]:
        return [record.body for record in self()]


def release_server_logs() -> None:
    """Remove the filters, also those of earlier applications that still exist."""
    server_logs._users.clear()
    server_logs.release(release_server_logs)


@pytest.fixture
def logged() -> Iterator[Logged]:
    release_server_logs()
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="info")
    yield Logged(sink)
    # The integration's own calls must not cause the message about a number with two meanings.
    assert "severity" not in diagnostics._last
    release_server_logs()


class Traces:
    """A tracer provider, with the spans that it has made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def server_ids(self) -> tuple[str, str]:
        """Return the trace id and span id of the only server span."""
        (span,) = [s for s in self.exporter.get_finished_spans() if s.kind.name == "SERVER"]
        assert span.context
        return format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    yield made
    made.provider.shutdown()


@pytest.fixture
def client() -> Callable[..., httpx.AsyncClient]:
    """Make clients that call an application directly; its exceptions become 500 responses."""

    def make(app: object, *, raising: bool = False) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=raising)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://shop.example:8080")

    return make
