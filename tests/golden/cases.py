"""Fifty cases that an application may log, with the record that each of them becomes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from fapilog.values import snapshot
from fapilog.values.objects import type_name

NAME = "golden.shop"
TRACE_ID, SPAN_ID = 0xA1, 0xB2
SECRET = "hunter2"
#: Severity number, and the levels of the standard library and of loguru.
LEVELS = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
STDLIB = {"trace": 1, "debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Colour(Enum):
    RED = "red"


class Unprintable:
    def __repr__(self) -> str:
        msg = "no text"
        raise RuntimeError(msg)


class TillError(Exception):
    """An exception class of the application."""


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an exception that was raised and caught."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@dataclass(frozen=True)
class Case:
    """One case to log.

    Attributes:
        name: what it shows.
        severity: a method's name; by number where there is no method.
        message: the body.
        arguments: for the placeholders of a message.
        attributes: the event's values.
        bound: fields bound around the call.
        exception: what it is about.
        event_name: of an OpenTelemetry event.
        in_span: whether a span is active.
    """

    name: str
    severity: str = "info"
    message: Any = "order placed"
    arguments: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bound: Mapping[str, Any] = field(default_factory=dict)
    exception: BaseException | None = None
    event_name: str = ""
    in_span: bool = False

    @property
    def extra(self) -> dict[str, Any]:
        """The attributes, with the event name under OpenTelemetry's key."""
        named = {"otel.event.name": self.event_name} if self.event_name else {}
        return {**self.attributes, **named}

    @property
    def text(self) -> Any:
        """The message with its arguments."""
        return self.message % self.arguments if self.arguments else self.message


def _value(name: str, value: Any, **more: Any) -> Case:
    return Case(name, attributes={"value": value}, **more)


RECURSIVE: dict[str, Any] = {"a": 1}
RECURSIVE["self"] = RECURSIVE
PLACED = "order.placed"

CASES: tuple[Case, ...] = (
    *(Case(f"severity {name}", severity=name) for name in LEVELS),
    Case("empty message", message=""),
    Case("message of several lines", message="one\ntwo\r\nthree"),
    Case("message beyond ASCII", message="żółw 🐢 \u202e"),
    Case("message with braces", message="{not} a {placeholder}"),
    Case("message with percent signs", message="100% of %s"),
    Case("message of 100,000 characters", message="x" * 100_000),
    Case("message with a lone surrogate", message="broken \ud800 text"),
    Case("message with one argument", message="paid %s", arguments=("A-1",)),
    Case("message with typed arguments", message="%d of %.1f", arguments=(3, 4.5)),
    Case("structured body", message={"event": "paid", "order": {"id": 42}}),
    _value("text", "Ada"),
    _value("true", True),
    _value("integer", 42),
    _value("integer beyond 64 bits", 2**70),
    _value("float", 9.99),
    _value("not a number", float("inf")),
    _value("none", None),
    _value("bytes", b"\x00\xff"),
    _value("list of kinds", [1, "two", 3.0, None, False]),
    _value("tuple", (1, 2)),
    _value("set", {7}),
    _value("nested mapping", {"a": {"b": [1, {"c": 2}]}}),
    _value("mapping that contains itself", RECURSIVE),
    _value("list 12 deep", [[[[[[[[[[[["deep"]]]]]]]]]]]]),
    _value("time", datetime(2026, 11, 23, 12, 30, tzinfo=timezone.utc)),
    _value("date", date(2026, 11, 23)),
    _value("value that cannot be pickled", threading.Lock()),
    _value("decimal", Decimal("9.990")),
    _value("UUID", UUID(int=1)),
    _value("enum", Colour.RED),
    _value("path", PurePosixPath("/var/log")),
    _value("object whose repr raises", Unprintable()),
    _value("exception as a value", ValueError("why")),
    Case("many attributes", attributes={f"a{n}": n for n in range(60)}),
    Case("dotted names", attributes={"http.request.method": "GET", "http.route": "/o/{id}"}),
    Case("secret, which is redacted", attributes={"password": "hunter2", "user": "u-1"}),
    Case("secret in the message", message="at https://ada:hunter2@host/"),
    Case("exception", "error", exception=raised(KeyError("order"))),
    Case("exception of the app", "error", exception=raised(TillError("stuck", 7))),
    Case(
        "exception with a cause",
        "error",
        exception=raised(TillError("stuck"), raised(OSError(5, "I/O error"))),
    ),
    Case("exception at a warning", "warning", exception=raised(ValueError("lines\nof it"))),
    Case("active span", in_span=True, attributes={"order": 42}),
    Case("bound context, beneath attributes", bound={"user": "u-1", "a": 0}, attributes={"a": 1}),
    Case("event with everything", "error", "failed", (), {"order": 42}, {"user": "u-1"},
         raised(ValueError("why")), PLACED, in_span=True),
)  # fmt: skip


def expected(case: Case) -> dict[str, Any]:
    """Return the expected fields of a case's record; of a stack trace, only that it exists."""
    attributes = snapshot({**case.bound, **case.attributes})
    assert isinstance(attributes, dict)
    for name, value in attributes.items():
        if value == SECRET:
            attributes[name] = "[REDACTED]"
    body = snapshot(case.text)
    if case.exception is not None:
        attributes["exception.type"] = type_name(type(case.exception))
        attributes["exception.message"] = str(case.exception)
        attributes["exception.stacktrace"] = True
    return {
        "severity": LEVELS[case.severity],
        "body": body.replace(SECRET, "[REDACTED]") if isinstance(body, str) else body,
        "attributes": attributes,
        "event": case.event_name,
        "ids": (f"{TRACE_ID:032x}", f"{SPAN_ID:016x}", 1) if case.in_span else ("", "", 0),
        "scope": NAME,
    }
