"""Defines the queue's entries, which carry the values of log calls to the worker thread.

The worker makes a log record from each entry.  An entry is a tuple, because a tuple is the
fastest object to create in the thread that logs.  There are two kinds of entries:

- The entry of a log call contains its values, from which :func:`build_logged` makes the record.
- The entry that :func:`offered` returns contains a log record that already exists, such as a
  record that fapilog's handler for :mod:`logging` has converted.

The first two items of every entry are the function that makes the record and the severity
number.  The pipeline reads only these two items; only this module reads the other items.  For
speed, ``LoggerCore.emit`` creates the tuple itself, with the items in the order in which
``build_logged`` unpacks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog.diagnostics import announce, kind_of
from fapilog.record import LogRecord, span_hex, trace_hex

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from types import CodeType
    from typing import TypeAlias

    from opentelemetry.trace import SpanContext

    from fapilog.values.exceptions import Capture

#: A tuple of the function that makes the record, the severity number, and the other values that
#: this function needs.
Entry: TypeAlias = "tuple[Any, ...]"
#: The code object, the line number and the module name of the code that made a log call.
CallSite: TypeAlias = "tuple[CodeType, int, object]"

#: The indexes of two items in every entry: the function that makes the record, and the severity
#: number.
BUILD: Final = 0
SEVERITY: Final = 1


def build_logged(entry: Entry, now: int) -> LogRecord:
    """Make the log record from the entry of a log call.  Runs on the worker thread.

    ``now`` is the observed timestamp of the record, in nanoseconds since the Unix epoch.
    """
    (_, number, scope, timestamp, text, body, attributes, context, bound, span, event_name,
     traces, site, resource) = entry  # fmt: skip
    if bound:
        attributes = {**bound, **attributes}
    if context:
        attributes = {**context, **attributes}
    if traces is not None:
        # An attribute of the log call replaces an attribute of the exception with the same name.
        attributes = {**traces.attributes(), **attributes}
    if site:
        attributes.update(_code_attributes(*site))
    trace_id, span_id, flags = _ids(span)
    return LogRecord(
        timestamp,
        now,
        number,
        text,
        body,
        attributes,
        event_name,
        trace_id,
        span_id,
        flags,
        scope,
        resource,
    )


def held_values(entry: Entry) -> tuple[Any, ...]:
    """Return the values of ``entry`` that determine its size in the buffer of a ``hold()`` block.

    The last value is the captured exception or call stack, or None.
    """
    if entry[BUILD] is build_logged:
        return (*entry[5:9], entry[11])
    _, _, record, exception, _ = entry
    return record.body, record.attributes, exception


def offered(
    complete: Callable[[LogRecord, Capture | None, int], LogRecord],
    number: int,
    record: LogRecord,
    exception: Capture | None,
) -> Entry:
    """Return an entry for a log record that already exists.

    For example, fapilog's handler for :mod:`logging` converts its records before they enter the
    queue.

    Args:
        complete: the function that the worker calls with the record, the exception and the
            observed time in nanoseconds.  It returns the record for the processors.
        number: the severity number, which decides whether the queue has space for the record.
        record: the record.  Its values must be copies, because the worker reads them later.
        exception: a captured exception, which becomes attributes of the record, or None.
    """
    return (_build_offered, number, record, exception, complete)


def _build_offered(entry: Entry, now: int) -> LogRecord:
    _, _, record, exception, complete = entry
    made: LogRecord = complete(record, exception, now)
    return made


def withdraw(queue: deque[Entry], entry: Entry) -> bool:
    """Remove an entry from a queue that was replaced or closed during the log call.

    Returns False if the worker thread has already removed the entry.
    """
    while True:
        try:
            queue.remove(entry)
        except ValueError:
            return False
        except IndexError:  # another thread changed the queue during the search
            continue
        return True


_last_ids: tuple[SpanContext | None, tuple[str, str, int]] = (None, ("", "", 0))


def _ids(span: SpanContext | None) -> tuple[str, str, int]:
    """Return the trace id, the span id and the trace flags of ``span``.

    The result for the latest span is cached, because consecutive records often belong to the
    same span.
    """
    global _last_ids  # noqa: PLW0603 - a cache of one item, replaced as a whole
    last, ids = _last_ids
    if span is last:
        return ids
    try:
        if span is None or not span.is_valid:
            return "", "", 0
        ids = trace_hex(span.trace_id), span_hex(span.span_id), int(span.trace_flags)
    except Exception as error:  # noqa: BLE001 - the application's own span class
        announce_span(error)
        return "", "", 0
    _last_ids = (span, ids)
    return ids


def announce_span(error: Exception) -> None:
    """Report on stderr that the active span cannot be read."""
    announce("span", f"cannot read the active span ({kind_of(error)}); records have no trace ids")


def _code_attributes(code: CodeType, line: int, module: object) -> dict[str, Any]:
    # OpenTelemetry's semantic conventions define the keys of the returned dict:
    # https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/
    name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no co_qualname
    return {
        "code.file.path": code.co_filename,
        "code.function.name": f"{module}.{name}" if module else name,
        "code.line.number": line,
    }
