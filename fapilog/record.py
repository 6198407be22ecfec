"""The log record, which represents an application event in the pipeline and the sinks.

Its fields follow the OpenTelemetry log data model
(https://opentelemetry.io/docs/specs/otel/logs/data-model/).  Processors may change a record.
All sinks get the same object afterwards, and only read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from typing import TypeAlias

#: The type of a record's body and of an attribute's value, like the message ``AnyValue`` in OTLP.
AnyValue: TypeAlias = Union[
    bool, int, float, str, bytes, Sequence["AnyValue"], Mapping[str, "AnyValue"], None
]


@dataclass(frozen=True, eq=False)
class Scope:
    """The instrumentation scope: the name and the version of the logger.

    Scopes are compared by identity: each logger name has one scope object, so
    encoders may cache the encoded scope.
    """

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Mapping[str, AnyValue] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Resource:
    """The source of the records, such as a service or a process.  Compared by identity."""

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


@dataclass(init=False, repr=False, eq=False)
class LogRecord:
    """One log record.

    A dataclass, so ``dataclasses.replace(record, body="x")`` returns a changed copy.
    The copy and the original share one attributes dict.

    Attributes:
        timestamp: the time of the event, in nanoseconds since the Unix epoch.
        observed_timestamp: the time when the pipeline got the event, in nanoseconds.
        severity_number: the severity from 1 to 24; 0 if it is unspecified.
        severity_text: the name of the level in the library that logged the event.
        body: the message, or any structured value.
        attributes: the additional values of the event, by name.
        event_name: the name of an OpenTelemetry event; "" for other records.
        trace_id: the trace's id as 32 lower-case hex digits; "" outside a span.
        span_id: the span's id as 16 lower-case hex digits; "" outside a span.
        trace_flags: the W3C trace flags, 0 to 255.
        scope: the logger that emitted the record.
        resource: the entity that produced the record.
        dropped_attributes_count: the number of attributes dropped due to a limit.
        size: the approximate number of UTF-8 bytes in the record's strings; the
            pipeline sets it before it passes the record to the sinks.

    Not thread-safe: only processors may change a record, one after another.  All sinks get the
    same object, from several threads, and must not change it.
    """

    __slots__ = (
        "attributes", "body", "dropped_attributes_count", "event_name", "observed_timestamp",
        "resource", "scope", "severity_number", "severity_text", "size", "span_id", "timestamp",
        "trace_flags", "trace_id",
    )  # fmt: skip
    timestamp: int
    observed_timestamp: int
    severity_number: int
    severity_text: str
    body: AnyValue
    attributes: dict[str, Any]
    event_name: str
    trace_id: str
    span_id: str
    trace_flags: int
    scope: Scope
    resource: Resource
    dropped_attributes_count: int

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
