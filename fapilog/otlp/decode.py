"""Decodes OTLP protobuf requests that fapilog has stored on disk.

``split_request`` takes a request that ``fapilog.otlp.encode`` has made, and returns the bytes of
each record unchanged.  Resources and scopes are decoded, because a sink groups records by resource
and scope.  Malformed bytes raise ``ValueError`` and no other error.
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from fapilog.otlp.protobuf import as_bytes, as_int64, bytes_field, fields, last, messages
from fapilog.record import EMPTY_SCOPE, LogRecord, Resource, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.otlp.encode import Item
    from fapilog.otlp.protobuf import Field

#: The maximum nesting depth of values that are decoded.  The encoders of fapilog stay below this
#: limit, because receivers refuse a request with deeply nested values.
MAX_DEPTH: Final = 50


def decode_record(encoded: bytes) -> LogRecord:
    """Decode a serialised ``logs.v1.LogRecord``, whose resource and scope are not included."""
    record = LogRecord()
    for number, value in fields(encoded):
        if number == _ATTRIBUTES:
            name, content = _key_value(as_bytes(value), 0)
            record.attributes[name] = content
        elif number in _RECORD_FIELDS:
            field, decode = _RECORD_FIELDS[number]
            setattr(record, field, decode(value))
    return record


def decode_span(encoded: bytes) -> dict[str, Any]:
    """Decode a serialised ``trace.v1.Span`` for a reader: the fields by name.

    Times are nanoseconds since the Unix epoch.  Of the events, only the names are decoded, and
    links are left out.
    """
    span: dict[str, Any] = {"attributes": {}, "events": []}
    for number, value in fields(encoded):
        if number == _SPAN_ATTRIBUTES:
            name, content = _key_value(as_bytes(value), 0)
            span["attributes"][name] = content
        elif number == _SPAN_EVENTS:
            span["events"].append(bytes_field(as_bytes(value), 2).decode())
        elif number in _SPAN_FIELDS:
            field, decode = _SPAN_FIELDS[number]
            span[field] = decode(value)
    return span


def decode_request(request: bytes) -> list[LogRecord]:
    """Decode all records of a serialised ``ExportLogsServiceRequest``, and keep their order."""
    records = []
    for resource, scope, encoded in split_request(request):
        record = decode_record(encoded)
        record.resource, record.scope = resource, scope
        records.append(record)
    return records


def split_request(request: bytes) -> list[Item]:
    """Split a request into encoded records, each with its resource and scope, in order.

    Records with equal resources share one ``Resource`` object, and records with equal scopes
    share one ``Scope`` object.
    """
    items: list[Item] = []
    for resource_logs in messages(fields(request), 1):
        logs = list(fields(resource_logs))
        resource = _resource(last(logs, 1), last(logs, 3))
        for scope_logs in messages(logs, 2):
            of_scope = list(fields(scope_logs))
            scope = _scope(last(of_scope, 1), last(of_scope, 3))
            items += [(resource, scope, record) for record in messages(of_scope, 2)]
    return items


@lru_cache(maxsize=64)
def _resource(encoded: bytes, schema_url: bytes) -> Resource:
    return Resource(_mapping(encoded, 0), schema_url.decode())


@lru_cache(maxsize=1024)
def _scope(encoded: bytes, schema_url: bytes) -> Scope:
    if not encoded and not schema_url:
        return EMPTY_SCOPE
    parts = list(fields(encoded))
    attributes = dict(_key_value(pair, 0) for pair in messages(parts, 3))
    name, version = last(parts, 1).decode(), last(parts, 2).decode()
    return Scope(name, version, schema_url.decode(), attributes)


def _any_value(encoded: bytes, depth: int) -> Any:
    """Decode a serialised ``AnyValue``.  If it contains several values, return the last value."""
    if depth > MAX_DEPTH:
        msg = f"values nested more than {MAX_DEPTH} deep"
        raise ValueError(msg)
    value: Any = None
    for number, field in fields(encoded):
        decode = _VALUE_FIELDS.get(number)
        if decode is not None:
            value = decode(field, depth + 1)
    return value


def _array(value: Field, depth: int) -> list[Any]:
    return [_any_value(inner, depth) for inner in messages(fields(as_bytes(value)), 1)]


def _mapping(value: Field, depth: int) -> dict[str, Any]:
    return dict(_key_value(pair, depth) for pair in messages(fields(as_bytes(value)), 1))


def _key_value(encoded: bytes, depth: int) -> tuple[str, Any]:
    parts = list(fields(encoded))
    return last(parts, 1).decode(), _any_value(last(parts, 2), depth)


def _text(value: Field) -> str:
    return as_bytes(value).decode()


def _number_of(layout: struct.Struct, value: Field) -> Any:
    raw = as_bytes(value)
    if len(raw) != layout.size:
        msg = f"{len(raw)} bytes where {layout.size} should be"
        raise ValueError(msg)
    return layout.unpack(raw)[0]


_double = partial(_number_of, struct.Struct("<d"))
_fixed64 = partial(_number_of, struct.Struct("<Q"))
_fixed32 = partial(_number_of, struct.Struct("<I"))

#: Maps a field number in logs/v1/logs.proto to the field's name in LogRecord and to the field's
#: decoder.  The attributes are not listed, because decode_record() decodes them separately.
_RECORD_FIELDS: Final[dict[int, tuple[str, Callable[[Field], Any]]]] = {
    1: ("timestamp", _fixed64),
    2: ("severity_number", as_int64),
    3: ("severity_text", _text),
    5: ("body", lambda value: _any_value(as_bytes(value), 0)),
    7: ("dropped_attributes_count", as_int64),
    8: ("trace_flags", lambda value: _fixed32(value) & 0xFF),
    9: ("trace_id", lambda value: as_bytes(value).hex()),
    10: ("span_id", lambda value: as_bytes(value).hex()),
    11: ("observed_timestamp", _fixed64),
    12: ("event_name", _text),
}
_ATTRIBUTES: Final = 6
#: Maps a field number of Span in trace/v1/trace.proto to the field's name and its decoder.
_SPAN_FIELDS: Final[dict[int, tuple[str, Callable[[Field], Any]]]] = {
    1: ("trace_id", lambda value: as_bytes(value).hex()),
    2: ("span_id", lambda value: as_bytes(value).hex()),
    4: ("parent_span_id", lambda value: as_bytes(value).hex()),
    5: ("name", _text),
    6: ("kind", as_int64),
    7: ("start", _fixed64),
    8: ("end", _fixed64),
    15: ("status", lambda value: bytes_field(as_bytes(value), 2).decode()),
}
_SPAN_ATTRIBUTES: Final = 9
_SPAN_EVENTS: Final = 11
#: Maps a field number of AnyValue in common/v1/common.proto to the field's decoder, which is
#: called with the field's value and the nesting depth.
_VALUE_FIELDS: Final[dict[int, Callable[[Field, int], Any]]] = {
    1: lambda value, _depth: _text(value),
    2: lambda value, _depth: bool(as_int64(value)),
    3: lambda value, _depth: as_int64(value),
    4: lambda value, _depth: _double(value),
    5: _array,
    6: _mapping,
    7: lambda value, _depth: as_bytes(value),
}
