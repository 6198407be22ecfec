"""The rules of protobuf's wire format, compared with the official library."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from fapilog.otlp.protobuf import bytes_field, delimited, fields, int64_field, make_varint, varint


@given(st.integers(0, 2**64 - 1), st.text(max_size=5), st.integers(0, 2**32 - 1))
def test_fields_of_every_wire_type_are_read(time, text, count):
    message = LogRecord(
        time_unix_nano=time, severity_text=text, dropped_attributes_count=count, flags=7
    ).SerializeToString()
    expected = {
        1: time.to_bytes(8, "little"),
        3: text.encode(),
        7: count,
        8: (7).to_bytes(4, "little"),
    }
    defaults = {1: bytes(8), 3: b"", 7: 0}
    assert {**defaults, **dict(fields(message))} == expected


@given(st.integers(0, 2**64 - 1))
def test_a_varint_reads_back(number):
    assert list(fields(b"\x08" + varint(number))) == [(1, number)]
    assert varint(number) == make_varint(number)


def test_the_last_of_several_fields_counts_and_a_missing_one_is_the_default():
    message = delimited(b"\x0a", b"first") + delimited(b"\x0a", b"last") + b"\x10\x05"
    assert bytes_field(message, 1) == b"last"
    assert bytes_field(message, 9) == b""
    assert int64_field(message, 2) == 5
    assert int64_field(message, 9) == 0
    assert int64_field(b"\x08" + varint(2**64 - 3), 1) == -3


def test_a_field_of_the_other_kind_is_malformed():
    with pytest.raises(ValueError, match="a number where"):
        bytes_field(b"\x08\x01", 1)
    with pytest.raises(ValueError, match="where a number should be"):
        int64_field(b"\x0a\x01x", 1)


@pytest.mark.parametrize(
    "message",
    [b"\x0a", b"\x0a\x05abc", b"\x09abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0b", b"\x0f"],
)
def test_a_malformed_message_is_a_value_error(message):
    with pytest.raises(ValueError, match=r"truncated|unknown"):
        list(fields(message))


@given(st.binary())
def test_no_bytes_raise_anything_else(message):
    with contextlib.suppress(ValueError):
        list(fields(message))
