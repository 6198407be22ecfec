from __future__ import annotations

import fapilog
from fapilog.engine.registry import Levels
from fapilog.sinks import MemorySink


def test_a_name_inherits_the_level_of_its_nearest_parent():
    levels = Levels(9, {"app": 13, "app.db": 5})
    assert levels.threshold("app.db.pool") == 5
    assert levels.threshold("app.web") == 13
    assert levels.threshold("application") == 9
    assert levels.threshold("") == 9


def test_none_inherits_again():
    levels = Levels(9, {"app": 13})
    levels.set("app", None)
    assert levels.threshold("app") == 9
    levels.set("", 5)
    assert levels.threshold("app.x") == 5
    levels.set("", None)
    assert levels.threshold("app") == 9


def test_a_level_changes_live_for_loggers_in_use_and_their_bound_children():
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="warn")
    log = fapilog.get_logger("app.db")
    child = log.bind(x=1)
    child.info("no")
    fapilog.set_level("debug", "app")
    child.debug("yes")
    assert log.is_enabled("debug")
    assert not log.is_enabled("trace")
    fapilog.set_level("off", "app.db")
    log.critical("no")
    fapilog.set_level(None, "app.db")
    log.debug("again")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["yes", "again"]


def test_levels_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("FAPILOG_LEVEL", "error")
    monkeypatch.setenv("FAPILOG_LEVELS", "app=debug, app.noisy=fatal")
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    fapilog.get_logger("other").warning("no")
    fapilog.get_logger("app.web").debug("yes")
    fapilog.get_logger("app.noisy").error("no")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["yes"]
