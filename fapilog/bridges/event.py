"""Converts log calls of structlog and loguru, warnings and uncaught exceptions to records.

An ``Event`` describes one such call, warning or exception.  The conversion runs on the thread
that logs.  It adds the ids of the active span and the fields that are bound with
``fapilog.bind``, and copies the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import get_current_span

from fapilog.bridges import feeds
from fapilog.context import BOUND
from fapilog.diagnostics import announce, kind_of
from fapilog.record import LogRecord, Scope, span_hex, trace_hex
from fapilog.values import plain_name
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fapilog.bridges.feeds import Feed

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Caller(NamedTuple):
    """The context of a log call: fields bound with ``fapilog.bind``, and the active span's ids."""

    bound: Mapping[str, Any]
    trace_id: str
    span_id: str
    trace_flags: int


@dataclass
class Event:
    """The data of one log call in another library, from which a ``LogRecord`` is made.

    Attributes:
        name: the logger's name.
        number: the OpenTelemetry severity number.
        text: the level's name in the library whose logger was called.
        body: the message, which may be any value.
        attributes: the fields that the application logged.  ``record_of`` may change this dict.
        timestamp: the time in nanoseconds since the epoch, or None for the current time.
        exception: the logged exception, or None.
        caller: the context of the log call, or None to use the current context.
    """

    name: str
    number: int
    text: str
    body: Any
    attributes: dict[str, Any]
    timestamp: int | None = None
    exception: BaseException | None = None
    caller: Caller | None = None


def here() -> Caller:
    """Return the fields that are bound with ``fapilog.bind``, and the active span's ids."""
    span = get_current_span().get_span_context()
    if not span.is_valid:
        return Caller(BOUND.get(), "", "", 0)
    ids = trace_hex(span.trace_id), span_hex(span.span_id)
    return Caller(BOUND.get(), *ids, int(span.trace_flags))


def record_of(event: Event) -> LogRecord:
    """Convert an event to a record.

    The event's attributes override fields of the same name that are bound with
    ``fapilog.bind``.
    """
    caller = event.caller or here()
    attributes = event.attributes
    event_name = take_event_name(attributes) if attributes else ""
    if caller.bound:
        attributes = {**caller.bound, **attributes}
    now = time_ns()
    return LogRecord(
        now if event.timestamp is None else event.timestamp,
        now,
        event.number,
        event.text,
        feeds.body_of(event.body),
        feeds.attributes_of(attributes),
        event_name,
        caller.trace_id,
        caller.span_id,
        caller.trace_flags,
        feeds.scope_of(event.name),
    )


def take(feed: Feed, name: str, number: int, describe: Callable[[], Event]) -> None:
    """Convert the event that ``describe`` returns, and pass the record to a runtime.

    Does nothing if the severity is disabled for the logger, if the logger is one of fapilog's
    own loggers, or if the calling code is sending telemetry to a backend.  Never raises.
    Thread-safe.  Blocks only if ``RecordTarget.offer`` blocks.

    Args:
        feed: the ``Feed`` object that finds the runtime.
        name: the logger's name.
        number: the severity number.
        describe: a function that returns the event; it is not called if the record is skipped.
    """
    target = None if feeds.is_suppressed() else feed.target()
    if target is None or name.partition(".")[0] == "fapilog":
        return
    try:
        if not target.is_enabled(name, number):
            return
        event = describe()
        exception = None if event.exception is None else Capture(event.exception)
        record = record_of(event)
    except Exception as error:  # noqa: BLE001 - no logged value may raise into the caller
        record, exception = stand_in(name, number, error), None
    target.offer(record, exception)


def stand_in(name: str, number: int, error: Exception, scope: Scope | None = None) -> LogRecord:
    """Return a substitute for a record that cannot be converted, and report the error on stderr.

    The substitute is needed so that fapilog's statistics include every log call.

    Args:
        name: the logger's name.
        number: the severity number.
        error: the exception that the conversion raised.
        scope: the instrumentation scope of the record; by default, the scope of the logger
            ``name``.
    """
    kind = kind_of(error)
    announce("bridge", f"a record of {name!r} cannot be converted ({kind}); its values are lost")
    now = time_ns()
    body = f"<a record that cannot be converted ({kind})>"
    return LogRecord(now, now, number, body=body, scope=scope or feeds.scope_of(name))


def is_true(value: object) -> bool:
    """Return ``bool(value)``, or True if that raises an error, as it does for a NumPy array."""
    try:
        return bool(value)
    except Exception:  # noqa: BLE001 - the class may raise anything
        return True


def take_event_name(attributes: dict[str, Any]) -> str:
    """Remove the event name from the attributes and return it, or "" if it is missing.

    The event name is the value of ``otel.event.name`` or of ``event.name``.  OpenTelemetry's
    handler for ``logging`` reads the same keys.
    """
    older = attributes.pop("event.name", None)  # OpenTelemetry's deprecated key
    name = attributes.pop("otel.event.name", older)
    return "" if name is None else plain_name(name)


def from_traceback(text: str) -> dict[str, Any]:
    """Return the ``exception.*`` attributes of a formatted traceback.

    The exception's type and message are read from the lines after the last stack frame.  If
    these lines do not name a type, the result contains only the traceback.
    """
    attributes = {"exception.stacktrace": text}
    lines = text.rstrip("\n").split("\n")
    frames = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    begin = frames[-1] + 1 if frames else 0
    for index in range(begin, len(lines)):
        if lines[index][:1] not in {" ", ""}:
            kind, _, rest = lines[index].partition(": ")
            if kind.replace(".", "").isidentifier():
                attributes["exception.type"] = kind
                attributes["exception.message"] = "\n".join((rest, *lines[index + 1 :]))
            break
    return attributes


def nanoseconds(time: datetime) -> int:
    """Convert a datetime with a time zone to nanoseconds since the epoch, without rounding."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
