"""The exporter of spans: converted, redacted, and delivered and counted like log records."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, Status, StatusCode, Tracer

import fapilog
from fapilog import ConfigurationError, Runtime, Settings
from fapilog.cli.receiver import Receiver
from fapilog.delivery.ledger import Stats
from fapilog.otel import SpanExporter
from fapilog.processors import RedactProcessor
from fapilog.runtime import wiring
from fapilog.sinks import MemorySink
from fapilog.testing import capture_logs
from tests.support.ledger import balanced, wait_for
from tests.support.ports import free_port
from tests.support.processes import run

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
SECRET = "hunter2-open-sesame"
QUICK: dict[str, Any] = {"retry_initial": 0.01, "retry_maximum": 0.05, "schedule_delay": 0.01}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver(grpc_port=None) as receiver:
        monkeypatch.setenv(ENDPOINT, f"{receiver.http_endpoint}/v1/traces")
        yield receiver


@contextlib.contextmanager
def tracing(exporter: SpanExporter, **attributes: Any) -> Iterator[Tracer]:
    """Yield a tracer whose spans are exported one by one, on the thread that ends them."""
    provider = TracerProvider(resource=Resource({"service.name": "shop", **attributes}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("shop.orders", "1.2")
    provider.shutdown()


def ended(count: int, **attributes: Any) -> list[ReadableSpan]:
    """Return spans that have ended and that no processor has exported."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    spans: list[Any] = [tracer.start_span(f"work {n}", attributes=attributes) for n in range(count)]
    for span in spans:
        span.end()
    return spans


def traces() -> Stats:
    return fapilog.stats().sinks["traces"]


def names(receiver: Receiver) -> list[str]:
    return sorted(span.span.name for span in receiver.spans)


def numbered(count: int) -> list[str]:
    return sorted(f"work {n}" for n in range(count))


# ---- content


def test_a_span_arrives_with_everything_that_it_has(receiver):
    fapilog.configure(sinks=[], **QUICK)
    with tracing(SpanExporter()) as tracer:
        with tracer.start_as_current_span("parent") as parent:
            link = Link(parent.get_span_context(), {"why": "retry"})
            with tracer.start_as_current_span("child", links=[link]) as child:
                child.set_attribute("order", 42)
                child.add_event("paid", {"amount": 9.5})
                child.set_status(Status(StatusCode.ERROR, "no stock"))
    assert fapilog.flush(10)
    found = {span.span.name: span for span in receiver.spans}
    sent, context = found["child"], child.get_span_context()
    assert sent.span.trace_id == context.trace_id.to_bytes(16, "big")
    assert sent.span.parent_span_id == found["parent"].span.span_id
    assert sent.attributes == {"order": 42}
    assert (sent.span.status.code, sent.span.status.message) == (2, "no stock")
    assert [event.name for event in sent.span.events] == ["paid"]
    assert sent.span.links[0].span_id == found["parent"].span.span_id
    assert (sent.scope.name, sent.scope.version) == ("shop.orders", "1.2")
    assert sent.resource["service.name"] == "shop"
    assert 0 < sent.span.start_time_unix_nano < sent.span.end_time_unix_nano


def test_no_part_of_a_span_carries_a_secret_out_of_the_process(receiver):
    fapilog.configure(sinks=[], redact_fields=["iban"], **QUICK)
    with tracing(SpanExporter(), api_key=SECRET) as tracer:
        with tracer.start_as_current_span(f"GET /?password={SECRET}") as span:
            span.set_attributes({"iban": SECRET, "url": f"https://u:{SECRET}@host/"})
            span.add_event(f"token={SECRET}", {"password": SECRET})
            span.record_exception(ValueError(f"password={SECRET}"))
            span.set_status(Status(StatusCode.ERROR, f"password={SECRET}"))
        linked = Link(span.get_span_context(), {"api_key": SECRET})
        with tracer.start_as_current_span("linked", links=[linked]):
            pass
    assert fapilog.flush(10)
    assert len(receiver.spans) == 2
    assert SECRET not in str(receiver.spans)
    assert receiver.spans[0].attributes["iban"] == "[REDACTED]"
    assert traces().redacted >= 8
    assert fapilog.stats().redacted == 0


def test_the_applications_own_redactor_applies_to_spans(receiver):
    own = RedactProcessor(patterns=[r"order-\d+"])
    fapilog.configure(sinks=[], processors=[own], **QUICK)
    assert SpanExporter().export(ended(1, number="order-42")) is SUCCESS
    assert fapilog.flush(10)
    assert receiver.spans[0].attributes == {"number": "[REDACTED]"}
    assert own.redacted == 0
    assert traces().redacted == 1


