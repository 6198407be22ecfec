"""fapilog as a processor of an SDK provider, without loops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord as APILogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource as SDKResource

from fapilog.bridges import feeds
from fapilog.context import BOUND, SUPPRESSED, bind
from fapilog.otel.exporters import SinkExporter
from fapilog.otel.processor import FapilogLogRecordProcessor
from fapilog.record import LogRecord
from fapilog.sinks.exporter import ExporterSink
from fapilog.values.exceptions import Capture


class Collector:
    """A target that keeps its records, and may pass them on."""

    def __init__(self, then: Callable[[LogRecord], None] | None = None) -> None:
        self.records: list[LogRecord] = []
        self.flushed: list[float | None] = []
        self._then = then

    def is_enabled(self, name: str, severity_number: int) -> bool:
        return severity_number >= 9

    def lowest_severity(self) -> int:
        return 9

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        self.records.append(record)
        if self._then is not None:
            self._then(record)

    def flush(self, timeout: float | None = None) -> bool:
        self.flushed.append(timeout)
        return False


def sdk_provider(*processors: LogRecordProcessor) -> LoggerProvider:
    provider = LoggerProvider(SDKResource({"service.name": "web"}), shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider


def test_a_record_of_the_sdk_arrives_with_its_scope_and_resource() -> None:
    target = Collector()
    provider = sdk_provider(FapilogLogRecordProcessor(target))
    logger = provider.get_logger("shop", "1.2")
    span = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=False))
    with trace.use_span(span):
        for _ in range(2):
            logger.emit(
                APILogRecord(
                    body="paid",
                    severity_number=SeverityNumber.INFO,
                    attributes={"items": ["a", "b"], "order": 42},
                )
            )
    one, two = target.records
    assert (one.body, one.severity_number) == ("paid", 9)
    assert one.attributes == {"items": ["a", "b"], "order": 42}
    assert (one.trace_id, one.span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert (one.scope.name, one.scope.version) == ("shop", "1.2")
    assert one.resource.attributes == {"service.name": "web"}
    assert one.scope is two.scope
    assert one.resource is two.resource


def test_what_later_processors_change_does_not_reach_fapilog() -> None:
    class Later(LogRecordProcessor):
        def on_emit(self, log_record: ReadWriteLogRecord) -> None:
            log_record.log_record.body["a"] = 2  # type: ignore[index]
            log_record.log_record.attributes["b"] = 2  # type: ignore[index]

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    target = Collector()
    provider = sdk_provider(FapilogLogRecordProcessor(target), Later())
    provider.get_logger("shop").emit(APILogRecord(body={"a": 1}, attributes={"b": 1}))
    assert (target.records[0].body, target.records[0].attributes) == ({"a": 1}, {"b": 1})


def test_bound_fields_are_merged() -> None:
    target = Collector()
    provider = sdk_provider(FapilogLogRecordProcessor(target))
    with bind(user="u-1"):
        provider.get_logger("shop").emit(APILogRecord(body="x"))
    assert target.records[0].attributes == {"user": "u-1"}


def test_a_severity_the_target_does_not_want_is_left_out() -> None:
    target = Collector()
    provider = sdk_provider(FapilogLogRecordProcessor(target))
    provider.get_logger("shop").emit(APILogRecord(body="x", severity_number=SeverityNumber.DEBUG))
    assert target.records == []


@pytest.mark.parametrize("which", ["fapilog", "sdk"])
def test_nothing_emitted_inside_a_delivery_arrives(which: str) -> None:
    target = Collector()
    logger = sdk_provider(FapilogLogRecordProcessor(target)).get_logger("shop")
    if which == "fapilog":
        bound = BOUND.set(SUPPRESSED)
        logger.emit(APILogRecord(body="x"))
        BOUND.reset(bound)
    else:
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        logger.emit(APILogRecord(body="x"))
        detach(token)
    assert target.records == []


def test_by_default_it_feeds_the_default_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "default_target", feeds.no_target)
    logger = sdk_provider(FapilogLogRecordProcessor()).get_logger("shop")
    logger.emit(APILogRecord(body="nobody listens"))
    target = Collector()
    monkeypatch.setattr(feeds, "default_target", lambda: target)
    logger.emit(APILogRecord(body="heard"))
    assert [record.body for record in target.records] == ["heard"]


def test_force_flush_passes_its_time_limit_in_seconds() -> None:
    target = Collector()
    provider = sdk_provider(processor := FapilogLogRecordProcessor(target))
    assert processor.force_flush()  # nothing was emitted yet
    provider.get_logger("shop").emit(APILogRecord(body="x"))
    assert processor.force_flush(1500) is False
    assert target.flushed == [1.5]


def test_after_shutdown_nothing_arrives() -> None:
    target = Collector()
    provider = sdk_provider(FapilogLogRecordProcessor(target))
    provider.get_logger("shop").emit(APILogRecord(body="x"))
    provider.shutdown()
    provider.get_logger("shop").emit(APILogRecord(body="late"))
    assert [record.body for record in target.records] == ["x"]
    assert target.flushed == [5.0]


def test_a_processor_that_was_never_used_makes_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(feeds, "default_target", lambda: made.append(1))
    processor = FapilogLogRecordProcessor()
    processor.force_flush()
    processor.shutdown()
    assert made == []


class Talkative(LogRecordExporter):
    """An exporter that logs for every batch, with logging and with the Logs API."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.say: Callable[[], None] = lambda: None

    def export(self, batch: Any) -> LogRecordExportResult:
        self.bodies += [readable.log_record.body for readable in batch]
        self.say()
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger at DEBUG; its level is restored afterwards."""
    logger = logging.getLogger()
    level, handlers = logger.level, logger.handlers[:]
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_an_exporter_behind_the_pipeline_that_logs_does_not_feed_itself(
    root: logging.Logger,
) -> None:
    module = pytest.importorskip("opentelemetry.instrumentation.logging.handler")
    exporter = Talkative()
    sink = ExporterSink(exporter)
    target = Collector(then=lambda record: sink.send([sink.encode(record)], 1.0))
    provider = sdk_provider(FapilogLogRecordProcessor(target))
    root.addHandler(module.LoggingHandler(logger_provider=provider))

    def say() -> None:
        logging.getLogger("vendor.exporter").error("exporting")
        provider.get_logger("vendor.exporter").emit(APILogRecord(body="exporting"))

    exporter.say = say
    logging.getLogger("shop").info("paid")
    assert exporter.bodies == ["paid"]
    assert [record.body for record in target.records] == ["paid"]


@pytest.mark.parametrize("processor", [SimpleLogRecordProcessor, BatchLogRecordProcessor])
def test_what_an_sdk_exporter_beside_fapilog_logs_does_not_reach_fapilog(
    root: logging.Logger, processor: Any
) -> None:
    module = pytest.importorskip("opentelemetry.instrumentation.logging.handler")
    exporter = Talkative()
    target = Collector()
    provider = sdk_provider(
        processor(SinkExporter(ExporterSink(exporter))), FapilogLogRecordProcessor(target)
    )
    root.addHandler(module.LoggingHandler(logger_provider=provider))

    def say() -> None:
        # The SDK's batch processor has no guard: it would never stop.
        if len(exporter.bodies) < 4:
            logging.getLogger("vendor.exporter").error("exporting")

    exporter.say = say
    logging.getLogger("shop").info("paid")
    provider.force_flush()
    provider.shutdown()
    assert exporter.bodies.count("paid") == 1
    assert [record.body for record in target.records] == ["paid"]
