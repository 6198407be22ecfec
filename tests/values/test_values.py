"""A snapshot makes plain values of objects of any kind."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import math
import pathlib
import sys
import types
import uuid
from typing import Any

import httpx
import numpy as np
import pydantic
import pytest

from fapilog import values
from fapilog.values import SCALARS
from tests.support.values import (
    Basket,
    Bits,
    Colour,
    Count,
    Hidden,
    Level,
    Masked,
    Mode,
    Name,
    Order,
    OwnRepr,
    Plain,
    Point,
    Slotted,
    User,
    WithoutRepr,
    check,
)

snapshot: Any = values.snapshot  # of any type: the tests know which


class Quoted:
    """Its ``repr`` quotes its text, as that of a URL or an IP address does."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Quoted({self.text!r})"


class Casting(Quoted):
    """Its ``repr`` is that of its text, as that of Django's ``gettext_lazy()`` is."""

    def __repr__(self) -> str:
        return repr(self.text)


class Bracketed(Quoted):
    """Its ``repr`` is like that of ``packaging.version.Version``."""

    def __repr__(self) -> str:
        return f"<Bracketed({self.text!r})>"


class Keyed(Quoted):
    """Its ``repr`` is like that of ``zoneinfo.ZoneInfo``."""

    def __repr__(self) -> str:
        return f"zone.Keyed(key={self.text!r})"


class Pair(Quoted):
    def __repr__(self) -> str:
        return f"Pair('b', {self.text!r})"


class CloudPath(Quoted):
    """A path whose ``__fspath__`` downloads a file."""

    def __fspath__(self) -> str:
        raise AssertionError


class Unprintable(Quoted):
    def __str__(self) -> str:
        raise RuntimeError(self.text)


class Model(pydantic.BaseModel):
    url: pydantic.HttpUrl


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("text", "text"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[1:3], b"bc"),
        (memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
        (Name("n"), "n"),
        (Count(3), 3),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Mode.FAST, "fast"),
        (Bits.A | Bits.B, 3),
        (dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone.utc), "2024-02-29T12:30:00+00:00"),
        (dt.date(2024, 2, 29), "2024-02-29"),
        (dt.time(12, 30), "12:30:00"),
        (dt.timedelta(minutes=1, milliseconds=500), 60.5),
        (decimal.Decimal("1.10"), "1.10"),
        (fractions.Fraction(1, 3), "1/3"),
        (complex(1, 2), "(1+2j)"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (ipaddress.ip_interface("::1/64"), "::1/64"),
        (pathlib.PureWindowsPath("c:/x"), "c:\\x"),
        (Quoted("b'c"), "b'c"),
        (Quoted(""), ""),
        (Casting("Bonjour"), "Bonjour"),
        (Unprintable("a"), "Quoted('a')"),
        (Bracketed("1.2"), "1.2"),
        (Bracketed(""), ""),
        (Keyed("UTC"), "UTC"),
        (Keyed("it's"), "it's"),
        (Pair("a"), "Pair('b', 'a')"),
        (CloudPath("s3://bucket/key"), "s3://bucket/key"),
        (httpx.URL("https://api.example/v1"), "https://api.example/v1"),
        (httpx.URL("https://u:pw@api.example/"), "URL('https://u:[secure]@api.example/')"),
        (Model.model_validate({"url": "https://a.example"}).url, "https://a.example/"),
        (range(3), "range(0, 3)"),
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (Point(1, "a"), {"x": 1, "y": "a"}),
        (Order("A1", decimal.Decimal(2)), {"id": "A1", "price": "2"}),
        (Slotted(1), {"a": 1}),
        (Basket([1, 2]), {"items": [1, 2]}),
        ((1, (2, [3])), [1, [2, [3]]]),
        ({1}, [1]),
        (frozenset("a"), ["a"]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.UserList([1]), [1]),
        (collections.UserString("u"), "u"),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Plain, f"{Plain.__module__}.Plain"),
        (int, "int"),
        (len, "len"),
        (Plain().__repr__, f"{Plain.__module__}.Plain.__repr__"),
        (Plain(), "Plain()"),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.bytes_(b"b"), b"b"),
        (np.longdouble(2), 2.0),
        (np.complex64(1), "(1+0j)"),
        (np.datetime64("2024-01-01T00:00:00.000000001"), "2024-01-01T00:00:00.000000001"),
        (np.timedelta64(5, "s"), "5 seconds"),
        (np.arange(3), [0, 1, 2]),
        (np.ones((2, 2)), [[1.0, 1.0], [1.0, 1.0]]),
        (np.array(4), 4),
        (np.array(["a", None], dtype=object), ["a", None]),
        (np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), [{"a": 1, "b": 2.0}]),
    ],
)
def test_a_value_of_a_known_kind_has_a_plain_form(value, expected):
    result = snapshot(value)
    assert result == expected
    assert type(result) is type(expected)
    check(result)
    check({"inside": result})
    assert snapshot([value]) == [expected]


def test_numbers_without_a_type_in_otlp_become_text():
    assert snapshot([math.nan, math.inf, -math.inf]) == ["NaN", "Infinity", "-Infinity"]
    assert snapshot(np.float64("nan")) == "NaN"
    assert snapshot(2**63 - 1) == 2**63 - 1
    assert snapshot(2**63) == "9223372036854775808"
    assert snapshot(-(2**63) - 1) == "-9223372036854775809"


def test_integers_too_long_for_decimal_digits_become_hexadecimal():
    assert snapshot(1 << 20_000) == hex(1 << 20_000)
    huge = snapshot(-(1 << 40_000_000))
    assert huge.startswith("-0x")
    assert huge.endswith("…(truncated, 40000001 bits)")
    assert len(huge) < 200


def test_a_lowered_digit_limit_of_the_interpreter_is_no_error():
    if not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("this Python has no such limit")
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert snapshot(10**638) == "1" + "0" * 638
        assert snapshot(10**700) == hex(10**700)
    finally:
        sys.set_int_max_str_digits(before)


def test_lone_surrogates_are_escaped():
    assert snapshot("a\ud800b") == "a\\ud800b"
    assert snapshot({"k\udcff": "é"}) == {"k\\udcff": "é"}


def test_keys_become_their_text():
    keys = {None: "b", True: "c", b"x": "d", (1, 2): "e", 2.5: "f", Colour.RED: "g", "": "h"}
    assert snapshot(keys) == {
        "null": "b", "true": "c", "x": "d", "[1, 2]": "e", "2.5": "f", "red": "g", "(empty)": "h",
    }  # fmt: skip


def test_keys_with_the_same_text_keep_both_values():
    result = snapshot({1: "number", "1": "text", b"1": "bytes"})
    assert result == {"1": "number", "1#2": "text", "1#3": "bytes"}


# ---- secrets that an object hides


def test_what_an_object_keeps_out_of_its_repr_stays_out():
    shown = repr(
        snapshot(
            [
                User(name="ann", password="hunter2", extra=1),
                Masked(password="hunter2"),
                OwnRepr("hunter2"),
                WithoutRepr("hunter2"),
                Order("A1", decimal.Decimal(1)),
                Hidden("hunter2"),
                pydantic.SecretStr("hunter2"),
                pydantic.SecretBytes(b"hunter2"),
            ]
        )
    )
    for secret in ("hunter2", "k3y", "4111", "999", "tok-123"):
        assert secret not in shown
    for word in ("ann", "A1", "extra", "Hidden(***)", "OwnRepr(password=***)"):
        assert word in shown


def test_scalars_are_the_types_that_need_no_snapshot():
    assert {str, int, float, bool, type(None)} == SCALARS
