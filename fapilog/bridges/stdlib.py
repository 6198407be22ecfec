"""Passes the records of the module ``logging`` to fapilog.

``Handler`` converts a record on the thread that logs it.  ``install`` adds a
``Handler`` to a logger.  For the root logger it also wraps ``Logger.callHandlers``, because
records of loggers that do not propagate, such as uvicorn's, never reach the root logger's
handlers.
"""

from __future__ import annotations

import logging
import re
import sys
from _socket import socket  # the base class: the module socket takes longer to import
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import filterfalse
from time import time_ns
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_current
from opentelemetry.trace import get_current_span

from fapilog.bridges import celery, feeds, uvicorn
from fapilog.bridges.corrected import CorrectedRecord
from fapilog.bridges.event import from_traceback, record_of, stand_in, take_event_name
from fapilog.bridges.event_dict import event_of
from fapilog.bridges.patching import Patch, SetupLock
from fapilog.context import BOUND, SUPPRESSED
from fapilog.diagnostics import announce, kind_of
from fapilog.errors import ConfigurationError
from fapilog.record import AnyValue, LogRecord, span_hex, trace_hex
from fapilog.severity import INFO, Severity, from_stdlib, parse_severity, range_name, to_stdlib
from fapilog.values import SCALARS, snapshot
from fapilog.values.exceptions import Capture, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from opentelemetry.context import Context
    from typing_extensions import Never

    from fapilog.protocols import RecordTarget

#: The longest wait of ``Handler.flush()``, in seconds.  It is short, because
#: ``logging.shutdown`` calls ``flush()`` at exit.
FLUSH_TIMEOUT: Final = 1.0

_PLAIN: Final = vars(logging.LogRecord("", 0, "", 0, "", (), None))
# The attributes of a record that do not come from the argument ``extra`` of a log call: every
# record has them, or a formatter or OpenTelemetry's instrumentation adds them.
_NOT_EXTRA: Final = frozenset(_PLAIN) | {
    "asctime",
    "message",
    "otelServiceName",
    "otelSpanID",
    "otelTraceID",
    "otelTraceSampled",
    "taskName",
}
_TRACEBACK: Final = re.compile(
    r"\n(?=(?:  \+ Exception Group )?Traceback \(most recent call last\):\n)"
)
_severity = lru_cache(maxsize=256)(from_stdlib)


