"""Any record, normalised, is fit for every encoder; one that is so already is left alone."""

from __future__ import annotations

import enum
import math
import types
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.record import LogRecord
from fapilog.values import DEFAULT_LIMITS, Limits, normalise
from tests.support.values import (
    SMALL,
    Level,
    Mode,
    Plain,
    anything,
    check,
    check_encodes,
    hashable,
    limits_of_any_size,
    relaxed,
    text_bytes,
)

# ---- normalise


OBSERVED = 1_700_000_000_000_000_001


def record(**changes: Any) -> LogRecord:
    made = LogRecord(
        1_700_000_000_000_000_000, OBSERVED, 9, "INFO", "order accepted",
        {"user": "ann", "n": 4}, "order.accepted", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


FIELDS = [
    "timestamp", "observed_timestamp", "severity_number", "severity_text", "body", "attributes",
    "event_name", "trace_id", "span_id", "trace_flags", "dropped_attributes_count", "size",
]  # fmt: skip


def state(made: LogRecord) -> list[Any]:
    return [repr(getattr(made, name)) for name in FIELDS]


def check_record(made: LogRecord, limits: Limits = DEFAULT_LIMITS) -> None:
    for name in (
        "timestamp",
        "observed_timestamp",
        "severity_number",
        "trace_flags",
        "dropped_attributes_count",
    ):
        assert type(getattr(made, name)) is int
    assert 0 <= made.timestamp < 2**64
    assert 0 <= made.observed_timestamp < 2**64
    assert 0 <= made.severity_number <= 24
    assert 0 <= made.trace_flags <= 255
    assert 0 <= made.dropped_attributes_count < 2**32
    for text in (made.severity_text, made.event_name):
        assert isinstance(text, str)
        text.encode()
    for text, digits in ((made.trace_id, 32), (made.span_id, 16)):
        assert text == "" or (len(text) == digits and int(text, 16) > 0 and text == text.lower())
    check(made.body, limits)
    assert type(made.attributes) is dict
    assert len(made.attributes) <= limits.attributes
    for name, value in made.attributes.items():
        assert type(name) is str
        assert 0 < len(name) <= 256
        name.encode()
        check(value, limits)
    texts = text_bytes(made.body) + text_bytes(dict(made.attributes))
    assert texts <= made.size <= limits.record


def test_a_normal_record_is_only_measured():
    made = record(
        attributes={"user": "ann", "n": 4, "é": "é", "nested": {"a": [1, 2.5, None, True, b"x"]}}
    )
    before, nested = state(made)[:-1], made.attributes["nested"]
    normalise(made)
    assert state(made)[:-1] == before
    assert made.attributes["nested"] is nested
    check_record(made)
    first = made.size
    normalise(made)
    assert made.size == first > 0


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("timestamp", -1, OBSERVED),
        ("timestamp", "soon", OBSERVED),
        ("timestamp", 2**64, OBSERVED),
        ("timestamp", 1.5, 1),
        ("observed_timestamp", None, 1_700_000_000_000_000_000),
        ("severity_number", 99, 24),
        ("severity_number", -3, 0),
        ("severity_number", "ERROR", 0),
        ("severity_number", Level.HIGH, 3),
        ("severity_text", None, ""),
        ("severity_text", 7, "7"),
        ("severity_text", "a\ud800", "a\\ud800"),
        ("event_name", Mode.FAST, "fast"),
        ("event_name", ["x"], "['x']"),
        ("trace_id", "0AF7651916CD43DD8448EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("trace_id", "0" * 32, ""),
        ("trace_id", "xyz", ""),
        ("trace_id", 5, ""),
        ("trace_id", "b7ad6b7169203331", ""),
        ("span_id", "b7ad6b71692033 1", ""),
        ("span_id", None, ""),
        ("trace_flags", 257, 1),
        ("trace_flags", None, 0),
        ("dropped_attributes_count", -1, 0),
        ("body", {1, 2}, [1, 2]),
        ("attributes", None, {}),
        ("attributes", types.MappingProxyType({"a": 1}), {"a": 1}),
        ("attributes", [1], {"attributes": [1]}),
    ],
)  # fmt: skip
def test_a_wrong_field_is_put_right(field, wrong, right):
    made = record(**{field: wrong})
    normalise(made)
    assert getattr(made, field) == right
    assert type(getattr(made, field)) is type(right)
    check_record(made)


