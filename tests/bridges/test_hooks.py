"""Warnings and uncaught exceptions are logged once, and the earlier hooks are still called."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

import fapilog
from fapilog.record import LogRecord
from fapilog.sinks import MemorySink
from tests.support import processes

SPAN = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=False))
OTHER = trace.NonRecordingSpan(trace.SpanContext(0xC3, 0xD4, is_remote=False))
PLACES = (
    (warnings, "showwarning"),
    (sys, "excepthook"),
    (threading, "excepthook"),
    (asyncio.BaseEventLoop, "call_exception_handler"),
)


def hooks() -> list[Any]:
    return [getattr(place, name) for place, name in PLACES]


class Told:
    """The application's hooks, which note their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def showwarning(self, message: Any, *rest: Any, **more: Any) -> None:
        self.calls.append(str(message))

    def excepthook(self, kind: Any, value: Any, traceback: Any) -> None:
        self.calls.append(repr(value))

    def thread_hook(self, args: Any) -> None:
        self.calls.append(repr(args.exc_value))


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    made = Told()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", made.showwarning)
        monkeypatch.setattr(sys, "excepthook", made.excepthook)
        monkeypatch.setattr(threading, "excepthook", made.thread_hook)
        yield made
        fapilog.uninstall_hooks()


@pytest.fixture
def sink() -> MemorySink:
    made = MemorySink()
    fapilog.configure(sinks=[made])
    return made


def logged(sink: MemorySink) -> list[LogRecord]:
    fapilog.flush(10)
    return list(sink.records)


def fail(message: str) -> None:
    raise ValueError(message)


def test_installing_twice_adds_nothing_and_uninstalling_restores_all(sink: MemorySink) -> None:
    before = hooks()
    fapilog.install_hooks()
    installed = hooks()
    assert all(one is not other for one, other in zip(before, installed, strict=True))
    fapilog.install_hooks()
    assert hooks() == installed
    fapilog.uninstall_hooks()
    fapilog.uninstall_hooks()
    assert hooks() == before


def wrapped(hook: Any) -> Any:
    return lambda *args, **options: hook(*args, **options)


def test_installing_again_after_somebody_wrapped_a_hook_logs_all_once(
    sink: MemorySink, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.calls.append(context["message"]))
    monkeypatch.setattr(*PLACES[-1], hooks()[-1])  # restored at the end
    fapilog.install_hooks()
    for place, name in PLACES:
        monkeypatch.setattr(place, name, wrapped(getattr(place, name)))
    fapilog.install_hooks()
    warnings.warn("too old", stacklevel=1)
    sys.excepthook(ValueError, ValueError("top"), None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("thread"), None, None)))
    loop.call_exception_handler({"message": "lost"})
    loop.call_exception_handler({"message": "failed", "exception": ValueError("task")})
    loop.close()
    fapilog.uninstall_hooks()
    assert told.calls == [
        *("too old", "ValueError('top')", "ValueError('thread')", "lost", "failed"),
    ]
    assert [record.body for record in logged(sink)] == [
        *("too old", "uncaught exception", "uncaught exception in a thread", "lost", "failed"),
    ]


def test_the_severity_text_is_the_name_that_fapilogs_own_loggers_use(sink: MemorySink) -> None:
    fapilog.install_hooks()
    warnings.warn("too old", stacklevel=1)
    sys.excepthook(ValueError, ValueError("top"), None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("thread"), None, None)))
    log = fapilog.get_logger("orders")
    for severity in ("WARN", "FATAL", "ERROR"):
        log.log(severity, "of fapilog")
    texts = [record.severity_text for record in logged(sink)]
    assert texts[:3] == texts[3:] == ["WARN", "FATAL", "ERROR"]


def test_installing_again_reports_where_somebody_has_replaced_a_hook(
    sink: MemorySink, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    fapilog.install_hooks()
    ours = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", told.excepthook)
    fapilog.install_hooks()
    sys.excepthook(ValueError, ValueError("x"), None)
    monkeypatch.setattr(sys, "excepthook", ours)  # and has restored it
    sys.excepthook(ValueError, ValueError("y"), None)
    assert len(logged(sink)) == 2


def test_the_exception_of_a_thread_that_its_hook_hands_on_is_logged_once(
    sink: MemorySink, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(args: threading.ExceptHookArgs) -> None:
        sys.excepthook(args.exc_type, args.exc_value, args.exc_traceback)  # type: ignore[arg-type]

    monkeypatch.setattr(threading, "excepthook", hook)
    fapilog.install_hooks()
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("x"), None, None)))
    assert [record.scope.name for record in logged(sink)] == ["threading"]
    assert told.calls == ["ValueError('x')"]


def test_only_what_is_asked_for_is_hooked(sink: MemorySink) -> None:
    before = hooks()
    fapilog.install_hooks()
    fapilog.install_hooks(warnings=False, threads=False, asyncio=False)
    changed = [one is not other for one, other in zip(before, hooks(), strict=True)]
    assert changed == [False, True, False, False]


def test_shutdown_undoes_them(sink: MemorySink) -> None:
    before = hooks()
    fapilog.install_hooks()
    fapilog.shutdown(5)
    assert hooks() == before


def test_a_warning_is_logged_and_shown(sink: MemorySink, told: Told) -> None:
    fapilog.install_hooks()
    warnings.warn("too old", DeprecationWarning, stacklevel=1)
    (record,) = logged(sink)
    assert (record.body, record.severity_number, record.scope.name) == (
        "too old",
        13,
        "py.warnings",
    )
    assert record.attributes["warning.category"] == "DeprecationWarning"
    assert record.attributes["code.file.path"] == __file__
    assert told.calls == ["too old"]


