"""Records whose attributes another library has set to wrong types arrive and are counted."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import structlog
from loguru import logger as loguru_logger
from opentelemetry import _logs as api

import fapilog
from fapilog.bridges.loguru import LoguruSink
from fapilog.bridges.structlog import NamedLogger, StructlogProcessor
from fapilog.otel.provider import LoggerProvider
from fapilog.sinks import MemorySink

NAN, INF = float("nan"), float("inf")
MINUTE = 60_000_000_000


class Neither:
    """Neither true nor false, and not text."""

    def __bool__(self) -> bool:
        msg = "neither"
        raise ValueError(msg)

    def __str__(self) -> str:
        msg = "no text"
        raise ValueError(msg)

    __repr__ = __str__


class Hidden(dict[str, Any]):
    """A dict that keeps its items to itself."""

    def __getitem__(self, name: object) -> Any:
        msg = "hidden"
        raise RuntimeError(msg)

    def __bool__(self) -> bool:
        msg = "neither"
        raise RuntimeError(msg)


WRONG = [
    "text", None, NAN, INF, -1.0, 10**30, [], {}, object(), b"b", dt.datetime(2024, 1, 1),
    np.array([1, 2]), Neither(), Hidden(), ("a",),
]  # fmt: skip


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def runtime(sink: MemorySink) -> Iterator[fapilog.Runtime]:
    with fapilog.Runtime(sinks=[sink], level="trace", otel_provider=False) as made:
        yield made


def check(runtime: fapilog.Runtime, sink: MemorySink, calls: int) -> list[fapilog.LogRecord]:
    """Every call is in the ledger and in the sink, at about the present time."""
    assert runtime.flush(20)
    records = list(sink.records)
    stats = runtime.stats()
    assert (stats.accepted, stats.delivered, len(records)) == (calls, calls, calls)
    assert all(abs(time.time_ns() - record.observed_timestamp) < MINUTE for record in records)
    return records


def made(**attributes: Any) -> logging.LogRecord:
    plain = logging.LogRecord("app", logging.ERROR, "/app.py", 7, "hello", (), None, "main")
    return logging.makeLogRecord({**vars(plain), "order": 42, **attributes})


# ---- logging


def test_no_attribute_of_a_logging_record_loses_it(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    handler = fapilog.Handler(runtime=runtime, code_attributes=True, thread_attributes=True)
    names = [name for name in vars(made()) if name != "order"]
    for name in names:
        for value in WRONG:
            handler.handle(made(**{name: value}))
    for record in check(runtime, sink, len(names) * len(WRONG)):
        assert "cannot be converted" not in str(record.body)
        assert record.attributes["order"] == 42


@pytest.mark.parametrize(
    "name", ["name", "msg", "args", "levelno", "levelname", "created", "exc_info", "exc_text"]
)
def test_an_attribute_that_a_logging_record_does_not_have_gets_its_default(
    runtime: fapilog.Runtime, sink: MemorySink, name: str
) -> None:
    record = made()
    delattr(record, name)
    fapilog.Handler(runtime=runtime).handle(record)
    (found,) = check(runtime, sink, 1)
    assert found.attributes == {"order": 42}
    assert found.body == ("" if name == "msg" else "hello")


@pytest.mark.parametrize("created", ["yesterday", "", None, NAN, INF, -5, 10**30, [1]])
def test_a_record_without_a_valid_time_gets_the_observed_time(
    runtime: fapilog.Runtime, sink: MemorySink, created: Any
) -> None:
    fapilog.Handler(runtime=runtime).handle(made(created=created, args=("x",), msg="hello %s"))
    (record,) = check(runtime, sink, 1)
    assert abs(record.timestamp - record.observed_timestamp) < MINUTE
    assert (record.body, record.scope.name) == ("hello x", "app")
    assert (record.severity_number, record.severity_text) == (17, "ERROR")
    assert record.attributes == {"order": 42}


@pytest.mark.parametrize(
    ("name", "scope"), [(None, ""), (7, "7"), (b"app", "app"), (["a"], "['a']"), (Neither(), None)]
)
def test_a_name_that_is_not_text_becomes_text(
    runtime: fapilog.Runtime, sink: MemorySink, name: Any, scope: str | None
) -> None:
    fapilog.Handler(runtime=runtime).handle(made(name=name))
    (record,) = check(runtime, sink, 1)
    assert record.body == "hello"
    assert scope is None or record.scope.name == scope


@pytest.mark.parametrize(
    ("levelno", "levelname", "number"),
    [
        (None, "WARNING", 13),
        ("x", "ERROR", 17),
        ("40", "x", 17),
        (30.0, "WARNING", 13),
        (NAN, "loud", 9),
        (None, None, 9),
    ],
)
def test_the_name_of_the_level_replaces_a_wrong_number(
    runtime: fapilog.Runtime, sink: MemorySink, levelno: Any, levelname: Any, number: int
) -> None:
    fapilog.Handler(runtime=runtime).handle(made(levelno=levelno, levelname=levelname))
    (record,) = check(runtime, sink, 1)
    assert record.severity_number == number
    assert type(record.severity_number) is int


def test_a_level_that_is_a_float_does_not_change_later_levels(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    handler = fapilog.Handler(runtime=runtime)
    for level in (37.0, 37):
        handler.handle(made(levelno=level))
    numbers = [record.severity_number for record in check(runtime, sink, 2)]
    assert [(number, type(number)) for number in numbers] == [(15, int), (15, int)]
    assert runtime.stats().drops == {}


def test_the_announcement_names_the_wrong_attributes(
    runtime: fapilog.Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    fapilog.Handler(runtime=runtime).handle(made(created=None, exc_info=Neither()))
    announced = capsys.readouterr().err
    assert "a record of logger 'app' has no valid created, exc_info" in announced


def test_a_wrong_record_arrives_once_and_other_handlers_get_it_unchanged(sink: MemorySink) -> None:
    fapilog.configure(sinks=[sink], otel_provider=False)
    fapilog.install_stdlib("info")
    seen: list[Any] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.created)

    other = Watching()
    logging.getLogger().addHandler(other)
    try:
        logging.getLogger("app").handle(made(created="yesterday"))
        logging.getLogger().handle(made(name=None))
    finally:
        logging.getLogger().removeHandler(other)
    assert fapilog.flush(10)
    assert [record.scope.name for record in sink.records] == ["app", ""]
    assert seen[0] == "yesterday"


def test_a_message_class_of_the_application_formats_a_wrong_record(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    class Braces(logging.LogRecord):
        def getMessage(self) -> str:  # noqa: N802
            return str(self.msg).format(*(self.args or ()))

    handler = fapilog.Handler(runtime=runtime)
    for text, args in (("paid {}", (9,)), ("paid {} {}", ())):
        record = Braces("app", 20, "", 1, text, args, None)
        record.created = None  # type: ignore[assignment]
        handler.handle(record)
    assert [r.body for r in check(runtime, sink, 2)] == ["paid 9", "paid {} {}"]


def test_a_logging_record_that_refuses_everything_is_counted(
    runtime: fapilog.Runtime, sink: MemorySink, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.LogRecord):
        @property
        def msg(self) -> str:
            raise OSError

        @msg.setter
        def msg(self, value: object) -> None:
            vars(self)["msg"] = NoText(value)

    class NoText(str):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            raise OSError

    record = Broken("app", 20, "", 1, "x", (), None)
    handlers = [fapilog.Handler(runtime=runtime) for _ in range(2)]
    for handler in handlers:
        handler.handle(record)
    check(runtime, sink, 1)
    assert capsys.readouterr().err


# ---- the Logs API


def test_no_field_of_a_logs_api_record_loses_it(runtime: fapilog.Runtime, sink: MemorySink) -> None:
    logger = LoggerProvider(lambda: runtime).get_logger("shop")
    names = [name for name in vars(api.LogRecord()) if name not in {"severity_number", "body"}]
    for name in names:
        for value in WRONG:
            given: Any = {"severity_number": api.SeverityNumber.ERROR, "body": "x", name: value}
            logger.emit(**given)
            emitted = api.LogRecord(severity_number=api.SeverityNumber.ERROR, body="x")
            setattr(emitted, name, value)
            logger.emit(emitted)
    for record in check(runtime, sink, 2 * len(names) * len(WRONG)):
        assert (record.body, record.severity_number) == ("x", 17)
        assert record.timestamp > 0


@pytest.mark.parametrize("field", ["timestamp", "observed_timestamp"])
@pytest.mark.parametrize("value", ["soon", NAN, INF, -1, 2**70, [1], Neither()])
def test_a_wrong_time_of_the_logs_api_is_the_observed_time(
    runtime: fapilog.Runtime, sink: MemorySink, field: str, value: Any
) -> None:
    given: Any = {field: value, "body": "x"}
    LoggerProvider(lambda: runtime).get_logger("shop").emit(**given)
    (record,) = check(runtime, sink, 1)
    assert record.timestamp == record.observed_timestamp


# ---- structlog


def test_no_value_of_an_event_dict_loses_the_event(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    processor = StructlogProcessor(runtime)
    names = [
        "event", "level", "level_number", "logger", "exc_info", "exception", "stack", "stack_info",
        "timestamp", "positional_args", "_record", "_from_structlog", "otel.event.name",
    ]  # fmt: skip
    for name in names:
        for value in WRONG:
            event = {"event": "hi %s", "order": 42, name: value}
            with contextlib.suppress(structlog.DropEvent):
                processor(NamedLogger("app"), "error", event)
    for record in check(runtime, sink, len(names) * len(WRONG)):
        assert record.attributes["order"] == 42


def test_an_event_that_an_earlier_processor_has_rendered_is_the_body(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    chain: Any = [structlog.processors.JSONRenderer(), StructlogProcessor(runtime)]
    log = structlog.wrap_logger(NamedLogger("app"), processors=chain)
    log.warning("paid", order=42)
    (record,) = check(runtime, sink, 1)
    assert record.body == '{"order": 42, "event": "paid"}'
    assert record.severity_number == 13


# ---- loguru


def without(name: str, record: Any) -> None:
    del record[name]


def test_no_value_of_a_patched_loguru_record_loses_it(
    runtime: fapilog.Runtime, sink: MemorySink
) -> None:
    into = LoguruSink(runtime, code_attributes=True)
    loguru_logger.remove()
    added = loguru_logger.add(into, format=into.format, level=0)
    # loguru itself needs the level and the exception.
    names = ["elapsed", "extra", "file", "function", "line", "message", "module", "name",
             "process", "thread", "time"]  # fmt: skip
    try:
        for name in names:
            for value in WRONG:
                loguru_logger.patch(partial(dict.update, **{name: value})).error("x")
            loguru_logger.patch(partial(without, name)).error("x")
    finally:
        loguru_logger.remove(added)
    records = check(runtime, sink, len(names) * (len(WRONG) + 1))
    assert not [record for record in records if "cannot be converted" in str(record.body)]
    assert all(abs(time.time_ns() - record.timestamp) < MINUTE for record in records)
