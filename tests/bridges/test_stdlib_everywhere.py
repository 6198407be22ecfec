"""install_stdlib() takes the records of every logger once, and uninstall restores everything."""

from __future__ import annotations

import copy
import logging
import logging.handlers
import os
import pickle
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider as SDKLoggerProvider

from fapilog.bridges.stdlib import Handler, install, uninstall
from fapilog.otel.processor import FapilogLogRecordProcessor
from fapilog.otel.provider import LoggerProvider
from tests.support.targets import Collector


@pytest.fixture
def target() -> Collector:
    return Collector()


@pytest.fixture
def apart() -> Iterator[logging.Logger]:
    """A logger with a handler that does not propagate, like uvicorn's after its dictConfig."""
    logger = logging.getLogger("apart.access")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def found() -> Iterator[object]:
    """The method that calls handlers before the test, restored after it."""
    before = logging.Logger.callHandlers
    yield before
    uninstall()
    logging.Logger.callHandlers = before  # type: ignore[method-assign]


def test_a_logger_that_does_not_propagate_is_heard(
    apart: logging.Logger, target: Collector
) -> None:
    install(lambda: target)
    apart.info("GET %s", "/")
    apart.getChild("below").warning("x")
    assert [record.body for record in target.records] == ["GET /", "x"]


def test_uninstalling_restores_exactly_what_was_found(found: object, target: Collector) -> None:
    install(lambda: target)
    install(lambda: target)
    assert logging.Logger.callHandlers is not found
    uninstall()
    assert logging.Logger.callHandlers is found


def wrap(found: Callable[..., None]) -> Callable[..., None]:
    return lambda logger, record: found(logger, record)


def test_a_wrapper_of_somebody_else_stays_and_nothing_is_heard(
    apart: logging.Logger, target: Collector
) -> None:
    install(lambda: target)
    theirs = wrap(logging.Logger.callHandlers)
    logging.Logger.callHandlers = theirs  # type: ignore[method-assign]
    apart.info("once")
    uninstall()
    assert logging.Logger.callHandlers is theirs
    apart.info("nobody listens")
    install(lambda: target)
    apart.info("again")
    uninstall()
    assert logging.Logger.callHandlers is theirs
    assert [record.body for record in target.records] == ["once", "again"]


def test_other_handlers_get_the_record_too_and_may_fail(
    apart: logging.Logger, target: Collector
) -> None:
    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    install(lambda: target)
    apart.addHandler(Fails())
    with pytest.raises(RuntimeError, match="first"):
        apart.info("first")
    apart.handlers.pop()
    apart.info("second")
    assert [record.body for record in target.records] == ["first", "second"]


def test_a_handler_of_the_application_keeps_its_options_and_is_the_only_copy(
    apart: logging.Logger, target: Collector
) -> None:
    install(lambda: target)
    apart.addHandler(Handler(runtime=target, code_attributes=True))
    apart.info("x")
    logging.getLogger("elsewhere").warning("y")
    assert [record.body for record in target.records] == ["x", "y"]
    assert target.records[0].attributes["code.file.path"] == __file__
    assert target.records[1].attributes == {}


def test_a_handler_that_takes_less_leaves_the_rest_to_the_bridge(
    apart: logging.Logger, target: Collector
) -> None:
    install(lambda: target)
    apart.addHandler(Handler(logging.ERROR, runtime=target))
    apart.info("x")
    assert [record.body for record in target.records] == ["x"]


@pytest.fixture
def kernel() -> Iterator[logging.Logger]:
    """A logger like that of traitlets: its level is DEBUG, and its handler's level is WARNING.

    Each test turns ``propagate`` off itself, because pytest adds its own handlers, which show
    every record, to loggers that do not propagate when the test begins.
    """
    logger = logging.getLogger("kernel")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(logging.NullHandler(logging.WARNING))
    yield logger
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def test_records_that_a_loggers_own_handlers_hide_are_not_passed(
    kernel: logging.Logger, target: Collector
) -> None:
    kernel.propagate = False
    install(lambda: target)
    kernel.debug("hidden")
    kernel.getChild("below").info("hidden too")
    kernel.warning("shown")
    kernel.propagate = True
    kernel.debug("for the root logger")
    assert [record.body for record in target.records] == ["shown", "for the root logger"]


def test_one_handler_that_shows_the_record_is_enough(
    kernel: logging.Logger, target: Collector
) -> None:
    kernel.propagate = False
    install(lambda: target)
    child = kernel.getChild("below")
    child.addHandler(logging.NullHandler())
    child.debug("shown by the child's handler")
    child.handlers.clear()
    kernel.handlers.clear()
    kernel.debug("without handlers")
    bodies = ["shown by the child's handler", "without handlers"]
    assert [record.body for record in target.records] == bodies


def test_an_explicit_level_or_handler_gets_the_records_that_are_hidden_otherwise(
    kernel: logging.Logger, target: Collector
) -> None:
    kernel.propagate = False
    install(lambda: target, "debug")
    kernel.debug("by the level of install()")
    install(lambda: target)
    kernel.debug("hidden")
    install(lambda: target, logger=kernel)
    kernel.debug("by install() for this logger")
    uninstall(kernel)
    kernel.debug("hidden again")
    bodies = ["by the level of install()", "by install() for this logger"]
    assert [record.body for record in target.records] == bodies


