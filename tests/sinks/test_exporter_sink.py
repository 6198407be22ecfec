"""Any SDK exporter as a sink: its records, and the meaning of its answers."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExporter,
    LogRecordExportResult,
)

from fapilog.bridges.stdlib import Handler
from fapilog.context import BOUND, EMPTY, SUPPRESSED
from fapilog.errors import ConfigurationError, PermanentError, RetryableError
from fapilog.protocols import BatchLimits
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.exporter import ExporterSink
from fapilog.values.exceptions import Capture


class Scripted(LogRecordExporter):
    """Answers export() with a given result or exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.batches: list[Sequence[ReadableLogRecord]] = []
        self.calls: list[Any] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> Any:
        self.batches.append(batch)
        answer = self.answers.pop(0) if self.answers else LogRecordExportResult.SUCCESS
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.calls.append(timeout_millis)
        return True


FAILURE = LogRecordExportResult.FAILURE


def one(sink: ExporterSink, body: str = "x") -> list[ReadableLogRecord]:
    return [sink.encode(LogRecord(1, 2, 9, "INFO", body))]


def test_the_exporter_gets_the_record_in_the_sdks_form() -> None:
    exporter = InMemoryLogRecordExporter()
    sink = ExporterSink(exporter)
    sink.open()
    record = LogRecord(
        5,
        7,
        13,
        "WARNING",
        "disk nearly full",
        {"free": 0.03, "mounts": ["/", "/var"]},
        "disk.low",
        f"{0xA1:032x}",
        f"{0xB2:016x}",
        1,
        Scope("disk", "1.2", "https://s", {"team": "a"}),
        Resource({"service.name": "web"}, "https://r"),
    )
    sink.send([sink.encode(record)], 1.0)
    (readable,) = exporter.get_finished_logs()
    inner = readable.log_record
    assert (inner.timestamp, inner.observed_timestamp) == (5, 7)
    assert (inner.severity_number, inner.severity_text) == (SeverityNumber.WARN, "WARNING")
    assert (inner.body, inner.event_name) == ("disk nearly full", "disk.low")
    assert inner.attributes == {"free": 0.03, "mounts": ["/", "/var"]}
    assert (inner.trace_id, inner.span_id, inner.trace_flags) == (0xA1, 0xB2, 1)
    scope = readable.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url) == ("disk", "1.2", "https://s")
    assert dict(scope.attributes or {}) == {"team": "a"}
    assert dict(readable.resource.attributes) == {"service.name": "web"}
    assert readable.resource.schema_url == "https://r"


def test_the_sdks_own_rendering_understands_the_record() -> None:
    sink = ExporterSink(InMemoryLogRecordExporter())
    assert '"body": "x"' in one(sink)[0].to_json()


def test_records_of_one_logger_share_scope_and_resource() -> None:
    sink = ExporterSink(InMemoryLogRecordExporter())
    scope, resource = Scope("a"), Resource({"k": 1})
    first, second = (sink.encode(LogRecord(scope=scope, resource=resource)) for _ in range(2))
    assert first.instrumentation_scope is second.instrumentation_scope
    assert first.resource is second.resource


def test_the_exporter_may_change_its_attributes() -> None:
    record = LogRecord(attributes={"a": 1})
    readable = ExporterSink(InMemoryLogRecordExporter()).encode(record)
    readable.log_record.attributes["a"] = 2  # type: ignore[index]
    assert record.attributes == {"a": 1}


def test_dropped_attributes_are_counted_where_the_sdk_looks() -> None:
    record = LogRecord(attributes={"a": {"b": 1}}, dropped_attributes_count=3)
    readable = ExporterSink(InMemoryLogRecordExporter()).encode(record)
    assert readable.dropped_attributes == 3
    assert dict(readable.log_record.attributes or {}) == {"a": {"b": 1}}


def test_failure_is_retried_and_then_final() -> None:
    sink = ExporterSink(Scripted(FAILURE, FAILURE, FAILURE), attempts=3)
    batch = one(sink)
    for _ in range(2):
        with pytest.raises(RetryableError, match="FAILURE"):
            sink.send(batch, 1.0)
    with pytest.raises(PermanentError, match="3 times"):
        sink.send(batch, 1.0)


def test_each_batch_has_its_own_attempts() -> None:
    sink = ExporterSink(Scripted(FAILURE, FAILURE, FAILURE, FAILURE), attempts=2)
    first, second = one(sink), one(sink)
    for batch in (first, second, first):
        with pytest.raises(RetryableError):
            sink.send(batch, 1.0)
    with pytest.raises(PermanentError):
        sink.send(first, 1.0)


def test_success_forgets_earlier_failures() -> None:
    sink = ExporterSink(Scripted(FAILURE, LogRecordExportResult.SUCCESS, FAILURE), attempts=2)
    batch = one(sink)
    with pytest.raises(RetryableError):
        sink.send(batch, 1.0)
    sink.send(batch, 1.0)
    with pytest.raises(RetryableError):
        sink.send(batch, 1.0)


