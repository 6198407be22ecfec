from __future__ import annotations

import logging

import pytest

import fapilog
from fapilog.engine.registry import Levels
from fapilog.severity import Severity
from fapilog.sinks import MemorySink, Route


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


@pytest.mark.parametrize("info", [logging.INFO, "20", Severity.INFO, "info"])
def test_info_is_one_level_wherever_it_is_given(info, monkeypatch):
    sink = MemorySink()
    ways = {
        "argument": {"level": info},
        "by name": {"level": "off", "levels": {"app": info}},
        "variable": {},
        "route": {"level": "trace", "sinks": [Route(sink, level=info)]},
        "changed": {"level": "off"},
    }
    for way, options in ways.items():
        variable = info.name if isinstance(info, Severity) else str(info)
        monkeypatch.setenv("FAPILOG_LEVEL", variable)
        sink.clear()
        fapilog.configure(**{"sinks": [sink], **options})
        if way == "changed":
            fapilog.set_level(info, "app")
        for method in ("debug", "info", "error"):
            getattr(fapilog.get_logger("app"), method)(method)
        fapilog.flush(5)
        assert [record.body for record in sink.records] == ["info", "error"], way


def test_a_hold_and_a_bridge_take_a_level_of_logging():
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="error")
    with fapilog.hold(logging.INFO) as held:
        fapilog.get_logger("app").debug("no")
        fapilog.get_logger("app").info("held")
        held.release()
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["held"]
    fapilog.install_stdlib(Severity.ERROR, "app.bridge")
    assert [h.level for h in logging.getLogger("app.bridge").handlers] == [logging.ERROR]
    assert fapilog.Handler(Severity.WARN).level == logging.WARNING


def test_a_level_with_two_readings_is_refused_at_the_start():
    for number in (9, 17):
        with pytest.raises(fapilog.ConfigurationError, match=r"option 'level'.*two readings"):
            fapilog.configure(level=number)
        with pytest.raises(fapilog.ConfigurationError, match="two readings"):
            fapilog.set_level(number)
        with pytest.raises(fapilog.ConfigurationError, match=r"level of hold.*two readings"):
            fapilog.hold(number)
        with pytest.raises(fapilog.ConfigurationError, match=r"level of the route.*two readings"):
            Route("memory", max_level=number)


def test_validated_settings_may_be_given_again():
    settings = fapilog.Settings(level="info2", levels={"a": 30}, protect_level="error4")
    again = fapilog.Settings(**{n: getattr(settings, n) for n in settings.model_fields_set})
    assert (again.level, again.levels, again.protect_level) == (10, {"a": 13}, 20)
