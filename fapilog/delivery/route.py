"""Routes decide which records a sink gets, and which sink gets the records it cannot take.

A sink that is given to ``configure`` without a route gets every record.  A
:class:`Route` gives it some records, a fallback, or its own overflow policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, NoReturn, get_args

from fapilog.delivery.admission import OverflowPolicy
from fapilog.errors import ConfigurationError
from fapilog.severity import FATAL, OFF, TRACE, parse_severity

if TYPE_CHECKING:
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_HIGHEST: Final = FATAL + 3
_POLICIES: Final = get_args(OverflowPolicy)


@dataclass(frozen=True, eq=False)
class Route:
    """A sink and the conditions that select its records.

    All conditions must hold.  They apply to the record that the processors return.

    Args:
        sink: the sink, or its name as in the option ``sinks``.
        level: the lowest severity, as a name or number; ``"off"`` for no record.
        max_level: the highest severity.
        loggers: dotted logger names; each includes the loggers below it.  Empty
            for all loggers.
        where: the attributes that a record must have, each with a value or a
            collection of values; text also matches the number or boolean that
            is written the same way.  Alternatively, a function ``(record) -> bool``.
            The pipeline's worker calls it once per record, so a slow function
            delays every sink.  If it raises, the record passes.
        overflow: the policy for a full backlog, which replaces the option
            ``sink_overflow``.
        fallback: a sink, or its name, that gets the records this sink has no
            room for.  Without a spool it also gets all records while this
            sink's backend has not answered for ``fallback_after`` seconds.  It
            gets no other records; several routes may share one fallback.
        fallback_after: the time limit in seconds, 0 or more.

    Raises:
        ConfigurationError: an option is wrong; the message names it and the fix.
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
            self._fail("loggers", "give each name as a string")
        return names

    def _fail(self, option: str, fix: str) -> NoReturn:
        value = getattr(self, option)
        shown = f"={value!r}" if isinstance(value, (str, int, float)) else ""
        msg = f"{option}{shown} of {self}: {fix}"
        raise ConfigurationError(msg)

    def __str__(self) -> str:
        # Only the sink's name: the repr of an application's own sink may show a secret.
        sink = self.sink
        return f"the route to {sink if isinstance(sink, str) else getattr(sink, 'name', '?')!r}"

    @property
    def takes_all(self) -> bool:
        """Whether the sink gets every record."""
        every = self._lowest == TRACE and self._highest >= _HIGHEST
        return every and not self.loggers and isinstance(self.where, Mapping) and not self.where

    @property
    def takes_none(self) -> bool:
        """Whether the sink gets no record."""
        return self._lowest == OFF

    def takes(self, record: LogRecord) -> bool:
        """Whether the sink gets ``record``.

        Raises:
            Exception: the error that a function given as ``where`` raised.
        """
        if self._lowest == OFF:
            return False
        number = record.severity_number
        if number and not self._lowest <= number <= self._highest:
            return False  # a record without a severity passes
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
        return str(value).lower() == wanted.lower()  # the environment holds only text
    return value == wanted