def test_a_warning_that_logging_captures_too_is_logged_once(sink: MemorySink) -> None:
    fapilog.install_stdlib()
    logging.captureWarnings(True)
    try:
        fapilog.install_hooks()
        warnings.warn("too old", stacklevel=1)
        fapilog.uninstall_hooks()
        warnings.warn("by logging alone", stacklevel=1)
    finally:
        logging.captureWarnings(False)
    first, second = logged(sink)
    assert first.body == "too old"
    assert "by logging alone" in str(second.body)


def test_a_warning_that_is_written_to_a_file_is_none_of_ours(sink: MemorySink, told: Told) -> None:
    fapilog.install_hooks()
    warnings.showwarning("x", UserWarning, "f", 1, file=sys.stderr)
    assert logged(sink) == []
    assert told.calls == ["x"]


def test_the_exception_of_a_thread_is_logged_once_with_its_ids(
    sink: MemorySink, told: Told
) -> None:
    fapilog.install_stdlib()
    fapilog.install_hooks()

    def work() -> None:
        with trace.use_span(SPAN, record_exception=False, set_status_on_exception=False):
            fail("in a thread")

    thread = threading.Thread(target=work, name="worker-7")
    thread.start()
    thread.join()
    quiet = threading.Thread(target=sys.exit)
    quiet.start()
    quiet.join()
    (record,) = logged(sink)
    assert record.severity_number == 17
    assert record.attributes["exception.message"] == "in a thread"
    assert record.attributes["thread.name"] == "worker-7"
    assert record.scope.name == "threading"
    assert told.calls == ["ValueError('in a thread')", "SystemExit()"]


def test_a_hook_of_the_application_that_logs_the_exception_makes_no_second_record(
    sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(kind: Any, value: BaseException, traceback: Any) -> None:
        logging.getLogger("app").critical("uncaught", exc_info=(kind, value, traceback))
        logging.getLogger("app").critical("another thing")

    monkeypatch.setattr(sys, "excepthook", hook)
    fapilog.install_stdlib()
    fapilog.install_hooks()
    try:
        fail("at the top")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert [record.body for record in logged(sink)] == ["uncaught exception", "another thing"]


def test_the_exception_that_ends_a_process_is_delivered_and_printed() -> None:
    with processes.receiving() as ids:
        done = processes.run(
            """
            fapilog.install_hooks()
            raise RuntimeError("the end")
            """,
            env=processes.otlp(ids),
        )
        assert done.returncode == 1
        assert "RuntimeError: the end" in done.stderr
        ids.assert_each_once(["uncaught exception"])


def test_an_interrupt_is_passed_on_and_not_logged(sink: MemorySink, told: Told) -> None:
    fapilog.install_hooks()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert logged(sink) == []
    assert told.calls == ["KeyboardInterrupt()"]


async def forget_a_task() -> None:
    async def work() -> None:
        with trace.use_span(SPAN, record_exception=False, set_status_on_exception=False):
            fail("in a task")

    task = asyncio.get_running_loop().create_task(work(), name="job-7")
    await asyncio.wait([task])
    del task
    with trace.use_span(OTHER):
        gc.collect()


def test_the_exception_of_a_task_is_logged_once_and_never_with_others_ids(
    sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    fapilog.install_stdlib()
    fapilog.install_hooks()
    asyncio.run(forget_a_task())
    (record,) = logged(sink)
    assert record.body == "Task exception was never retrieved"
    assert record.attributes["exception.message"] == "in a task"
    assert record.attributes["asyncio.task.name"] == "job-7"
    assert record.trace_id == ""
    assert [entry.name for entry in caplog.records] == ["asyncio"]


def test_a_failed_callback_has_the_ids_of_where_it_was_scheduled(sink: MemorySink) -> None:
    told: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        with trace.use_span(SPAN):
            loop.call_soon(fail, "in a callback")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    fapilog.install_hooks()
    asyncio.run(work())
    (record,) = logged(sink)
    assert record.attributes["exception.message"] == "in a callback"
    assert record.trace_id == f"{0xA1:032x}"
    assert len(told) == 1


class ForeignLoop(asyncio.AbstractEventLoop):
    """The exception handler of another library's event loop."""

    def __init__(self) -> None:
        self.handler: Any = None
        self.told: list[str] = []

    def get_exception_handler(self) -> Any:
        return self.handler

    def set_exception_handler(self, handler: Any) -> None:
        self.handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.told.append(context["message"])


def test_a_loop_of_another_library_is_hooked_and_released(sink: MemorySink) -> None:
    loop, with_handler = ForeignLoop(), ForeignLoop()  # type: ignore[abstract]
    with_handler.handler = mine = lambda loop, context: loop.told.append("mine")
    for one in (loop, with_handler, loop):
        fapilog.install_hooks(loop=one)
        one.handler(one, {"message": "lost", "exception": ValueError("x")})
    stays = loop.handler
    fapilog.uninstall_hooks()
    assert (loop.handler, with_handler.handler) == (None, mine)
    stays(loop, {"message": "after"})
    assert (loop.told, with_handler.told) == (["lost", "lost", "after"], ["mine"])
    assert len(logged(sink)) == 3


def test_a_hook_that_was_wrapped_since_stays_and_is_silent(
    sink: MemorySink, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    fapilog.install_hooks()
    ours = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", lambda *args: ours(*args))
    theirs = sys.excepthook
    fapilog.uninstall_hooks()
    assert sys.excepthook is theirs
    sys.excepthook(ValueError, ValueError("x"), None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("y"), None, None)))
    assert logged(sink) == []
    assert told.calls == ["ValueError('x')", "ValueError('y')"]
