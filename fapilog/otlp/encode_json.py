"""Encodes records as OTLP/JSON, for the protocol ``http/json`` and for OTLP files.

The encoding is proto3's JSON mapping with OTLP's exceptions
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): ids are hexadecimal,
enumerations are integers, and 64-bit integers are strings.
"""

from __future__ import annotations

import base64
import math
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from fapilog.otlp.encode import NOT_NORMAL, grouped, normal_attributes, normal_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fapilog.otlp.encode import Arrange, Item
    from fapilog.record import LogRecord, Resource, Scope

_INT64_END: Final = 1 << 63
#: The maximum nesting depth of values.  A receiver could not convert deeper values into protobuf,
#: whose parsers limit the nesting (see ``_VALUE_LEVEL`` in fapilog/otlp/encode.py).
_MAX_DEPTH: Final = 31
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Names(NamedTuple):
    """The names of a request's lists: groups by resource, groups by scope, and the records."""

    resources: str
    scopes: str
    records: str


LOGS: Final = Names("resourceLogs", "scopeLogs", "logRecords")
SPANS: Final = Names("resourceSpans", "scopeSpans", "spans")


def _any_value(value: Any, depth: int = 0) -> dict[str, Any]:  # noqa: PLR0911 - one return per type
    kind = type(value)
    if kind is str:
        return {"stringValue": value}
    if value is None:
        return {}
    if kind is bool:
        return {"boolValue": value}
    if kind is int and -_INT64_END <= value < _INT64_END:
        return {"intValue": str(value)}
    if kind is float:
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
    if kind is bytes:
        return {"bytesValue": base64.b64encode(value).decode()}
    if depth < _MAX_DEPTH:
        if kind is list or kind is tuple:
            return {"arrayValue": {"values": [_any_value(inner, depth + 1) for inner in value]}}
        if kind is dict:
            return {"kvlistValue": {"values": key_values(value, depth + 1)}}
    raise TypeError(kind)


def key_values(pairs: Mapping[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """Return attributes, or the pairs of a mapping at nesting level ``depth``, as ``KeyValue``s.

    Raises:
        TypeError, ValueError: a value has not been normalised by ``fapilog.values.normalise``.
    """
    # None would be encoded as {"value": {}}.  Some receivers refuse {}, so "value" is omitted.
    return [
        {"key": key} if value is None else {"key": key, "value": _any_value(value, depth)}
        for key, value in pairs.items()
    ]


def _attributes(attributes: Mapping[str, Any]) -> orjson.Fragment:
    try:
        return orjson.Fragment(orjson.dumps(key_values(attributes)))
    except NOT_NORMAL:
        return orjson.Fragment(orjson.dumps(key_values(normal_attributes(attributes))))


def encode_record_json(record: LogRecord) -> bytes:
    """Return ``record`` as an OTLP/JSON ``LogRecord`` object, without a newline.

    If the record has not been normalised by ``fapilog.values.normalise``, a normalised copy is
    encoded.  Never raises.
    """
    try:
        return orjson.dumps(_fields(record))
    except NOT_NORMAL:
        return orjson.dumps(_fields(normal_copy(record)))


def _fields(record: LogRecord) -> dict[str, Any]:
    observed = record.observed_timestamp or record.timestamp or time.time_ns()
    fields: dict[str, Any] = {
        "timeUnixNano": str(record.timestamp),
        "observedTimeUnixNano": str(observed),
        "severityNumber": record.severity_number,
        "severityText": record.severity_text,
    }
    if record.body is not None:
        fields["body"] = _any_value(record.body)
    fields["attributes"] = key_values(record.attributes)
    if record.dropped_attributes_count:
        fields["droppedAttributesCount"] = record.dropped_attributes_count
    if record.trace_flags:
        fields["flags"] = record.trace_flags & 0xFF
    if _is_id(record.trace_id, 32):
        fields["traceId"] = record.trace_id
        if _is_id(record.span_id, 16):
            fields["spanId"] = record.span_id
    if record.event_name:
        fields["eventName"] = record.event_name
    return fields


def _is_id(text: str, digits: int) -> bool:
    return len(text) == digits and any(bytes.fromhex(text))


def _text(text: str) -> str:
    """Return ``text`` with escapes for lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode_request_json(
    items: Sequence[Item], arrange: Arrange = grouped, names: Names = LOGS
) -> bytes:
    """Return a request that contains the encoded records or spans, as JSON.

    Args:
        items: the encoded records, or the encoded spans.
        arrange: the function that groups them: ``encode.grouped`` or ``encode.in_order``.
        names: :data:`LOGS` for an ``ExportLogsServiceRequest``, :data:`SPANS` for an
            ``ExportTraceServiceRequest``.
    """
    groups = [_resource_group(resource, scopes, names) for resource, scopes in arrange(items)]
    return orjson.dumps({names.resources: groups})


def _resource_group(
    resource: Resource, scopes: Iterable[tuple[Scope, Sequence[bytes]]], names: Names
) -> dict[str, Any]:
    return {
        "resource": {"attributes": _attributes(resource.attributes)},
        names.scopes: [
            {
                "scope": _scope(scope),
                names.records: [orjson.Fragment(record) for record in records],
                "schemaUrl": _text(scope.schema_url),
            }
            for scope, records in scopes
        ],
        "schemaUrl": _text(resource.schema_url),
    }


def _scope(scope: Scope) -> dict[str, Any]:
    return {
        "name": _text(scope.name),
        "version": _text(scope.version),
        "attributes": _attributes(scope.attributes),
    }


def logs_data_line(items: Sequence[Item]) -> bytes:
    r"""Return the records as one line of an OTLP file, including the final ``\n``.

    The line is a ``LogsData`` object, whose JSON is the same as that of a request.  Source:
    https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
    """
    return encode_request_json(items) + b"\n"
