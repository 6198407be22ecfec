"""Severity numbers and their names in the OpenTelemetry log data model.

A severity number is an integer from 1 to 24 in six ranges of four: TRACE 1-4,
DEBUG 5-8, INFO 9-12, WARN 13-16, ERROR 17-20, FATAL 21-24.  Every option and
argument uses :func:`parse_severity`, so a name means the same in code, in the
environment and in a file.

Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
"""

from __future__ import annotations

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

#: The short name of every number: ``SHORT_NAMES[9] == "INFO"``, ``[10] == "INFO2"``.
#: Number 0 is the unspecified severity.
SHORT_NAMES: Final[tuple[str, ...]] = (
    "",
    *(name + suffix for name in RANGES for suffix in ("", "2", "3", "4")),
)

_ALIASES: Final = {"WARNING": WARN, "CRITICAL": FATAL, "OFF": OFF}
_NUMBERS: Final[dict[str, int]] = {
    **{name: number for number, name in enumerate(SHORT_NAMES) if name},
    **_ALIASES,
}


def parse_severity(value: int | str) -> int:
    """Return the severity number that ``value`` names.

    Args:
        value: a number from 1 to 24 (25 is ``OFF``), or a name in any case:
            the six ranges, their numbered forms (``INFO2``), ``WARNING``,
            ``CRITICAL``, ``OFF``, or one of these numbers in digits.

    Raises:
        ConfigurationError: ``value`` is not a severity.
    """
    number = value if isinstance(value, int) else None
    if isinstance(value, str):
        name = value.strip().upper()
        number = int(name) if name.isdecimal() else _NUMBERS.get(name)
    if number is None or isinstance(value, bool) or not TRACE <= number <= OFF:
        msg = (
            f"{value!r} is not a severity: use trace, debug, info, warn, error, fatal, off, "
            "or an OpenTelemetry severity number from 1 to 24"
        )
        raise ConfigurationError(msg)
    return int(number)


def inherited(name: str, by_name: Mapping[str, int], default: int) -> int:
    """Return the severity number of a logger or of its nearest parent.

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
