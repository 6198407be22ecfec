"""Drops records below a severity, which may differ from logger to logger.

A logger already refuses what is below its own threshold, before a record is
made.  This filter is for what comes another way - the Logs API, bridges,
records offered ready - and for a second look after other processors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fapilog.errors import ConfigurationError
from fapilog.severity import parse_severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.record import LogRecord

_MAX_CACHED: Final = 4096


class LevelFilter:
    """Keeps records at or above a severity, drops the others.

    A record of unspecified severity (number 0) is kept, as the OpenTelemetry
    SDK's ``minimum_severity`` keeps it
    (https://opentelemetry.io/docs/specs/otel/logs/sdk/#loggerconfig).

    Does not block; never raises.  Belongs to one worker.

    Args:
        min_severity: the lowest severity kept: a name as ``"info"`` or an
            OpenTelemetry severity number from 1 to 24; ``"off"`` is above all.
        loggers: lowest severities by logger name.  One for ``a`` also holds
            for ``a.b``, unless that has one of its own.

    Raises:
        ConfigurationError: a severity is none, or a logger name no string.
    """

    def __init__(
        self, min_severity: int | str, *, loggers: Mapping[str, int | str] | None = None
    ) -> None:
        self._default = _severity("min_severity", min_severity)
        self._loggers = {
            _logger_name(name): _severity(f"loggers[{name!r}]", severity)
            for name, severity in (loggers or {}).items()
        }
        self._decided: dict[str, int] = {}

    def __call__(self, record: LogRecord) -> LogRecord | None:
        """Return the record, or None to drop it."""
        name = record.scope.name
        lowest = self._decided.get(name)
        if lowest is None:
            lowest = self._decide(name)
        return record if record.severity_number >= lowest or not record.severity_number else None

    def _decide(self, name: str) -> int:
        if len(self._decided) >= _MAX_CACHED:
            self._decided.clear()
        ancestor = name
        while ancestor and ancestor not in self._loggers:
            ancestor = ancestor.rpartition(".")[0]
        lowest = self._decided[name] = self._loggers.get(ancestor, self._default)
        return lowest


def _logger_name(name: object) -> str:
    if not isinstance(name, str):
        msg = f"loggers: {name!r} is no logger name; use a string such as 'app.db'"
        raise ConfigurationError(msg)
    return name


def _severity(option: str, value: int | str) -> int:
    try:
        return parse_severity(value)
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{option}: {error}"
        raise ConfigurationError(msg) from error
