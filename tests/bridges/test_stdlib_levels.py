"""install_stdlib() follows fapilog's levels by name, also when they change."""

from __future__ import annotations

import logging

import pytest

import fapilog
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
