"""Records of the ``logging`` module into the pipeline.

``Handler`` converts a record on the thread that logs it: the message as
``logging`` formats it, the extras as typed attributes, the active span and the
bound context.  ``stdlib_install`` passes it the records of every logger.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from itertools import filterfalse
from time import time_ns
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_current
from opentelemetry.trace import get_current_span

from fapilog.bridges import feeds
from fapilog.bridges.event import record_of
from fapilog.bridges.event_dict import event_of, from_traceback
from fapilog.context import BOUND, SUPPRESSED
from fapilog.diagnostics import announce
from fapilog.record import AnyValue, LogRecord, span_hex, trace_hex
from fapilog.severity import from_stdlib
from fapilog.values import snapshot
from fapilog.values.exceptions import Capture, resolve

if TYPE_CHECKING:
    from types import FrameType

    from opentelemetry.context import Context

    from fapilog.protocols import RecordTarget

#: Seconds that an explicit ``flush()`` waits; short, because
#: ``logging.shutdown`` calls it at exit.
FLUSH_TIMEOUT: Final = 1.0

_PLAIN: Final = vars(logging.LogRecord("", 0, "", 0, "", (), None))
# Attributes that are not extras: the module's own, those that a formatter adds,
# and the ids that OpenTelemetry's instrumentation adds for format strings.
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


class _Formatting(threading.local):
    """Whether this thread is inside user code that formats a message."""

    active = False


_formatting = _Formatting()


class Handler(logging.Handler):
    """Feeds a runtime from the standard library's loggers.

    The body is the message as ``logging`` formats it, whatever formatter is
    set; a mapping logged without arguments stays structured.  Extras become
    attributes, which win over the bound context; ``otel.event.name`` among
    them becomes the event name.  The handler skips records of fapilog's own
    loggers, records that are logged inside a delivery, and records that
    another handler has passed to the same runtime.

    Thread-safe, and takes no lock while it handles a record.  After
    construction it does not raise; a record waits only as
    ``RecordTarget.offer`` does.

    Args:
        level: the lowest level that is handled, as for ``logging.Handler``.
        runtime: the runtime that gets the records; by default the default
            runtime at the time of each record.
        code_attributes: whether to add ``code.file.path``,
            ``code.line.number`` and ``code.function.name``.
        thread_attributes: whether to add ``thread.id`` and ``thread.name``.
    """

    #: How many handlers were made; not public.
    made: ClassVar[int] = 0

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        runtime: RecordTarget | None = None,
        *,
        code_attributes: bool = False,
        thread_attributes: bool = False,
    ) -> None:
        super().__init__(level)
        Handler.made += 1
        self.feed = feeds.Feed.of(runtime)
        self._code_attributes = code_attributes
        self._thread_attributes = thread_attributes

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter and emit, without the handler's lock, because both run user code."""
        name = record.name
        if type(name) is feeds.Taken and self.feed.has(name):
            return False
        kept: Any = self.filter(record)
        if kept:
            # Since Python 3.12 a filter may replace the record.
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Convert a record and offer it to the runtime.  Never raises."""
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
        except Exception as error:  # noqa: BLE001 - whatever was logged, the caller must not suffer
            kind = type(error).__name__
            announce("stdlib", f"a record of logging could not be converted ({kind}); dropped")
            return
        target.offer(converted, exception)

    def flush(self) -> None:
        """Wait up to 1 s until every logged record is delivered or given up."""
        if not feeds.is_suppressed():
            self.feed.flush(FLUSH_TIMEOUT)

    def _convert(
        self, record: logging.LogRecord, number: int, bound: Mapping[str, Any], context: Context
    ) -> LogRecord:
        attributes = self._attributes(record)
        event_name = ""
        if attributes:
            # OpenTelemetry's handler reads the deprecated name too.
            older = attributes.pop("event.name", "")
            event_name = attributes.pop("otel.event.name", older)
            if "color_message" in attributes and record.name.partition(".")[0] == "uvicorn":
                del attributes["color_message"]  # a copy of the message for terminals
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
        """Convert an event dict that structlog has wrapped for its ``ProcessorFormatter``."""
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
        # Extras are added to the attributes of every record: equal counts mean no extras.
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
            # The record came through a queue or a socket, which keep the text only.
            attributes["exception.stacktrace"] = record.exc_text
        return attributes


def _body(record: logging.LogRecord, attributes: dict[str, Any]) -> AnyValue:
    """Return the body; a message that cannot be formatted stays raw, with its arguments.

    Formatting runs user code, which may log.  A record that such code logs is
    not formatted, or the two would call each other without end.
    """
    msg = record.msg
    if type(msg) is str and not record.args:
        return feeds.body_of(record.getMessage())
    if not record.args and isinstance(msg, Mapping):
        return snapshot(msg)
    if not _formatting.active:
        _formatting.active = True
        try:
            return feeds.body_of(record.getMessage())
        except Exception as error:  # noqa: BLE001 - user code; announced, and the record is kept
            announce(
                "stdlib format",
                f"a message of logger {record.name!r} does not fit its arguments "
                f"({type(error).__name__}); logged unformatted",
            )
        finally:
            _formatting.active = False
    if record.args:
        attributes["log.args"] = record.args
    return feeds.body_of(msg)


def _unqueued(body: AnyValue, attributes: dict[str, Any]) -> AnyValue:
    """Take out the stack trace that ``QueueHandler.prepare`` has added to a message."""
    found = _TRACEBACK.search(body) if isinstance(body, str) else None
    if found is None or not isinstance(body, str):
        return body
    attributes.update(from_traceback(f"{body[found.end() :]}\n"))
    return body[: found.start()]


def _is_reported(record: logging.LogRecord) -> bool:
    """Whether a record repeats what a hook of ``fapilog.bridges.hooks`` has reported."""
    if record.name in {"asyncio", "py.warnings"}:
        return True
    return bool(record.exc_info) and resolve(record.exc_info) is feeds.PASSING.reported


def _function_name(record: logging.LogRecord) -> str:
    """Return the caller's qualified name while its frame is on this thread's stack."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the record holds no frame
    while frame is not None:
        code = frame.f_code
        if code.co_name == record.funcName and code.co_filename == record.pathname:
            name = getattr(code, "co_qualname", code.co_name)
            return f"{frame.f_globals.get('__name__')}.{name}"
        frame = frame.f_back
    return record.funcName
