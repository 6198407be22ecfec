"""Passes the records of loguru to fapilog.

``LoguruSink`` converts loguru's record instead of the text that loguru formats.
``install`` adds such a sink to loguru's logger, and ``uninstall`` removes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import loguru

from fapilog.bridges import feeds
from fapilog.bridges.event import Caller, Event, from_traceback, here, nanoseconds, take
from fapilog.bridges.patching import SetupLock
from fapilog.severity import TRACE, Severity, from_stdlib, to_stdlib
from fapilog.values import plain_name
from fapilog.values.exceptions import resolve
from fapilog.values.objects import type_name

if TYPE_CHECKING:
    from fapilog.protocols import RecordTarget

#: The key in loguru's record under which ``LoguruSink.format`` stores the context of the log call:
#: the fields bound with ``fapilog.bind``, and the trace and span ids.
_CALLER: Final = "fapilog.caller"
#: The key in loguru's record for a dict that assigns the record to sinks.  The dict maps the id
#: of each runtime to the id of the only ``LoguruSink`` that passes the record to this runtime.
_CLAIMS: Final = "fapilog.sinks"
_HEADER: Final = "Traceback (most recent call last)"
_TRACE: Final = 5


class LoguruSink:
    """A sink for ``loguru.logger.add`` that passes the records to fapilog.

    The message becomes the body, and the values in ``extra`` become typed attributes, which
    override fields of the same name that are bound with ``fapilog.bind``.  The level's number
    becomes the severity and its name becomes the severity text.  An exception becomes the
    ``exception.*`` attributes, ``otel.event.name`` in ``extra`` becomes the event name, and
    loguru's ``name`` becomes the instrumentation scope.  The timestamp is loguru's ``time``.

    Add the sink with ``format=sink.format``.  Then loguru does not format the
    message, and the record has the trace and span ids and the fields of ``fapilog.bind`` from
    the log call, even with ``enqueue=True``.  With ``enqueue=True`` the stack trace is the text
    that loguru has formatted, because loguru's queue does not carry stack frames.

    Thread-safe; does not raise.  Blocks only if ``RecordTarget.offer`` blocks.

    Args:
        runtime: the runtime that gets the records; by default the default
            runtime at the time of each message.
        code_attributes: whether to add ``code.file.path``,
            ``code.line.number`` and ``code.function.name``.
    """

    def __init__(
        self, runtime: RecordTarget | None = None, *, code_attributes: bool = False
    ) -> None:
        self.feed = feeds.Feed.of(runtime)
        self._code_attributes = code_attributes
        feeds.Passing.watched = True

    def format(self, record: Any) -> str:
        """Store the context of the log call in ``record``, and return a format string.

        The context consists of the fields bound with ``fapilog.bind``, and the trace and span
        ids.  The format string contains only the exception, because the sink reads all other
        data from the record.
        """
        fields: dict[str, Any] = record
        if _CALLER not in fields:
            is_left_out = feeds.is_suppressed() or _is_passing(fields)
            caller = None if is_left_out else here()
            fields[_CALLER] = caller and (dict(caller.bound), *caller[1:])
        self._claim(fields)
        return "{exception}"

    def __call__(self, message: loguru.Message) -> None:
        """Convert the record of loguru's message, and pass it to the runtime."""
        fields: dict[str, Any] = message.record  # type: ignore[assignment]
        if (
            fields.get(_CALLER, ()) is None  # format() stores None if the record must be skipped
            or not self._claim(fields)
            or _is_passing(fields)
        ):
            return
        given = fields.get("name")
        name = given if isinstance(given, str) else plain_name(given)
        level = fields["level"]
        number = from_stdlib(level.no)
        if level.no == _TRACE and level.name == "TRACE":
            number = TRACE
        take(self.feed, name, number, lambda: self._event(message, fields, name, number))

    def _claim(self, fields: dict[str, Any]) -> bool:
        """Return whether this sink passes loguru's record ``fields`` to its runtime.

        If several ``LoguruSink`` objects have the same runtime, only the first that calls this
        method for a record passes the record.
        """
        # The dict contains ids instead of objects, because loguru may pickle the record.
        claims: dict[int, int] = fields.setdefault(_CLAIMS, {})
        return claims.setdefault(id(self.feed.target()), id(self)) == id(self)

    def _event(self, message: str, fields: dict[str, Any], name: str, number: int) -> Event:
        extra = fields.get("extra")
        attributes = dict(extra) if isinstance(extra, Mapping) else {"extra": extra}
        if self._code_attributes:
            attributes["code.file.path"] = getattr(fields.get("file"), "path", None)
            attributes["code.line.number"] = fields.get("line")
            function = fields.get("function")
            attributes["code.function.name"] = (
                f"{name}.{function}" if isinstance(function, str) else function
            )
        found: Any = fields.get("exception")
        if not hasattr(found, "value") or found.type is None:
            found = None  # the type is None for opt(exception=True) outside of an except block
        exception = None if found is None else found.value
        if found is not None and (exception is None or fields["thread"].id != get_ident()):
            exception = None  # loguru's queue does not carry stack frames
            attributes.update(_exception_attributes(str(message), found.type))
        noted = fields.get(_CALLER)
        return Event(
            name,
            number,
            fields["level"].name,
            fields.get("message"),
            attributes,
            _time_of(fields.get("time")),
            exception,
            None if noted is None else Caller(*noted),
        )


