"""Reads structlog's event dict, without importing structlog.

Two callers use it: the processor of ``fapilog.bridges.structlog``, and the
standard library's handler when structlog has wrapped an event dict for a
``ProcessorFormatter``.  The keys are those that structlog's processors write.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges.event import Event, nanoseconds
from fapilog.diagnostics import announce, kind_of
from fapilog.severity import (
    DEBUG,
    ERROR,
    FATAL,
    INFO,
    OFF,
    TRACE,
    WARN,
    from_stdlib,
    parse_severity,
)
from fapilog.values.exceptions import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

#: The methods of structlog's loggers; the standard library's names of levels.
_METHODS: Final = {
    "notset": (TRACE, "NOTSET"),
    "trace": (TRACE, "TRACE"),
    "debug": (DEBUG, "DEBUG"),
    "info": (INFO, "INFO"),
    "msg": (INFO, "INFO"),
    "log": (INFO, "INFO"),
    "warn": (WARN, "WARNING"),
    "warning": (WARN, "WARNING"),
    "error": (ERROR, "ERROR"),
    "err": (ERROR, "ERROR"),
    "exception": (ERROR, "ERROR"),
    "failure": (ERROR, "ERROR"),
    "critical": (FATAL, "CRITICAL"),
    "fatal": (FATAL, "CRITICAL"),
}
# Seconds from 1970 to 9999; other numbers are not a time in seconds.
_LAST_SECOND: Final = 253_402_300_799


def level_of(method_name: str, fields: dict[str, Any]) -> tuple[int, str]:
    """Return severity number and text.

    Both come from ``level_number`` and ``level`` if processors have added
    them, else from the method's name.
    """
    level, number = fields.get("level"), fields.get("level_number")
    found = _METHODS.get(method_name, (INFO, "INFO"))
    if isinstance(level, str):
        found = _METHODS.get(level.lower()) or _parsed(level) or found
    if type(number) is int:
        found = from_stdlib(number), found[1]
    return found


def event_of(fields: dict[str, Any], name: str, number: int, text: str) -> Event:
    """Return the event that an event dict describes; this may change the dict."""
    for key in ("_record", "_from_structlog"):
        fields.pop(key, None)
    for key, taken in (("level", _is_level), ("level_number", _is_number), ("logger", _is_name)):
        if key in fields and taken(fields[key]):
            del fields[key]
    body = _body(fields.pop("event", None), fields)
    exception = resolve(fields.pop("exc_info", None))
    formatted = fields.pop("exception", None)
    if formatted and exception is None:
        fields.update(_exception_attributes(formatted))
    stack = fields.pop("stack", None)
    if stack:
        fields["code.stacktrace"] = stack
    timestamp = _time_of(fields.get("timestamp"))
    if timestamp is not None:
        del fields["timestamp"]
    return Event(name, number, text, body, fields, timestamp, exception)


def _parsed(level: str) -> tuple[int, str] | None:
    try:
        number = parse_severity(level)
    except ValueError:
        return None
    # "off" and bare numbers are levels in a configuration only; here they are ordinary values.
    return None if number >= OFF or level.strip().isdecimal() else (number, level.upper())


def _is_level(value: object) -> bool:
    return isinstance(value, str) and bool(_METHODS.get(value.lower()) or _parsed(value))


def _is_number(value: object) -> bool:
    return type(value) is int


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _body(event: Any, fields: dict[str, Any]) -> Any:
    """Return the event, formatted with its positional arguments if no processor did so."""
    arguments = fields.pop("positional_args", None)
    if not arguments:
        return event
    try:
        return event % arguments
    except Exception as error:  # noqa: BLE001 - user code; announced, and the record is kept
        announce(
            "structlog format",
            f"an event does not fit its arguments ({kind_of(error)}); logged unformatted",
        )
    fields["log.args"] = arguments
    return event


def _exception_attributes(formatted: Any) -> dict[str, Any]:
    """Return ``exception.*`` attributes of an exception that a processor has formatted."""
    if isinstance(formatted, str):
        return from_traceback(formatted)
    try:
        first = formatted[0]  # ExceptionDictTransformer makes one dict per exception of the chain
        return {
            "exception.type": first["exc_type"],
            "exception.message": first["exc_value"],
            "exception.stacktrace": formatted,
        }
    except (TypeError, LookupError):
        return {"exception.stacktrace": formatted}


def from_traceback(text: str) -> dict[str, Any]:
    """Return ``exception.*`` attributes of a formatted traceback.

    Type and message are read from the text after the last frame, and are left
    out if there is no such text.
    """
    attributes = {"exception.stacktrace": text}
    lines = text.rstrip("\n").split("\n")
    frames = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    begin = frames[-1] + 1 if frames else 0
    for index in range(begin, len(lines)):
        if lines[index][:1] not in {" ", ""}:
            kind, _, rest = lines[index].partition(": ")
            if kind.replace(".", "").isidentifier():
                attributes["exception.type"] = kind
                attributes["exception.message"] = "\n".join((rest, *lines[index + 1 :]))
            break
    return attributes


def _time_of(value: object) -> int | None:
    """Return the time that ``TimeStamper`` wrote, in nanoseconds; None if it is not a time."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value * 1_000_000_000) if 0 < value < _LAST_SECOND else None
    return _parse_time(value, datetime.fromisoformat) if isinstance(value, str) else None


def _parse_time(value: str, parse: Callable[[str], datetime]) -> int | None:
    try:
        # Python 3.10 cannot parse the Z.  A time without an offset is local time.
        return nanoseconds(parse(value.replace("Z", "+00:00")).astimezone())
    except (ValueError, OverflowError, OSError):
        return None
