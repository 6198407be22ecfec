from __future__ import annotations

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
from typing import Any
from unittest.mock import MagicMock

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog import AsyncLogger, Logger, LogRecord, Runtime
from fapilog.severity import Severity
from fapilog.sinks import MemorySink

TRACER = TracerProvider().get_tracer("tests")
METHODS = {
    "trace": (1, "TRACE"), "debug": (5, "DEBUG"), "info": (9, "INFO"), "warning": (13, "WARN"),
    "warn": (13, "WARN"), "error": (17, "ERROR"), "critical": (21, "FATAL"),
    "fatal": (21, "FATAL"),
}  # fmt: skip


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def runtime(sink):
    with Runtime(sinks=[sink], level="trace", severities={"notice": "info3"}) as runtime:
        yield runtime


def last(runtime, sink):
    assert runtime.flush(5)
    return sink.records[-1]


def call(logger, method, *args, **kwargs):
    result = getattr(logger, method)(*args, **kwargs)
    if inspect.isawaitable(result):
        asyncio.run(_await(result))


async def _await(awaitable):
    return await awaitable


@pytest.fixture(params=["get_logger", "get_async_logger"])
def log(request, runtime):
    return getattr(runtime, request.param)("app.orders", service_part="orders")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_record_of_its_severity(log, runtime, sink, method):
    call(log, method, "order placed", order_id=42, total=9.99)
    record = last(runtime, sink)
    assert (record.severity_number, record.severity_text) == METHODS[method]
    assert record.body == "order placed"
    assert record.attributes == {"service_part": "orders", "order_id": 42, "total": 9.99}
    assert record.scope.name == "app.orders"
    assert record.observed_timestamp >= record.timestamp > 1_600_000_000_000_000_000
    assert (record.trace_id, record.span_id, record.trace_flags) == ("", "", 0)


def test_the_active_span_is_the_records(log, runtime, sink):
    with TRACER.start_as_current_span("work") as span:
        call(log, "info", "inside")
    context = span.get_span_context()
    record = last(runtime, sink)
    assert record.trace_id == format(context.trace_id, "032x")
    assert record.span_id == format(context.span_id, "016x")
    assert record.trace_flags == context.trace_flags
    assert type(record.trace_flags) is int


def test_the_span_is_found_where_opentelemetry_keeps_it():
    from opentelemetry.context import get_value
    from opentelemetry.trace.propagation import _SPAN_KEY

    with TRACER.start_as_current_span("work") as span:
        assert get_value(_SPAN_KEY) is span is trace.get_current_span()


def test_an_invalid_span_gives_no_ids(runtime, sink):
    with trace.use_span(trace.INVALID_SPAN):
        runtime.get_logger("t").info("x")
    assert last(runtime, sink).trace_id == ""


def test_an_event_has_a_name_and_no_body(log, runtime, sink):
    call(log, "event", "order.placed", order_id=42)
    record = last(runtime, sink)
    assert (record.event_name, record.body, record.severity_number) == ("order.placed", None, 9)
    assert record.attributes["order_id"] == 42


@pytest.mark.parametrize(
    ("severity", "number", "text"),
    [(logging.DEBUG, 5, "DEBUG"), (logging.INFO, 9, "INFO"), (logging.WARNING, 13, "WARN"),
     (logging.ERROR, 17, "ERROR"), (logging.CRITICAL, 21, "FATAL"), (35, 15, "WARN3"),
     (Severity.INFO2, 10, "INFO2"), (Severity.ERROR4, 20, "ERROR4"), ("error3", 19, "ERROR3"),
     ("NOTICE", 11, "NOTICE"), ("notice", 11, "NOTICE"), (Severity.OFF, 24, "FATAL4")],
)  # fmt: skip
def test_log_takes_any_severity(log, runtime, sink, severity, number, text):
    call(log, "log", severity, "x", event_name="an.event")
    record = last(runtime, sink)
    assert (record.severity_number, record.severity_text) == (number, text)
    assert record.event_name == "an.event"
    assert "event_name" not in record.attributes


@pytest.mark.parametrize("severity", ["loud", None, object()])
def test_what_is_no_severity_is_logged_at_info_and_announced(log, runtime, sink, severity, capsys):
    call(log, "log", severity, "x")
    assert last(runtime, sink).severity_number == 9
    assert "log() takes a severity" in capsys.readouterr().err


@pytest.mark.parametrize(("severity", "number"), [(9, 9), (17, 17), (24, 24), (99, 24), (0, 1)])
def test_a_number_with_two_readings_is_logged_at_the_more_severe_one_and_announced(
    log, runtime, sink, severity, number, capsys
):
    call(log, "log", severity, "x")
    assert last(runtime, sink).severity_number == number
    assert "log() takes a severity" in capsys.readouterr().err


