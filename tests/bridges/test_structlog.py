"""structlog's events arrive complete, in every configuration that structlog documents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
import structlog
from opentelemetry import trace

import fapilog
from fapilog.bridges import structlog as bridge
from fapilog.bridges.structlog import StructlogProcessor
from fapilog.context import BOUND, SUPPRESSED
from fapilog.sinks import MemorySink
from tests.support.targets import Collector

SPAN = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=False))


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    bridge.uninstall()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def target() -> Collector:
    return Collector()


def logger(target: Collector, *processors: Any, name: str = "shop", **options: Any) -> Any:
    chain = [*processors, StructlogProcessor(target)]
    return structlog.wrap_logger(bridge.NamedLogger(name), processors=chain, **options)


def test_an_event_arrives_with_typed_values_and_bound_ones(target: Collector) -> None:
    log = logger(target).bind(user="u-1", total=9.5)
    with fapilog.bind(request="r-1", total=0):
        log.warning("paid", items=[1, {"a": 2}])
    (record,) = target.records
    assert (record.body, record.severity_number, record.severity_text) == ("paid", 13, "WARNING")
    assert record.attributes == {
        "request": "r-1",
        "user": "u-1",
        "total": 9.5,
        "items": [1, {"a": 2}],
    }
    assert record.scope.name == "shop"


@pytest.mark.parametrize(
    ("method", "number"),
    [("debug", 5), ("info", 9), ("msg", 9), ("warn", 13), ("err", 17), ("fatal", 21), ("odd", 9)],
)
def test_the_method_is_the_severity(target: Collector, method: str, number: int) -> None:
    with pytest.raises(structlog.DropEvent):
        StructlogProcessor(target)(None, method, {"event": "x"})
    assert target.records[0].severity_number == number


@pytest.mark.parametrize(
    ("fields", "number", "kept"),
    [
        ({"level": "error"}, 17, {}),
        ({"level": "WARN2"}, 14, {}),
        ({"level": "off"}, 9, {"level": "off"}),
        ({"level": "7"}, 9, {"level": "7"}),
        ({"level": "info", "level_number": 25}, 11, {}),
        ({"level": "gold"}, 9, {"level": "gold"}),
        ({"level": 3}, 9, {"level": 3}),
    ],
)
def test_a_level_that_a_processor_has_added_is_the_severity(
    target: Collector, fields: dict[str, Any], number: int, kept: dict[str, Any]
) -> None:
    logger(target).info("x", **fields)
    assert target.records[0].severity_number == number
    assert target.records[0].attributes == kept


def test_an_exception_is_captured(target: Collector) -> None:
    try:
        raise KeyError("order")
    except KeyError as error:
        logger(target, wrapper_class=structlog.make_filtering_bound_logger(0)).exception("failed")
        logger(target).error("given", exc_info=error)
    for capture in target.captures:
        assert capture is not None
        assert capture.attributes()["exception.type"] == "KeyError"
        assert "test_an_exception_is_captured" in capture.attributes()["exception.stacktrace"]


@pytest.mark.parametrize(
    "processor", [structlog.processors.format_exc_info, structlog.processors.dict_tracebacks]
)
def test_an_exception_that_a_processor_has_formatted_is_an_exception_still(
    target: Collector, processor: Any
) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger(target, processor).error("failed", exc_info=True)
    attributes = target.records[0].attributes
    assert attributes["exception.type"] == "ValueError"
    assert attributes["exception.message"] == "two\nlines"
    assert "test_an_exception_that_a" in str(attributes["exception.stacktrace"])
    assert "exception" not in attributes


@pytest.mark.parametrize("formatted", ["no traceback at all, but text", {"odd": 1}, [{}]])
def test_what_is_no_known_form_of_an_exception_is_kept(target: Collector, formatted: Any) -> None:
    logger(target).error("failed", exception=formatted)
    assert target.records[0].attributes == {"exception.stacktrace": formatted}


def test_a_stack_becomes_code_stacktrace(target: Collector) -> None:
    logger(target, structlog.processors.StackInfoRenderer()).info("x", stack_info=True)
    assert "test_a_stack_becomes" in target.records[0].attributes["code.stacktrace"]


@pytest.mark.parametrize(
    "value", ["2026-11-23T12:30:00.000001Z", "2026-11-23T14:30:00.000001+02:00", 1795437000.000001]
)
def test_a_timestamp_is_the_time_of_the_event(target: Collector, value: Any) -> None:
    logger(target).info("x", timestamp=value)
    (record,) = target.records
    expected = int(datetime(2026, 11, 23, 12, 30, tzinfo=timezone.utc).timestamp()) * 10**9 + 1000
    assert abs(record.timestamp - expected) < 1000
    assert record.attributes == {}


@pytest.mark.parametrize("value", ["yesterday", True, 1e99, None, "2026-13-45"])
def test_what_is_no_timestamp_stays_an_attribute(target: Collector, value: Any) -> None:
    logger(target).info("x", timestamp=value)
    (record,) = target.records
    assert record.attributes == {"timestamp": value}
    assert record.timestamp == record.observed_timestamp


def test_the_time_stampers_of_structlog_are_understood(target: Collector) -> None:
    for stamper in (
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.TimeStamper(fmt="iso", utc=False),
        structlog.processors.TimeStamper(),
    ):
        logger(target, stamper).info("x")
    for record in target.records:
        assert record.attributes == {}
        assert 0 <= record.observed_timestamp - record.timestamp < 60_000_000_000


def test_an_event_name_among_the_values_is_the_events(target: Collector) -> None:
    logger(target).info("x", **{"otel.event.name": "order.paid", "order": 1})
    assert target.records[0].event_name == "order.paid"
    assert target.records[0].attributes == {"order": 1}


def test_positional_arguments_are_formatted_once(
    target: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = logger(target, wrapper_class=structlog.stdlib.BoundLogger)
    plain.info("paid %d of %d", 1, 2)
    plain.info("paid %d of %d", 1)
    formatted = logger(
        target,
        structlog.stdlib.PositionalArgumentsFormatter(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    formatted.info("paid %d", 1)
    bodies = [record.body for record in target.records]
    assert bodies == ["paid 1 of 2", "paid %d of %d", "paid 1"]
    assert target.records[1].attributes == {"log.args": [1]}
    assert "does not fit" in capsys.readouterr().err


def test_nothing_reaches_the_wrapped_logger(
    target: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.wrap_logger(structlog.PrintLogger(), processors=[StructlogProcessor(target)]).info(
        "x"
    )
    structlog.wrap_logger(
        logging.getLogger("shop"),
        processors=[structlog.stdlib.add_logger_name, StructlogProcessor(target)],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).warning("y")
    assert capsys.readouterr().out == ""
    assert [(r.body, r.scope.name) for r in target.records] == [("x", ""), ("y", "shop")]


@pytest.mark.parametrize(
    "wrapper", [structlog.make_filtering_bound_logger(0), structlog.stdlib.BoundLogger]
)
def test_the_asynchronous_methods_keep_ids_and_context(target: Collector, wrapper: Any) -> None:
    async def work() -> None:
        with trace.use_span(SPAN), fapilog.bind(request="r-1"):
            await logger(target, wrapper_class=wrapper).ainfo("x", order=1)

    asyncio.run(work())
    (record,) = target.records
    assert (record.trace_id, record.span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert record.attributes == {"request": "r-1", "order": 1}


def test_a_severity_that_is_not_taken_and_a_delivery_are_left_out(target: Collector) -> None:
    target.threshold = 13
    log = logger(target)
    log.info("below")
    token = BOUND.set(SUPPRESSED)
    log.error("inside a delivery")
    BOUND.reset(token)
    logger(target, name="fapilog.sinks").error("fapilog's own")
    assert target.records == []


def test_events_that_go_through_logging_for_a_processor_formatter_keep_their_values() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    fapilog.install_stdlib("info")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    kind = logging.getLoggerClass()
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
    )
    named = logging.getLogger("through.logging")
    named.addHandler(handler)
    try:
        structlog.get_logger("through.logging").error("failed", order=1, exc_info=ValueError("x"))
    finally:
        named.removeHandler(handler)
        logging.setLoggerClass(kind)
    fapilog.flush(10)
    (record,) = sink.records
    assert (record.body, record.severity_text) == ("failed", "ERROR")
    assert record.attributes.pop("exception.type") == "ValueError"
    assert record.attributes["order"] == 1
    assert set(record.attributes) == {"order", "exception.message", "exception.stacktrace"}
    assert record.scope.name == "through.logging"


def test_install_is_one_line_and_can_be_undone() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="info")
    bridge.install()
    bridge.install()
    structlog.contextvars.bind_contextvars(request="r-1")
    log = structlog.get_logger()
    log.info("paid %s", "A-1", order=1)
    log.debug("below")
    structlog.get_logger("by.name").info("named")
    fapilog.flush(10)
    assert [(r.body, r.scope.name) for r in sink.records] == [
        ("paid A-1", __name__),
        ("named", "by.name"),
    ]
    assert next(iter(sink.records)).attributes == {"request": "r-1", "order": 1}
    bridge.uninstall()
    assert not structlog.is_configured()


def test_uninstall_puts_back_the_applications_configuration_and_no_other() -> None:
    processors: list[Any] = [structlog.processors.JSONRenderer()]
    structlog.configure(processors=processors)
    bridge.install([structlog.processors.add_log_level])
    bridge.install()
    bridge.uninstall()
    assert structlog.get_config()["processors"] is processors
    bridge.install()
    structlog.configure(processors=processors)
    bridge.uninstall()
    bridge.uninstall()
    assert structlog.get_config()["processors"] is processors
