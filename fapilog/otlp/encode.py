"""Encodes records as OTLP protobuf.

The pipeline's worker thread encodes each record once per sink.  Later, a request is made by
joining encoded records and writing the length of each record before it.  Fields are written in the
order of their numbers, which come from https://github.com/open-telemetry/opentelemetry-proto
(logs/v1, common/v1, resource/v1).

Encoding is the most expensive step of the pipeline, so this encoder is written by hand.  The bytes
before a value (tags, key, lengths) depend only on the key and on the length of the value, so these
bytes are cached in instances of ``protobuf.Memo``, whose sizes are limited.
"""

from __future__ import annotations

import copy
import struct
import time
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fapilog.otlp.protobuf import Memo, delimited, varint
from fapilog.record import LogRecord, Resource, Scope
from fapilog.values import normalise, snapshot, snapshot_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    #: Encoded records, grouped by resource and scope, in the same order as in a request.
    Groups: TypeAlias = Iterable[tuple[Resource, Iterable[tuple[Scope, Sequence[bytes]]]]]
    Arrange: TypeAlias = Callable[[Sequence["Item"]], Groups]

#: An encoded record as a sink stores it: the resource, the scope, and the encoded bytes.
Item: TypeAlias = tuple[Resource, Scope, bytes]

#: The errors that encoding can raise if fapilog.values.normalise() has not corrected the record.
NOT_NORMAL: Final = (AttributeError, OverflowError, TypeError, ValueError, struct.error)

#: Protobuf parsers refuse a whole request if a message is nested more than 100 levels deep.
#: The request is at level 0, and an attribute's value is at level 5.  The values in an array are
#: 2 levels deeper than the array, and the values in a mapping are 3 levels deeper than the
#: mapping.  So an array or a mapping must not be deeper than level 97.
_VALUE_LEVEL: Final = 5
_LAST_NESTING_LEVEL: Final = 100 - 3

_INT64_END: Final = 1 << 63
_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8
_NO_TRACE: Final = bytes(_TRACE_ID_SIZE)
_NO_SPAN: Final = bytes(_SPAN_ID_SIZE)

_from_hex = bytes.fromhex
_double = struct.Struct("<d").pack
_flags_field = struct.Struct("<BI").pack
_time_field = struct.Struct("<BQ").pack


def string_field(tag: bytes, text: str) -> bytes:
    """Return an encoded string field, or no bytes for "", which is the default in proto3."""
    return delimited(tag, text.encode("utf-8", "backslashreplace")) if text else b""


def _attribute_head(key: str, value_head: bytes, length: int) -> bytes:
    """Return the bytes of an encoded attribute that precede its value.

    The value has ``length`` bytes.  ``value_head`` contains the tag of the encoded value, and the
    value's length if the value is a string.
    """
    before = (
        delimited(b"\x0a", key.encode()) + b"\x12" + varint(len(value_head) + length) + value_head
    )
    return b"\x32" + varint(len(before) + length) + before


def _text_head(key: str, length: int) -> bytes:
    return _attribute_head(key, b"\x0a" + varint(length), length)


def _int_head(key: str, length: int) -> bytes:
    return _attribute_head(key, b"\x18", length)


def _body_head(length: int) -> bytes:
    text = b"\x0a" + varint(length)
    return b"\x2a" + varint(len(text) + length) + text


def _severity(number_and_text: tuple[int, str]) -> bytes:
    number, text = number_and_text
    return (b"\x10" + varint(number) if number else b"") + string_field(b"\x1a", text)


_KEYS: Final = 512
_Heads: TypeAlias = "Memo[int, bytes]"
_text_heads: Memo[str, _Heads] = Memo(lambda key: Memo(partial(_text_head, key), 128), _KEYS)
_int_heads: Memo[str, _Heads] = Memo(lambda key: Memo(partial(_int_head, key), 10), _KEYS)
_double_heads: Memo[str, bytes] = Memo(lambda key: _attribute_head(key, b"\x21", 8), _KEYS)
_body_heads = Memo(_body_head, 1024)
_severities = Memo(_severity, 256)
_record_heads: _Heads = Memo(lambda length: b"\x12" + varint(length), 4096)


def _any_value(value: Any, level: int) -> bytes:  # noqa: PLR0911 - one return per type
    kind = type(value)
    if kind is str:
        return delimited(b"\x0a", value.encode())
    if value is None:
        return b""
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int and -_INT64_END <= value < _INT64_END:
        return b"\x18" + varint(value % (1 << 64))
    if kind is float:
        return b"\x21" + _double(value)
    if kind is bytes:
        return delimited(b"\x3a", value)
    if level <= _LAST_NESTING_LEVEL:
        if kind is list or kind is tuple:
            values = [delimited(b"\x0a", _any_value(inner, level + 2)) for inner in value]
            return delimited(b"\x2a", b"".join(values))
        if kind is dict:
            pairs = [_key_value(b"\x0a", key, inner, level + 3) for key, inner in value.items()]
            return delimited(b"\x32", b"".join(pairs))
    raise TypeError(kind)


def _key_value(tag: bytes, key: str, value: Any, level: int = _VALUE_LEVEL) -> bytes:
    pair = delimited(b"\x0a", key.encode()) + delimited(b"\x12", _any_value(value, level))
    return delimited(tag, pair)


