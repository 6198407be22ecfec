"""Encodes spans as OTLP protobuf and OTLP/JSON.

The groups around spans have the same field numbers as those around records, so
``encode.encode_request`` and ``decode.split_request`` also serve spans.
Source: https://github.com/open-telemetry/opentelemetry-proto (trace/v1).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import orjson

from fapilog.otlp.encode import attribute_fields, string_field
from fapilog.otlp.encode_json import key_values
from fapilog.otlp.protobuf import delimited, varint

if TYPE_CHECKING:
    from fapilog.record import LogRecord
    from fapilog.span import Link, Span

# Bits 0 to 7 of the flags are the W3C trace flags.  Bit 8 says that bit 9 is known, and bit 9
# says that the parent or the linked span is remote.
_KNOWS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200

_time_field = struct.Struct("<BQ").pack
_span_flags = struct.Struct("<BBI").pack
_link_flags = struct.Struct("<BI").pack
_from_hex = bytes.fromhex


def encode_span(span: Span) -> bytes:
    """Return ``span`` as one serialised ``trace.v1.Span``.

    Raises:
        TypeError, ValueError, OverflowError, struct.error: the span or one of its events or
            links has not been normalised by ``fapilog.values.normalise``.
    """
    status = string_field(b"\x12", _description(span)) + _number(b"\x18", span.status)
    parts = [
        delimited(b"\x0a", _from_hex(span.trace_id)),
        delimited(b"\x12", _from_hex(span.span_id)),
        string_field(b"\x1a", span.trace_state),
        delimited(b"\x22", _from_hex(span.parent_id)) if span.parent_id else b"",
        string_field(b"\x2a", span.event_name),
        _number(b"\x30", span.kind),
        _time_field(0x39, span.timestamp),
        _time_field(0x41, span.observed_timestamp),
        attribute_fields(b"\x4a", span.attributes),
        _number(b"\x50", span.dropped_attributes_count),
        *(delimited(b"\x5a", _event(event)) for event in span.events),
        _number(b"\x60", span.dropped_events_count),
        *(delimited(b"\x6a", _link(link)) for link in span.links),
        _number(b"\x70", span.dropped_links_count),
        delimited(b"\x7a", status),
        _span_flags(0x85, 0x01, _flags(span.trace_flags, is_remote=span.has_remote_parent)),
    ]
    return b"".join(parts)


def _event(event: LogRecord) -> bytes:
    return b"".join(
        (
            _time_field(0x09, event.timestamp),
            string_field(b"\x12", event.event_name),
            attribute_fields(b"\x1a", event.attributes),
            _number(b"\x20", event.dropped_attributes_count),
        )
    )


def _link(link: Link) -> bytes:
    return b"".join(
        (
            delimited(b"\x0a", _from_hex(link.trace_id)),
            delimited(b"\x12", _from_hex(link.span_id)),
            string_field(b"\x1a", link.trace_state),
            attribute_fields(b"\x22", link.attributes),
            _number(b"\x28", link.dropped_attributes_count),
            _link_flags(0x35, _flags(link.trace_flags, is_remote=link.is_remote)),
        )
    )


def _number(tag: bytes, number: int) -> bytes:
    """Return a varint field.  For 0, return no bytes, because it is the default in proto3."""
    return tag + varint(number) if number else b""


def _flags(trace_flags: int, *, is_remote: bool) -> int:
    return trace_flags & 0xFF | _KNOWS_REMOTE | (_IS_REMOTE if is_remote else 0)


def _description(span: Span) -> str:
    return span.body if isinstance(span.body, str) else ""


def encode_span_json(span: Span) -> bytes:
    """Return ``span`` as an OTLP/JSON ``Span`` object, without a newline.

    Raises:
        TypeError, ValueError, OverflowError: the span or one of its events or links has not
            been normalised by ``fapilog.values.normalise``.
    """
    fields: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "traceState": span.trace_state,
        "parentSpanId": span.parent_id,
        "name": span.event_name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.timestamp),
        "endTimeUnixNano": str(span.observed_timestamp),
        "attributes": key_values(span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": [_event_json(event) for event in span.events],
        "droppedEventsCount": span.dropped_events_count,
        "links": [_link_json(link) for link in span.links],
        "droppedLinksCount": span.dropped_links_count,
        "status": {"message": _description(span), "code": span.status},
        "flags": _flags(span.trace_flags, is_remote=span.has_remote_parent),
    }
    return orjson.dumps(fields)


def _event_json(event: LogRecord) -> dict[str, Any]:
    return {
        "timeUnixNano": str(event.timestamp),
        "name": event.event_name,
        "attributes": key_values(event.attributes),
        "droppedAttributesCount": event.dropped_attributes_count,
    }


def _link_json(link: Link) -> dict[str, Any]:
    return {
        "traceId": link.trace_id,
        "spanId": link.span_id,
        "traceState": link.trace_state,
        "attributes": key_values(link.attributes),
        "droppedAttributesCount": link.dropped_attributes_count,
        "flags": _flags(link.trace_flags, is_remote=link.is_remote),
    }
