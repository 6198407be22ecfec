"""Celery's records have attributes with standard names, and are not printed twice."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import fapilog
from fapilog import Runtime
from fapilog.bridges.stdlib import Handler, install, uninstall
from fapilog.sinks import ConsoleSink, MemorySink
from fapilog.testing import capture_logs
from tests.support.targets import Collector

celery = pytest.importorskip("celery")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An application of Celery that has not configured logging."""
    from celery.app.log import Logging

    loggers = [logging.getLogger(name) for name in ("", "celery", "celery.task")]
    loggers.append(logging.getLogger("multiprocessing"))
    states = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("celery") and isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "disabled", False)  # a dictConfig may have disabled it
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
    """Replace the terminal to which Celery's handlers print."""
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


@pytest.fixture
def sink(app: Any) -> Iterator[MemorySink]:
    """The sink of a default runtime that logs Celery's tasks."""
    memory = MemorySink()
    fapilog.configure(sinks=[memory])
    fapilog.install_celery()
    app.log.setup(loglevel=0)
    yield memory
    fapilog.shutdown()


def attributes_by_body(memory: MemorySink) -> dict[str, dict[str, Any]]:
    fapilog.flush(10)
    return {str(one.body).split(" in ")[0]: dict(one.attributes) for one in memory.records}


def test_records_of_a_task_have_its_name_and_id(app: Any, sink: MemorySink) -> None:
    log = fapilog.get_logger("orders")

    @app.task(name="pay")
    def pay(amount: int) -> None:
        fapilog.bind_context(amount=amount)
        logging.getLogger("library").info("in the task")

    log.info("before")
    pay.apply((7,), task_id="a1")
    log.info("after")
    attributes = attributes_by_body(sink)
    assert attributes["before"] == attributes["after"] == {}
    fields = {"messaging.message.id": "a1", "celery.task_name": "pay"}
    assert attributes["in the task"] == {**fields, "amount": 7}


def test_a_task_that_another_task_calls_has_its_own_id(app: Any, sink: MemorySink) -> None:
    log = fapilog.get_logger("orders")

    @app.task(name="inner")
    def inner() -> None:
        log.info("inside")

    @app.task(name="outer")
    def outer() -> None:
        inner.apply(task_id="i")
        log.info("outside")

    outer.apply(task_id="o")
    attributes = attributes_by_body(sink)
    assert attributes["inside"]["messaging.message.id"] == "i"
    assert attributes["outside"]["messaging.message.id"] == "o"
    assert attributes["Task inner[i] succeeded"]["messaging.message.id"] == "i"
    assert attributes["Task outer[o] succeeded"]["messaging.message.id"] == "o"


@pytest.mark.parametrize(
    ("error", "state", "severity"),
    [
        (None, "SUCCESS", "INFO"),
        ("ValueError('no')", "FAILURE", "ERROR"),
        ("KeyError('expected')", "FAILURE", "INFO"),
        ("Ignore()", "IGNORED", "INFO"),
        ("Reject('no')", "REJECTED", "WARNING"),
    ],
)
def test_the_record_about_the_end_of_a_task_has_its_state_and_duration(
    app: Any, sink: MemorySink, error: str | None, state: str, severity: str
) -> None:
    from celery import exceptions

    @app.task(name="pay", throws=(KeyError,))
    def pay() -> None:
        if error:
            raise eval(error, vars(exceptions))

    pay.apply(task_id="a1")
    fapilog.flush(10)
    (record,) = [one for one in sink.records if one.scope.name == "celery.app.trace"]
    assert record.severity_text == severity
    assert record.attributes["celery.state"] == state
    assert 0 <= cast("float", record.attributes["messaging.process.duration"]) < 60
    assert ("exception.type" in record.attributes) == (severity in {"ERROR", "WARNING"})