class Handler(logging.Handler):
    """Passes the records of the standard library's loggers to a runtime.

    The body is the message as ``logging`` formats it; the handler's formatter is
    not used.  A message that is a mapping and has no arguments becomes a structured body.
    The values of ``extra`` become attributes, except that ``otel.event.name`` becomes the event
    name.  They override fields of the same name that are bound with ``fapilog.bind``.  The
    handler skips records of fapilog's own loggers, records that come from code that is sending
    telemetry to a backend, and records that another ``Handler`` has passed to the same runtime.

    Thread-safe, without a lock.  Handling a record never raises, and blocks only if
    ``RecordTarget.offer`` blocks.

    Args:
        level: the lowest level that is handled, as in ``logging.Handler``, or a ``Severity``.
        runtime: the runtime that gets the records; by default the default
            runtime at the time of each record.
        code_attributes: whether to add ``code.file.path``,
            ``code.line.number`` and ``code.function.name``.
        thread_attributes: whether to add ``thread.id`` and ``thread.name``.
        other: no other arguments are allowed.

    Raises:
        ConfigurationError: an argument has another name, such as an option of ``configure()``.
    """

    #: The number of ``Handler`` objects that have been created, without those that ``install()``
    #: creates for the root logger.  While it is 0, fapilog need not search a logger's handlers
    #: for such an object.  Not public.
    placed: ClassVar[int] = 0

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        runtime: RecordTarget | None = None,
        *,
        code_attributes: bool = False,
        thread_attributes: bool = False,
        **other: Never,
    ) -> None:
        if other:
            raise ConfigurationError(_not_an_option(next(iter(other))))
        super().__init__(to_stdlib(level) if isinstance(level, Severity) else level)
        Handler.placed += 1
        self.feed = feeds.Feed.of(runtime)
        self._code_attributes = code_attributes
        self._thread_attributes = thread_attributes

    def __copy__(self) -> Handler:
        return self

    def __deepcopy__(self, _memo: object) -> Handler:
        # A record that passes two handlers of one runtime is logged once.  So a copy would log
        # nothing that this handler has already logged.
        return self

    def __reduce__(self) -> tuple[Callable[..., Handler], tuple[object, ...]]:
        state = {name: value for name, value in vars(self).items() if name != "lock"}
        return _loaded, (type(self), state)

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter and emit a record.

        The handler's lock is not acquired, because filters may run user code.
        """
        name = getattr(record, "name", None)
        if type(name) is feeds.Taken and self.feed.has(name):
            return False
        kept: Any = self.filter(record)
        if kept:
            # Since Python 3.12 a filter may replace the record.
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Convert a record and pass it to the runtime.  Never raises."""
        bound = BOUND.get()
        context = get_current()
        if bound is SUPPRESSED or context.get(_SUPPRESS_INSTRUMENTATION_KEY):
            return
        target = self.feed.target()
        if target is None:
            return
        try:
            name = record.name
            number = _severity(record.levelno)
            own = name.startswith("fapilog") and name.partition(".")[0] == "fapilog"
            if own or not target.is_enabled(name, number):
                if not own and name not in _asked:
                    _explain_level(record, self, target)
                return
            if feeds.PASSING.reported is not None and _is_reported(record):
                return
            if type(record.msg) is dict and "_name" in vars(record):
                converted, found = self._unwrap(record, number)
            else:
                converted = self._convert(record, number, bound, context)
                found = resolve(record.exc_info) if record.exc_info else None
            exception = None if found is None else Capture(found)
            record.name = self.feed.mark(name, target)
        except Exception as error:  # noqa: BLE001 - no logged value may raise into the caller
            self._emit_corrected(record, target, error)
            return
        target.offer(converted, exception)

    def _emit_corrected(
        self, record: logging.LogRecord, target: RecordTarget, error: Exception
    ) -> None:
        """Emit a corrected copy of a record that cannot be converted because of ``error``.

        If the copy cannot be converted either, pass a substitute record to ``target``, so that
        fapilog's statistics count the log call.
        """
        if type(record) is CorrectedRecord:
            target.offer(stand_in(record.name, INFO, error))
            record.name = self.feed.mark(record.name, target)
            return
        corrected = CorrectedRecord(record)
        self.emit(corrected)
        record.name = corrected.name  # a Taken object, so that other Handlers skip the record

    def flush(self) -> None:
        """Wait for up to 1 s until all logged records are delivered or dropped."""
        if not feeds.is_suppressed():
            self.feed.flush(FLUSH_TIMEOUT)

    def _convert(
        self, record: logging.LogRecord, number: int, bound: Mapping[str, Any], context: Context
    ) -> LogRecord:
        attributes = self._attributes(record)
        event_name = ""
        if attributes:
            event_name = take_event_name(attributes)
            _remove_useless(attributes, record.name)
            if "data" in attributes and attributes["data"] is record.args:
                celery.rename_data(record.name, attributes)
        body = _body(record, attributes)
        if "message" in vars(record) and vars(record)["message"] is record.msg:
            body = _unqueued(body, attributes)
        if bound:
            attributes = {**bound, **attributes}
        span = get_current_span(context).get_span_context()
        within = span.is_valid
        return LogRecord(
            int(record.created * 1e9),
            time_ns(),
            number,
            record.levelname,
            body,
            feeds.attributes_of(attributes),
            event_name,
            trace_hex(span.trace_id) if within else "",
            span_hex(span.span_id) if within else "",
            span.trace_flags if within else 0,
            feeds.scope_of(record.name),
        )

    def _unwrap(
        self, record: logging.LogRecord, number: int
    ) -> tuple[LogRecord, BaseException | None]:
        """Convert a record that contains structlog's event dict for a ``ProcessorFormatter``."""
        attributes = self._attributes(record)
        for name in ("_logger", "_name"):
            attributes.pop(name, None)
        fields = dict(cast("Mapping[str, Any]", record.msg))
        event = event_of(fields, record.name, number, record.levelname)
        event.attributes = {**attributes, **event.attributes}
        event.timestamp = int(record.created * 1e9)
        return record_of(event), event.exception

    def _attributes(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = vars(record)
        # If the record has only as many attributes as ``_PLAIN``, ``extra`` has not added any.
        attributes = (
            {name: fields[name] for name in filterfalse(_NOT_EXTRA.__contains__, fields)}
            if len(fields) != len(_PLAIN)
            else {}
        )
        if self._code_attributes:
            attributes["code.file.path"] = record.pathname
            attributes["code.line.number"] = record.lineno
            attributes["code.function.name"] = _function_name(record)
        if self._thread_attributes:
            attributes["thread.id"] = record.thread
            attributes["thread.name"] = record.threadName
        if record.stack_info:
            attributes["code.stacktrace"] = record.stack_info
        if record.exc_text and not record.exc_info:
            # A QueueHandler or a SocketHandler has replaced the exception with its text.
            attributes["exception.stacktrace"] = record.exc_text
        return attributes


#: The first part of a logger's name, and the attribute that its library adds only for its own
#: formatter: uvicorn's message with colours, and the time of a request as text in Django's server.
_FOR_FORMATTERS: Final = (("uvicorn", "color_message"), ("django", "server_time"))


def _remove_useless(attributes: dict[str, Any], logger: str) -> None:
    """Remove attributes that repeat the record, and sockets, such as the request of runserver."""
    for library, name in _FOR_FORMATTERS:
        if name in attributes and logger.partition(".")[0] == library:
            del attributes[name]
    if not SCALARS.issuperset(map(type, attributes.values())):
        for name in [name for name, value in attributes.items() if isinstance(value, socket)]:
            del attributes[name]


def _not_an_option(name: str) -> str:
    """Return the error about an argument that ``Handler`` does not have."""
    from fapilog.settings import Settings  # noqa: PLC0415 - pydantic loads only for the error

    known = "fapilog.Handler takes level, code_attributes and thread_attributes"
    if name in {*Settings.model_fields, "processors", "resource"}:
        return f"{known}; {name} is an option of fapilog.configure()"
    return f"{known}, not {name}"


def _loaded(kind: type[Handler], state: dict[str, Any]) -> Handler:
    """Rebuild a pickled handler with its level, filters and options."""
    handler = kind.__new__(kind)
    Handler.__init__(handler)
    vars(handler).update(state)
    return handler


# The names of loggers for which _explain_level() was called.
_asked: Final[set[str]] = set()
_MAX_ASKED: Final = 256


def _explain_level(record: logging.LogRecord, handler: Handler, target: RecordTarget) -> None:
    """Report a record that only fapilog's default level excludes, at most once per logger.

    Such a record passes the level that the application has set for its logger, or for the
    nearest parent with a level, and the application has added ``handler`` to the same logger.
    Does nothing if an option or ``set_level()`` has set fapilog's level.
    """
    if len(_asked) >= _MAX_ASKED:
        return
    _asked.add(str(record.name))
    number = _severity(record.levelno)
    has_level = getattr(target, "has_level", None)
    if number >= INFO or has_level is None or has_level(record.name) or has_level(""):
        return
    found = logging.root.manager.loggerDict.get(record.name)
    place: logging.Logger | None = found if isinstance(found, logging.Logger) else logging.root
    while place is not None and place.level == logging.NOTSET:
        place = place.parent
    if place is None or place.level > record.levelno or handler not in place.handlers:
        return
    if place in _installations:  # install() may have lowered this level
        return
    name = range_name(number).lower()
    announce(
        "stdlib level",
        f"logger {place.name!r} passes {record.levelname} records, but fapilog's level is INFO, so "
        f"they are dropped; set levels={{{place.name!r}: {name!r}}}, or level='info' to drop them",
    )


def _body(record: logging.LogRecord, attributes: dict[str, Any]) -> AnyValue:
    """Return the formatted message of a record, or ``record.msg`` if it cannot be formatted.

    Formatting may run user code, such as a ``__str__`` method.  If that code logs a second
    message, the second message is not formatted, to prevent an endless recursion.
    """
    msg = record.msg
    if type(msg) is str and not record.args:
        return feeds.body_of(record.getMessage())
    if not record.args and isinstance(msg, Mapping):
        return snapshot(msg)
    if not feeds.PASSING.formatting:
        feeds.PASSING.formatting = True
        try:
            return feeds.body_of(record.getMessage())
        except Exception as error:  # noqa: BLE001 - user code; announced, and the record is kept
            announce(
                "stdlib format",
                f"a message of logger {record.name!r} does not fit its arguments "
                f"({kind_of(error)}); it is logged unformatted",
            )
        finally:
            feeds.PASSING.formatting = False
    if record.args:
        attributes["log.args"] = record.args
    return feeds.body_of(msg)


def _unqueued(body: AnyValue, attributes: dict[str, Any]) -> AnyValue:
    """Remove the stack trace that ``QueueHandler.prepare`` has appended to ``body``.

    Return the remaining body, and add the stack trace to ``attributes``.
    """
    if not isinstance(body, str) or not (found := _TRACEBACK.search(body)):
        return body
    attributes.update(from_traceback(f"{body[found.end() :]}\n"))
    return body[: found.start()]


def _is_reported(record: logging.LogRecord) -> bool:
    """Return whether a record contains the warning or exception that a hook has just logged.

    Call this only while a hook of ``fapilog.bridges.hooks`` runs on the same thread.
    """
    if record.name in {"asyncio", "py.warnings"}:
        return True
    return bool(record.exc_info) and resolve(record.exc_info) is feeds.PASSING.reported


def _function_name(record: logging.LogRecord) -> str:
    """Return the name of the function that logged the record.

    If the function is still running on this thread, the name of its module precedes its name.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the record holds no frame
    while frame is not None:
        code = frame.f_code
        if code.co_name == record.funcName and code.co_filename == record.pathname:
            name = getattr(code, "co_qualname", code.co_name)
            return f"{frame.f_globals.get('__name__')}.{name}"
        frame = frame.f_back
    return record.funcName


@dataclass
class _Installation:
    handler: Handler
    level: int  # the logger's level before install()
    wanted: int | None = None  # the level passed to install(), or None
    lowered_to: int | None = None


_lock = SetupLock()
_installations: dict[logging.Logger, _Installation] = {}


class _Everywhere(Patch):
    """The patch of ``logging.Logger.callHandlers`` that passes every record to a ``Handler``.

    This ``Handler`` gets each record unchanged, on the thread that logs it, before the
    logger's handlers get it.

    Attributes:
        handler: the ``Handler`` that gets every record, or None.
    """

    def __init__(self) -> None:
        super().__init__(logging.Logger, "callHandlers", self._wrap)
        self.handler: Handler | None = None

    def _wrap(self, found: Callable[..., None]) -> Callable[..., None]:
        passing, watch, taken = feeds.PASSING, feeds.Passing, feeds.Taken

        def callHandlers(  # noqa: N802  # pragma: no cover - see disguised()
            logger: logging.Logger, record: logging.LogRecord
        ) -> None:
            handler = self.handler
            if handler is None:
                found(logger, record)
                return
            if Handler.placed:
                _ask_placed(logger, record, handler)
            if record.levelno >= handler.level and not (
                handler.level == logging.NOTSET and _is_hidden(logger, record, handler)
            ):
                handler.handle(record)
            if not watch.watched or type(record.name) is not taken:
                found(logger, record)
                return
            outer, passing.taken = passing.taken, record
            try:
                found(logger, record)
            finally:
                passing.taken = outer

        return callHandlers


def _is_hidden(logger: logging.Logger, record: logging.LogRecord, instead_of: Handler) -> bool:
    """Return whether an application hides a record by the levels of a logger's handlers.

    This is true if the record does not propagate to the root logger, if it would reach at least
    one handler of the application, and if the levels of all these handlers are above the
    record's.  The logger of traitlets, which a notebook's kernel uses, is such a logger: its own
    level is always DEBUG, and the level that a user sets is the level of its handler.

    A level that fapilog's options set for the logger or for one of its parents overrides the
    levels of the handlers.
    """
    place = logger
    while place.propagate:
        if place.parent is None:
            return False  # the record reaches the root logger
        place = place.parent
    has_handlers = False
    here: logging.Logger | None = logger
    while here is not None:
        for handler in here.handlers:
            if record.levelno >= handler.level:
                return False
            has_handlers |= not isinstance(handler, Handler)
        here = here.parent if here.propagate else None
    if not has_handlers:
        return False
    has_level = getattr(instead_of.feed.target(), "has_level", None)
    return has_level is None or not has_level(record.name)


def _ask_placed(logger: logging.Logger, record: logging.LogRecord, instead_of: Handler) -> None:
    """Pass the record to the application's handlers that have the runtime of ``instead_of``.

    ``instead_of`` is the ``Handler`` that :func:`install` made.  ``Handler`` objects that the
    application has added to its loggers get the record first, because they may have options such
    as ``code_attributes``.  If one of them passes the record to the runtime, ``instead_of``
    skips the record.
    """
    target = instead_of.feed.target()
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if (
                isinstance(handler, Handler)
                and handler is not instead_of
                and record.levelno >= handler.level
                and handler.feed.target() is target
            ):
                handler.handle(record)
        place = place.parent if place.propagate else None


_everywhere = _Everywhere()


def install(
    target: Callable[[], RecordTarget | None] | None = None,
    level: int | str | None = None,
    logger: logging.Logger | str | None = None,
) -> None:
    """Pass the records of a logger, and of the loggers that propagate to it, to a runtime.

    For the root logger, these are the records of every logger, even of loggers that
    do not propagate.  If ``level`` is None, a record of such a logger is left out if all handlers
    of the logger have a higher level, unless fapilog's options set a level for the logger.  A
    second call for the same logger only changes the target and
    the level.  A logger that already has a :class:`Handler`, for example from a
    ``dictConfig``, does not get a second ``Handler``.  If the logger's level is above
    ``level``, it is lowered to ``level``.  Thread-safe; does not block.

    Args:
        target: the function that returns the runtime for a record, or None to
            drop the record; by default it returns the default runtime.
        level: the lowest level of the records to pass: a level of ``logging``, a
            ``Severity``, or the name of a severity.  If None, the runtime's levels apply.
        logger: a logger or its name; by default the root logger.

    Raises:
        ConfigurationError: ``level`` is not a level of ``logging`` or a severity.
    """
    found = _logger(logger)
    number = None if level is None else _level_number(level)
    # ``_lock`` must not be locked during this call, which may create the default runtime.
    fed = feeds.Feed(target).target()
    with _lock:
        made = _installations.get(found)
        if made is None:
            made = _installations[found] = _Installation(Handler(), found.level)
            if found is found.root:
                Handler.placed -= 1
        made.handler.feed.follow(target)
        made.handler.setLevel(number or logging.NOTSET)
        made.wanted = number
        _open_level(found, made, fed)
        if not any(isinstance(handler, Handler) for handler in found.handlers):
            found.addHandler(made.handler)
        if found is found.root:
            _everywhere.handler = made.handler
            _everywhere.apply()
            uvicorn.hide_doubles()
            celery.hide_doubles()


def uninstall(logger: logging.Logger | str | None = None) -> None:
    """Undo :func:`install` for a logger, by default the root logger.

    Does nothing if ``install`` was not called.  If other code has changed the logger's
    level since ``install``, the level is not restored.  Thread-safe; does not block.
    """
    found = _logger(logger)
    with _lock:
        made = _installations.pop(found, None)
        if made is not None:
            if found is found.root:
                _everywhere.handler = None
                _everywhere.undo()
                uvicorn.show_doubles()
                celery.show_doubles()
            found.removeHandler(made.handler)
            _restore_level(found, made)


def uninstall_all() -> None:
    """Undo every :func:`install`.  Thread-safe; does not block."""
    for logger in list(_installations):
        uninstall(logger)


def installed() -> dict[logging.Logger, int | None]:
    """Return a dict whose keys are the loggers for which :func:`install` was called.

    The values are the levels that were passed to ``install``, which may be None.
    """
    with _lock:
        return {logger: made.wanted for logger, made in _installations.items()}


def follow_levels() -> None:
    """Adjust loggers of :mod:`logging` after the levels of a runtime have changed.

    Adjusts only the loggers for which :func:`install` was called.
    """
    with _lock:
        for logger, made in list(_installations.items()):
            _open_level(logger, made, made.handler.feed.target())


def _restore_level(logger: logging.Logger, made: _Installation) -> None:
    if made.lowered_to is not None and logger.level == made.lowered_to:
        logger.setLevel(made.level)
    made.lowered_to = None


def _logger(logger: logging.Logger | str | None) -> logging.Logger:
    return logger if isinstance(logger, logging.Logger) else logging.getLogger(logger)


def _open_level(logger: logging.Logger, made: _Installation, target: RecordTarget | None) -> None:
    """Lower a logger's level if it excludes records that should reach ``target``.

    These are the records at or above the level that was passed to :func:`install`.  If that
    level is None, these are the records that ``target`` accepts.
    """
    _restore_level(logger, made)
    wanted = made.wanted
    if wanted is None and target is not None:
        wanted = to_stdlib(target.lowest_severity())
    if wanted is not None and logger.getEffectiveLevel() > wanted:
        logger.setLevel(wanted)
        made.lowered_to = wanted


def _level_number(level: int | str) -> int:
    """Return the ``logging`` level for a number, a level name or a severity name."""
    if isinstance(level, int) and not isinstance(level, Severity):
        return level
    number = logging.getLevelName(level.strip().upper()) if isinstance(level, str) else None
    if isinstance(number, int):
        return number
    try:
        return to_stdlib(parse_severity(level))
    except ValueError as error:
        msg = f"level: {error}"
        raise ConfigurationError(msg) from None
