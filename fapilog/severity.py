"""Severity numbers and their names, by the OpenTelemetry log data model.

A severity is an integer from 1 to 24 in six ranges of four: TRACE 1-4,
DEBUG 5-8, INFO 9-12, WARN 13-16, ERROR 17-20, FATAL 21-24.  Everything that
accepts a severity goes through :func:`parse_severity`, so names mean the same
in code, in the environment and in a file.

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
#: Above every severity; a threshold of OFF disables a logger.
OFF: Final = 25

RANGES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

#: Short name of every number: ``SHORT_NAMES[9] == "INFO"``, ``[10] == "INFO2"``.
#: Index 0 is the unspecified severity.
SHORT_NAMES: Final[tuple[str, ...]] = (
    "",
    *(name + suffix for name in RANGES for suffix in ("", "2", "3", "4")),
)

_ALIASES: Final = {"WARNING": WARN, "CRITICAL": FATAL, "OFF": OFF}
_NUMBERS: Final[dict[str, int]] = {
    **{name: number for number, name in enumerate(SHORT_NAMES) if name},
    **_ALIASES,
}

# The standard library's levels and where each begins in OpenTelemetry's scale.
_STDLIB: Final = ((50, FATAL), (40, ERROR), (30, WARN), (20, INFO), (10, DEBUG))


def parse_severity(value: int | str) -> int:
    """Return the severity number that ``value`` names.

    Args:
        value: a number from 1 to 24 (25 is ``OFF``), or a name in any case:
            the six ranges, their numbered forms (``INFO2``), ``WARNING``,
            ``CRITICAL``, ``OFF``, or such a number in digits.

    Raises:
        ConfigurationError: ``value`` is neither.
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
    """Return the severity number of a dotted logger name.

    Args:
        name: the logger's name, ``"app.db"``.
        by_name: the severity numbers of some names.
        default: the severity number if neither the name nor a parent has one.
    """
    while name:
        if name in by_name:
            return by_name[name]
        name = name.rpartition(".")[0]
    return default


def range_name(number: int) -> str:
    """Return the name of the range ``number`` lies in, ``"INFO"`` for 9 to 12.

    Numbers outside 1 to 24 belong to the nearest range.
    """
    return RANGES[min(max(number - 1, 0) // 4, 5)]


def from_stdlib(levelno: int) -> int:
    """Map a level of the :mod:`logging` module to a severity number.

    10, 20, 30, 40 and 50 map to 5, 9, 13, 17 and 21.  A level in between
    keeps its place: one number up for every quarter of the way to the next.
    """
    if levelno < 10:  # noqa: PLR2004 - logging.DEBUG
        return TRACE + min(max(levelno, 0) * 4 // 10, 3)
    for level, number in _STDLIB:
        if levelno >= level:
            return number + min((levelno - level) * 4 // 10, 3)
    return TRACE  # pragma: no cover - every level from 10 up is in the table


def to_stdlib(number: int) -> int:
    """Map a severity number to the highest :mod:`logging` level it covers.

    The inverse of :func:`from_stdlib` at the range starts; ``OFF`` maps to a
    level above CRITICAL.
    """
    if number >= OFF:
        return 60
    if number < DEBUG:
        return 1
    for level, start in _STDLIB:
        if number >= start:
            return level + (number - start) * 10 // 4
    return 1  # pragma: no cover - every number from 5 up is in the table
