"""Severity numbers and their names in the OpenTelemetry log data model.

A severity number is an integer from 1 to 24 in six ranges of four: TRACE 1-4,
DEBUG 5-8, INFO 9-12, WARN 13-16, ERROR 17-20, FATAL 21-24.  Every option and
argument uses :func:`parse_severity`, so a name or a number means the same in code, in
environment variables and in configuration files.  An int such as 20 is a level of :mod:`logging`,
because ``level=logging.INFO`` would otherwise mean ERROR4, whose severity number is 20.

Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE: Final = 1
DEBUG: Final = 5
INFO: Final = 9
WARN: Final = 13
ERROR: Final = 17
FATAL: Final = 21
#: A number above every severity; the level OFF disables a logger.
OFF: Final = 25

RANGES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

#: The short names of the severity numbers: ``SHORT_NAMES[9]`` is "INFO", and ``SHORT_NAMES[10]``
#: is "INFO2".  The name of the number 0, which means an unspecified severity, is "".
SHORT_NAMES: Final[tuple[str, ...]] = (
    "",
    *(name + suffix for name in RANGES for suffix in ("", "2", "3", "4")),
)


class Severity(IntEnum):
    """The severities of the OpenTelemetry log data model, and ``OFF``, which disables a logger.

    Every option and argument for a severity accepts a member of this class.  Each member
    is equal to its severity number.
    """

    TRACE = 1
    TRACE2 = 2
    TRACE3 = 3
    TRACE4 = 4
    DEBUG = 5
    DEBUG2 = 6
    DEBUG3 = 7
    DEBUG4 = 8
    INFO = 9
    INFO2 = 10
    INFO3 = 11
    INFO4 = 12
    WARN = 13
    WARN2 = 14
    WARN3 = 15
    WARN4 = 16
    ERROR = 17
    ERROR2 = 18
    ERROR3 = 19
    ERROR4 = 20
    FATAL = 21
    FATAL2 = 22
    FATAL3 = 23
    FATAL4 = 24
    OFF = 25


#: The levels of :mod:`logging`, with their severity numbers.
STDLIB_LEVELS: Final = {10: DEBUG, 20: INFO, 30: WARN, 40: ERROR, 50: FATAL}
_ALIASES: Final = {"WARNING": WARN, "CRITICAL": FATAL, "OFF": OFF}
_NUMBERS: Final[dict[str, int]] = {
    **{name: number for number, name in enumerate(SHORT_NAMES) if name},
    **_ALIASES,
}

_CRITICAL: Final = 50
_MAX_DIGITS: Final = 4


def parse_severity(value: int | str) -> Severity:
    """Return the severity that ``value`` names.

    Args:
        value: a :class:`Severity`; a member of OpenTelemetry's ``SeverityNumber``; a
            name in upper or lower case: the six ranges, their numbered forms (``INFO2``),
            ``WARNING``, ``CRITICAL``, ``OFF``; or a level of :mod:`logging`, as an int or as
            digits in a str: 10, 20, 30, 40, 50, or a custom level from 25 to 49.

    Raises:
        ConfigurationError: ``value`` is not a severity, or it is a number that means
            one severity in :mod:`logging` and a different severity in OpenTelemetry.
    """
    if isinstance(value, Severity):
        return value
    number: object = value
    if isinstance(value, str):
        name = value.strip().upper()
        if name in _NUMBERS:
            return Severity(_NUMBERS[name])
        number = int(name) if name.isdecimal() and len(name) < _MAX_DIGITS else None
    elif type(value).__name__ == "SeverityNumber" and value.value:  # type: ignore[attr-defined]
        return Severity(value.value)  # type: ignore[attr-defined]
    if isinstance(number, int) and not isinstance(number, bool):
        if number in STDLIB_LEVELS or FATAL + 3 < number <= _CRITICAL or number == TRACE:
            return Severity(from_stdlib(number))
        if TRACE < number <= FATAL + 3:
            raise ConfigurationError(_two_readings(value, number))
    msg = (
        f"{value!r} is not a severity: use trace, debug, info, warn, error, fatal, off, "
        "a fapilog.Severity, or a level of logging: 10, 20, 30, 40 or 50"
    )
    raise ConfigurationError(msg)


def _two_readings(value: object, number: int) -> str:
    by_stdlib, by_otel = SHORT_NAMES[from_stdlib(number)], SHORT_NAMES[number]
    return (
        f"{value!r} has two readings: a level of logging, which is {by_stdlib}, or an "
        f"OpenTelemetry severity number, which is {by_otel}; use the name "
        f"{by_stdlib.lower()!r} or {by_otel.lower()!r}"
    )


def inherited(name: str, by_name: Mapping[str, int], default: int) -> int:
    """Return the severity number of a logger, or else of its nearest parent in ``by_name``.

    Args:
        name: the logger's dotted name, such as ``"app.db"``.
        by_name: the severity numbers by logger name.
        default: the severity number if ``by_name`` has neither the name nor a parent.
    """
    while name:
        if name in by_name:
            return by_name[name]
        name = name.rpartition(".")[0]
    return default


def closest_severity(number: int) -> int:
    """Return the severity number for a number that :func:`parse_severity` refuses.

    A number from 1 to 24 may be a severity number of OpenTelemetry or a level of
    :mod:`logging`.  It is treated as a severity number, because this is the more severe meaning.
    Other numbers are treated as levels of :mod:`logging`.
    """
    return number if TRACE <= number <= FATAL + 3 else from_stdlib(number)


def range_name(number: int) -> str:
    """Return the name of the range of ``number``: ``"INFO"`` for 9 to 12.

    A number outside 1 to 24 belongs to the nearest range.
    """
    return RANGES[min(max(number - 1, 0) // 4, 5)]


def from_stdlib(levelno: int) -> int:
    """Return the severity number of a level of :mod:`logging`.

    10, 20, 30, 40 and 50 become 5, 9, 13, 17 and 21.  A level between two of these
    becomes a number between their numbers, in proportion to the distance.
    """
    return TRACE + int(min(max(levelno, 0) * 4 // 10, FATAL + 2))


def to_stdlib(number: int) -> int:
    """Return the level of :mod:`logging` for a severity number.

    For the first number of a range this is the inverse of :func:`from_stdlib`;
    ``OFF`` becomes 60, a level above CRITICAL.
    """
    if number >= OFF:
        return 60
    return 1 if number < DEBUG else (number - TRACE) * 10 // 4
