from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.sinks.readable import duration_text, json_parts, number_text, value_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.03867670099998577, "0.03868"),
        (0.001823423423, "0.001823"),
        (1.82, "1.82"),
        (1234.56, "1234.56"),
        (52.520008, "52.52"),
        (1e-9, "1e-09"),
        (0.0, "0.0"),
        (-0.5, "-0.5"),
        (1e22, "1e+22"),
        (123456789.123456, "123456789.123"),
        (float("nan"), "null"),
        (float("inf"), "null"),
    ],
)
def test_a_number_loses_the_digits_that_nobody_reads(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ms"),
        (0.0004872, "0.49 ms"),
        (0.0099, "9.9 ms"),
        (0.03867670099998577, "39 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.00 s"),
        (1.239, "1.24 s"),
        (59.999, "1 min 0 s"),
        (125, "2 min 5 s"),
        (-1.0, "-1.0 s"),
        (float("nan"), "null s"),
    ],
)
def test_a_duration_has_a_unit_and_no_more_than_three_digits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("customer", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0…"),
        ("customer", "018f3d5e-7c1a-7d2b-8a3c-0305e82c3301", "…e82c3301"),
        ("request_id", "4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f35…"),
        ("requestId", "4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f35…"),
        ("id", "00f067aa0ba902b7", "00f067aa…"),
        ("digest", "4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("paid", "4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("order_id", "1234567890", "1234567890"),
        ("order_id", 12345678901234567890, "12345678901234567890"),
        ("http.client.request.duration", 0.25, "250 ms"),
        ("duration", 0.25, "0.25"),
    ],
)
def test_ids_are_short_and_durations_of_the_conventions_have_a_unit(
    name: str, value: Any, text: str
) -> None:
    assert value_text(name, value) == text


def test_neighbouring_ids_that_begin_with_the_time_differ_in_short_form() -> None:
    made = [uuid.UUID(int=(0x018F3D5E7C1A << 80) | (0x7 << 76) | n | (2 << 62)) for n in (1, 2)]
    assert len({value_text("id", str(one)) for one in made}) == 2


@given(JSON)
def test_the_parts_of_json_are_json_with_the_usual_spaces(value: Any) -> None:
    compact = json.dumps(value, separators=(",", ":"))
    assert "".join(part for _, part in json_parts(compact)) == json.dumps(value)
