"""The queue's entries: how a log call passes its values to the worker, which makes the record.

An entry is a tuple, because a tuple is the cheapest object to make on the caller's thread.
There are two kinds of entries:

- a logger's entry, from which :func:`build_logged` makes the record;
- an offered entry (:func:`offered`), which contains a finished record.

Both kinds have the same first two fields, and the pipeline reads only these two.  Only this
module reads the other fields.  For speed, ``LoggerCore.emit`` makes the tuple of a logger's
entry without a call, in the order in which ``build_logged`` unpacks it.
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

#: A tuple: the function that makes the record, the severity number, and the other values that
#: this function needs.
Entry: TypeAlias = "tuple[Any, ...]"
#: The code object, the line and the module name of the code that logs.
CallSite: TypeAlias = "tuple[CodeType, int, object]"

#: Indexes of the two fields that both kinds of entries have.
BUILD: Final = 0
SEVERITY: Final = 1


def build_logged(entry: Entry, now: int) -> LogRecord:
    """Make the record from a logger's entry, on the worker.

    ``now`` is the observed time, in nanoseconds since the Unix epoch.
    """
    (_, number, scope, timestamp, text, body, attributes, context, bound, span, event_name,
     traces, site, resource) = entry  # fmt: skip
    if bound:
        attributes = {**bound, **attributes}
    if context:
        attributes = {**context, **attributes}
    if traces is not None:
        attributes = {**traces.attributes(), **attributes}  # the application's attributes win
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
    """Return the values of an entry whose sizes a hold adds up.

    The last value is the captured exception or stack, or None.
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
    """Return an entry for a finished record, such as the record of a bridge.

    Args:
        complete: the function that the worker calls with the record, the
            exception and the observed time in nanoseconds.  It returns the record
            to process.
        number: the severity number under which the queue counts the record.
        record: the record, whose values are snapshots.
        exception: a captured exception that becomes attributes, or None.
    """
    return (_build_offered, number, record, exception, complete)


def _build_offered(entry: Entry, now: int) -> LogRecord:
    _, _, record, exception, complete = entry
    made: LogRecord = complete(record, exception, now)
    return made


def withdraw(queue: deque[Entry], entry: Entry) -> bool:
    """Remove an entry from a queue that was replaced or closed during the log call.

    Returns False if the worker has already taken the entry.
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
    """Return the trace id, the span id and the trace flags of a span.

    The last result is cached, because consecutive records often belong to the same span.
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
    """Report that the active span cannot be read."""
    announce("span", f"cannot read the active span ({kind_of(error)}); records have no trace ids")


def _code_attributes(code: CodeType, line: int, module: object) -> dict[str, Any]:
    # Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/
    name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no qualified name
    return {
        "code.file.path": code.co_filename,
        "code.function.name": f"{module}.{name}" if module else name,
        "code.line.number": line,
    }
