"""The level filter keeps records by severity and logger."""

from __future__ import annotations

import pytest

from fapilog.errors import ConfigurationError
from fapilog.processors import LevelFilter
from fapilog.record import LogRecord, Scope
from fapilog.severity import DEBUG, ERROR, FATAL, INFO, WARN, Severity


def kept(keep: LevelFilter, severity: int, name: str = "") -> bool:
    record = LogRecord(severity_number=severity, scope=Scope(name))
    result = keep(record)
    assert result is None or result is record
    return result is not None


@pytest.mark.parametrize("minimum", ["warn", "WARNING", " Warn ", "30", 30, Severity.WARN])
def test_records_at_or_above_the_severity_are_kept(minimum):
    keep = LevelFilter(minimum)
    assert [kept(keep, number) for number in (INFO, WARN - 1, WARN, ERROR)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_record_of_unspecified_severity_is_kept():
    assert kept(LevelFilter("error"), 0)


def test_off_drops_every_severity():
    assert not kept(LevelFilter("off"), FATAL + 3)
    assert not kept(LevelFilter(Severity.OFF), FATAL)


def test_a_logger_inherits_from_the_nearest_name_above_it():
    keep = LevelFilter("info", loggers={"app": "error", "app.db": "debug"})
    assert kept(keep, INFO, "other")
    assert kept(keep, INFO, "application"), "a name is inherited whole, not by its letters"
    assert not kept(keep, WARN, "app")
    assert not kept(keep, WARN, "app.web.view")
    assert kept(keep, DEBUG, "app.db")
    assert kept(keep, DEBUG, "app.db.pool")
    assert not kept(keep, DEBUG, "")


def test_many_logger_names_do_not_fill_the_memory():
    keep = LevelFilter("info", loggers={"a": "error"})
    for number in range(10_000):
        assert not kept(keep, INFO, f"a.{number}")
    assert keep._lowest.cache_info().currsize <= 4096


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("loud",), "min_severity.*'loud'.*use"),
        ((0,), "min_severity"),
        ((51,), "min_severity"),
        ((True,), "min_severity"),
        ((None,), "min_severity"),
        ((1.5,), "min_severity"),
    ],
)
def test_a_wrong_severity_is_refused_by_the_options_name(options, words):
    with pytest.raises(ConfigurationError, match=words):
        LevelFilter(*options)


def test_a_wrong_severity_of_a_logger_is_refused_by_its_name():
    with pytest.raises(ConfigurationError, match=r"loggers\['app'\].*'loud'"):
        LevelFilter("info", loggers={"app": "loud"})
    with pytest.raises(ConfigurationError, match="loggers: 5 is not a logger name"):
        LevelFilter("info", loggers={5: "info"})  # type: ignore[dict-item]
