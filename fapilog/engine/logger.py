"""The loggers that applications call: :class:`Logger` and, for asyncio, :class:`AsyncLogger`.

A method compares its severity with the logger's threshold and then calls ``LoggerCore.emit``.
A disabled call costs about as much as an empty method.  The methods are written out instead of
generated, so that editors, type checkers and tracebacks show ordinary methods.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from typing_extensions import Self

from fapilog.context import EMPTY
from fapilog.severity import DEBUG, ERROR, FATAL, INFO, TRACE, WARN
from fapilog.values import plain_name, snapshot_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fapilog.engine.emit import LoggerCore

#: Attributes that fapilog's loggers do not have, but that the loggers of other libraries or of
#: fapilog 0.18 have.  Reading such an attribute raises an AttributeError with a hint from
#: ``fapilog.renamed``.
_RENAMED: Final = frozenset(
    """
    setLevel getEffectiveLevel isEnabledFor hasHandlers level disabled propagate handlers
    addHandler removeHandler filters addFilter removeFilter getChild handle msg err failure
    new try_unbind adebug ainfo awarning aerror acritical aexception alog success opt catch
    patch contextualize add remove configure enable disable complete notice span clear_context
    audit security unsafe_debug start stop_and_drain drain flush check_health self_test
    enable_enricher disable_enricher
""".split()  # noqa: SIM905 - a list would have a line per name
)
#: Keyword arguments that ``get_logger`` may reject instead of binding them as fields, because the
#: caller probably meant them as options.  The function ``fapilog.renamed.check_fields`` decides.
_NOT_FIELDS: Final = frozenset({"auto_detect", "name", "preset", "reuse", "settings", "sinks"})


def _no_runtime(name: str) -> LoggerCore:
    msg = f"the logger {name!r} needs the package fapilog.runtime"
    raise RuntimeError(msg)


#: Returns the default runtime's ``LoggerCore`` for a logger name.  The package
#: ``fapilog.runtime`` replaces this function, because importing that package in this module would
#: be circular.
default_core: Callable[[str], LoggerCore] = _no_runtime


class _Front:
    """The base class of ``Logger`` and ``AsyncLogger``: a ``LoggerCore`` with bound fields.

    ``copy.copy`` and ``copy.deepcopy`` return the same logger.  A pickle contains the logger's
    name and bound fields; unpickling returns a logger of the default runtime in the process
    that unpickles.
    """

    __slots__ = ("_bound", "_core")

    def __init__(self, core: LoggerCore, bound: Mapping[str, Any] = EMPTY) -> None:
        self._core = core
        self._bound = bound

    @classmethod
    def of(cls, logger: Logger | AsyncLogger) -> Self:
        """Return a logger of this class with the name and the bound fields of ``logger``.

        Use this method to create a logger of your own subclass; ``fapilog.get_logger`` returns
        only a ``Logger``.
        """
        return cls(logger._core, logger._bound)  # noqa: SLF001 - attributes of this class

    @property
    def name(self) -> str:
        """The logger's name, which is also the name of its OpenTelemetry instrumentation scope."""
        return self._core.scope.name

    def bind(self, /, **fields: Any) -> Self:
        """Return a logger of the same name that adds ``fields`` to the attributes of its records.

        The values are copied, so a later change to a mutable value does not change the records.
        """
        return type(self)(self._core, {**self._bound, **snapshot_attributes(fields)})

    def unbind(self, *names: str) -> Self:
        """Return a logger without the bound fields ``names``; unknown names are ignored."""
        known = {plain_name(name) for name in names}
        return type(self)(self._core, {k: v for k, v in self._bound.items() if k not in known})

    def is_enabled(self, severity: int | str) -> bool:
        """Whether a log call with this severity would now be logged, or buffered by ``hold()``.

        Always False after a shutdown.
        """
        return self._core.is_open and self._core.takes(self._core.severity(severity)[0])

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., _Front], tuple[object, ...]]:
        from pickle import PicklingError  # noqa: PLC0415 - already loaded: it calls this method

        if default_core(self.name) is not self._core:
            msg = (
                f"cannot pickle {self!r:.200}: it belongs to a separate Runtime, which another "
                "process does not have; pickle its name and call get_logger() there"
            )
            raise PicklingError(msg)
        return _loaded, (type(self), self.name, dict(self._bound))

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) - _RENAMED)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, bound={dict(self._bound)!r})"