def _time_of(time: Any) -> int | None:
    """Return ``time`` in nanoseconds since the epoch, or None if it is not a valid datetime."""
    try:
        return nanoseconds(time)
    except Exception:  # noqa: BLE001 - the value may be of any class
        return None


def _exception_attributes(text: str, kind: type[BaseException] | None) -> dict[str, Any]:
    """Return the ``exception.*`` attributes of an exception that loguru has formatted as text."""
    attributes = from_traceback(text[max(text.find(_HEADER), 0) :].strip("\n") + "\n")
    if kind is not None:
        attributes["exception.type"] = type_name(kind)
    return attributes


def _is_passing(fields: dict[str, Any]) -> bool:
    """Return whether loguru's record is a copy of a ``logging`` record that fapilog already has.

    A handler such as ``InterceptHandler`` in loguru's documentation passes records of
    ``logging`` to loguru.  Such a copy has the same message as the original record, and the
    same exception or no exception.
    """
    record = feeds.PASSING.taken
    if record is None:
        return False
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - user code; ``stdlib`` has announced the error
        return False
    found = fields["exception"]
    return text == fields["message"] and (
        found is None or found.value is None or found.value is resolve(record.exc_info)
    )


_lock = SetupLock()
_installed: int | None = None


def install(level: int | str = 0, *, code_attributes: bool = False) -> None:
    """Send loguru's messages to fapilog's default runtime.

    Other handlers of loguru's logger are not changed.  A second call only changes the
    options.  Thread-safe; does not block.

    Args:
        level: the lowest level that is logged, as in ``loguru.logger.add``, or a ``Severity``.
            The levels that are configured in fapilog also apply.
        code_attributes: whether to add the ``code.*`` attributes, as in
            :class:`LoguruSink`.

    Raises:
        ValueError: ``level`` is not a level of loguru.
    """
    global _installed  # noqa: PLW0603 - uninstall() undoes it
    sink = LoguruSink(code_attributes=code_attributes)
    with _lock:
        added = loguru.logger.add(
            sink,
            level=to_stdlib(level) if isinstance(level, Severity) else level,
            format=sink.format,
            backtrace=False,
            diagnose=False,
        )
        _remove()
        _installed = added


def uninstall() -> None:
    """Undo :func:`install`, if it was called.  Thread-safe; does not block."""
    global _installed  # noqa: PLW0603 - set by install()
    with _lock:
        _remove()
        _installed = None


def _remove() -> None:
    if _installed is not None:
        with contextlib.suppress(ValueError):  # the application has already removed the handler
            loguru.logger.remove(_installed)
