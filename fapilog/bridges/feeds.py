"""The code that all bridges share.

A bridge passes the log records of another library to fapilog.  A ``Feed`` finds the object
that gets these records, which is usually a ``Runtime``.  Other code in this module detects
records that a bridge must skip: records that come from code that is sending telemetry to a
backend, and records that another bridge has already passed to the same runtime.
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
    """Return None, so that a bridge drops its records.

    This function is the default target until the package ``fapilog.runtime`` is imported.
    """
    return None


#: The function that returns the default runtime, or None if the record must be dropped.  Bridges
#: call it for each record.  The package ``fapilog.runtime`` replaces it.
default_target: Callable[[], RecordTarget | None] = no_target


class Taken(str):
    """The logger name of a :mod:`logging` record that a bridge has passed to a runtime.

    The bridge stores this object as the record's ``name``.  Copies of the record contain the
    same object, even the copy that a ``QueueHandler`` makes.  OpenTelemetry's handlers pass
    the name to a logger provider, so fapilog's logger provider can skip the record.  All other
    code sees an ordinary string.

    Attributes:
        by: the runtimes, or other ``RecordTarget`` objects, that already have the record.
    """

    __slots__ = ("by",)
    by: tuple[RecordTarget, ...]

    def __new__(cls, name: str, by: tuple[RecordTarget, ...]) -> Self:
        """Return a copy of ``name`` that stores ``by`` as an attribute."""
        made = super().__new__(cls, name)
        made.by = by
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # The pickle contains an ordinary str, because the runtimes in the attribute ``by`` exist
        # only in this process.
        return str, (str(self),)


class Passing(threading.local):
    """The state that the modules in ``fapilog.bridges`` share on each thread.

    Attributes:
        watched: whether a ``LoguruSink`` or a ``FapilogLogRecordProcessor`` has been created;
            these objects read ``taken``.  While ``watched`` is False, ``taken`` stays None, to
            save time.  All threads share ``watched``, because it is a class attribute.
        taken: the :mod:`logging` record that a bridge has passed to a runtime, while the
            loggers' handlers receive the same record; None at all other times.
        reported: the object that a hook of ``fapilog.bridges.hooks`` has logged, while the
            hook runs: an exception, a warning, or the dict that an event loop passes to its
            exception handler; True if the hook has logged something without such an object;
            None while no hook runs.
        formatting: whether the message of a :mod:`logging` record is being formatted, which
            may run user code.
    """

    watched: ClassVar[bool] = False
    taken: logging.LogRecord | None = None
    reported: object = None
    formatting = False


PASSING: Final = Passing()


class Feed:
    """Finds the target of a record: the object to which a bridge passes the record.

    The target is a ``RecordTarget``, usually a ``Runtime``.  Thread-safe.

    Args:
        getter: the function that returns the target of a record, or returns None
            if the record must be dropped; by default :data:`default_target`.
    """

    __slots__ = ("_fed", "_getter", "_given", "_marks")

    def __init__(self, getter: Callable[[], RecordTarget | None] | None = None) -> None:
        self._fed: RecordTarget | None = None
        self._marks: dict[str, Taken] = {}
        self.follow(getter)

    @classmethod
    def of(cls, target: RecordTarget | None) -> Feed:
        """Return a ``Feed`` that always finds ``target``; None means the default runtime."""
        return cls(None if target is None else lambda: target)

    def follow(self, getter: Callable[[], RecordTarget | None] | None) -> None:
        """Replace the function that returns the target; None means ``default_target``."""
        self._given = getter
        # The lambda looks up ``default_target`` in each call, because its value may change.
        self._getter = getter or (lambda: default_target())  # noqa: PLW0108

    def __deepcopy__(self, _memo: object) -> Feed:
        return Feed(self._given)

    def __reduce__(self) -> tuple[type[Feed], tuple[()]]:
        from pickle import PicklingError  # noqa: PLC0415 - already loaded: it calls this method

        # A feed whose ``getter`` is not the default cannot be pickled.  Even if Python can pickle
        # this function, it may return a different runtime in the process that loads the pickle.
        if self._given not in (None, default_target):
            msg = (
                "cannot pickle a bridge to a separate Runtime, which another process does not "
                "have; make the bridge there"
            )
            raise PicklingError(msg)
        return Feed, ()

    def target(self) -> RecordTarget | None:
        """Return the target of the next record, or None.  May create the default runtime."""
        target = self._getter()
        if target is not None:
            self._fed = target
        return target

    def mark(self, name: str, target: RecordTarget) -> Taken:
        """Return ``name`` as a ``Taken`` object whose attribute ``by`` includes ``target``."""
        if type(name) is Taken:
            return Taken(name, (*name.by, target))
        found = self._marks.get(name)
        if found is None or found.by[0] is not target:
            if len(self._marks) >= _MAX_NAMES:
                self._marks.clear()
            found = self._marks[name] = Taken(name, (target,))
        return found

    def has(self, name: str) -> bool:
        """Return whether ``name`` is a ``Taken`` object that lists this feed's target.

        ``name`` is the name in a :mod:`logging` record.  If the result is True, a bridge has
        already passed the record to the target, and must not pass it again.
        """
        if type(name) is not Taken:
            return False
        return self._fed in name.by or self._getter() in name.by

    def flush(self, timeout: float) -> bool:
        """Flush the target of the latest record.  Never creates a runtime.

        Blocks up to ``timeout`` seconds.  Returns False if the flush takes longer.
        """
        return self._fed is None or self._fed.flush(timeout)


def is_suppressed() -> bool:
    """Return whether the running code sends telemetry for fapilog or for an OpenTelemetry SDK.

    Bridges drop records that are logged by such code, because sending them would cause more
    records, in an endless loop.
    """
    return BOUND.get() is SUPPRESSED or bool(get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def is_passing(target: RecordTarget, name: str, timestamp: int | None) -> bool:
    """Return whether an OpenTelemetry record is a copy of a record that ``target`` already has.

    If an OpenTelemetry handler has converted a :mod:`logging` record, a bridge may already have
    passed the original record to ``target``.  Therefore this function compares ``name`` and
    ``timestamp``, which come from the OpenTelemetry record, with the :mod:`logging` record that
    the loggers' handlers are receiving on this thread.

    Args:
        target: the object that may already have the original record.
        name: the name of the OpenTelemetry record's logger.  It may be an ordinary str even if
            the original record's name is a :class:`Taken` object, because OpenTelemetry's SDK
            caches loggers by name.
        timestamp: the time of the OpenTelemetry record, in nanoseconds since the epoch, or None.
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
    """Return a snapshot of a record's body.

    A str that is not longer than ``DEFAULT_LIMITS.text`` is returned unchanged.
    """
    return value if type(value) is str and len(value) <= _MAX_TEXT else snapshot(value)


def attributes_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of a record's attributes.

    The dict itself is returned if every value is None, a bool, a number, or a str that is not
    longer than ``DEFAULT_LIMITS.text``.
    """
    for value in fields.values():
        kind = type(value)
        if kind in _NUMBERS or (kind is str and len(value) <= _MAX_TEXT):
            continue
        return snapshot_attributes(fields)
    return fields


@lru_cache(maxsize=4096)
def scope_of(name: str) -> Scope:
    """Return the instrumentation scope that all loggers with this name share."""
    return Scope(str(name))  # str(), because a cached Taken object would keep a runtime alive