def test_a_span_that_cannot_be_redacted_is_masked(receiver, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    fapilog.configure(sinks=[], **QUICK)
    exporter = SpanExporter()
    monkeypatch.setattr(RedactProcessor, "__call__", fail)
    assert exporter.export(ended(1, number=SECRET)) is SUCCESS
    assert fapilog.flush(10)
    assert receiver.spans[0].attributes["number"] == "[REDACTED]"
    assert "redaction raised ZeroDivisionError; record masked" in capsys.readouterr().err


def test_values_that_no_encoder_can_send_are_bounded(receiver):
    fapilog.configure(sinks=[], **QUICK)
    (span,) = ended(1, text="x" * 100_000, big=2**80, lone="\ud800", items=("a", "b"))
    assert SpanExporter().export([span]) is SUCCESS
    assert fapilog.flush(10)
    (sent,) = receiver.spans
    assert len(sent.attributes["text"]) < 70_000
    assert sent.attributes["items"] == ["a", "b"]


def test_the_json_and_the_grpc_protocol_carry_spans(monkeypatch):
    pytest.importorskip("grpc")
    with Receiver() as receiver:
        for protocol, url in (
            ("http/json", receiver.http_endpoint),
            ("grpc", receiver.grpc_endpoint),
        ):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(url))
            with Runtime(sinks=[], **QUICK) as runtime:
                assert SpanExporter(runtime).export(ended(3, n=1)) is SUCCESS
                assert runtime.flush(10)
                assert runtime.stats().sinks["traces"].delivered == 3
        assert names(receiver) == sorted(numbered(3) * 2)
        assert all(span.attributes == {"n": 1} for span in receiver.spans)


# ---- ledger


def test_spans_have_a_ledger_and_do_not_count_as_records(receiver):
    memory = MemorySink()
    fapilog.configure(sinks=[memory], **QUICK)
    fapilog.get_logger("shop").info("one record")
    assert SpanExporter().export(ended(5)) is SUCCESS
    assert fapilog.flush(10)
    stats = fapilog.stats()
    assert (stats.accepted, stats.delivered) == (1, 1)
    assert (traces().accepted, traces().delivered) == (5, 5)
    assert balanced(stats)
    assert [record.body for record in memory.records] == ["one record"]


def test_a_runtime_without_sinks_for_records_still_disables_logging(receiver):
    fapilog.configure(sinks=[], **QUICK)
    SpanExporter().export(ended(1))
    assert not fapilog.get_logger("shop").is_enabled("error")


def test_a_sink_of_the_application_may_be_named_traces(receiver):
    fapilog.configure(sinks=[MemorySink(name="traces")], **QUICK)
    SpanExporter().export(ended(1))
    assert fapilog.flush(10)
    assert fapilog.stats().sinks["traces-2"].delivered == 1


def test_prometheus_shows_the_spans_as_a_sink(receiver):
    pytest.importorskip("prometheus_client")
    from fapilog.core.observability import (
        ObservabilitySettings,
        create_metrics_collector_from_settings,
    )

    fapilog.configure(sinks=[], **QUICK)
    SpanExporter().export(ended(2))
    assert fapilog.flush(10)
    registry = create_metrics_collector_from_settings(
        ObservabilitySettings(metrics={"enabled": True})
    ).registry
    assert registry is not None
    labels = {"sink": "traces"}
    assert registry.get_sample_value("fapilog_records_delivered_total", labels) == 2
    assert registry.get_sample_value("fapilog_send_duration_seconds_count", labels)
    assert registry.get_sample_value("fapilog_circuit_open", labels) == 0


def test_an_object_that_is_not_a_span_is_dropped_and_counted(receiver, capsys):
    fapilog.configure(sinks=[], **QUICK)
    broken: Any = object()
    assert SpanExporter().export([broken, *ended(2)]) is FAILURE
    assert fapilog.flush(10)
    assert traces().drops == {"internal_error": {"INFO": 1}}
    assert traces().delivered == 2
    assert balanced(fapilog.stats())
    assert "a span cannot be converted: AttributeError" in capsys.readouterr().err


# ---- faults


def test_spans_wait_for_a_backend_that_is_down(monkeypatch):
    port = free_port()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}/v1/traces")
    fapilog.configure(sinks=[], **QUICK)
    exporter = SpanExporter()
    spans = ended(300)
    for start in range(0, 300, 10):
        assert exporter.export(spans[start : start + 10]) is SUCCESS
    assert not fapilog.flush(0.05)
    with Receiver(http_port=port, grpc_port=None) as receiver:
        assert fapilog.flush(20)
        assert names(receiver) == numbered(300)
    assert traces().delivered == traces().accepted == 300


