"""Ways in for records of other loggers.

A bridge turns a foreign record into a fapilog record on the caller's thread
and offers it to a ``RecordTarget``, a pipeline seen from outside.  Here is
what all bridges share: where records go when no target is named, and how
they know that a record comes out of a delivery and must not go back in, or
has come in already on another way.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from typing_extensions import Self

from fapilog.context import BOUND, SUPPRESSED
from fapilog.record import AnyValue, Scope
from fapilog.values import DEFAULT_LIMITS, SCALARS, snapshot, snapshot_attributes

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from fapilog.protocols import RecordTarget

_MAX_NAMES: Final = 4096
_MAX_TEXT: Final = DEFAULT_LIMITS.text
_NUMBERS: Final = SCALARS - {str}


def no_target() -> RecordTarget | None:
    """Return None: there is no default runtime yet."""
    return None


#: Returns the default runtime's target, or None when there is none.  The
#: runtime replaces it; bridges call it per record, so what they feed follows
#: ``configure()`` and ``shutdown()``.
default_target: Callable[[], RecordTarget | None] = no_target


class Taken(str):
    """The logger's name on a record of :mod:`logging` that a bridge took already.

    The name is what every copy of a record keeps (that of a queue handler, for
    one) and what OpenTelemetry's handlers hand to a logger provider.  It is
    text like any other to everybody else, and plain text again in a pickle.

    Attributes:
        by: the targets that have the record.
    """

    __slots__ = ("by",)
    by: tuple[RecordTarget, ...]

    def __new__(cls, name: str, by: tuple[RecordTarget, ...]) -> Self:
        """Mark a name."""
        made = super().__new__(cls, name)
        made.by = by
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # Another process has other targets, and may not have fapilog.
        return str, (str(self),)


class Passing(threading.local):
    """What is passing the bridges on this thread.

    Attributes:
        watched: whether anything wants to know ``taken``, which costs time.
        taken: the record of :mod:`logging` that was taken and now visits the
            handlers of its loggers, if any.
        reported: what was reported by a hook which now calls the hook before
            it - an exception, a warning, an event loop's context - or True.
    """

    watched: ClassVar[bool] = False
    taken: logging.LogRecord | None = None
    reported: object = None


PASSING: Final = Passing()


class Feed:
    """Where a bridge's records go, and where they went last.  Thread-safe.

    Args:
        getter: yields what is fed, None for nothing; called for each record.
            By default the default runtime's target.
    """

    __slots__ = ("_fed", "_getter", "_marks")

    def __init__(self, getter: Callable[[], RecordTarget | None] | None = None) -> None:
        self._fed: RecordTarget | None = None
        self._marks: dict[str, Taken] = {}
        self.follow(getter)

    @classmethod
    def of(cls, target: RecordTarget | None) -> Feed:
        """Return a feed of ``target``, or of the default runtime's when it is None."""
        return cls(None if target is None else lambda: target)

    def follow(self, getter: Callable[[], RecordTarget | None] | None) -> None:
        """Feed what ``getter`` yields from now on."""
        # The default is looked up each time: the runtime replaces it.
        self._getter = getter or (lambda: default_target())  # noqa: PLW0108

    def target(self) -> RecordTarget | None:
        """Return what a record goes to; the default runtime may be made by this."""
        target = self._getter()
        if target is not None:
            self._fed = target
        return target

    def mark(self, name: str, target: RecordTarget) -> Taken:
        """Return ``name`` for a record that ``target`` has taken."""
        if type(name) is Taken:
            return Taken(name, (*name.by, target))
        found = self._marks.get(name)
        if found is None or found.by[0] is not target:
            if len(self._marks) >= _MAX_NAMES:
                self._marks.clear()
            found = self._marks[name] = Taken(name, (target,))
        return found

    def has(self, name: str) -> bool:
        """Whether what is fed took the record that ``name`` is the logger's name of."""
        if type(name) is not Taken:
            return False
        return self._fed in name.by or self._getter() in name.by

    def flush(self, timeout: float) -> bool:
        """Flush what was fed, for up to ``timeout`` seconds; never makes a runtime."""
        return self._fed is None or self._fed.flush(timeout)

    def stop(self) -> None:
        """Feed nothing until told otherwise."""
        self._getter = no_target


def is_suppressed() -> bool:
    """Whether the caller runs inside a delivery of fapilog or of an OpenTelemetry SDK.

    What is logged there - by an exporter, or by the HTTP client below it -
    would be exported in turn and so feed itself.
    """
    return BOUND.get() is SUPPRESSED or bool(get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def is_passing(target: RecordTarget, name: str, timestamp: int | None) -> bool:
    """Whether a record is what an OpenTelemetry handler made of one that ``target`` has.

    The SDK knows its loggers by equal names, so the name does not tell it
    there; that the record is visiting the handlers on this thread does.
    """
    record = PASSING.taken
    if record is None or record.name != name:
        return False
    by = record.name.by if isinstance(record.name, Taken) else ()
    return target in by and timestamp == int(record.created * 1e9)


def body_of(value: Any) -> AnyValue:
    """Return a snapshot of a body; an ordinary message is one already."""
    return value if type(value) is str and len(value) <= _MAX_TEXT else snapshot(value)


def attributes_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of fields: the same dict when nothing in it can change."""
    for value in fields.values():
        kind = type(value)
        if kind in _NUMBERS or (kind is str and len(value) <= _MAX_TEXT):
            continue
        return snapshot_attributes(fields)
    return fields


@lru_cache(maxsize=4096)
def scope_of(name: str) -> Scope:
    """Return the one scope of a foreign logger's name."""
    return Scope(str(name))  # plain text, whatever was equal to it
