"""Classes for received log records and spans, which convert OTLP values to Python values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class ReceivedLog:
    """A received log record, with its resource's attributes and its instrumentation scope."""

    record: LogRecord
    resource: Mapping[str, Any]
    scope: InstrumentationScope

    @property
    def body(self) -> Any:
        """The record's body as a Python value."""
        return python_value(self.record.body)

    @property
    def attributes(self) -> dict[str, Any]:
        """The record's attributes as Python values."""
        return python_values(self.record.attributes)

    @property
    def severity_number(self) -> int:
        """The severity number from 1 to 24, or 0 if it is unspecified."""
        return int(self.record.severity_number)

    @property
    def severity_text(self) -> str:
        """The severity as the logging library named it, such as ``WARNING``, or ""."""
        return self.record.severity_text

    @property
    def event_name(self) -> str:
        """The name of the event, or "" if the record is not an event."""
        return self.record.event_name

    @property
    def trace_id(self) -> str:
        """The trace id in 32 hexadecimal digits, or "" if the record has no trace id."""
        return self.record.trace_id.hex()

    @property
    def span_id(self) -> str:
        """The span id in 16 hexadecimal digits, or "" if the record has no span id."""
        return self.record.span_id.hex()


@dataclass(frozen=True)
class ReceivedSpan:
    """A received span, with its resource's attributes and its instrumentation scope."""

    span: Span
    resource: Mapping[str, Any]
    scope: InstrumentationScope

    @property
    def name(self) -> str:
        """The span's name."""
        return self.span.name

    @property
    def attributes(self) -> dict[str, Any]:
        """The span's attributes as Python values."""
        return python_values(self.span.attributes)

    @property
    def trace_id(self) -> str:
        """The trace id in 32 hexadecimal digits."""
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        """The span id in 16 hexadecimal digits."""
        return self.span.span_id.hex()


def python_value(value: AnyValue) -> Any:
    """Return the Python value of an OTLP ``AnyValue``, or None if ``value`` is empty."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [python_value(inner) for inner in value.array_value.values]
    if kind == "kvlist_value":
        return python_values(value.kvlist_value.values)
    return getattr(value, kind)


def python_values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return OTLP attributes as a dict of Python values."""
    return {pair.key: python_value(pair.value) for pair in pairs}