def test_a_spool_keeps_spans_until_the_next_start(monkeypatch, tmp_path, capsys):
    port = free_port()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}/v1/traces")
    spool: Any = {"directory": tmp_path / "spool"}
    fapilog.configure(sinks=[], spool=spool, **QUICK)
    assert SpanExporter().export(ended(50)) is SUCCESS
    fapilog.shutdown(2)
    assert traces().spooled == 50
    assert balanced(fapilog.stats())
    with Receiver(http_port=port, grpc_port=None) as receiver:
        fapilog.configure(sinks=[], spool=spool, **QUICK)
        SpanExporter()  # nothing is exported; the exporter's queue adopts the spans
        wait_for(lambda: fapilog.stats().sinks["traces"].delivered == 50)
        assert names(receiver) == numbered(50)
    assert "fapilog spool adopt" not in capsys.readouterr().err


def test_refused_spans_are_in_quarantine(monkeypatch, tmp_path, receiver):
    receiver.respond = lambda _path, _body: (400, {}, b"")
    fapilog.configure(sinks=[], spool={"directory": tmp_path / "spool"}, **QUICK)
    assert SpanExporter().export(ended(3)) is SUCCESS
    assert fapilog.flush(10)
    assert traces().quarantined == 3
    assert balanced(fapilog.stats())


def test_spans_that_the_backend_rejects_from_a_batch_are_counted(receiver):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    kind = {"content-type": "application/x-protobuf"}
    receiver.respond = lambda _path, _body: (200, kind, answer.SerializeToString())
    fapilog.configure(sinks=[], **QUICK)
    assert SpanExporter().export(ended(5)) is SUCCESS
    assert fapilog.flush(10)
    assert (traces().delivered, traces().rejected) == (3, 2)


def test_spans_beyond_the_backlog_are_dropped_and_counted(monkeypatch):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}/v1/traces")
    fapilog.configure(sinks=[], backlog_bytes=65_536, **QUICK)
    exporter = SpanExporter()
    results = [exporter.export(ended(50)) for _ in range(10)]
    assert results[0] is SUCCESS
    assert results[-1] is FAILURE
    stats = traces()
    assert stats.accepted == 500
    assert stats.drops["backlog_full"]["INFO"] == stats.dropped > 0
    assert balanced(fapilog.stats())


def test_an_export_waits_for_space_if_the_option_says_so(monkeypatch):
    port = free_port()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}/v1/traces")
    waits: Any = {"sink_overflow": "block", "block_timeout": 60, "backlog_bytes": 65_536}
    fapilog.configure(sinks=[], **waits, **QUICK)
    exporter = SpanExporter()
    results: list[SpanExportResult] = []
    spans = ended(500)

    def export() -> None:
        results.extend(exporter.export(spans[start : start + 50]) for start in range(0, 500, 50))

    thread = threading.Thread(target=export)
    thread.start()
    wait_for(lambda: traces().accepted >= 100)
    with Receiver(http_port=port, grpc_port=None) as receiver:
        thread.join(60)
        assert fapilog.flush(20)
        assert names(receiver) == numbered(500)
    assert results == [SUCCESS] * 10


def test_an_event_loop_does_not_wait_for_space(monkeypatch):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}/v1/traces")
    waits: Any = {"sink_overflow": "block", "block_timeout": 3600, "backlog_bytes": 65_536}
    fapilog.configure(sinks=[], **waits, **QUICK)
    exporter = SpanExporter()
    spans = ended(500)

    async def work() -> SpanExportResult:
        return exporter.export(spans)

    assert asyncio.run(work()) is FAILURE
    assert traces().dropped > 0


def test_the_delivery_is_not_traced_itself(monkeypatch):
    found: list[object] = []
    make = wiring.make_span_queue

    def spying(settings: Settings, taken: Any = ()) -> Any:
        queue = make(settings, taken)
        sink: Any = queue.sink
        sink.encode = sink.send = lambda *_: found.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return queue

    monkeypatch.setattr(wiring, "make_span_queue", spying)
    fapilog.configure(sinks=[], **QUICK)
    assert SpanExporter().export(ended(1)) is SUCCESS
    assert fapilog.flush(10)
    assert found == [True, True]


# ---- runtimes


def test_the_next_export_uses_the_runtime_of_a_second_configure(receiver):
    fapilog.configure(sinks=[], **QUICK)
    exporter = SpanExporter()
    assert exporter.export(ended(2)) is SUCCESS
    before = fapilog.get_runtime()
    fapilog.configure(redact=False, **QUICK)
    assert fapilog.get_runtime() is not before
    assert before is not None
    assert before.stats().sinks["traces"].delivered == 2
    assert exporter.export(ended(1, password=SECRET)) is SUCCESS
    assert fapilog.flush(10)
    assert traces().accepted == 1
    assert receiver.spans[-1].attributes == {"password": SECRET}


