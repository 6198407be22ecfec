"""Drops records below a severity, on the worker.

Loggers and bridges check their levels before they make a record; this filter
checks the severity that the earlier processors have set.
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
    """Keeps records at or above a severity and drops records below it.

    A record with an unspecified severity (number 0) is kept, as the OpenTelemetry
    specification requires for ``minimum_severity``
    (https://opentelemetry.io/docs/specs/otel/logs/sdk/#loggerconfig).

    Does not block; never raises.  Only one worker may call it.

    Args:
        min_severity: the lowest severity that is kept: a name such as
            ``"info"``, a ``Severity``, or a level of :mod:`logging`; ``"off"`` drops all.
        loggers: the lowest severities by logger name.  The severity of ``a``
            also applies to ``a.b``, unless ``a.b`` has its own.

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
        """Return the record, or None to drop it."""
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
