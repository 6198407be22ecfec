"""loguru's messages arrive complete, with and without its queue, and only once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import loguru
import pytest
from loguru import logger
from opentelemetry import trace

import fapilog
from fapilog.bridges import loguru as bridge
from fapilog.bridges.loguru import LoguruSink
from fapilog.context import BOUND, SUPPRESSED
from fapilog.sinks import MemorySink
from tests.support.targets import Collector

SPAN = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=False))


@pytest.fixture(autouse=True)
def no_handlers() -> Iterator[None]:
    logger.remove()
    yield
    bridge.uninstall()
    logger.remove()


@pytest.fixture
def target() -> Collector:
    return Collector()


def add(target: Collector, *, enqueue: bool = False, code: bool = False) -> None:
    sink = LoguruSink(target, code_attributes=code)
    logger.add(sink, level=0, format=sink.format, enqueue=enqueue, backtrace=False, diagnose=False)


def test_a_message_arrives_with_typed_extras(target: Collector) -> None:
    logger.add(LoguruSink(target))
    with fapilog.bind(request="r-1", order=0):
        logger.bind(order=42, items=["a", {"b": 1}]).warning("paid {} of {what}", 1, what="two")
    (record,) = target.records
    assert record.body == "paid 1 of two"
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.attributes == {
        "request": "r-1",
        "order": 42,
        "items": ["a", {"b": 1}],
        "what": "two",
    }
    assert record.scope.name == __name__
    assert 0 <= record.observed_timestamp - record.timestamp < 60_000_000_000


@pytest.mark.parametrize(
    ("level", "number"), [("TRACE", 1), ("DEBUG", 5), ("SUCCESS", 11), ("CRITICAL", 21), (35, 15)]
)
def test_the_levels_number_is_the_severity_and_its_name_the_text(
    target: Collector, level: Any, number: int
) -> None:
    add(target)
    logger.log(level, "x")
    expected = level if isinstance(level, str) else f"Level {level}"
    assert (target.records[0].severity_number, target.records[0].severity_text) == (
        number,
        expected,
    )


def test_code_attributes_are_optional(target: Collector) -> None:
    add(target, code=True)
    logger.info("x")
    attributes = target.records[0].attributes
    assert attributes["code.file.path"] == __file__
    assert attributes["code.function.name"] == f"{__name__}.test_code_attributes_are_optional"
    assert isinstance(attributes["code.line.number"], int)


@pytest.mark.parametrize("enqueue", [False, True])
def test_ids_context_time_and_event_name_are_the_callers(target: Collector, enqueue: bool) -> None:
    add(target, enqueue=enqueue)
    with trace.use_span(SPAN), fapilog.bind(request="r-1"):
        logger.bind(**{"otel.event.name": "order.paid"}).info("x")
    logger.complete()
    (record,) = target.records
    assert (record.trace_id, record.span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert record.attributes == {"request": "r-1"}
    assert record.event_name == "order.paid"


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise TypeError


@pytest.mark.parametrize("enqueue", [False, True])
@pytest.mark.parametrize("kind", [KeyError, UnpicklableError])
def test_an_exception_is_kept(target: Collector, enqueue: bool, kind: type[Exception]) -> None:
    add(target, enqueue=enqueue)
    try:
        try:
            raise OSError("first")
        except OSError as cause:
            raise kind("order") from cause
    except Exception:
        logger.exception("failed")
    logger.complete()
    (record,), (capture,) = target.records, target.captures
    attributes = {**record.attributes, **(capture.attributes() if capture else {})}
    assert record.body == "failed"
    assert attributes["exception.type"].rpartition(".")[2] == kind.__name__
    assert "order" in attributes["exception.message"]
    assert "OSError: first" in attributes["exception.stacktrace"]
    assert "test_an_exception_is_kept" in attributes["exception.stacktrace"]


@pytest.mark.parametrize("enqueue", [False, True])
def test_a_message_without_an_exception_has_none(target: Collector, enqueue: bool) -> None:
    add(target, enqueue=enqueue)
    logger.exception("failed")  # outside of an ``except`` block
    logger.complete()
    (record,) = target.records
    assert (record.body, record.attributes) == ("failed", {})


def test_an_exception_that_was_never_raised_is_kept(target: Collector) -> None:
    add(target)
    logger.opt(exception=ValueError("why")).error("failed")
    (capture,) = target.captures
    assert capture is not None
    assert capture.attributes()["exception.message"] == "why"


def test_two_sinks_of_a_runtime_take_a_message_once(target: Collector) -> None:
    other = Collector()
    add(target, enqueue=True)
    add(target)
    logger.add(LoguruSink(target))
    add(other)
    logger.info("x")
    logger.complete()
    assert (len(target.records), len(other.records)) == (1, 1)


@pytest.mark.parametrize("enqueue", [False, True])
def test_nothing_logged_inside_a_delivery_or_by_fapilog_arrives(
    target: Collector, enqueue: bool
) -> None:
    add(target, enqueue=enqueue)
    token = BOUND.set(SUPPRESSED)
    logger.info("inside a delivery")
    BOUND.reset(token)

    def rename(record: loguru.Record) -> None:
        record["name"] = "fapilog.sinks"

    logger.patch(rename).info("fapilog's own")
    logger.complete()
    assert target.records == []


class Intercepts(logging.Handler):
    """A handler that gives loguru the records of ``logging``, and its own message."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(TypeError):  # a record that does not fit its arguments
            opt = logger.opt(depth=6, exception=record.exc_info)
            opt.log(record.levelname, record.getMessage())
        logger.info("its own")