def test_an_exporter_may_belong_to_one_runtime(receiver):
    fapilog.configure(sinks=[])
    with Runtime(sinks=[], **QUICK) as runtime:
        exporter = SpanExporter(runtime)
        assert exporter.export(ended(1)) is SUCCESS
        assert exporter.force_flush(10_000)
        assert runtime.stats().sinks["traces"].delivered == 1
    assert "traces" not in fapilog.stats().sinks


def test_spans_after_a_shutdown_are_dropped_and_counted(receiver, capsys):
    fapilog.configure(sinks=[], **QUICK)
    exporter = SpanExporter()
    assert exporter.export(ended(1)) is SUCCESS
    fapilog.shutdown(10)
    assert exporter.export(ended(2)) is FAILURE
    assert traces().drops == {"closed": {"INFO": 2}}
    assert (traces().accepted, traces().delivered) == (3, 1)
    assert "2 spans were exported after a shutdown and dropped" in capsys.readouterr().err
    fapilog.configure(sinks=[], **QUICK)
    assert exporter.export(ended(1)) is SUCCESS


def test_the_first_export_after_a_shutdown_is_counted_too(receiver):
    exporter = SpanExporter()
    fapilog.configure(sinks=[], **QUICK)
    fapilog.shutdown(10)
    assert exporter.export(ended(2)) is FAILURE
    assert traces().drops == {"closed": {"INFO": 2}}
    assert balanced(fapilog.stats())


def test_an_exporter_that_is_shut_down_refuses_spans_and_the_runtime_goes_on(receiver):
    fapilog.configure(sinks=[], **QUICK)
    exporter, other = SpanExporter(), SpanExporter()
    exporter.shutdown()
    assert exporter.export(ended(1)) is FAILURE
    assert other.export(ended(1)) is SUCCESS
    assert fapilog.flush(10)
    assert (traces().delivered, traces().dropped) == (1, 1)


def test_spans_stay_in_the_process_while_a_test_captures_records(receiver):
    fapilog.configure(sinks=[], **QUICK)
    exporter = SpanExporter()
    with capture_logs():
        assert exporter.export(ended(3)) is SUCCESS
        assert fapilog.flush(10)
        assert traces().delivered == 3
    assert exporter.export(ended(1)) is SUCCESS
    assert fapilog.flush(10)
    assert names(receiver) == ["work 0"]


@pytest.mark.parametrize("configured", [True, False])
def test_a_wrong_variable_is_an_error_when_the_exporter_is_made(configured, monkeypatch):
    monkeypatch.setenv(ENDPOINT, "collector:4318")
    if configured:
        fapilog.configure(sinks=[])
    with pytest.raises(ConfigurationError, match=f"{ENDPOINT} is not a usable URL"):
        SpanExporter()


def test_an_export_never_raises(monkeypatch, capsys):
    fapilog.configure(sinks=[])
    exporter = SpanExporter()
    fapilog.configure(level="debug")
    monkeypatch.setenv(ENDPOINT, "collector:4318")
    assert exporter.export(ended(2)) is FAILURE
    assert f"2 spans are lost: {ENDPOINT} is not" in capsys.readouterr().err


# ---- the end of a process

SCRIPT = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
trace.set_tracer_provider(provider)

import os, sys, time, fapilog, fapilog.otel

{before}
provider.add_span_processor(BatchSpanProcessor(fapilog.otel.SpanExporter()))
tracer = trace.get_tracer("shop")
with tracer.start_as_current_span("work 0"):
    pass
{after}
"""
FORK = """
child = os.fork()
with tracer.start_as_current_span("work 1" if child else "work 2"):
    pass
if child:
    os.waitpid(child, 0)
"""
TERMINATE = "import signal; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
ENDS: dict[str, tuple[str, str, int, int]] = {
    "exit": ("fapilog.configure(sinks=[])", "", 0, 1),
    "exit, configured by the first export": ("", "", 0, 1),
    "configured later": ("", "fapilog.configure(sinks=[])", 0, 1),
    "SIGTERM": ("fapilog.configure(sinks=[])", TERMINATE, -signal.SIGTERM, 1),
    "fork": ("fapilog.configure(sinks=[])", FORK, 0, 3),
}


@pytest.mark.skipif(sys.platform == "win32", reason="forks and SIGTERM")
@pytest.mark.parametrize("end", ENDS)
def test_spans_that_wait_in_the_sdk_are_delivered_at_the_end_of_the_process(end, receiver):
    before, after, code, count = ENDS[end]
    variables = {
        ENDPOINT: f"{receiver.http_endpoint}/v1/traces",
        "FAPILOG_SHUTDOWN_TIMEOUT": "60",
        "PYTHONWARNINGS": "ignore",
    }
    done = run(SCRIPT.format(before=before, after=after), env=variables)
    assert (done.returncode, done.stderr) == (code, "")
    assert names(receiver) == numbered(count)
