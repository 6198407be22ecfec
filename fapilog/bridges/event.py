"""Makes records of what structlog, loguru and the hooks report, on the caller's thread.

Each bridge describes one log call as an ``Event``.  This module adds what is
the same for all: the active span, the bound context, snapshots of the values
and the level check.  Nothing is raised into the application.
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
from fapilog.record import LogRecord, span_hex, trace_hex
from fapilog.values import plain_name
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fapilog.bridges.feeds import Feed

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Caller(NamedTuple):
    """The bound context and the active span's ids of the code that logs."""

    bound: Mapping[str, Any]
    trace_id: str
    span_id: str
    trace_flags: int


@dataclass
class Event:
    """One log call, in fapilog's terms.

    Attributes:
        name: the logger's name.
        number: the severity number.
        text: the source's name of the severity.
        body: the message, any value.
        attributes: the fields as the application gave them, in a dict that
            belongs to the event.
        timestamp: nanoseconds since the epoch; None means now.
        exception: the exception that the record reports, or None.
        caller: context and ids of the code that logged, if that is not the
            running code.
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
        feeds.body_of(event.body),
        feeds.attributes_of(attributes),
        event_name,
        caller.trace_id,
        caller.span_id,
        caller.trace_flags,
        feeds.scope_of(event.name),
    )


def take(feed: Feed, name: str, number: int, describe: Callable[[], Event]) -> None:
    """Offer the event that ``describe`` returns, if its logger and severity are enabled.

    Never raises.  Thread-safe.  Waits only as ``RecordTarget.offer`` does.
    """
    target = None if feeds.is_suppressed() else feed.target()
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
    older = attributes.pop("event.name", "")  # the deprecated attribute
    return plain_name(attributes.pop("otel.event.name", older))


def nanoseconds(time: datetime) -> int:
    """Return an aware time as nanoseconds since the epoch, without rounding."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
