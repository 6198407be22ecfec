"""Converts structlog's event dicts, without importing structlog.

The module ``fapilog.bridges.structlog`` uses this module.  ``fapilog.bridges.stdlib`` also
uses it, because structlog puts event dicts for its ``ProcessorFormatter`` into records of
``logging``.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from fapilog.bridges.event import Event, from_traceback, is_true, nanoseconds
from fapilog.diagnostics import announce, kind_of
from fapilog.severity import INFO, OFF, TRACE, from_stdlib, parse_severity
from fapilog.values.exceptions import resolve

#: Maps names of structlog's levels and methods to names of levels in the module ``logging``,
#: where the two names differ.
_LEVELS: Final = {
    "msg": "INFO",
    "log": "INFO",
    "warn": "WARNING",
    "err": "ERROR",
    "exception": "ERROR",
    "failure": "ERROR",
    "fatal": "CRITICAL",
}
#: The last second of the year 9999, as a Unix timestamp.  Only smaller numbers are accepted as
#: timestamps in seconds.
_LAST_SECOND: Final = 253_402_300_799


def level_of(method_name: str, fields: dict[str, Any]) -> tuple[int, str]:
    """Return the severity number and the severity text of structlog's event dict ``fields``.

    The keys ``level_number`` and ``level``, which processors of structlog add, override
    ``method_name``.
    """
    level, number = fields.get("level"), fields.get("level_number")
    found = _named(method_name) or (INFO, "INFO")
    if isinstance(level, str):
        found = _named(level) or found
    if type(number) is int:
        found = from_stdlib(number), found[1]
    return found


def event_of(fields: dict[str, Any], name: str, number: int, text: str) -> Event:
    """Convert structlog's event dict to an ``Event``.

    The dict itself becomes the attributes of the ``Event``, after some keys are removed.

    Args:
        fields: the event dict.
        name: the logger's name.
        number: the severity number.
        text: the severity text.
    """
    for key in ("_record", "_from_structlog"):
        fields.pop(key, None)
    level = fields.get("level")
    if isinstance(level, str) and _named(level):
        del fields["level"]
    if type(fields.get("level_number")) is int:
        del fields["level_number"]
    if isinstance(fields.get("logger"), str):
        del fields["logger"]
    body = _body(fields.pop("event", None), fields)
    exception = resolve(fields.pop("exc_info", None))
    formatted = fields.pop("exception", None)
    if exception is None and is_true(formatted):
        fields.update(_exception_attributes(formatted))
    stack = fields.pop("stack", None)
    if is_true(stack):
        fields["code.stacktrace"] = stack
    timestamp = _time_of(fields.get("timestamp"))
    if timestamp is not None:
        del fields["timestamp"]
    return Event(name, number, text, body, fields, timestamp, exception)


@lru_cache(maxsize=256)
def _named(level: str) -> tuple[int, str] | None:
    """Return the severity number and the severity text for a level or method of structlog.

    Return None if structlog has neither a level nor a method of this name.
    """
    text = _LEVELS.get(level.lower(), level.upper())
    if text == "NOTSET":
        return TRACE, text
    try:
        number = int(parse_severity(text))
    except ValueError:
        return None
    # parse_severity() also accepts "off" and digits, which are not level names in structlog.
    return None if number >= OFF or text.strip().isdecimal() else (number, text)


def _body(event: Any, fields: dict[str, Any]) -> Any:
    """Remove ``positional_args`` from ``fields``, and return ``event`` formatted with them."""
    arguments = fields.pop("positional_args", None)
    if not is_true(arguments):
        return event
    try:
        return event % arguments
    except Exception as error:  # noqa: BLE001 - user code; announced, and the record is kept
        announce(
            "structlog format",
            f"an event does not fit its arguments ({kind_of(error)}); it is logged unformatted",
        )
    fields["log.args"] = arguments
    return event


def _exception_attributes(formatted: Any) -> dict[str, Any]:
    """Return the ``exception.*`` attributes of an exception that structlog has formatted."""
    if isinstance(formatted, str):
        return from_traceback(formatted)
    try:
        # structlog makes a dict for the logged exception, and then dicts for its causes.
        first = formatted[0]
        return {
            "exception.type": first["exc_type"],
            "exception.message": first["exc_value"],
            "exception.stacktrace": formatted,
        }
    except Exception:  # noqa: BLE001 - not the dicts of structlog; they may be of any class
        return {"exception.stacktrace": formatted}


def _time_of(value: object) -> int | None:
    """Convert a timestamp of structlog's ``TimeStamper`` to nanoseconds since the epoch.

    Return None if the timestamp is invalid.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value * 1_000_000_000) if 0 < value < _LAST_SECOND else None
    if not isinstance(value, str):
        return None
    try:
        # Python 3.10 cannot parse a final Z.  astimezone() treats a time without an offset as
        # local time.
        return nanoseconds(datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone())
    except (ValueError, OverflowError, OSError):
        return None
