"""The code that all bridges share.

A ``Feed`` finds the target that gets a bridge's records, usually a runtime.  Other code
in this module detects records that bridges must skip: records that are logged during a
delivery, and records that another bridge has already taken.
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
    """Return None: the package ``runtime`` is not imported yet, so a record has no target."""
    return None


#: Returns the default runtime, or None.  The package ``runtime`` sets this function;
#: bridges call it once per record.
default_target: Callable[[], RecordTarget | None] = no_target


class Taken(str):
    """The logger name of a :mod:`logging` record that a bridge has taken.

    Copies of the record keep this name, even the copy that a queue handler makes.
    OpenTelemetry's handlers pass the name to a logger provider, which can skip the
    record.  All other code sees an ordinary string.

    Attributes:
        by: the targets that have taken the record.
    """

    __slots__ = ("by",)
    by: tuple[RecordTarget, ...]

    def __new__(cls, name: str, by: tuple[RecordTarget, ...]) -> Self:
        """Return a copy of ``name`` that also stores the targets ``by``."""
        made = super().__new__(cls, name)
        made.by = by
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A plain str, because the process that loads the pickle has other targets.
        return str, (str(self),)


class Passing(threading.local):
    """The state of the bridges on one thread.

    Attributes:
        watched: whether a bridge on any thread reads ``taken``; if False, ``taken``
            stays None, to save time.
        taken: the :mod:`logging` record that a bridge has taken, while the loggers'
            own handlers receive the record; else None.
        reported: while a hook runs, the exception, warning or event loop context
            that it has logged, or True if there is no such object; else None.
        formatting: whether user code is formatting a :mod:`logging` message.
    """

    watched: ClassVar[bool] = False
    taken: logging.LogRecord | None = None
    reported: object = None
    formatting = False


PASSING: Final = Passing()


class Feed:
    """Finds the target of a bridge's records, again for each record.  Thread-safe.

    Args:
        getter: the function that returns the target of a record, or returns None
            to drop the record.  Without a getter, :data:`default_target` is called.
    """

    __slots__ = ("_fed", "_getter", "_given", "_marks")

    def __init__(self, getter: Callable[[], RecordTarget | None] | None = None) -> None:
        self._fed: RecordTarget | None = None
        self._marks: dict[str, Taken] = {}
        self.follow(getter)

    @classmethod
    def of(cls, target: RecordTarget | None) -> Feed:
        """Return a feed for ``target``, or for the default runtime if ``target`` is None."""
        return cls(None if target is None else lambda: target)

    def follow(self, getter: Callable[[], RecordTarget | None] | None) -> None:
        """Replace the function that returns the target."""
        self._given = getter
        # A lambda, because the package ``runtime`` replaces ``default_target`` later.
        self._getter = getter or (lambda: default_target())  # noqa: PLW0108

    def __deepcopy__(self, _memo: object) -> Feed:
        return Feed(self._given)

    def __reduce__(self) -> tuple[type[Feed], tuple[()]]:
        from pickle import PicklingError  # noqa: PLC0415 - already loaded: it calls this method

        # Even a getter that can be pickled by its name is refused, because it may return
        # a different runtime in the other process.
        if self._given not in (None, default_target):
            msg = (
                "cannot pickle a bridge to a separate Runtime, which another process does not "
                "have; make the bridge there"
            )
            raise PicklingError(msg)
        return Feed, ()

    def target(self) -> RecordTarget | None:
        """Return the target of the next record.  May configure the default runtime."""
        target = self._getter()
        if target is not None:
            self._fed = target
        return target

    def mark(self, name: str, target: RecordTarget) -> Taken:
        """Return ``name``, marked as the name of a record that ``target`` has taken."""
        if type(name) is Taken:
            return Taken(name, (*name.by, target))
        found = self._marks.get(name)
        if found is None or found.by[0] is not target:
            if len(self._marks) >= _MAX_NAMES:
                self._marks.clear()
            found = self._marks[name] = Taken(name, (target,))
        return found

    def has(self, name: str) -> bool:
        """Whether ``name`` is marked: this feed's target already has the record with this name.

        Such a record must not be logged a second time.
        """
        if type(name) is not Taken:
            return False
        return self._fed in name.by or self._getter() in name.by

    def flush(self, timeout: float) -> bool:
        """Flush the target of the last record.  Never creates a runtime.

        Blocks up to ``timeout`` seconds.  Returns False if this time passes.
        """
        return self._fed is None or self._fed.flush(timeout)


def is_suppressed() -> bool:
    """Whether the caller runs inside a delivery of fapilog or of an OpenTelemetry SDK.

    Bridges drop the records that are logged during a delivery, because each delivery would
    otherwise cause another delivery.
    """
    return BOUND.get() is SUPPRESSED or bool(get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def is_passing(target: RecordTarget, name: str, timestamp: int | None) -> bool:
    """Whether an OpenTelemetry record comes from a :mod:`logging` record that ``target`` has taken.

    A handler of OpenTelemetry may have converted that record.  The SDK caches loggers by
    name, so the :class:`Taken` name is lost.  Therefore ``name`` and ``timestamp`` are
    compared with the record that the loggers' handlers on this thread are receiving.
    """
    record = PASSING.taken
    if record is None or record.name != name:
        return False
    by = record.name.by if isinstance(record.name, Taken) else ()
    try:
        return target in by and timestamp == int(record.created * 1e9)
    except Exception:  # noqa: BLE001 - not a time, so no handler has converted the record
        return False


def body_of(value: Any) -> AnyValue:
    """Return a snapshot of a body.  A str within the length limit is returned unchanged."""
    return value if type(value) is str and len(value) <= _MAX_TEXT else snapshot(value)


def attributes_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of fields.  A dict of small, immutable values is returned unchanged."""
    for value in fields.values():
        kind = type(value)
        if kind in _NUMBERS or (kind is str and len(value) <= _MAX_TEXT):
            continue
        return snapshot_attributes(fields)
    return fields


@lru_cache(maxsize=4096)
def scope_of(name: str) -> Scope:
    """Return the scope that all loggers with this name share."""
    return Scope(str(name))  # str(), because ``name`` may be of type Taken
