"""A processor that drops records below a severity.

A logger checks its level before it creates a record.  This processor runs later, so it checks
the severity that earlier processors may have changed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fapilog.errors import ConfigurationError
from fapilog.severity import inherited, parse_severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.record import LogRecord

_MAX_CACHED: Final = 4096


class LevelFilter:
    """Drops records whose severity is below a minimum.

    A record with an unspecified severity (number 0) is not dropped, as the OpenTelemetry
    specification requires for ``minimum_severity``
    (https://opentelemetry.io/docs/specs/otel/logs/sdk/#loggerconfig).

    Does not block; never raises.  Only one worker thread may call it.

    Args:
        min_severity: the lowest severity that is not dropped: a name such as ``"info"``, a
            ``Severity``, or a level of :mod:`logging`; ``"off"`` drops all records.
        loggers: the minimum severity by logger name.  The minimum for ``a`` also applies to
            ``a.b``, unless ``loggers`` contains ``a.b``.

    Raises:
        ConfigurationError: a severity is not valid, or a logger name is not a string.
    """

    def __init__(
        self, min_severity: int | str, *, loggers: Mapping[str, int | str] | None = None
    ) -> None:
        default = _severity("min_severity", min_severity)
        by_name = {
            _logger_name(name): _severity(f"loggers[{name!r}]", severity)
            for name, severity in (loggers or {}).items()
        }
        self._lowest = lru_cache(_MAX_CACHED)(lambda name: inherited(name, by_name, default))

    def __call__(self, record: LogRecord) -> LogRecord | None:
        """Return ``record``, or None if its severity is too low."""
        number = record.severity_number
        return record if not number or number >= self._lowest(record.scope.name) else None


def _logger_name(name: object) -> str:
    if not isinstance(name, str):
        msg = f"loggers: {name!r} is not a logger name; use a string such as 'app.db'"
        raise ConfigurationError(msg)
    return name


def _severity(option: str, value: int | str) -> int:
    try:
        return int(parse_severity(value))
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{option}: {error}"
        raise ConfigurationError(msg) from error
