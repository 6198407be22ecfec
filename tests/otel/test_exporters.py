"""fapilog's sinks as exporters of an SDK: redacted, bounded, retried within the time limit."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import LogRecord as APILogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource as SDKResource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fapilog.context import BOUND, SUPPRESSED
from fapilog.errors import (
    ConfigurationError,
    InvalidDataError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.otel.exporters import ConsoleExporter, FileExporter, OTLPExporter, SinkExporter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import BatchLimits, Outcome, Sink
from fapilog.record import LogRecord

SUCCESS, FAILURE = LogRecordExportResult.SUCCESS, LogRecordExportResult.FAILURE
RESOURCE = SDKResource({"service.name": "web", "api_key": "resource-secret"})


class Recording(Sink[LogRecord]):
    """Keeps batches; answers send() with what it is given."""

    name = "recording"

    def __init__(self, *answers: Any, limits: BatchLimits | None = None) -> None:
        self.limits = limits or BatchLimits()
        self.answers = list(answers)
        self.batches: list[list[LogRecord]] = []
        self.timeouts: list[float] = []
        self.events: list[str] = []

    def open(self) -> None:
        self.events.append("open")

    def encode(self, record: LogRecord) -> LogRecord:
        return record

    def send(self, batch: Sequence[LogRecord], timeout: float) -> Outcome | None:
        self.batches.append(list(batch))
        self.timeouts.append(timeout)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer()
        return answer

    def close(self) -> None:
        self.events.append("close")

    def after_fork(self) -> None:
        self.events.append("after_fork")

    @property
    def records(self) -> list[LogRecord]:
        return [record for batch in self.batches for record in batch]


def readable(body: Any = "x", attributes: Any = None, name: str = "shop") -> ReadableLogRecord:
    return ReadableLogRecord(
        APILogRecord(body=body, attributes=attributes, severity_number=SeverityNumber.INFO),
        RESOURCE,
        InstrumentationScope(name, "1.2", attributes={"password": "scope-secret"}),
    )


def test_a_batch_is_converted_and_sent() -> None:
    sink = Recording()
    exporter = SinkExporter(sink)
    assert exporter.export([readable("a", {"n": 1}), readable("b")]) is SUCCESS
    assert sink.events == ["open"]
    (batch,) = sink.batches
    assert [(record.body, record.severity_number) for record in batch] == [("a", 9), ("b", 9)]
    assert batch[0].attributes == {"n": 1}
    assert batch[0].scope.name == "shop"
    assert batch[0].scope is batch[1].scope
    assert batch[0].resource is batch[1].resource
    assert batch[0].size > 0  # normalised


def test_no_secret_leaves() -> None:
    sink = Recording()
    SinkExporter(sink).export(
        [readable("Authorization: Bearer body-secret-0123456789", {"password": "value-secret"})]
    )
    (record,) = sink.records
    shown = repr((record.body, record.attributes, record.resource, record.scope))
    assert "secret" not in shown
    assert record.resource.attributes["service.name"] == "web"


def test_a_record_redaction_fails_on_is_masked_and_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(RedactProcessor):
        def __call__(self, record: LogRecord) -> LogRecord:
            raise KeyError("boom")

    sink = Recording()
    assert SinkExporter(sink, redact=Broken()).export([readable("raw", {"a": "raw"})]) is SUCCESS
    (record,) = sink.records
    assert "raw" not in repr((record.body, record.attributes))
    assert "redaction raised KeyError" in capsys.readouterr().err


def test_batches_keep_to_the_sinks_limits() -> None:
    sink = Recording(limits=BatchLimits(count=2))
    SinkExporter(sink).export([readable(str(number)) for number in range(5)])
    assert [[record.body for record in batch] for batch in sink.batches] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    sink = Recording(limits=BatchLimits(size=2000))
    SinkExporter(sink).export([readable("x" * 1500) for _ in range(3)])
    assert [len(batch) for batch in sink.batches] == [1, 1, 1]


def test_a_retryable_error_is_retried() -> None:
    sink = Recording(RetryableError("busy", retry_after=0.0), RetryableError("busy", 0.0))
    assert SinkExporter(sink).export([readable("a")]) is SUCCESS
    assert [batch[0].body for batch in sink.batches] == ["a", "a", "a"]


@pytest.mark.parametrize("error", [TooLargeError("too large"), NoAnswerError("late", 0.0)])
def test_a_batch_that_is_too_much_is_sent_in_halves(error: Exception) -> None:
    sink = Recording(error)
    assert SinkExporter(sink).export([readable(str(n)) for n in range(5)]) is SUCCESS
    bodies = [[record.body for record in batch] for batch in sink.batches]
    assert bodies[:2] == [["0", "1", "2", "3", "4"], ["0", "1"]]
    assert [body for batch in bodies[1:] for body in batch] == ["0", "1", "2", "3", "4"]


def test_the_invalid_records_of_a_batch_are_found_and_lost_without_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Strict(Recording):
        def send(self, batch: Sequence[LogRecord], timeout: float) -> Outcome | None:
            if any(record.body == "bad" for record in batch):
                raise InvalidDataError("a timestamp is too old")
            return super().send(batch, timeout)

    sink = Strict()
    batch = [readable(body) for body in ("a", "bad", "c", "d")]
    assert SinkExporter(sink).export(batch) is FAILURE
    assert [record.body for record in sink.records] == ["a", "c", "d"]
    assert "recording: 1 records lost: a timestamp is too old" in capsys.readouterr().err


def test_while_the_backend_asks_to_wait_the_rest_of_an_export_is_not_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Recording(RetryableError("busy", retry_after=4.0), limits=BatchLimits(count=1))
    exporter = SinkExporter(sink, timeout=3.0)
    assert exporter.export([readable("a"), readable("b")]) is FAILURE
    assert len(sink.batches) == 1
    assert exporter.export([readable("c")]) is SUCCESS  # every export tries once
    assert "recording: 1 records lost: busy" in capsys.readouterr().err


def test_a_record_that_is_too_large_alone_is_lost_without_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Recording(TooLargeError("too large"), TooLargeError("too large"))
    assert SinkExporter(sink).export([readable("a"), readable("b")]) is FAILURE
    assert [record.body for record in sink.batches[-1]] == ["b"]
    assert "recording: 1 records lost: too large" in capsys.readouterr().err


def test_a_retry_that_would_pass_the_time_limit_is_not_awaited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Recording(RetryableError("busy", retry_after=4.0))
    exporter = SinkExporter(sink, timeout=3.0)
    assert exporter.export([readable("a")]) is FAILURE
    assert len(sink.batches) == 1
    assert 0 < sink.timeouts[0] <= 3.0
    assert "recording: 1 records lost: busy" in capsys.readouterr().err


@pytest.mark.parametrize("error", [PermanentError("bad request"), RuntimeError("bug")])
def test_other_errors_are_final_and_announced(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = Recording(error)
    assert SinkExporter(sink).export([readable("a")]) is FAILURE
    assert len(sink.batches) == 1
    assert str(error) in capsys.readouterr().err


def test_what_the_backend_rejects_is_announced_and_not_retried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Recording(Outcome(rejected=1, message="too old"))
    assert SinkExporter(sink).export([readable("a"), readable("b")]) is SUCCESS
    assert len(sink.batches) == 1
    assert "1 records lost: too old" in capsys.readouterr().err


def test_a_record_that_cannot_be_encoded_does_not_take_the_others_along() -> None:
    class Picky(Recording):
        def encode(self, record: LogRecord) -> LogRecord:
            if record.body == "poison":
                msg = "poison"
                raise ValueError(msg)
            return record

    sink = Picky()
    assert SinkExporter(sink).export([readable("a"), readable("poison")]) is FAILURE
    assert [record.body for record in sink.records] == ["a"]


def test_what_the_export_itself_emits_is_not_exported() -> None:
    bound: list[object] = []

    def emit() -> None:
        bound.append(BOUND.get())
        provider.get_logger("sink").emit(APILogRecord(body="from the sink"))

    sink = Recording(emit)
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(SinkExporter(sink)))
    provider.get_logger("shop").emit(APILogRecord(body="a"))
    assert [record.body for record in sink.records] == ["a"]
    assert bound == [SUPPRESSED]


def test_exports_take_turns_and_a_stuck_one_does_not_hold_the_next_for_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entered, release = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        release.wait(30)

    sink = Recording(block)
    exporter = SinkExporter(sink, timeout=0.05)
    thread = threading.Thread(target=exporter.export, args=([readable("a")],))
    thread.start()
    assert entered.wait(30)
    assert exporter.export([readable("b")]) is FAILURE
    assert "previous export" in capsys.readouterr().err
    assert exporter.force_flush(10) is False
    exporter.shutdown()
    assert "still sending at shutdown" in capsys.readouterr().err
    release.set()
    thread.join(30)
    assert exporter.force_flush(10) is True
    assert [record.body for record in sink.records] == ["a"]


def test_shutdown_closes_the_sink_once_and_ends_exports() -> None:
    sink = Recording()
    exporter = SinkExporter(sink)
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export([readable("late")]) is FAILURE
    assert sink.events == ["open", "close"]
    assert sink.batches == []


def test_a_sink_that_fails_to_close_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    class Stuck(Recording):
        def close(self) -> None:
            msg = "busy"
            raise OSError(msg)

    SinkExporter(Stuck()).shutdown()
    assert "recording: close failed: OSError" in capsys.readouterr().err


def test_shutdown_interrupts_the_wait_before_a_retry() -> None:
    waiting = threading.Event()

    def busy() -> None:
        waiting.set()
        raise RetryableError("busy", retry_after=60.0)

    sink = Recording(busy)
    exporter = SinkExporter(sink, timeout=100.0)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(exporter.export([readable("a")])))
    thread.start()
    assert waiting.wait(30)
    exporter.shutdown()
    thread.join(30)
    assert results == [FAILURE]
    assert sink.events == ["open", "close"]


def test_a_wrong_option_of_the_sink_fails_when_the_exporter_is_made() -> None:
    class Wrong(Recording):
        def open(self) -> None:
            msg = "path: is a directory"
            raise ConfigurationError(msg)

    with pytest.raises(ConfigurationError, match="path"):
        SinkExporter(Wrong())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_locks_of_its_own() -> None:
    sink = Recording()
    exporter = SinkExporter(sink)
    exporter._turn.acquire()
    turn = exporter._turn
    exporter.after_fork()
    assert exporter._turn is not turn
    assert "after_fork" in sink.events
    assert exporter.export([readable("a")]) is SUCCESS


def test_a_shut_down_exporter_stays_so_in_a_forked_child() -> None:
    exporter = SinkExporter(Recording())
    exporter.shutdown()
    exporter.after_fork()
    assert exporter.export([readable("a")]) is FAILURE


def test_the_file_exporter_writes_the_file_its_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.jsonl"
    monkeypatch.setenv("FAPILOG_FILE__PATH", str(path))
    exporter = FileExporter()
    assert exporter.export([readable("paid")]) is SUCCESS
    exporter.shutdown()
    assert '"paid"' in path.read_text()


def test_the_file_exporter_says_which_variable_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="FAPILOG_FILE__PATH"):
        FileExporter()


def test_the_console_exporter_writes_lines(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    assert exporter.export([readable("paid")]) is SUCCESS
    exporter.shutdown()
    captured = capsys.readouterr()
    assert "paid" in captured.out + captured.err


def test_the_otlp_exporter_reads_the_standards_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        OTLPExporter()
