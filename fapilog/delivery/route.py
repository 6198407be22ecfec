"""Routes: which records a sink gets, and what becomes of those it cannot take.

A sink given to ``configure`` as it is gets every record.  Inside a
:class:`Route` it gets some, or has a fallback or an overflow policy of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fapilog.errors import ConfigurationError
from fapilog.severity import FATAL, OFF, TRACE, parse_severity

if TYPE_CHECKING:
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_HIGHEST: Final = FATAL + 3
_POLICIES: Final = ("block", "drop_newest", "drop_lowest", "spill")


@dataclass(frozen=True, eq=False)
class Route:
    """A sink and the records that are meant for it.

    All conditions have to hold.  They see a record as the sinks get it, after
    the processors.

    Args:
        sink: a sink, or its name as in the option ``sinks``.
        level: lowest severity, a name or number; ``"off"`` for no record.
        max_level: highest severity.
        loggers: dotted logger names; those below them are meant too.  Empty
            for all.
        where: attributes a record must have, each with a value or a
            collection of values; text also means the number or boolean that
            is written so.  Or a function ``(record) -> bool``, called once a
            record on the pipeline's worker, where a slow one delays every
            sink.  One that raises lets the record pass.
        overflow: what a full backlog does, instead of the option
            ``sink_overflow``.
        fallback: a sink, or its name, that gets what this one has no room
            for, and without a spool everything while this one's backend has
            not answered for ``fallback_after`` seconds.  It gets nothing
            else; several routes may share one.
        fallback_after: seconds from 0 up.

    Raises:
        ConfigurationError: an option is wrong; names it and the fix.
    """

    sink: Sink[Any] | str
    level: int | str = TRACE
    max_level: int | str = _HIGHEST
    loggers: Iterable[str] = ()
    where: Mapping[str, Any] | Callable[[LogRecord], bool] = field(default_factory=dict)
    overflow: str | None = None
    fallback: Sink[Any] | str | None = None
    fallback_after: float = 30.0
    _lowest: int = field(init=False, repr=False)
    _highest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lowest", self._severity("level"))
        object.__setattr__(self, "_highest", self._severity("max_level"))
        object.__setattr__(self, "loggers", self._logger_names())
        if self._highest < self._lowest != OFF:
            self._fail("level", "it is above max_level, so no record can meet both")
        where = self.where
        if not isinstance(where, Mapping) and not callable(where):
            self._fail("where", "give attributes in a dict, or a function")
        if iscoroutinefunction(where):
            self._fail("where", "give a plain function, not a coroutine function")
        if self.overflow is not None and self.overflow not in _POLICIES:
            self._fail("overflow", f"use one of {', '.join(_POLICIES)}")
        after = self.fallback_after
        if isinstance(after, bool) or not isinstance(after, (int, float)) or not after >= 0:
            self._fail("fallback_after", "give seconds from 0 up")

    def _severity(self, option: str) -> int:
        try:
            return parse_severity(getattr(self, option))
        except (ValueError, TypeError) as error:
            msg = f"{option} of {self}: {error}"
            raise ConfigurationError(msg) from None

    def _logger_names(self) -> tuple[str, ...]:
        given: object = self.loggers
        names = (given,) if isinstance(given, str) else given
        if not isinstance(names, Iterable):
            self._fail("loggers", "give a list of logger names")
        names = tuple(names)
        if not all(isinstance(name, str) for name in names):
            self._fail("loggers", "give names, as get_logger() takes them")
        return names

    def _fail(self, option: str, fix: str) -> NoReturn:
        value = getattr(self, option)
        shown = f"={value!r}" if isinstance(value, (str, int, float)) else ""
        msg = f"{option}{shown} of {self}: {fix}"
        raise ConfigurationError(msg)

    def __str__(self) -> str:
        # By its name: the repr of a sink of the application's own may show a secret.
        sink = self.sink
        return f"the route to {sink if isinstance(sink, str) else getattr(sink, 'name', '?')!r}"

    @property
    def takes_all(self) -> bool:
        """Whether every record is meant for the sink."""
        every = self._lowest == TRACE and self._highest >= _HIGHEST
        return every and not self.loggers and isinstance(self.where, Mapping) and not self.where

    def takes(self, record: LogRecord) -> bool:
        """Whether ``record`` is meant for the sink.

        Raises:
            Exception: whatever a function given as ``where`` raises.
        """
        if self._lowest == OFF:
            return False
        number = record.severity_number
        if number and not self._lowest <= number <= self._highest:
            return False  # one without a severity may be anything
        if self.loggers and not any(_is_below(record.scope.name, name) for name in self.loggers):
            return False
        if not isinstance(self.where, Mapping):
            return bool(self.where(record))
        attributes = record.attributes
        return all(
            name in attributes and _matches(attributes[name], wanted)
            for name, wanted in self.where.items()
        )


def _is_below(name: str, ancestor: str) -> bool:
    return not ancestor or name == ancestor or name.startswith(ancestor + ".")


def _matches(value: object, wanted: object) -> bool:
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return any(_matches(value, one) for one in wanted)
    if isinstance(wanted, str) and not isinstance(value, str):
        return str(value).lower() == wanted.lower()  # "true" and "5", as the environment has them
    return value == wanted