class OlderResult(enum.Enum):
    SUCCESS = 0
    FAILURE = 1


def test_results_of_older_exporters_are_understood() -> None:
    sink = ExporterSink(Scripted(OlderResult.FAILURE, OlderResult.SUCCESS, None))
    with pytest.raises(RetryableError):
        sink.send(one(sink), 1.0)
    sink.send(one(sink), 1.0)
    sink.send(one(sink), 1.0)


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), OSError(5, "io")])
def test_connection_errors_are_retryable_without_end(error: Exception) -> None:
    sink = ExporterSink(Scripted(*[error] * 10), attempts=2)
    batch = one(sink)
    for _ in range(10):
        with pytest.raises(RetryableError, match=type(error).__name__):
            sink.send(batch, 1.0)


@pytest.mark.parametrize("error", [TypeError("no"), ValueError("no"), KeyError("no")])
def test_a_batch_that_cannot_be_encoded_is_final(error: Exception) -> None:
    sink = ExporterSink(Scripted(error))
    with pytest.raises(PermanentError, match=type(error).__name__):
        sink.send(one(sink), 1.0)


class VendorError(Exception):
    pass


def test_an_error_of_unknown_meaning_is_retried_and_then_final() -> None:
    sink = ExporterSink(Scripted(VendorError("a"), VendorError("b")), attempts=2)
    batch = one(sink)
    with pytest.raises(RetryableError, match="VendorError: a"):
        sink.send(batch, 1.0)
    with pytest.raises(PermanentError, match="VendorError: b"):
        sink.send(batch, 1.0)


def test_an_exporter_that_speaks_fapilogs_errors_is_taken_at_its_word() -> None:
    sink = ExporterSink(Scripted(RetryableError("later", retry_after=7.0)), attempts=1)
    with pytest.raises(RetryableError) as caught:
        sink.send(one(sink), 1.0)
    assert caught.value.retry_after == 7.0


def test_closing_flushes_and_then_shuts_the_exporter_down() -> None:
    exporter = Scripted()
    ExporterSink(exporter, timeout=2.5).close()
    assert exporter.calls == [2500, "shutdown"]


def test_an_exporter_without_force_flush_is_shut_down() -> None:
    class Older:
        down = False

        def export(self, batch: Any) -> None: ...

        def shutdown(self) -> None:
            self.down = True

    exporter = Older()
    sink = ExporterSink(exporter)  # type: ignore[arg-type]
    sink.open()
    sink.close()
    assert exporter.down


def test_a_flush_that_fails_is_announced_and_does_not_stop_the_shutdown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(Scripted):
        def force_flush(self, timeout_millis: int = 0) -> bool:
            msg = "no route"
            raise OSError(msg)

    exporter = Broken()
    ExporterSink(exporter, name="vendor").close()
    assert exporter.calls == ["shutdown"]
    assert "vendor: flush failed: OSError: no route" in capsys.readouterr().err


def test_options_are_checked_when_it_is_opened() -> None:
    with pytest.raises(ConfigurationError, match="exporter has no export"):
        ExporterSink(object()).open()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="attempts"):
        ExporterSink(Scripted(), attempts=0).open()
    with pytest.raises(ConfigurationError, match="timeout"):
        ExporterSink(Scripted(), timeout=0).open()


def test_it_is_named_after_the_exporter() -> None:
    assert ExporterSink(Scripted()).name == "Scripted"
    assert ExporterSink(Scripted(), name="vendor").name == "vendor"
    limits = BatchLimits(count=3)
    assert ExporterSink(Scripted(), limits=limits).limits is limits


class Collector:
    """A target that stores the records."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def is_enabled(self, name: str, severity_number: int) -> bool:
        return True

    def lowest_severity(self) -> int:
        return 1

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        self.records.append(record)

    def flush(self, timeout: float | None = None) -> bool:
        return True


def test_an_exporter_that_logs_does_not_feed_the_pipeline() -> None:
    class Talkative(Scripted):
        def export(self, batch: Sequence[ReadableLogRecord]) -> Any:
            logging.getLogger("vendor.exporter").error("exporting")
            seen.append((BOUND.get(), get_value(_SUPPRESS_INSTRUMENTATION_KEY)))
            return super().export(batch)

    seen: list[Any] = []
    target = Collector()
    handler = Handler(runtime=target)
    logging.getLogger().addHandler(handler)
    try:
        sink = ExporterSink(Talkative())
        sink.send(one(sink), 1.0)
    finally:
        logging.getLogger().removeHandler(handler)
    assert target.records == []
    assert seen == [(SUPPRESSED, True)]
    assert BOUND.get() is EMPTY
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None
