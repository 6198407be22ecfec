import builtins
import re
import sys
import time
import traceback
from types import SimpleNamespace

import pytest
from hypothesis import given

from fapilog.record import LogRecord, Scope
from fapilog.sinks import pretty
from fapilog.sinks.pretty import PrettyFormatter
from tests.support.records import DANGEROUS, SPAN, TIME, TRACE, records

COLOUR = re.compile("\x1b\\[[0-9;]*m")


@pytest.fixture
def utc(monkeypatch):
    clock = SimpleNamespace(localtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr(pretty, "time", clock)
    pretty._local_second.cache_clear()
    yield
    pretty._local_second.cache_clear()


def record(body="order placed", severity=9, scope="shop.orders", **attributes):
    attributes = {name.replace("__", "."): value for name, value in attributes.items()}
    return LogRecord(TIME, TIME, severity, "", body, attributes, scope=Scope(scope))


def shown(*records):
    formatter = PrettyFormatter(color=False)
    return "".join(map(formatter.format, records))


def test_the_readable_format_at_a_glance(utc):
    first = record("Query", 5, "shop.db", rows=3, took_ms=1.82)
    second = record("Payment failed", 17, "shop.payments", card="4111 1111", ok=False, why=None)
    second.trace_id, second.span_id = TRACE, SPAN
    third = record({"left": 3, "raw": b"\x00"}, 13, "shop")
    third.event_name = "stock.low"
    fourth = record(None, 0, "shop")
    fourth.event_name = "tick"
    assert shown(first, second, third, fourth, record("plain", 21, scope="")) == (
        "10:15:00.123  DEBUG  shop.db  Query                             rows=3 took_ms=1.82\n"
        "10:15:00.123  ERROR  shop.payments  Payment failed                    "
        'card="4111 1111" ok=false why=null trace=4bf92f35\n'
        '10:15:00.123  WARN   shop           {"left":3,"raw":"AA=="}           event=stock.low\n'
        "10:15:00.123  -      shop           tick\n"
        "10:15:00.123  FATAL                 plain\n"
    )


def test_values_with_several_lines_stand_below_behind_a_gutter():
    text = shown(record("first\nsecond\r\n", sql="SELECT 1\n  FROM t\n", rows=1))
    head, *below = text.splitlines()
    assert head.endswith("first                             rows=1")
    assert below == [
        "    │ second",
        "    │ sql:",
        "    │   SELECT 1",
        "    │     FROM t",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("bare-word/1.0", "x=bare-word/1.0"),
        ("", 'x=""'),
        ("two words", 'x="two words"'),
        ("a=b", 'x="a=b"'),
        ('say "hi"', 'x="say \\"hi\\""'),
        ("C:\\tmp", 'x="C:\\\\tmp"'),
        ("日本", "x=日本"),
        ("\x1b[2J", 'x="\\x1b[2J"'),
        ([1, {"a": None}], 'x=[1,{"a":null}]'),
        (b"\x00\xff", 'x="AP8="'),
    ],
)
def test_a_value_is_shown_so_that_it_can_be_told_from_its_neighbours(value, text):
    assert shown(record("m", x=value)).rstrip().endswith(text)


def failed_with_cause():
    try:
        try:
            raise ConnectionError("502 from gateway")
        except ConnectionError as error:
            raise RuntimeError("payment failed\nfor order 1234") from error
    except RuntimeError as error:
        return record(
            "failed",
            17,
            exception__type="RuntimeError",
            exception__message=str(error),
            exception__stacktrace=traceback.format_exc(),
            order=1234,
        )


def test_a_stack_trace_is_indented_and_told_once():
    text = shown(failed_with_cause())
    head, *below = text.splitlines()
    assert head.endswith("order=1234")
    assert below[0] == "    │ Traceback (most recent call last):"
    assert all(line.startswith("    │") for line in below)
    assert text.count("exception.") == 0
    assert text.count("ConnectionError: 502 from gateway") == 1
    assert below[-2:] == ["    │ RuntimeError: payment failed", "    │ for order 1234"]


def test_the_error_lines_of_a_stack_trace_are_highlighted():
    text = PrettyFormatter(color=True).format(failed_with_cause())
    red = re.findall("\x1b\\[1;31m(.*?)\x1b\\[0m", text)
    assert red == [
        "ConnectionError: 502 from gateway",
        "RuntimeError: payment failed",
        "for order 1234",
    ]
    assert "\x1b[2mThe above exception was the direct cause" in text


def test_an_exception_without_a_stack_trace_is_one_line():
    text = shown(record("failed", 17, exception__type="KeyError", exception__message="'id'"))
    assert text.endswith("    │ KeyError: 'id'\n")
    assert shown(record("failed", 17, exception__type="KeyError")).endswith("    │ KeyError\n")


def test_what_a_stack_trace_does_not_tell_is_shown_beside_it():
    text = shown(
        record(
            "failed",
            17,
            exception__type="app.Odd",
            exception__message="why",
            exception__stacktrace="  at Main.run(Main.java:3)",
        )
    )
    assert "exception.type=app.Odd exception.message=why" in text
    assert text.endswith("    │   at Main.run(Main.java:3)\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_the_members_of_an_exception_group_are_highlighted():
    try:
        raise builtins.ExceptionGroup("several", [ValueError("a"), KeyError("b")])  # type: ignore[attr-defined]  # 3.11
    except Exception:
        stacktrace = traceback.format_exc()
    text = PrettyFormatter(color=True).format(record("failed", exception__stacktrace=stacktrace))
    red = re.findall("\x1b\\[1;31m(.*?)\x1b\\[0m", text)
    assert red == ["ExceptionGroup: several (2 sub-exceptions)", "ValueError: a", "KeyError: 'b'"]


@given(records)
def test_no_value_can_forge_a_readable_line_or_drive_the_terminal(one):
    for color in (False, True):
        text = PrettyFormatter(color=color).format(one)
        assert text.endswith("\n")
        first, *below = COLOUR.sub("", text[:-1]).split("\n") if color else text[:-1].split("\n")
        assert re.match(r"(\d\d:\d\d:\d\d|--:--:--)\.\d{3}  ", first)
        assert all(line.startswith("    │") for line in below)
        assert not set("".join([first, *below])) & set(DANGEROUS)


def test_a_value_cannot_bring_colours_of_its_own():
    text = PrettyFormatter(color=True).format(record("\x1b[31mred\x1b[0m", x="\x9b31m"))
    assert "\\x1b[31mred\\x1b[0m" in text
    assert "\\x9b31m" in text


def test_long_logger_names_do_not_widen_the_column_for_ever():
    formatter = PrettyFormatter(color=False)
    formatter.format(record("m", scope="a" * 100))
    assert formatter.format(record("m", scope="b")).rstrip().endswith("b" + " " * 25 + "m")