def test_exception_records_the_one_being_handled_with_its_causes(log, runtime, sink):
    try:
        try:
            raise KeyError("missing")
        except KeyError as error:
            raise ValueError("no such order") from error
    except ValueError:
        call(log, "exception", "payment failed", order_id=1)
    record = last(runtime, sink)
    assert record.severity_number == 17
    assert record.attributes["exception.type"] == "ValueError"
    assert record.attributes["exception.message"] == "no such order"
    trace_text = record.attributes["exception.stacktrace"]
    assert trace_text.index("KeyError: 'missing'") < trace_text.index("ValueError: no such order")
    assert "direct cause" in trace_text
    assert 'raise ValueError("no such order") from error' in trace_text
    assert "exc_info" not in record.attributes


def test_exc_info_works_at_every_severity_and_absent_exceptions_add_nothing(runtime, sink):
    log = runtime.get_logger("t")
    log.warning("x", exc_info=ValueError("given"))
    assert last(runtime, sink).attributes["exception.message"] == "given"
    log.exception("none is handled")  # noqa: LOG004 - the test needs a call without an exception
    log.info("x", exc_info=True)  # noqa: LOG014
    log.info("x", exc_info=False)
    log.info("x", exc_info=(None, None, None))
    runtime.flush(5)
    assert [record.attributes for record in sink.records[1:]] == [{}] * 4


def test_bind_and_unbind_make_new_loggers(log, runtime, sink):
    bound = log.bind(a=1, b=2)
    call(bound.unbind("a", "unknown"), "info", "x", b=3)
    assert last(runtime, sink).attributes == {"service_part": "orders", "b": 3}
    call(log, "info", "x")
    assert last(runtime, sink).attributes == {"service_part": "orders"}
    assert "bound={'service_part': 'orders', 'a': 1, 'b': 2}" in repr(bound)
    assert type(bound) is type(log)
    assert bound.name == "app.orders"


def test_changing_a_value_after_the_call_does_not_change_the_log(log, runtime, sink):
    nested: dict[str, list[str]] = {"a": []}
    items, message = [1, nested], {"text": ["x"]}
    call(log, "info", message, items=items)
    nested["a"].append("changed")
    items.append(2)
    message["text"].clear()
    record = last(runtime, sink)
    assert record.attributes["items"] == [1, {"a": []}]
    assert record.body == {"text": ["x"]}


def test_any_attribute_name_is_free_to_use(runtime, sink):
    runtime.get_logger("t").info("x", self=1, message="m", name="n", severity=2, args=3)
    assert last(runtime, sink).attributes == {
        "self": 1, "message": "m", "name": "n", "severity": 2, "args": 3,
    }  # fmt: skip


def test_braces_and_percents_in_a_message_are_left_alone(runtime, sink):
    runtime.get_logger("t").info("100% of {order_id} %s", order_id=1)
    assert last(runtime, sink).body == "100% of {order_id} %s"


def test_a_disabled_call_does_nothing_at_all(runtime, sink):
    runtime.set_level("error")
    log = runtime.get_logger("t")

    class Explosive:
        def __repr__(self):
            raise AssertionError

    for method in ("trace", "debug", "info", "warning", "event"):
        getattr(log, method)("x", value=Explosive())
    log.log("info", "x", value=Explosive())
    assert runtime.flush(5)
    assert runtime.stats().accepted == 0
    assert not log.is_enabled("warn")
    assert log.is_enabled(40)


def test_code_attributes_name_the_callers_line_when_asked_for(sink):
    with Runtime(sinks=[sink], code_attributes=True) as runtime:
        _log_sync(runtime.get_logger("t"))
        asyncio.run(_log_async(runtime.get_async_logger("t")))
        runtime.flush(5)
    sync, coroutine = (record.attributes for record in sink.records)
    assert sync["code.line.number"] == _log_sync.__code__.co_firstlineno + 1
    assert sync["code.file.path"] == __file__
    assert sync["code.function.name"].endswith("_log_sync")
    assert coroutine["code.function.name"].endswith("_log_async")


def _log_sync(log):
    log.info("sync")


async def _log_async(log):
    await log.info("async")


def test_a_repr_that_logs_comes_out_as_a_record_of_its_own(runtime, sink):
    log = runtime.get_logger("t")

    class Chatty:
        def __repr__(self):
            log.info("from repr", inner=[self])
            return "<chatty>"

    log.info("outer", value=Chatty())
    runtime.flush(5)
    assert sorted(record.body for record in sink.records) == ["from repr", "outer"]
    outer = next(record for record in sink.records if record.body == "outer")
    assert outer.attributes["value"] == "<chatty>"


def test_the_scope_has_the_version_its_package_states(runtime, sink):
    runtime.get_logger("fapilog.something").info("x")
    assert last(runtime, sink).scope.version == fapilog.__version__


