"""Celery's records have attributes with standard names, and are not printed twice."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog import Runtime
from fapilog.bridges.stdlib import Handler, install, uninstall
from fapilog.sinks import ConsoleSink, MemorySink
from tests.support.targets import Collector

celery = pytest.importorskip("celery")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An application of Celery that has not configured logging."""
    from celery.app.log import Logging

    loggers = [logging.getLogger(name) for name in ("", "celery", "celery.task")]
    loggers.append(logging.getLogger("multiprocessing"))
    states = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    monkeypatch.setattr(Logging, "_setup", False)
    for name in ("CELERY_LOG_LEVEL", "CELERY_LOG_FILE", "_MP_FORK_LOGLEVEL_"):
        monkeypatch.setenv(name, "")
    yield celery.Celery("tests", broker="memory://", set_as_current=False)
    uninstall()
    logging.captureWarnings(False)
    for one, (handlers, level, propagate) in zip(loggers, states, strict=True):
        for made in set(one.handlers) - set(handlers):
            made.close()
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What Celery's handlers print."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.__stderr__", stream)
    return stream


def log_all() -> None:
    logging.getLogger("orders").warning("of the application")
    logging.getLogger("celery.worker").warning("of the worker")
    celery.utils.log.get_task_logger("orders.tasks").warning("of a task")


def test_a_record_that_the_console_shows_is_not_printed_by_celery_too(
    app: Any, terminal: io.StringIO
) -> None:
    console = io.StringIO()
    with Runtime(sinks=[ConsoleSink(console)]) as runtime:
        install(lambda: runtime)
        app.log.setup(loglevel="INFO")
        log_all()
    for text in ("of the application", "of the worker", "of a task"):
        assert console.getvalue().count(text) == 1
    assert terminal.getvalue() == ""


def test_handlers_that_celery_has_made_before_do_not_print_twice_either(
    app: Any, terminal: io.StringIO
) -> None:
    console = io.StringIO()
    app.log.setup(loglevel="INFO")
    with Runtime(sinks=[ConsoleSink(console)]) as runtime:
        install(lambda: runtime)
        log_all()
        assert terminal.getvalue() == ""
        uninstall()
        log_all()
    assert terminal.getvalue().count("of a task") == console.getvalue().count("of a task") == 1


def test_without_a_console_sink_celery_prints(app: Any, terminal: io.StringIO) -> None:
    with Runtime(sinks=[MemorySink()]) as runtime:
        install(lambda: runtime)
        app.log.setup(loglevel="INFO")
        log_all()
    assert terminal.getvalue().count("of a task") == 1


def test_celerys_log_file_still_gets_the_records(app: Any, tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    with Runtime(sinks=[ConsoleSink(io.StringIO())]) as runtime:
        install(lambda: runtime)
        app.log.setup(loglevel="INFO", logfile=str(file))
        log_all()
    assert file.read_text().count("of a task") == 1


def records_of(app: Any, target: Collector, *, fails: bool = False) -> Any:
    """Run a task, and return the last record of Celery's tracer."""
    logger = logging.getLogger("celery.app.trace")
    handler = Handler(runtime=target)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:

        @app.task(name="orders.pay")
        def pay(card: str) -> int:
            return 1 // int(not fails)

        pay.apply(("4111 1111",), task_id="a1")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return target.records[-1]


def test_the_data_of_a_task_becomes_attributes_with_standard_names(app: Any) -> None:
    record = records_of(app, Collector())
    assert str(record.body).startswith("Task orders.pay[a1] succeeded in ")
    duration = record.attributes.pop("messaging.process.duration")
    assert 0 <= duration < 60
    assert record.attributes == {"messaging.message.id": "a1", "celery.task_name": "orders.pay"}


def test_the_traceback_of_a_failed_task_is_not_repeated(app: Any) -> None:
    target = Collector()
    record = records_of(app, target, fails=True)
    assert str(record.body).startswith("Task orders.pay[a1] raised unexpected: ZeroDivisionError")
    assert record.attributes == {"messaging.message.id": "a1", "celery.task_name": "orders.pay"}


def test_data_of_another_logger_and_other_data_of_celery_stay() -> None:
    target = Collector()
    for name in ("orders", "celery.worker"):
        logger = logging.Logger(name)  # noqa: LOG001 - not a child of root
        logger.addHandler(Handler(runtime=target))
        arguments = {"id": 7}
        logger.warning("%(id)s", arguments, extra={"data": arguments if name == "orders" else 7})
    assert [record.attributes for record in target.records] == [{"data": {"id": 7}}, {"data": 7}]
