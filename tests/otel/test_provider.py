"""Records that are emitted through fapilog's Logs API reach the target."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry import _logs as api
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, detach, set_value
from opentelemetry.sdk._logs import LoggerProvider as SDKLoggerProvider
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.util._once import Once

from fapilog.bridges import feeds
from fapilog.bridges.stdlib import Handler
from fapilog.context import BOUND, SUPPRESSED, bind
from fapilog.otel.provider import Logger, LoggerProvider, install_provider
from fapilog.record import LogRecord
from fapilog.values.exceptions import Capture

SPAN = trace.NonRecordingSpan(
    trace.SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=trace.TraceFlags(1))
)


class Collector:
    """A target that keeps its records."""

    def __init__(self, threshold: int = 1) -> None:
        self.threshold = threshold
        self.records: list[LogRecord] = []
        self.captures: list[Capture | None] = []
        self.flushed: list[float | None] = []

    def is_enabled(self, name: str, severity_number: int) -> bool:
        return severity_number >= self.threshold

    def lowest_severity(self) -> int:
        return self.threshold

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        self.records.append(record)
        self.captures.append(exception)

    def flush(self, timeout: float | None = None) -> bool:
        self.flushed.append(timeout)
        return False


@pytest.fixture
def target() -> Collector:
    return Collector()


@pytest.fixture
def provider(target: Collector) -> LoggerProvider:
    return LoggerProvider(lambda: target)


@pytest.fixture
def global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """No global provider is set, before and after the test."""
    monkeypatch.setattr(api._internal, "_LOGGER_PROVIDER", None)
    monkeypatch.setattr(api._internal, "_LOGGER_PROVIDER_SET_ONCE", Once())


def test_a_record_emitted_whole_arrives(provider: LoggerProvider, target: Collector) -> None:
    logger = provider.get_logger("shop", "1.2", "https://s")
    logger.emit(api.LogRecord(body="paid", severity_number=SeverityNumber.INFO))
    (record,) = target.records
    assert (record.body, record.severity_number) == ("paid", 9)
    assert (record.scope.name, record.scope.version) == ("shop", "1.2")
    assert record.scope.schema_url == "https://s"


def test_a_record_emitted_by_its_fields_arrives(
    provider: LoggerProvider, target: Collector
) -> None:
    context = trace.set_span_in_context(SPAN, Context())
    provider.get_logger("shop").emit(
        timestamp=5,
        context=context,
        severity_number=SeverityNumber.ERROR,
        severity_text="error",
        body={"why": "declined"},
        attributes={"order": 42},
        event_name="payment.failed",
    )
    (record,) = target.records
    assert (record.timestamp, record.severity_text, record.body) == (
        5,
        "error",
        {"why": "declined"},
    )
    assert (record.attributes, record.event_name) == ({"order": 42}, "payment.failed")
    assert record.trace_id == f"{0xA1:032x}"


def test_an_sdk_record_is_unwrapped(provider: LoggerProvider, target: Collector) -> None:
    wrapped = ReadWriteLogRecord(api.LogRecord(body="wrapped"))
    provider.get_logger("shop").emit(wrapped)  # type: ignore[arg-type]
    assert target.records[0].body == "wrapped"


def test_an_exception_given_with_the_fields_is_captured(
    provider: LoggerProvider, target: Collector
) -> None:
    provider.get_logger("shop").emit(body="failed", exception=ValueError("no"))
    (capture,) = target.captures
    assert capture is not None
    assert capture.attributes()["exception.message"] == "no"


def test_bound_fields_are_merged_below_the_records_own(
    provider: LoggerProvider, target: Collector
) -> None:
    with bind(user="u-1", order=0):
        provider.get_logger("shop").emit(body="x", attributes={"order": 42})
    assert target.records[0].attributes == {"user": "u-1", "order": 42}


def test_a_severity_below_the_targets_is_not_converted(provider: LoggerProvider) -> None:
    target = Collector(threshold=13)
    provider.feed.follow(lambda: target)
    logger = provider.get_logger("shop")
    logger.emit(body="x", severity_number=SeverityNumber.INFO)
    assert target.records == []
    assert not logger.enabled(severity_number=SeverityNumber.INFO)
    assert logger.enabled(severity_number=SeverityNumber.WARN)


def test_a_minimum_severity_does_not_hold_back_unspecified_ones(provider: LoggerProvider) -> None:
    target = Collector(threshold=17)
    provider.feed.follow(lambda: target)
    provider.get_logger("shop").emit(body="x")
    assert len(target.records) == 1
    target.threshold = 25  # the logger is off
    provider.get_logger("shop").emit(body="y")
    assert len(target.records) == 1


def test_nothing_emitted_inside_a_delivery_arrives(
    provider: LoggerProvider, target: Collector
) -> None:
    logger = provider.get_logger("shop")
    token = BOUND.set(SUPPRESSED)
    logger.emit(body="by fapilog's own sink")
    enabled = logger.enabled()
    BOUND.reset(token)
    assert not enabled
    otel = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    logger.emit(body="by an exporter of the SDK")
    detach(otel)
    assert target.records == []


class Hostile:
    @property
    def body(self) -> Any:
        msg = "no body"
        raise OSError(msg)

    severity_number = SeverityNumber.INFO


def test_no_record_makes_emit_raise(
    provider: LoggerProvider, target: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = provider.get_logger("shop")
    logger.emit(Hostile())  # type: ignore[arg-type]
    logger.emit(body="x", context="not a context", shade="red", event_name="e")
    bodies = [record.body for record in target.records]
    assert bodies == ["<a record that cannot be converted (AttributeError)>", "x"]
    assert target.records[1].event_name == "e"
    assert [record.scope.name for record in target.records] == ["shop", "shop"]
    announced = capsys.readouterr().err
    assert (
        "a record of 'shop' cannot be converted (AttributeError); its values are lost" in announced
    )
    assert "emit() ignores a field of a record" in announced


def test_without_a_target_loggers_are_disabled() -> None:
    logger = LoggerProvider(lambda: None).get_logger("shop")
    logger.emit(body="x")
    assert not logger.enabled()


def test_the_default_target_is_looked_up_for_each_record(
    monkeypatch: pytest.MonkeyPatch, target: Collector
) -> None:
    monkeypatch.setattr(feeds, "default_target", feeds.no_target)
    logger = LoggerProvider().get_logger("shop")
    logger.emit(body="nobody listens")
    monkeypatch.setattr(feeds, "default_target", lambda: target)
    logger.emit(body="heard")
    assert [record.body for record in target.records] == ["heard"]


def test_equal_arguments_give_the_same_logger(provider: LoggerProvider) -> None:
    assert provider.get_logger("a", "1") is provider.get_logger("a", "1")
    assert provider.get_logger("a", "1") is not provider.get_logger("a", "2")
    assert provider.get_logger("a", attributes={"k": 1})._scope.attributes == {"k": 1}


def test_loggers_made_without_end_are_not_all_kept(provider: LoggerProvider) -> None:
    for number in range(5000):
        provider.get_logger(f"request-{number}")
    assert provider._logger.cache_info().currsize <= 4096


@pytest.mark.parametrize("name", [None, ""])
def test_a_missing_name_still_gives_a_working_logger(
    provider: LoggerProvider, target: Collector, name: Any
) -> None:
    provider.get_logger(name).emit(body="x")
    assert target.records[0].scope.name == ""


def test_force_flush_passes_its_time_limit_in_seconds(
    provider: LoggerProvider, target: Collector
) -> None:
    assert provider.force_flush()  # nothing was emitted yet
    provider.get_logger("shop").emit(body="x")
    assert provider.force_flush(1500) is False
    assert target.flushed == [1.5]


def test_after_shutdown_nothing_arrives(provider: LoggerProvider, target: Collector) -> None:
    logger = provider.get_logger("shop")
    logger.emit(body="x")
    provider.shutdown()
    logger.emit(body="late")
    assert [record.body for record in target.records] == ["x"]
    assert target.flushed == [5.0]


@pytest.mark.usefixtures("global_provider")
def test_installing_makes_it_the_global_provider(target: Collector) -> None:
    early = api.get_logger("early")
    provider = install_provider(lambda: target)
    assert api.get_logger_provider() is provider
    early.emit(body="from a logger taken before")
    api.get_logger("late").emit(body="and after")
    assert [record.scope.name for record in target.records] == ["early", "late"]


@pytest.mark.usefixtures("global_provider")
def test_installing_again_feeds_the_new_target_from_the_same_provider(target: Collector) -> None:
    provider = install_provider(lambda: target)
    assert provider is not None
    logger = provider.get_logger("shop")
    provider.shutdown()
    other = Collector()
    assert install_provider(lambda: other) is provider
    logger.emit(body="x")
    assert (len(target.records), len(other.records)) == (0, 1)


@pytest.mark.usefixtures("global_provider")
def test_a_provider_the_application_set_is_left_alone_and_named(
    target: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = SDKLoggerProvider(shutdown_on_exit=False)
    api.set_logger_provider(theirs)
    assert install_provider(lambda: target) is None
    assert api.get_logger_provider() is theirs
    assert "FapilogLogRecordProcessor" in capsys.readouterr().err


def test_a_logger_is_not_one_that_instrumentation_skips(provider: LoggerProvider) -> None:
    logger = provider.get_logger("shop")
    assert isinstance(logger, Logger)
    assert not isinstance(logger, api.NoOpLogger)


class PaymentError(Exception):
    pass


def test_the_maintained_logging_handler_gives_the_record_our_handler_gives(
    provider: LoggerProvider,
) -> None:
    module = pytest.importorskip("opentelemetry.instrumentation.logging.handler")
    theirs, ours = Collector(), Collector()
    provider.feed.follow(lambda: theirs)
    logger = logging.Logger("shop.payments")  # noqa: LOG001 - not a child of root
    logger.addHandler(module.LoggingHandler(logger_provider=provider))
    logger.addHandler(Handler(runtime=ours))
    with trace.use_span(SPAN), bind(user="u-1"):
        logger.info("paid %s of %d", "A-1", 9, extra={"order": 42, "items": ["a", {"b": 1}]})
        logger.info("event", extra={"otel.event.name": "order.paid"})
        try:
            raise PaymentError("declined", 51)
        except PaymentError:
            logger.exception("failed")
    assert len(theirs.records) == len(ours.records) == 3
    for index, (their, our) in enumerate(zip(theirs.records, ours.records, strict=True)):
        for field in LogRecord.__slots__:
            if field not in ("observed_timestamp", "scope", "attributes"):
                assert getattr(their, field) == getattr(our, field), field
        capture = ours.captures[index]
        expected = our.attributes if capture is None else {**our.attributes, **capture.attributes()}
        assert their.attributes == expected
        assert their.scope.name == our.scope.name == "shop.payments"