def test_handlers_of_different_runtimes_get_one_copy_each(
    apart: logging.Logger, target: Collector
) -> None:
    others = Collector(), Collector()
    install(lambda: target)
    root = logging.getLogger()
    for other in others:
        apart.addHandler(Handler(runtime=other))
        apart.addHandler(Handler(runtime=other))
    apart.propagate = True
    apart.info("x")
    apart.propagate = False
    assert [len(one.records) for one in (target, *others)] == [1, 1, 1]
    assert root.handlers[-1].__class__ is Handler
    assert [type(one.records[0].scope.name) for one in others] == [str, str]


def test_a_queue_gives_no_second_copy_and_the_time_thread_and_exception_are_the_first_ones(
    apart: logging.Logger, target: Collector
) -> None:
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    install(lambda: target)
    apart.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(
        records, Handler(runtime=target, thread_attributes=True)
    )
    listener.start()
    try:
        raise KeyError("order")
    except KeyError:
        apart.exception("failed")
    listener.stop()
    (record,) = target.records
    (capture,) = target.captures
    assert capture is not None
    assert "test_a_queue_gives" in capture.attributes()["exception.stacktrace"]
    assert record.body == "failed"


def test_a_listener_alone_keeps_time_thread_and_exception(target: Collector) -> None:
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(logging.handlers.QueueHandler(records))
    try:
        raise KeyError("order")
    except KeyError:
        logger.exception("failed")
    queued = records.get()
    records.put(queued)
    listener = logging.handlers.QueueListener(
        records, Handler(runtime=target, thread_attributes=True)
    )
    listener.start()
    listener.stop()
    (record,) = target.records
    assert record.timestamp == int(queued.created * 1e9)
    assert record.attributes["thread.id"] == threading.get_ident()
    assert record.body == "failed"
    assert record.attributes["exception.type"] == "KeyError"
    assert record.attributes["exception.message"] == "'order'"
    assert record.attributes["exception.stacktrace"].endswith("\nKeyError: 'order'\n")


def test_the_mark_is_text_to_everybody_else(apart: logging.Logger, target: Collector) -> None:
    kept: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    install(lambda: target)
    apart.addHandler(Keeps())
    apart.info("x")
    (record,) = kept
    assert record.name == "apart.access"
    assert logging.Formatter("%(name)s").format(record) == "apart.access"
    assert type(pickle.loads(pickle.dumps(record)).name) is str
    copy.copy(record)
    Handler(runtime=target).handle(copy.copy(record))
    assert len(target.records) == 1


def instrumentations() -> Any:
    return pytest.importorskip("opentelemetry.instrumentation.logging.handler").LoggingHandler


def sdks() -> Any:
    module = pytest.importorskip("opentelemetry.sdk._logs")

    def make(**options: Any) -> logging.Handler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handler: logging.Handler = module.LoggingHandler(**options)
        return handler

    return make


@pytest.mark.parametrize("handlers", [instrumentations, sdks])
@pytest.mark.parametrize("through", ["provider", "processor"])
def test_opentelemetrys_handlers_give_no_second_copy_and_work_without_the_bridge(
    apart: logging.Logger, target: Collector, handlers: Callable[[], Any], through: str
) -> None:
    provider: Any = LoggerProvider(lambda: target)
    if through == "processor":
        provider = SDKLoggerProvider()
        provider.add_log_record_processor(FapilogLogRecordProcessor(target))
    apart.addHandler(handlers()(logger_provider=provider))
    apart.info("before")
    install(lambda: target)
    apart.info("during")
    provider.get_logger("apart.access").emit(body="not of logging")
    uninstall()
    apart.info("after")
    bodies = ["before", "during", "not of logging", "after"]
    assert [record.body for record in target.records] == bodies


def test_an_event_that_a_handler_emits_by_itself_arrives(
    apart: logging.Logger, target: Collector
) -> None:
    provider = SDKLoggerProvider()
    provider.add_log_record_processor(FapilogLogRecordProcessor(target))

    class Audits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            provider.get_logger(record.name).emit(body="audited", timestamp=1)

    install(lambda: target)
    apart.addHandler(Audits())
    apart.info("x")
    assert [record.body for record in target.records] == ["x", "audited"]


def test_many_threads_that_install_and_log_leave_nothing_behind(
    found: object, apart: logging.Logger, target: Collector
) -> None:
    def work() -> None:
        for _ in range(50):
            install(lambda: target)
            apart.info("x")
            uninstall()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logging.Logger.callHandlers is found
    assert len({id(record) for record in target.records}) <= 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_somebody_installs_can_uninstall(target: Collector) -> None:
    held, done = threading.Event(), threading.Event()

    def slow() -> Collector:
        held.set()
        done.wait(30)
        return target

    from fapilog.bridges import stdlib

    def hold() -> None:
        with stdlib._lock:
            slow()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        install(lambda: target)
        uninstall()
        os._exit(7)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
