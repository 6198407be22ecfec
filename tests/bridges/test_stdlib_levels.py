"""install_stdlib() follows fapilog's levels by name, also when they change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import fapilog
from fapilog.bridges import stdlib
from fapilog.sinks import MemorySink


def test_levels_by_name_hold_for_the_standard_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAPILOG_LEVELS", "app.db=debug,noisy=error")
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    fapilog.install_stdlib()
    logging.getLogger("app.db").debug("debug of app.db")
    logging.getLogger("app.web").debug("debug of app.web")
    logging.getLogger("noisy").warning("warning of noisy")
    logging.getLogger("other").info("info of other")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["debug of app.db", "info of other"]


def test_a_level_changed_later_is_followed_and_the_loggers_own_comes_back() -> None:
    root = logging.getLogger()
    before = root.level
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="error")
    fapilog.install_stdlib()
    logging.getLogger("app").info("too low")
    fapilog.set_level("debug", "app")
    logging.getLogger("app").debug("now")
    fapilog.configure(sinks=[sink], level="info")
    logging.getLogger("app").debug("too low again")
    logging.getLogger("app").info("and now")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["now", "and now"]
    fapilog.uninstall_stdlib()
    assert root.level == before


def test_uninstalling_undoes_every_logger_it_was_installed_at() -> None:
    fapilog.configure(sinks="memory")
    named = logging.getLogger("named")
    fapilog.install_stdlib()
    fapilog.install_stdlib(logger="named")
    assert any(isinstance(handler, fapilog.Handler) for handler in named.handlers)
    fapilog.uninstall_stdlib()
    for logger in (named, logging.getLogger()):
        assert not any(isinstance(handler, fapilog.Handler) for handler in logger.handlers)


def test_a_level_by_name_is_stronger_than_the_levels_of_the_loggers_own_handlers() -> None:
    kernel = logging.getLogger("kernel")
    handler = logging.NullHandler(logging.WARNING)
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="debug")
    fapilog.install_stdlib()
    kernel.addHandler(handler)
    kernel.setLevel("DEBUG")
    kernel.propagate = False
    try:
        kernel.debug("hidden")
        fapilog.set_level("debug", "kernel")
        kernel.debug("shown")
        kernel.getChild("below").debug("shown too")
        fapilog.set_level(None, "kernel")
        kernel.debug("hidden again")
    finally:
        kernel.propagate = True
        kernel.setLevel("NOTSET")
        kernel.removeHandler(handler)
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["shown", "shown too"]


@pytest.fixture
def statements() -> Iterator[logging.Logger]:
    """A logger with the level DEBUG and its own handler, as in a ``dictConfig``."""
    stdlib._asked.clear()
    logger = logging.getLogger("statements")
    logger.setLevel("DEBUG")
    logger.addHandler(fapilog.Handler())
    yield logger
    logger.handlers.clear()
    logger.setLevel("NOTSET")


def test_a_level_of_logging_that_fapilogs_default_level_overrides_is_announced_once(
    statements: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    fapilog.configure(sinks="memory")
    for _ in range(3):
        statements.getChild("backend").debug("SELECT 1")
        statements.debug("SELECT 2")
    assert capsys.readouterr().err == (
        "fapilog: logger 'statements' passes DEBUG records, but fapilog's level is INFO, so they "
        "are dropped; set levels={'statements': 'debug'}, or level='info' to drop them\n"
    )
    assert fapilog.stats().accepted == 0


@pytest.mark.parametrize(
    "options",
    [{"level": "info"}, {"levels": {"statements": "warn"}}, {"sinks": "none"}],
    ids=["level", "levels", "no sink"],
)
def test_a_level_that_somebody_chose_is_not_announced(
    statements: logging.Logger, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    fapilog.configure(**{"sinks": "memory", **options})
    statements.info("SELECT 1")
    if "sinks" not in options:
        statements.debug("SELECT 2")
    assert capsys.readouterr().err == ""


def test_a_level_that_install_stdlib_has_lowered_is_not_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdlib._asked.clear()
    fapilog.configure(sinks="memory", levels={"app": "debug"})
    fapilog.install_stdlib()
    logging.getLogger("other").debug("too low")
    assert logging.getLogger().level == logging.DEBUG
    assert capsys.readouterr().err == ""


def test_levels_set_while_the_program_runs_are_not_announced(
    statements: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    fapilog.configure(sinks="memory")
    fapilog.set_level("info")
    statements.debug("SELECT 1")
    assert capsys.readouterr().err == ""
