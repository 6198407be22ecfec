"""Routes decide which records a sink gets, and which sink is its fallback.

A sink that is passed to ``configure`` without a route gets every record.  A :class:`Route`
selects the sink's records, and may name a fallback and an overflow policy for this sink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, get_args

from fapilog.delivery.admission import OverflowPolicy
from fapilog.options.checks import NONE, Rule, check_all, is_number, one_of, refuse, severity
from fapilog.severity import OFF, TRACE, Severity

if TYPE_CHECKING:
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_HIGHEST: Final = Severity.FATAL4
_RULES: Final = {
    "loggers": Rule(
        lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value),
        "a list of logger names",
    ),
    "where": Rule(
        lambda value: (
            isinstance(value, Mapping) or (callable(value) and not iscoroutinefunction(value))
        ),
        "a dict of attributes, or a plain function",
    ),
    "overflow": one_of(*get_args(OverflowPolicy)) | NONE,
    "fallback_after": Rule(
        lambda value: is_number(value) and value >= 0, "a number of seconds, 0 or more"
    ),
}


@dataclass(frozen=True, eq=False)
class Route:
    """A sink and the conditions that select its records.

    A record must meet all conditions, which are checked after the processors have run.

    Args:
        sink: the sink, or its name in the option ``sinks``.
        level: the lowest severity, as a name, a ``Severity`` or a level of :mod:`logging`;
            ``"off"`` selects no records.
        max_level: the highest severity.
        loggers: dotted logger names; each name also selects its child loggers.  An empty list
            selects all loggers.
        where: the attributes that a record must have, each with a value or a collection of
            values; a string also matches a number or boolean with the same text.
            Alternatively, a function ``(record) -> bool``.  The pipeline's worker calls the
            function once per record, so a slow function delays every sink.  If the function
            raises, the sink gets the record.
        overflow: the policy for a full backlog of this sink, instead of the option
            ``sink_overflow``.
        fallback: a sink, or its name, that gets the records for which this sink's backlog has
            no space.  Without a spool, the fallback also gets all records of this sink while
            the sink's backend has been failing for more than ``fallback_after`` seconds.
            Several routes may share one fallback.
        fallback_after: the time in seconds for which the backend must have been failing before
            the fallback gets all records of this sink; 0 or more.

    Raises:
        ConfigurationError: an option is invalid; the message names the option and the fix.
    """

    sink: Sink[Any] | str
    level: int | str = Severity.TRACE
    max_level: int | str = Severity.FATAL4
    loggers: Iterable[str] = ()
    where: Mapping[str, Any] | Callable[[LogRecord], bool] = field(default_factory=dict)
    overflow: str | None = None
    fallback: Sink[Any] | str | None = None
    fallback_after: float = 30.0
    _lowest: int = field(init=False, repr=False)
    _highest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        owner = str(self)
        object.__setattr__(self, "_lowest", severity("level", self.level, owner))
        object.__setattr__(self, "_highest", severity("max_level", self.max_level, owner))
        loggers = (self.loggers,) if isinstance(self.loggers, str) else self.loggers
        if isinstance(loggers, Iterable):
            object.__setattr__(self, "loggers", tuple(loggers))
        check_all(_RULES, vars(self), owner)
        if self._highest < self._lowest != OFF:
            fix = "it is above max_level, so no record can meet both"
            refuse("level", self.level, fix, owner)

    def __str__(self) -> str:
        # Errors show the sink's name, because the repr of a custom sink may contain a secret.
        sink = self.sink
        return f"the route to {sink if isinstance(sink, str) else getattr(sink, 'name', '?')!r}"

    @property
    def takes_all(self) -> bool:
        """Whether the sink gets every record."""
        every = self._lowest == TRACE and self._highest >= _HIGHEST
        return every and not self.loggers and isinstance(self.where, Mapping) and not self.where

    @property
    def takes_none(self) -> bool:
        """Whether the sink gets no records."""
        return self._lowest == OFF

    def takes(self, record: LogRecord) -> bool:
        """Return whether the sink gets ``record``.

        Raises:
            Exception: any error that the function ``where`` raises.  ``Intake`` catches the error
                and sends the record.
        """
        if self._lowest == OFF:
            return False
        number = record.severity_number
        # The levels of a route do not exclude a record without a severity (number 0).
        if number and not self._lowest <= number <= self._highest:
            return False
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
        # The value is compared as text, because a condition from an environment variable is
        # always a string.
        return str(value).lower() == wanted.lower()
    return value == wanted