@pytest.fixture
def intercepted() -> Iterator[logging.Logger]:
    found = logging.getLogger("intercepted")
    found.addHandler(Intercepts())
    yield found
    found.handlers.clear()


@pytest.fixture
def sink() -> MemorySink:
    made = MemorySink()
    fapilog.configure(sinks=[made])
    fapilog.install_stdlib()
    return made


def bodies(sink: MemorySink) -> list[Any]:
    fapilog.flush(10)
    return [record.body for record in sink.records]


@pytest.mark.parametrize("enqueue", [False, True])
def test_a_handler_of_logging_that_gives_its_records_to_loguru_makes_no_second_copy(
    sink: MemorySink, intercepted: logging.Logger, enqueue: bool
) -> None:
    taking = LoguruSink()
    logger.add(taking, format=taking.format, enqueue=enqueue, diagnose=False)
    intercepted.warning("paid %s", "A-1")
    try:
        raise ValueError
    except ValueError:
        intercepted.exception("not paid")
    logger.complete()
    assert sorted(bodies(sink)) == ["its own", "its own", "not paid", "paid A-1"]


def test_what_is_logged_while_a_record_is_handled_is_kept_although_that_has_no_text(
    sink: MemorySink,
    intercepted: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # pytest's handler would fail the test
    bridge.install()
    intercepted.warning("%s and %s", 1)
    assert bodies(sink) == ["%s and %s", "its own"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_message_of_the_same_text_about_another_exception_is_another_message(
    sink: MemorySink, intercepted: logging.Logger
) -> None:
    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.opt(exception=OSError("own")).error("failed")

    bridge.install()
    intercepted.handlers[:] = [Fails()]
    intercepted.error("failed", exc_info=ValueError("theirs"))
    assert bodies(sink) == ["failed", "failed"]
    messages = [record.attributes["exception.message"] for record in sink.records]
    assert messages == ["theirs", "own"]


def test_install_is_one_line_and_can_be_undone() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="info")
    others: list[str] = []
    logger.add(others.append, format="{message}")
    bridge.install()
    bridge.install("INFO", code_attributes=True)
    logger.info("x")
    logger.debug("below")
    bridge.uninstall()
    bridge.uninstall()
    logger.info("after")
    fapilog.flush(10)
    (record,) = sink.records
    assert (record.body, "code.file.path" in record.attributes) == ("x", True)
    assert others == ["x\n", "below\n", "after\n"]


def test_installing_again_after_the_application_removed_all_handlers_works() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    bridge.install()
    logger.remove()
    bridge.install()
    logger.info("x")
    fapilog.flush(10)
    assert len(sink.records) == 1
    with pytest.raises(ValueError, match="loud"):
        bridge.install("loud")
