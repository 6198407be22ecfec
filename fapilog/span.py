"""The span, as the traces' sink keeps it: a record with an end, a parent, events and links.

The fields of OpenTelemetry's span that a log record has too are fields of :class:`LogRecord`, so
redaction, bounds, backlog and ledger treat spans and records alike
(https://opentelemetry.io/docs/specs/otel/trace/api/#span).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fapilog.record import EMPTY_RESOURCE, EMPTY_SCOPE, LogRecord, Resource, Scope
from fapilog.severity import ERROR, INFO

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The status codes of a span: https://opentelemetry.io/docs/specs/otel/trace/api/#set-status
UNSET, OK, FAILED = 0, 1, 2


class Link(LogRecord):
    """A link from a span to the span that ``trace_id``, ``span_id`` and ``trace_flags`` name.

    Attributes:
        trace_state: the linked span's W3C ``tracestate``, or "".
        is_remote: whether the linked span belongs to another process.
    """

    __slots__ = ("is_remote", "trace_state")

    def __init__(
        self,
        trace_id: str,
        span_id: str,
        trace_flags: int = 0,
        trace_state: str = "",
        *,
        is_remote: bool = False,
        attributes: dict[str, Any] | None = None,
        dropped_attributes_count: int = 0,
    ) -> None:
        super().__init__(
            attributes=attributes,
            trace_id=trace_id,
            span_id=span_id,
            trace_flags=trace_flags,
            dropped_attributes_count=dropped_attributes_count,
        )
        self.trace_state = trace_state
        self.is_remote = is_remote


class Span(LogRecord):
    """A span that has ended.

    Of the inherited fields, ``timestamp`` is the start and ``observed_timestamp`` the end, both
    in nanoseconds since the Unix epoch; ``event_name`` is the span's name, and ``body`` is the
    description of its status.  ``severity_number`` is ERROR if the status is an error, else INFO.

    Attributes:
        kind: the number of the kind in OTLP, from 1 (internal) to 5 (consumer).
        status: the status code: :data:`UNSET`, :data:`OK` or :data:`FAILED`.
        trace_state: the W3C ``tracestate``, or "".
        parent_id: the parent's span id as 16 hex digits; "" for a root span.
        has_remote_parent: whether the parent belongs to another process.
        events: the events, each a record with a time, an event name and attributes.
        links: the links to other spans.
        dropped_events_count: the number of events dropped due to a limit.
        dropped_links_count: the number of links dropped due to a limit.
    """

    __slots__ = (
        "dropped_events_count", "dropped_links_count", "events", "has_remote_parent", "kind",
        "links", "parent_id", "status", "trace_state",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        trace_id: str,
        span_id: str,
        start: int = 0,
        end: int = 0,
        kind: int = 1,
        status: int = UNSET,
        description: str | None = None,
        attributes: dict[str, Any] | None = None,
        trace_flags: int = 0,
        trace_state: str = "",
        parent_id: str = "",
        has_remote_parent: bool = False,
        events: Sequence[LogRecord] = (),
        links: Sequence[Link] = (),
        scope: Scope = EMPTY_SCOPE,
        resource: Resource = EMPTY_RESOURCE,
        dropped_attributes_count: int = 0,
        dropped_events_count: int = 0,
        dropped_links_count: int = 0,
    ) -> None:
        super().__init__(
            timestamp=start,
            observed_timestamp=end,
            severity_number=ERROR if status == FAILED else INFO,
            body=description,
            attributes=attributes,
            event_name=name,
            trace_id=trace_id,
            span_id=span_id,
            trace_flags=trace_flags,
            scope=scope,
            resource=resource,
            dropped_attributes_count=dropped_attributes_count,
        )
        self.kind = kind
        self.status = status
        self.trace_state = trace_state
        self.parent_id = parent_id
        self.has_remote_parent = has_remote_parent
        self.events = events
        self.links = links
        self.dropped_events_count = dropped_events_count
        self.dropped_links_count = dropped_links_count