def attribute_fields(tag: bytes, attributes: Mapping[str, Any]) -> bytes:
    """Return one ``KeyValue`` field per attribute.  ``tag`` is the tag of these fields.

    Attributes that have not been normalised are encoded as a normalised copy.  Never raises.
    """
    try:
        return b"".join([_key_value(tag, key, value) for key, value in attributes.items()])
    except NOT_NORMAL:
        normal = normal_attributes(attributes)
        return b"".join([_key_value(tag, key, value) for key, value in normal.items()])


def encode_record(record: LogRecord) -> bytes:
    """Return ``record`` as one serialised ``logs.v1.LogRecord``.

    If the record has not been normalised by ``fapilog.values.normalise``, a normalised copy is
    encoded.  Never raises.
    """
    try:
        return _encode(record)
    except NOT_NORMAL:
        return _encode(normal_copy(record))


def _encode(record: LogRecord) -> bytes:
    parts = [
        _time_field(0x09, record.timestamp),
        _severities[record.severity_number, record.severity_text],
    ]
    body = record.body
    if type(body) is str:
        raw = body.encode()
        parts += (_body_heads[len(raw)], raw)
    elif body is not None:
        parts.append(delimited(b"\x2a", _any_value(body, _VALUE_LEVEL - 1)))
    for key, value in record.attributes.items():
        kind = type(value)
        if kind is str:
            raw = value.encode()
            parts += (_text_heads[key][len(raw)], raw)
        elif kind is float:
            parts += (_double_heads[key], _double(value))
        elif kind is int and 0 <= value < _INT64_END:
            raw = varint(value)
            parts += (_int_heads[key][len(raw)], raw)
        else:
            parts.append(_key_value(b"\x32", key, value))
    if record.dropped_attributes_count:
        parts.append(b"\x38" + varint(record.dropped_attributes_count))
    # OTLP requires an observed time.  If it is missing, the record's timestamp or the current time
    # replaces it.
    observed = record.observed_timestamp or record.timestamp or time.time_ns()
    correlation = _correlation(record.trace_id, record.span_id, record.trace_flags)
    parts += (correlation, _time_field(0x59, observed))
    if record.event_name:
        parts.append(string_field(b"\x62", record.event_name))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _correlation(trace_id: str, span_id: str, flags: int) -> bytes:
    """Return the encoded trace flags, trace id and span id.

    Invalid ids (all zeros, or a wrong length) are omitted, and so is a span id without a valid
    trace id.  Results are cached, because consecutive records often have the same ids.
    """
    flags &= 0xFF
    trace, span = _from_hex(trace_id), _from_hex(span_id)
    fields = _flags_field(0x45, flags) if flags else b""
    if len(trace) == _TRACE_ID_SIZE and trace != _NO_TRACE:
        fields += delimited(b"\x4a", trace)
        if len(span) == _SPAN_ID_SIZE and span != _NO_SPAN:
            fields += delimited(b"\x52", span)
    return fields


def normal_copy(record: LogRecord) -> LogRecord:
    """Return a normalised copy of a record that has not passed through the pipeline.

    Never raises.  The record itself is not changed, because all sinks share it.
    """
    normal = copy.copy(record)
    normal.body = snapshot(record.body)
    normal.attributes = snapshot_attributes(dict(record.attributes))
    normalise(normal)
    return normal


def normal_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a normalised copy of the attributes of a resource or a scope.  Never raises."""
    return normal_copy(LogRecord(attributes=dict(attributes))).attributes


def grouped(items: Sequence[Item]) -> Groups:
    """Return the records grouped by resource and scope, in the original order in each group."""
    groups: dict[Resource, dict[Scope, list[bytes]]] = {}
    for resource, scope, record in items:
        groups.setdefault(resource, {}).setdefault(scope, []).append(record)
    return [(resource, scopes.items()) for resource, scopes in groups.items()]


def in_order(items: Sequence[Item]) -> Groups:
    """Yield the records in their original order.

    Several groups may have the same resource or scope.
    """
    for resource, of_resource in groupby(items, itemgetter(0)):
        scopes = groupby(of_resource, itemgetter(1))
        yield resource, ((scope, [item[2] for item in of_scope]) for scope, of_scope in scopes)


def encode_request(items: Sequence[Item], arrange: Arrange = grouped) -> bytes:
    """Return a serialised ``ExportLogsServiceRequest`` that contains the encoded records.

    If the items are spans, the result is an ``ExportTraceServiceRequest``, which has the same
    field numbers.  ``arrange`` is the function that groups the records: :func:`grouped` or
    :func:`in_order`.
    """
    return b"".join([_resource_logs(resource, scopes) for resource, scopes in arrange(items)])


def _resource_logs(resource: Resource, scopes: Iterable[tuple[Scope, Sequence[bytes]]]) -> bytes:
    parts = [_resource(resource)]
    for scope, records in scopes:
        framed = [_scope(scope)]
        for record in records:
            framed += (_record_heads[len(record)], record)
        framed.append(string_field(b"\x1a", scope.schema_url))
        parts.append(delimited(b"\x12", b"".join(framed)))
    parts.append(string_field(b"\x1a", resource.schema_url))
    return delimited(b"\x0a", b"".join(parts))


@lru_cache(maxsize=64)  # resources are compared by identity, which is fast
def _resource(resource: Resource) -> bytes:
    return delimited(b"\x0a", attribute_fields(b"\x0a", resource.attributes))


@lru_cache(maxsize=1024)
def _scope(scope: Scope) -> bytes:
    named = string_field(b"\x0a", scope.name) + string_field(b"\x12", scope.version)
    return delimited(b"\x0a", named + attribute_fields(b"\x1a", scope.attributes))