class _Renamed:
    """A descriptor that raises AttributeError for an attribute of another library's loggers.

    The error tells the user what to use instead.  A ``__getattr__`` in the loggers could do the
    same, but would make every access to their attributes slower.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, _logger: object, kind: type[object]) -> NoReturn:
        from fapilog.renamed import LOGGER  # noqa: PLC0415 - only an error needs it

        name = self._name
        msg = f"{kind.__name__!r} object has no attribute {name!r}; {LOGGER[name]}"
        raise AttributeError(msg)


for _name in _RENAMED:
    setattr(_Front, _name, _Renamed(_name))


class Logger(_Front):
    """A logger that any thread can use; its methods do no I/O and never raise.

    Create a logger with :func:`fapilog.get_logger`.  The first positional argument of a method
    is the message, and keyword arguments become attributes of the record.  Further positional
    arguments are formatted into the message as in :mod:`logging`, or with ``str.format`` if the
    message contains ``{}``; the unformatted message is then stored in the attribute
    ``log.body.template``.  If the arguments do not fit the message, they are added to its text,
    and a message on stderr reports this.

    Four keyword arguments mean the same as in :mod:`logging`: ``exc_info=`` adds an exception,
    ``stack_info=True`` adds the call stack (as the attribute ``code.stacktrace``), ``extra=``
    adds the attributes in a mapping, and ``stacklevel=`` selects the caller whose file, line
    and stack the record contains.

    A method may wait for space in a full queue if the option ``overflow`` says so, but never in
    a thread that runs an event loop.  Thread-safe and re-entrant.
    """

    __slots__ = ()

    def trace(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity TRACE (1)."""
        core = self._core
        if core.threshold <= TRACE:
            core.emit(TRACE, "TRACE", message, attributes, self._bound, args)

    def debug(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity DEBUG (5)."""
        core = self._core
        if core.threshold <= DEBUG:
            core.emit(DEBUG, "DEBUG", message, attributes, self._bound, args)

    def info(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity INFO (9)."""
        core = self._core
        if core.threshold <= INFO:
            core.emit(INFO, "INFO", message, attributes, self._bound, args)

    def warning(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity WARN (13)."""
        core = self._core
        if core.threshold <= WARN:
            core.emit(WARN, "WARN", message, attributes, self._bound, args)

    warn = warning

    def error(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity ERROR (17)."""
        core = self._core
        if core.threshold <= ERROR:
            core.emit(ERROR, "ERROR", message, attributes, self._bound, args)

    def critical(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity FATAL (21)."""
        core = self._core
        if core.threshold <= FATAL:
            core.emit(FATAL, "FATAL", message, attributes, self._bound, args)

    fatal = critical

    def exception(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity ERROR with the exception that is being handled.

        The argument ``exc_info=`` selects a different exception.  The stack trace includes
        chained causes and exception groups.
        """
        core = self._core
        if core.threshold <= ERROR:
            attributes = _with_exception(attributes)
            core.emit(ERROR, "ERROR", message, attributes, self._bound, args)

    def event(self, name: str, /, **attributes: Any) -> None:
        """Log an OpenTelemetry event at severity INFO, with the event name ``name`` and no body.

        Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-eventname
        """
        core = self._core
        if core.threshold <= INFO:
            core.emit(INFO, "INFO", None, attributes, self._bound, (), plain_name(name))

    def log(self, severity: int | str, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at any severity.

        Args:
            severity: a name (``"INFO2"``), a name from the option ``severities``, a
                :class:`fapilog.Severity`, or a level of :mod:`logging` (20 is INFO).
            message: the record's body, which may be any value.
            *args: the values for ``%s`` or ``{}`` in the message; see :class:`Logger`.
            **attributes: the record's attributes; ``event_name=`` makes the record an event.
        """
        core = self._core
        number, text = core.severity(severity)
        if core.threshold <= number:
            event_name, attributes = _take_event_name(attributes)
            core.emit(number, text, message, attributes, self._bound, args, event_name)


class AsyncLogger(_Front):
    """A logger for coroutines: a call may wait for space in the queue, but never for I/O.

    Create a logger with :func:`fapilog.get_async_logger`.  A call yields to the event loop only
    if the queue is full.
    """

    __slots__ = ()

    async def trace(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity TRACE (1)."""
        core = self._core
        if core.threshold <= TRACE:
            if core.is_full:
                await core.room(TRACE)
            core.emit(TRACE, "TRACE", message, attributes, self._bound, args)

    async def debug(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity DEBUG (5)."""
        core = self._core
        if core.threshold <= DEBUG:
            if core.is_full:
                await core.room(DEBUG)
            core.emit(DEBUG, "DEBUG", message, attributes, self._bound, args)

    async def info(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity INFO (9)."""
        core = self._core
        if core.threshold <= INFO:
            if core.is_full:
                await core.room(INFO)
            core.emit(INFO, "INFO", message, attributes, self._bound, args)

    async def warning(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity WARN (13)."""
        core = self._core
        if core.threshold <= WARN:
            if core.is_full:
                await core.room(WARN)
            core.emit(WARN, "WARN", message, attributes, self._bound, args)

    warn = warning

    async def error(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity ERROR (17)."""
        core = self._core
        if core.threshold <= ERROR:
            if core.is_full:
                await core.room(ERROR)
            core.emit(ERROR, "ERROR", message, attributes, self._bound, args)

    async def critical(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity FATAL (21)."""
        core = self._core
        if core.threshold <= FATAL:
            if core.is_full:
                await core.room(FATAL)
            core.emit(FATAL, "FATAL", message, attributes, self._bound, args)

    fatal = critical

    async def exception(self, message: Any, /, *args: Any, **attributes: Any) -> None:
        """Log at severity ERROR with an exception, like :meth:`Logger.exception`."""
        core = self._core
        if core.threshold <= ERROR:
            if core.is_full:
                await core.room(ERROR)
            attributes = _with_exception(attributes)
            core.emit(ERROR, "ERROR", message, attributes, self._bound, args)

    async def event(self, name: str, /, **attributes: Any) -> None:
        """Log an OpenTelemetry event at severity INFO, like :meth:`Logger.event`."""
        core = self._core
        if core.threshold <= INFO:
            if core.is_full:
                await core.room(INFO)
            core.emit(INFO, "INFO", None, attributes, self._bound, (), plain_name(name))

    async def log(
        self, severity: int | str, message: Any, /, *args: Any, **attributes: Any
    ) -> None:
        """Log at any severity, with the arguments of :meth:`Logger.log`."""
        core = self._core
        number, text = core.severity(severity)
        if core.threshold <= number:
            if core.is_full:
                await core.room(number)
            event_name, attributes = _take_event_name(attributes)
            core.emit(number, text, message, attributes, self._bound, args, event_name)


def bound_fields(name: object, fields: dict[str, Any]) -> dict[str, Any]:
    """Return copies of ``fields``, which ``get_logger`` binds to the logger ``name``.

    Raises:
        TypeError: the caller probably meant a field as an option of ``get_logger``; see
            ``fapilog.renamed.check_fields``.
    """
    if not _NOT_FIELDS.isdisjoint(fields):
        from fapilog.renamed import check_fields  # noqa: PLC0415 - only an error needs it

        check_fields(name, fields)
    return snapshot_attributes(fields)


def _loaded(kind: type[_Front], name: str, bound: dict[str, Any]) -> _Front:
    """Return a logger from its pickled state; ``pickle`` calls this function."""
    return kind(default_core(name), bound)


def _with_exception(attributes: dict[str, Any]) -> dict[str, Any]:
    """Add the current exception as ``exc_info``, unless ``attributes`` already contains it."""
    active = sys.exc_info()[1]
    try:
        attributes.setdefault("exc_info", active)
    except Exception:  # noqa: BLE001 - a name may refuse comparison
        return {"exc_info": active, **snapshot_attributes(attributes)}
    return attributes


def _take_event_name(attributes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Remove ``event_name`` from the attributes; return it (or "") and the other attributes."""
    try:
        name = attributes.pop("event_name", "")
    except Exception:  # noqa: BLE001 - a name may refuse comparison
        attributes = snapshot_attributes(attributes)
        name = attributes.pop("event_name", "")
    return plain_name(name), attributes
