"""Arguments of a log call that mean what they mean in the standard library."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import fapilog
from fapilog import AsyncLogger, Logger, LogRecord, Runtime
from fapilog.sinks import MemorySink

TEMPLATE = "log.body.template"


class Logged:
    """Calls a logger and returns the attributes of the record."""

    def __init__(self, runtime: Runtime, sink: MemorySink, log: Logger | AsyncLogger) -> None:
        self.runtime, self.sink, self.log = runtime, sink, log

    def __call__(self, method: str, *args: Any, **attributes: Any) -> LogRecord:
        result = getattr(self.log, method)(*args, **attributes)
        if inspect.isawaitable(result):
            asyncio.run(_await(result))
        assert self.runtime.flush(5)
        return self.sink.records[-1]


async def _await(awaitable: Any) -> None:
    await awaitable


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def runtime(sink: MemorySink) -> Iterator[Runtime]:
    with Runtime(sinks=[sink], level="trace", code_attributes=True) as runtime:
        yield runtime


@pytest.fixture(params=["get_logger", "get_async_logger"])
def logged(request: pytest.FixtureRequest, runtime: Runtime, sink: MemorySink) -> Logged:
    return Logged(runtime, sink, getattr(runtime, request.param)("app"))


METHODS = ("trace", "debug", "info", "warning", "error", "critical", "exception")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_formats_positional_arguments(logged: Logged, method: str) -> None:
    record = logged(method, "failed: %s (%d)", ValueError("x"), 3, order=7)
    assert record.body == "failed: x (3)"
    assert record.attributes[TEMPLATE] == "failed: %s (%d)"
    assert record.attributes["order"] == 7
    record = logged("log", "INFO2", "%s", 1, event_name="e")
    assert (record.body, record.event_name, record.severity_number) == ("1", "e", 10)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("failed: %s", (ValueError("x"),)),
        ("%s of %d, %5.1f %%", ("a", 2, 3.14)),
        ("%(name)s: %(count)d", ({"name": "n", "count": 3},)),
        ("%s", ({},)),
        ("%r", ({"a": 1},)),
        ("%s", ((1,),)),
        ("%*d", (5, 3)),
        ("{} literal braces: %s", ("x",)),
        (ValueError("%s as the message"), (1,)),
        (17, ()),
    ],
)
def test_the_text_is_that_of_the_standard_library(
    message: Any, args: tuple[Any, ...], runtime: Runtime, sink: MemorySink, capsys: Any
) -> None:
    runtime.get_logger("app").info(message, *args)
    assert runtime.flush(5)
    expected = logging.LogRecord("", 0, "", 0, message, args, None).getMessage()
    assert str(sink.records[-1].body) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "args", "body"),
    [
        ("{} of {}", (1, 2), "1 of 2"),
        ("{1} before {0}", ("a", "b"), "b before a"),
        ("{:>5.2f}|{!r}", (3.14159, "a"), " 3.14|'a'"),
        ("{} by {user}", (1,), "1 by ada"),
        ("{}: 50 % done, 100%% sure", ("x",), "x: 50 % done, 100%% sure"),
        ("{0[a]} {0[b]}", ({"a": 1, "b": 2},), "1 2"),
    ],
)
def test_braces_are_formatted_where_the_text_has_them(
    message: str, args: tuple[Any, ...], body: str, logged: Logged, capsys: Any
) -> None:
    record = logged("info", message, *args, user="ada")
    assert record.body == body
    assert record.attributes[TEMPLATE] == message
    assert record.attributes["user"] == "ada"
    assert capsys.readouterr().err == ""


class Broken:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("message", "args", "body"),
    [
        ("failed:", (ValueError("x"),), "failed: x"),
        ("%s and %s", ("one",), "one and %s"),
        ("%s", ("one", "two"), "one two"),
        ("%d of %d", ("one", 2), "one of 2"),
        ("%(name)s", ("x",), "x"),
        ("100%", (1,), "100% 1"),
        ("{} and {}", ("one",), "one and {}"),
        ("{}", ("one", "two"), "one two"),
        ("{user} {}", (), "{user} {}"),
        ("{missing} {}", ("one",), "one {}"),
        ("%999999999999d", (1,), "1"),
    ],
)
def test_arguments_that_do_not_fit_are_announced_and_added_to_the_text(
    message: str, args: tuple[Any, ...], body: str, logged: Logged, capsys: Any
) -> None:
    assert logged("error", message, *args).body == body
    err = capsys.readouterr().err
    if args:
        assert "the arguments of a log call of logger 'app'" in err
        assert "do not fit its message" in err
        assert f"{__file__}:" in err


def test_the_line_of_a_call_with_wrong_arguments_is_announced(
    runtime: Runtime, capsys: Any
) -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    runtime.get_logger("app").info("no place", 1)
    assert f" at {__file__}:{line} do" in capsys.readouterr().err


def test_an_argument_that_cannot_be_shown_leaves_the_others(logged: Logged) -> None:
    body = logged("error", "%s, %s", "one", Broken()).body
    assert isinstance(body, str)
    assert body.startswith("one, ")
    assert "Broken" in body


def test_an_argument_that_logs_itself_does_not_recurse(runtime: Runtime, sink: MemorySink) -> None:
    log = runtime.get_logger("app")

    class Chatty:
        def __str__(self) -> str:
            log.info("inner %s", self)
            return "chatty"

    log.info("outer %s", Chatty())
    assert runtime.flush(5)
    assert [record.body for record in sink.records] == ["inner %s", "outer chatty"]


def test_a_message_that_an_argument_logs_keeps_its_arguments(
    runtime: Runtime, sink: MemorySink
) -> None:
    log = runtime.get_logger("app")

    class Chatty:
        def __str__(self) -> str:
            log.info("inner %s %d", "one", 2)
            log.info("inner {} {me}", 3, me=self)  # noqa: PLE1205 - never formatted: endless
            return "chatty"

    log.info("outer %s %s", Chatty(), Chatty())
    assert runtime.flush(5)
    inner = ["inner one 2", "inner {} {me}"]
    assert [record.body for record in sink.records] == [*inner, *inner, "outer chatty chatty"]


def test_a_secret_among_the_arguments_is_redacted(
    runtime: Runtime, sink: MemorySink, capsys: Any
) -> None:
    log = runtime.get_logger("app")
    log.info("password=%s for %s", "hunter2-secret", "ada")
    for message in ("password=%s for %s", "password:"):  # one argument does not fit
        log.info(message, "hunter2-secret")
    assert runtime.flush(5)
    assert "hunter2" not in repr(sink.records)
    assert "hunter2" not in capsys.readouterr().err


def test_extra_is_a_mapping_of_attributes(logged: Logged) -> None:
    record = logged("info", "x", extra={"a": 1, "b": {"c": [2]}, "order": "extra"}, order="own")
    for name, value in {"a": 1, "b": {"c": [2]}, "order": "own"}.items():
        assert record.attributes[name] == value
    assert "extra" not in record.attributes
    assert "extra" not in logged("info", "x", extra=None).attributes
    assert logged("info", "x", extra="text").attributes["extra"] == "text"
    assert logged("info", "x", extra=5).attributes["extra"] == 5


def test_stack_info_adds_the_stack_as_the_standard_library_writes_it(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    reference = logging.getLogger("tests.reference")
    monkeypatch.setattr(reference, "propagate", False)
    monkeypatch.setattr(reference, "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setattr(reference, "level", logging.INFO)
    reference.info("x", stack_info=True)
    header, *frames = stream.getvalue().splitlines()[1:]
    record = logged("info", "x", stack_info=True)
    text = str(record.attributes["code.stacktrace"])
    assert text.startswith(header + "\n")
    assert "__call__" in text.splitlines()[-2] or "_await" in text
    assert frames[0] in text
    assert "fapilog/engine" not in text
    assert "stack_info" not in record.attributes
    assert "code.stacktrace" not in logged("info", "x", stack_info=False).attributes


def test_an_exception_and_the_stack_may_be_on_one_record(logged: Logged) -> None:
    record = logged("error", "x", exc_info=ValueError("v"), stack_info=True)
    assert record.attributes["exception.type"] == "ValueError"
    assert str(record.attributes["code.stacktrace"]).startswith("Stack (most recent call last):")


def wrapper(log: Logger, **options: Any) -> None:
    log.info("x", **options)


def test_stacklevel_selects_the_caller(runtime: Runtime, sink: MemorySink) -> None:
    log = runtime.get_logger("app")
    wrapper(log)
    wrapper(log, stacklevel=2)
    wrapper(log, stacklevel=2, stack_info=True)
    wrapper(log, stacklevel=10_000)
    wrapper(log, stacklevel=2.0)
    assert runtime.flush(5)
    names = [record.attributes["code.function.name"] for record in sink.records]
    here = test_stacklevel_selects_the_caller.__name__
    own, selected, with_stack, _, wrong = map(str, names)
    assert own.endswith(".wrapper")
    assert wrong.endswith(".wrapper")
    assert selected.endswith(here)
    assert with_stack.endswith(here)
    assert "in wrapper" not in str(sink.records[2].attributes["code.stacktrace"])
    assert all("stacklevel" not in record.attributes for record in sink.records)


@pytest.mark.parametrize("exc_info", [True, 1])
def test_exc_info_may_be_true_or_absent(logged: Logged, exc_info: Any) -> None:
    try:
        raise KeyError("k")
    except KeyError:
        record = logged("error", "x", exc_info=exc_info, count=1)
    assert record.attributes["exception.type"] == "KeyError"
    for nothing in (None, False, 0, (None, None, None)):
        record = logged("error", "x", exc_info=nothing, count=1)
        assert "exc_info" not in record.attributes
        assert "exception.type" not in record.attributes
        assert record.attributes["count"] == 1


def test_a_held_record_keeps_its_stack(runtime: Runtime, sink: MemorySink) -> None:
    runtime.set_level("error")
    with fapilog.hold() as held:
        runtime.get_logger("app").info("held %s", 1, stack_info=True)
        held.release()
    assert runtime.flush(5)
    assert sink.records[-1].body == "held 1"
    assert "code.stacktrace" in sink.records[-1].attributes