def test_a_retry_has_the_number_of_retries(app: Any, sink: MemorySink) -> None:
    @app.task(name="pay", bind=True, max_retries=1)
    def pay(self: Any) -> None:
        fapilog.get_logger("orders").info("run %d", self.request.retries)
        if not self.request.retries:
            raise self.retry(exc=ValueError("no"), countdown=0)

    pay.apply(task_id="a1")
    attributes = attributes_by_body(sink)
    assert "celery.retries" not in attributes["run 0"]
    assert attributes["run 1"]["celery.retries"] == 1
    states = [
        one.attributes["celery.state"] for one in sink.records if "celery.state" in one.attributes
    ]
    assert sorted(map(str, states)) == ["RETRY", "SUCCESS"]


def test_the_level_of_a_worker_becomes_the_level_of_fapilog(
    app: Any, terminal: io.StringIO
) -> None:
    memory = MemorySink()
    fapilog.configure(sinks=[memory])
    fapilog.install_celery()
    app.log.setup(loglevel="DEBUG")
    fapilog.get_logger("orders").debug("of fapilog")
    logging.getLogger("orders").debug("of logging")
    fapilog.flush(10)
    assert {"of fapilog", "of logging"} <= {one.body for one in memory.records}
    assert terminal.getvalue() == ""  # Celery has not added a handler
    fapilog.shutdown()


def test_the_default_level_of_a_worker_changes_nothing(app: Any) -> None:
    memory = MemorySink()
    fapilog.configure(sinks=[memory])
    fapilog.install_celery()
    app.log.setup(loglevel="WARNING")
    logging.getLogger("orders").info("of logging")
    fapilog.flush(10)
    assert "of logging" in {one.body for one in memory.records}
    fapilog.shutdown()


def test_the_log_file_that_is_not_used_is_named(app: Any, tmp_path: Path) -> None:
    memory = MemorySink()
    fapilog.configure(sinks=[memory])
    fapilog.install_celery()
    app.log.setup(loglevel="INFO", logfile=str(tmp_path / "worker.log"))
    fapilog.flush(10)
    assert any("FAPILOG_SINKS=console,file:" in str(one.body) for one in memory.records)
    fapilog.shutdown()


def test_shutdown_leaves_tasks_alone(app: Any) -> None:
    fapilog.configure(sinks="none")
    fapilog.install_celery()
    fapilog.shutdown()
    memory = MemorySink()
    fapilog.configure(sinks=[memory])

    @app.task(name="pay")
    def pay() -> None:
        fapilog.get_logger("orders").info("in the task")

    pay.apply(task_id="a1")
    assert attributes_by_body(memory)["in the task"] == {}
    fapilog.shutdown()


def test_a_capture_restores_the_installation(app: Any, sink: MemorySink) -> None:
    with capture_logs():
        fapilog.shutdown()

    @app.task(name="pay")
    def pay() -> None:
        fapilog.get_logger("orders").info("in the task")

    pay.apply(task_id="a1")
    assert attributes_by_body(sink)["in the task"]["messaging.message.id"] == "a1"


def test_each_printed_line_is_one_record(
    app: Any, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_LOG_REDIRECT", "CELERY_LOG_REDIRECT_LEVEL"):
        monkeypatch.setenv(name, "")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # restored at the end

    @app.task(name="pay")
    def pay() -> None:
        print("paid", 7)
        print("one\ntwo\n\nthree", end="")
        print("x" * 10_000, file=sys.stderr, end="")
        print("end", end="")

    instance = SimpleNamespace(app=app, redirect_stdouts=True, redirect_stdouts_level="ERROR")
    celery.signals.celeryd_after_setup.send(sender=None, instance=instance, conf=app.conf)
    pay.apply(task_id="a1")
    fapilog.flush(10)
    records = [one for one in sink.records if one.scope.name == "celery.redirected"]
    assert [one.body for one in records] == ["paid 7", "one", "two", "x" * 10_000, "threeend"]
    assert {one.severity_text for one in records} == {"ERROR"}
    assert all(one.attributes["messaging.message.id"] == "a1" for one in records)
