"""What structlog, loguru and the hooks hand over, made a record on the caller's thread.

Each of them describes what was logged as an ``Event``; the rest is the same
for all: the active span, the bound context, snapshots of the values, the
level check, and that nothing is raised into the application.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import get_current_span

from fapilog import bridges
from fapilog.context import BOUND
from fapilog.diagnostics import announce, kind_of
from fapilog.logger_core import plain_name, span_hex, trace_hex
from fapilog.record import LogRecord
from fapilog.tracebacks import Capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fapilog.bridges import Feed

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Caller(NamedTuple):
    """What belongs to the code that logs: the bound context and the active span's ids."""

    bound: Mapping[str, Any]
    trace_id: str
    span_id: str
    trace_flags: int


@dataclass
class Event:
    """What was logged, in fapilog's terms.

    Attributes:
        name: the logger's.
        number: severity number.
        text: the source's name of the severity.
        body: the message; any value.
        attributes: a dict of the event's own, values as the application gave them.
        timestamp: nanoseconds since the epoch; None is now.
        exception: what it is about.
        caller: where that is not the running code.
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
    """Return the running code's bound context and active span."""
    span = get_current_span().get_span_context()
    if not span.is_valid:
        return Caller(BOUND.get(), "", "", 0)
    ids = trace_hex(span.trace_id), span_hex(span.span_id)
    return Caller(BOUND.get(), *ids, int(span.trace_flags))


def record_of(event: Event) -> LogRecord:
    """Return the record of an event; its attributes win over the bound context."""
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
        bridges.body_of(event.body),
        bridges.attributes_of(attributes),
        event_name,
        caller.trace_id,
        caller.span_id,
        caller.trace_flags,
        bridges.scope_of(event.name),
    )


def take(feed: Feed, name: str, number: int, describe: Callable[[], Event]) -> None:
    """Offer what ``describe`` returns, if a record of that logger and severity is taken.

    Never raises.  Thread-safe.  Waits only as ``RecordTarget.offer`` does.
    """
    target = None if bridges.is_suppressed() else feed.target()
    if target is None:
        return
    try:
        if not target.is_enabled(name, number):
            return
        event = describe()
        exception = None if event.exception is None else Capture(event.exception)
        record = record_of(event)
    except Exception as error:  # noqa: BLE001 - whatever was logged, the caller must not suffer
        announce(
            "bridge", f"a record of {name!r} could not be converted ({kind_of(error)}); dropped"
        )
        return
    target.offer(record, exception)


def take_event_name(attributes: dict[str, Any]) -> str:
    """Remove and return the event name, as OpenTelemetry's handler does for ``logging``."""
    older = attributes.pop("event.name", "")  # the deprecated one
    return plain_name(attributes.pop("otel.event.name", older))


def nanoseconds(time: datetime) -> int:
    """Return an aware time as nanoseconds since the epoch, without rounding."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
