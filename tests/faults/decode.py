"""Reads the requests to the scripted backend, without code of fapilog.

Every record of the suite has a number ``n``, and a mark if the script treats the
record as bad.  The readers find both with the official messages of
opentelemetry-proto, with ``json``, and with the message that Loki's documentation
describes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OTLP_PATH: Final = "/v1/logs"
SPANS_PATH: Final = "/v1/traces"
LOKI_PATH: Final = "/loki/api/v1/push"

#: The exceptions that the readers raise for a body that is not a request.
DECODE_ERRORS: Final = (DecodeError, json_format.ParseError, ValueError, KeyError, OSError)

_IDS: Final = ("traceId", "spanId", "parentSpanId")


class Arrived(NamedTuple):
    """One record of a request: its number, and whether the script treats it as bad."""

    n: int
    bad: bool


def unpacked(body: bytes, encoding: str) -> bytes:
    """Undo a ``Content-Encoding``."""
    return gzip.decompress(body) if encoding == "gzip" else body


def read_otlp(body: bytes, content_type: str = "") -> list[Arrived]:
    """Return the records of an OTLP request, protobuf or JSON, in order."""
    request = _parsed(ExportLogsServiceRequest(), body, content_type)
    return [
        _arrived({pair.key: pair.value for pair in record.attributes})
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def read_spans(body: bytes, content_type: str = "") -> list[Arrived]:
    """Return the spans of an OTLP request, protobuf or JSON, in order."""
    request = _parsed(ExportTraceServiceRequest(), body, content_type)
    return [
        _arrived({pair.key: pair.value for pair in span.attributes})
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _parsed(request: Any, body: bytes, content_type: str) -> Any:
    if not content_type.startswith("application/json"):
        request.ParseFromString(body)
        return request
    document = json.loads(body)
    for item in _json_items(document):
        for name in _IDS:
            item.pop(name, None)  # hexadecimal, unlike protobuf's JSON
    return json_format.ParseDict(document, request)


def _json_items(document: Any) -> Iterable[dict[str, Any]]:
    for resource in document.get("resourceLogs") or document["resourceSpans"]:
        for scope in resource.get("scopeLogs") or resource["scopeSpans"]:
            yield from scope.get("logRecords") or scope["spans"]


def _arrived(attributes: Mapping[str, Any]) -> Arrived:
    bad = "bad" in attributes and attributes["bad"].bool_value
    return Arrived(attributes["n"].int_value, bad)


def read_loki(body: bytes, content_type: str) -> list[Arrived]:
    """Return the entries of a Loki push, JSON or snappy-compressed protobuf, stream by stream."""
    if content_type.startswith("application/json"):
        return _loki_json(body)
    import cramjam  # the extra fapilog[loki], which the other formats do not need

    return _loki_protobuf(bytes(cramjam.snappy.decompress_raw(body)))


def read_stored(body: bytes, wire_format: str) -> list[Arrived]:
    """Return the records of a batch on disk, which is an uncompressed request."""
    match wire_format:
        case "otlp-protobuf":
            return read_otlp(body)
        case "otlp-json":
            return read_otlp(body, "application/json")
        case "otlp-traces-protobuf":
            return read_spans(body)
        case "otlp-traces-json":
            return read_spans(body, "application/json")
        case "loki-json":
            return _loki_json(body)
        case "loki-protobuf":
            return _loki_protobuf(body)
    raise ValueError(wire_format)


def _loki_json(body: bytes) -> list[Arrived]:
    return [
        _entry(metadata)
        for stream in json.loads(body)["streams"]
        for _time, _line, metadata in stream["values"]
    ]


def _loki_protobuf(body: bytes) -> list[Arrived]:
    request: Any = _push_request().FromString(body)
    return [
        _entry({pair.name: pair.value for pair in entry.structuredMetadata})
        for stream in request.streams
        for entry in stream.entries
    ]


def _entry(metadata: Mapping[str, str]) -> Arrived:
    return Arrived(int(metadata["n"]), metadata.get("bad") == "true")


@cache
def _push_request() -> type[Message]:
    """Return Loki's ``PushRequest``, for which no package has generated code.

    Source: https://github.com/grafana/loki/blob/main/pkg/push/push.proto
    """
    field = descriptor_pb2.FieldDescriptorProto
    text, many = field.TYPE_STRING, field.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(name="push.proto", package="logproto")
    messages: dict[str, list[tuple[str, int, Any, str]]] = {
        "Timestamp": [("seconds", 1, field.TYPE_INT64, ""), ("nanos", 2, field.TYPE_INT32, "")],
        "Pair": [("name", 1, text, ""), ("value", 2, text, "")],
        "Entry": [
            ("timestamp", 1, None, "Timestamp"),
            ("line", 2, text, ""),
            ("structuredMetadata", 3, many, "Pair"),
        ],
        "Stream": [("labels", 1, text, ""), ("entries", 2, many, "Entry")],
        "PushRequest": [("streams", 1, many, "Stream")],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, type_name in fields:
            added = message.field.add(name=field_name, number=number, label=field.LABEL_OPTIONAL)
            if type_name:
                added.type, added.type_name = field.TYPE_MESSAGE, f".logproto.{type_name}"
                added.label = many if kind == many else field.LABEL_OPTIONAL
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("logproto.PushRequest")
    made: type[Message] = message_factory.GetMessageClass(found)
    return made
