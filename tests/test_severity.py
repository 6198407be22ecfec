from __future__ import annotations

import pytest
from opentelemetry._logs import SeverityNumber

from fapilog import ConfigurationError
from fapilog.severity import (
    SHORT_NAMES,
    Severity,
    from_stdlib,
    parse_severity,
    range_name,
    to_stdlib,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [("info", 9), ("INFO2", 10), (" warning ", 13), ("critical", 21), ("off", 25), ("trace", 1),
     (Severity.INFO2, 10), (Severity.ERROR4, 20), (Severity.OFF, 25), (SeverityNumber.INFO2, 10),
     (SeverityNumber.ERROR4, 20)],
)  # fmt: skip
def test_names_and_members_mean_the_data_models_severities(value, number):
    assert parse_severity(value) == number
    assert parse_severity(parse_severity(value)) == number


@pytest.mark.parametrize(
    ("level", "number"),
    [(10, 5), (20, 9), (30, 13), (40, 17), (50, 21), (25, 11), (35, 15), (1, 1)],
)
def test_a_number_is_a_level_of_logging(level, number):
    assert parse_severity(level) == parse_severity(str(level)) == number


@pytest.mark.parametrize("value", [*range(2, 10), *range(11, 20), *range(21, 25)])
def test_a_number_with_two_readings_is_refused_with_both(value):
    for given in (value, str(value)):
        with pytest.raises(ConfigurationError, match="has two readings") as caught:
            parse_severity(given)
        names = SHORT_NAMES[from_stdlib(value)], SHORT_NAMES[value]
        for name in names:
            assert f"which is {name}" in str(caught.value)
            assert repr(name.lower()) in str(caught.value)


@pytest.mark.parametrize("member", list(Severity))
def test_each_member_has_the_name_and_number_of_the_data_model(member):
    if member is not Severity.OFF:
        assert SHORT_NAMES[member] == member.name
        assert SeverityNumber[member.name].value == member


@pytest.mark.parametrize(
    "value", ["loud", "", 0, 51, -1, True, "99", None, 2.5, SeverityNumber.UNSPECIFIED, "9" * 9999]
)
def test_what_is_no_severity_is_refused_with_the_choices(value):
    with pytest.raises((ValueError, AttributeError)) as caught:
        parse_severity(value)
    if isinstance(value, (str, int)):
        assert "use trace, debug, info" in str(caught.value)


def test_stdlib_levels_keep_their_place_between_the_ranges():
    levels = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 99)
    assert [from_stdlib(level) for level in levels] == [
        1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 24,
    ]  # fmt: skip


def test_severities_map_back_to_the_stdlib_level_they_came_from():
    for level in (10, 20, 30, 40, 50):
        assert to_stdlib(from_stdlib(level)) == level
    assert to_stdlib(25) > 50
    assert to_stdlib(1) == 1


def test_every_number_belongs_to_the_range_its_short_name_says():
    assert [range_name(n) for n in range(1, 25)] == [
        SHORT_NAMES[n].rstrip("234") for n in range(1, 25)
    ]
    assert range_name(0) == "TRACE"
    assert range_name(99) == "FATAL"
