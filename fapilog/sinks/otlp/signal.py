"""The differences between OTLP for logs and OTLP for traces: names, and the encodings.

Specifications: https://opentelemetry.io/docs/specs/otlp/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fapilog.otlp.decode import split_request
from fapilog.otlp.decode_json import split_request_json
from fapilog.otlp.encode import encode_record, encode_request
from fapilog.otlp.encode_json import SPANS, encode_record_json, encode_request_json
from fapilog.otlp.encode_span import encode_span, encode_span_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.otlp.encode import Item


@dataclass(frozen=True)
class Encoding:
    """One encoding of a signal.

    Attributes:
        wire_format: the name of the format in the spool.
        encode: the function that encodes one record or span.
        encode_request: the function that joins encoded records or spans into a request.
        split_request: the function that splits a request from the spool.
    """

    wire_format: str
    encode: Callable[[Any], bytes]
    encode_request: Callable[..., bytes]
    split_request: Callable[[bytes], list[Item]]


@dataclass(frozen=True)
class Signal:
    """A signal of OpenTelemetry that an OTLP sink can send.

    Attributes:
        name: the name of the signal, used in messages.
        path: the path that is added to the base URL of an HTTP backend.
        method: the path of the gRPC method.
        variables: the prefix of the environment variables for this signal.
        protobuf: the encoding for the protocols ``http/protobuf`` and ``grpc``.
        json: the encoding for the protocol ``http/json``.
    """

    name: str
    path: str
    method: str
    variables: str
    protobuf: Encoding
    json: Encoding


LOGS: Final = Signal(
    name="logs",
    path="/v1/logs",
    method="/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    variables="OTEL_EXPORTER_OTLP_LOGS_",
    protobuf=Encoding("otlp-protobuf", encode_record, encode_request, split_request),
    json=Encoding("otlp-json", encode_record_json, encode_request_json, split_request_json),
)
TRACES: Final = Signal(
    name="traces",
    path="/v1/traces",
    method="/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    variables="OTEL_EXPORTER_OTLP_TRACES_",
    # A request with spans has the field numbers of a request with records.
    protobuf=Encoding("otlp-traces-protobuf", encode_span, encode_request, split_request),
    json=Encoding(
        "otlp-traces-json",
        encode_span_json,
        partial(encode_request_json, names=SPANS),
        partial(split_request_json, names=SPANS),
    ),
)