def test_values_and_names_that_processors_left_are_converted():
    class Key(str, enum.Enum):
        USER = "user"

    made = record(
        attributes={
            Key.USER: "ann", "": "empty", 5: "five", "k\udc80": 1, "long" * 100: 1,
            "object": Plain(), "big": 2**64, "nan": math.nan, "bad": "\ud800", "tuple": (1, Plain()), "n": np.int64(3),
        }
    )  # fmt: skip
    normalise(made)
    check_record(made)
    assert made.attributes["user"] == "ann"
    assert {type(name) for name in made.attributes} == {str}
    assert made.attributes["(empty)"] == "empty"
    assert made.attributes["5"] == "five"
    assert made.attributes["k\\udc80"] == 1
    assert made.attributes["object"] == "Plain()"
    assert made.attributes["big"] == str(2**64)
    assert made.attributes["nan"] == "NaN"
    assert made.attributes["tuple"] == [1, "Plain()"]
    assert made.attributes["n"] == 3


def test_a_name_that_equals_a_known_one_but_is_no_plain_string_is_converted():
    class Key(str, enum.Enum):
        USER = "user"

    normalise(record(attributes={"user": 1}))
    made = record(attributes={Key.USER: 1})
    normalise(made)
    assert [type(name) for name in made.attributes] == [str]


def test_attributes_beyond_the_limit_are_dropped_and_counted():
    made = record(attributes={f"a{n}": n for n in range(9)}, dropped_attributes_count=1)
    normalise(made, SMALL)
    assert [*made.attributes] == ["a0", "a1", "a2", "a3", "a4"]
    assert made.dropped_attributes_count == 5


def test_the_largest_values_make_room_for_the_others():
    made = record(
        body="b" * 60_000,
        attributes={
            **{f"big{n}": "x" * 60_000 for n in range(9)},
            "order": {"id": 7},
            "note": "é" * 500,
        },
    )
    normalise(made)
    check_record(made)
    assert made.attributes["order"] == {"id": 7}
    assert made.attributes["note"] == "é" * 500
    assert made.attributes["big3"].endswith("…(truncated, 60000 characters)")
    assert len(made.attributes) == 11
    assert made.dropped_attributes_count == 0
    assert made.size > DEFAULT_LIMITS.record * 0.95, "no more is cut than necessary"


def test_attributes_without_a_useful_share_are_dropped_and_counted():
    limits = Limits(record=4096)
    made = record(attributes={f"{n:03}" + "k" * 200: "v" * 100 for n in range(100)})
    normalise(made, limits)
    check_record(made, limits)
    assert made.dropped_attributes_count == 100 - len(made.attributes) > 0


def test_many_names_do_not_fill_the_memory():
    from fapilog.values import normal

    for n in range(5000):
        normalise(record(attributes={f"name{n}": 1}))
    assert len(normal._name_sizes) <= normal._MAX_NAMES


@relaxed
@given(
    field=st.sampled_from(FIELDS[:-1]),
    junk=anything,
    attributes=st.dictionaries(hashable, anything, max_size=8),
    limits=st.one_of(st.just(DEFAULT_LIMITS), limits_of_any_size),
)
def test_any_record_becomes_normal_and_stays_so(field, junk, attributes, limits):
    made = record(attributes=attributes)
    setattr(made, field, junk)
    normalise(made, limits)
    check_record(made, limits)
    check_encodes(made.body)
    check_encodes(made.attributes)
    before = state(made)
    normalise(made, limits)
    assert state(made) == before


@pytest.mark.parametrize("is_plain", [True, False])
def test_an_unknown_time_stays_unknown_and_a_wrong_one_becomes_the_observed_time(is_plain):
    body: Any = "b" if is_plain else object()
    unknown = LogRecord(0, 5, 9, "INFO", body, {})
    normalise(unknown)
    assert (unknown.timestamp, unknown.observed_timestamp) == (0, 5)
    wrong = LogRecord(cast("int", "noon"), 5, 9, "INFO", body, {})
    normalise(wrong)
    assert (wrong.timestamp, wrong.observed_timestamp) == (5, 5)