def test_both_front_ends_have_the_same_methods():
    def public(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(Logger) == public(AsyncLogger)
    for name in (*METHODS, "exception", "event", "log"):
        assert inspect.iscoroutinefunction(getattr(AsyncLogger, name))
        assert inspect.signature(getattr(Logger, name)) == inspect.signature(
            getattr(AsyncLogger, name)
        )


def test_an_async_call_waits_for_room_without_blocking_the_loop():
    import threading

    release = threading.Event()

    def hold(record):
        release.wait(20)
        return record

    sink = MemorySink()
    ticks = 0

    async def tick():
        nonlocal ticks
        while not release.is_set():
            ticks += 1
            if ticks == 20:
                release.set()
            await asyncio.sleep(0.001)

    async def main(log):
        ticker = asyncio.create_task(tick())
        for n in range(50):
            await log.info("x", n=n)
        await ticker

    with Runtime(sinks=[sink], processors=[hold], queue_size=4) as runtime:
        asyncio.run(main(runtime.get_async_logger("t")))
        assert runtime.flush(5)
        assert runtime.stats().delivered == 50
    assert [record.attributes["n"] for record in sink.records] == list(range(50))
    assert ticks >= 20


class HostileText(str):
    __slots__ = ()

    def _refuse(self, *_args: object) -> Any:
        raise RuntimeError

    __str__ = __repr__ = __len__ = __eq__ = __format__ = strip = upper = partition = _refuse
    __hash__ = str.__hash__


class NoTruth:
    def __bool__(self) -> bool:
        raise RuntimeError


def test_nothing_that_is_passed_raises_into_the_application(
    runtime: Runtime, sink: MemorySink
) -> None:
    text = HostileText("odd")
    log = runtime.get_logger(text)
    assert "HostileText" in log.name
    log.info(text, value=text, exc_info=NoTruth())
    log.log(text, "severity")
    log.event(text)
    log.log("info", "event", event_name=text)
    log.bind(odd=1).unbind(text).info("unbound")
    assert log.is_enabled(text)
    assert runtime.flush(5)
    assert len(sink.records) == 5
    assert all("HostileText" in record.event_name for record in sink.records[2:4])


class Incomparable(str):
    """A name that raises when it is compared with another of the same hash."""

    __slots__ = ()

    def __eq__(self, _other: object) -> bool:
        raise RuntimeError

    __hash__ = str.__hash__


@pytest.mark.parametrize("name", ["exc_info", "event_name"])
def test_no_name_of_an_attribute_raises_or_costs_a_record_its_exception(
    runtime: Runtime, sink: MemorySink, name: str
) -> None:
    odd: dict[str, Any] = {Incomparable(name): 1, "order": 42}
    log = runtime.get_logger("t")
    later = runtime.get_async_logger("t")

    async def call_async() -> None:
        await later.exception("m", **odd)
        await later.log("error", "m", **odd)

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("m", **odd)
        log.log("error", "m", **odd)
        asyncio.run(call_async())
    assert runtime.flush(5)
    assert [record.attributes["order"] for record in sink.records] == [42] * 4
    types = [record.attributes.get("exception.type") for record in sink.records]
    assert types[0] == types[2] == "ZeroDivisionError"


def test_names_are_bounded_and_can_be_encoded(runtime: Runtime, sink: MemorySink) -> None:
    for name in ("a" * 100_000, "\ud800", None, 3):
        runtime.get_logger(name).event(name)  # type: ignore[arg-type]
    runtime.flush(5)
    for record in sink.records:
        assert len(record.scope.name.encode()) <= 300
        assert len(record.event_name.encode()) <= 300
    assert [record.scope.name for record in sink.records[2:]] == ["", "3"]


@pytest.mark.parametrize("span", [object(), "text", MagicMock()])
def test_a_span_that_cannot_be_read_costs_no_record(
    span: object, runtime: Runtime, sink: MemorySink
) -> None:
    token = context.attach(trace.set_span_in_context(span))  # type: ignore[arg-type]
    runtime.get_logger("t").info("x")
    context.detach(token)
    assert last(runtime, sink).trace_id == ""


def test_a_call_by_the_interpreter_itself_has_no_call_site(sink: MemorySink) -> None:
    code = "import atexit, fapilog; fapilog.configure(sinks='console', code_attributes=True); "
    code += "atexit.register(fapilog.get_logger('t').info, 'bye')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"bye"' in done.stdout
    assert done.stderr == ""


def test_an_async_call_waits_no_longer_than_the_option_says_and_is_counted_if_cancelled() -> None:
    held, release = threading.Event(), threading.Event()

    def hold(record: LogRecord) -> LogRecord:
        held.set()
        release.wait(20)
        return record

    async def main(log: AsyncLogger) -> None:
        await log.info("queued")
        await log.warning("waits in vain")
        waiting = asyncio.create_task(log.error("cancelled"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    with Runtime(sinks="memory", processors=[hold], queue_size=1, block_timeout=0.01) as runtime:
        runtime.get_logger("t").info("held")
        assert held.wait(5)
        asyncio.run(asyncio.wait_for(main(runtime.get_async_logger("t")), 20))
        assert runtime.stats().drops == {"queue_full": {"WARN": 1, "ERROR": 1}}
        release.set()
