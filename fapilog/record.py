"""The record: what an application event is from the call to the backends.

Fields follow the OpenTelemetry log data model
(https://opentelemetry.io/docs/specs/otel/logs/data-model/).  A record is made
by the pipeline's worker, changed by processors there, and read only from the
moment it is handed to sinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from typing import TypeAlias

#: What a body or an attribute may hold: OTLP's AnyValue.
AnyValue: TypeAlias = Union[
    bool, int, float, str, bytes, Sequence["AnyValue"], Mapping[str, "AnyValue"], None
]


@dataclass(frozen=True, eq=False)
class Scope:
    """The instrumentation scope: the logger's name and the version behind it.

    Compared by identity: one logger name has one scope object, so encoders
    may keep what they made of it.
    """

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Mapping[str, AnyValue] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Resource:
    """The entity that produces the records: service, process, host.

    Compared by identity, as :class:`Scope`.
    """

    attributes: Mapping[str, AnyValue] = field(default_factory=dict)
    schema_url: str = ""


EMPTY_SCOPE = Scope()
EMPTY_RESOURCE = Resource()


@lru_cache(maxsize=1024)
def trace_hex(trace_id: int) -> str:
    """Return the 32 hex digits of a trace id."""
    return format(trace_id, "032x")


@lru_cache(maxsize=1024)
def span_hex(span_id: int) -> str:
    """Return the 16 hex digits of a span id."""
    return format(span_id, "016x")


class LogRecord:
    """One log record.

    Attributes:
        timestamp: when the event occurred, nanoseconds since the Unix epoch.
        observed_timestamp: when the pipeline took it over, nanoseconds.
        severity_number: 1 to 24; 0 when unspecified.
        severity_text: the source's own name of the level.
        body: the message, or any structured value.
        attributes: the event's values by name; a dict this record owns.
        event_name: set when the record is an OpenTelemetry event, else "".
        trace_id: 32 lower-case hex digits, or "" outside a span.
        span_id: 16 lower-case hex digits, or "" outside a span.
        trace_flags: W3C trace flags, 0 to 255.
        scope: the logger that emitted it.
        resource: the entity that produced it.
        dropped_attributes_count: attributes left out because of a limit.
        size: about how many bytes its texts take in UTF-8; set by the
            pipeline before fan-out, 0 before.

    Thread safety: a record has one owner at a time.  Processors may change it
    freely; sinks share it and must not.
    """

    __slots__ = (
        "attributes",
        "body",
        "dropped_attributes_count",
        "event_name",
        "observed_timestamp",
        "resource",
        "scope",
        "severity_number",
        "severity_text",
        "size",
        "span_id",
        "timestamp",
        "trace_flags",
        "trace_id",
    )

    def __init__(  # noqa: PLR0917 - the fields of the data model, in its order
        self,
        timestamp: int = 0,
        observed_timestamp: int = 0,
        severity_number: int = 0,
        severity_text: str = "",
        body: AnyValue = None,
        attributes: dict[str, Any] | None = None,
        event_name: str = "",
        trace_id: str = "",
        span_id: str = "",
        trace_flags: int = 0,
        scope: Scope = EMPTY_SCOPE,
        resource: Resource = EMPTY_RESOURCE,
        dropped_attributes_count: int = 0,
    ) -> None:
        self.timestamp = timestamp
        self.observed_timestamp = observed_timestamp
        self.severity_number = severity_number
        self.severity_text = severity_text
        self.body = body
        self.attributes = {} if attributes is None else attributes
        self.event_name = event_name
        self.trace_id = trace_id
        self.span_id = span_id
        self.trace_flags = trace_flags
        self.scope = scope
        self.resource = resource
        self.dropped_attributes_count = dropped_attributes_count
        self.size = 0

    def __repr__(self) -> str:
        return (
            f"LogRecord({self.severity_text or self.severity_number!r}, {self.body!r}, "
            f"scope={self.scope.name!r}, attributes={self.attributes!r}, "
            f"trace_id={self.trace_id!r}, span_id={self.span_id!r})"
        )
