"""The encoders of spans give the same as the official exporter's encoder and messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from fapilog.otel.spans import _Cleaner, _convert
from fapilog.otlp.encode import Item, in_order
from fapilog.sinks.otlp.signal import LOGS, TRACES, Encoding
from fapilog.span import Span

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
attributes = st.dictionaries(
    names,
    texts
    | st.booleans()
    | numbers
    | floats
    | st.lists(texts, max_size=3)
    | st.lists(numbers, max_size=3),
    max_size=5,
)
times = st.integers(1, 2**63 - 1)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    st.sampled_from([TraceState(), TraceState([("vendor", "x"), ("other", "y=1")])]),
)
statuses = (
    st.just(Status())
    | st.just(Status(StatusCode.OK))
    | st.builds(Status, st.just(StatusCode.ERROR), texts)
)
scopes = st.sampled_from(
    [
        InstrumentationScope("shop"),
        InstrumentationScope("shop.db", "1.2", "https://schema", {"a": 1, "b": ["x"]}),
    ]
)
resources = st.sampled_from([Resource({"service.name": "shop"}), Resource({}, "https://schema")])
spans = st.builds(
    ReadableSpan,
    name=names,
    context=contexts,
    parent=st.none() | contexts,
    resource=resources,
    attributes=attributes,
    events=st.lists(st.builds(Event, names, attributes, times), max_size=3),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=3),
    kind=st.sampled_from(SpanKind),
    status=statuses,
    start_time=times,
    end_time=times,
    instrumentation_scope=scopes,
)
batches = st.lists(spans, min_size=1, max_size=4)


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def official(batch: list[ReadableSpan]) -> Any:
    """Encode with the SDK's encoder, and add what trace.proto has and that encoder leaves out."""
    request = encode_spans(batch)
    by_id = {id_of(span): span for span in batch}
    for message in messages(request):
        source: Any = by_id[int.from_bytes(message.span_id, "big")]
        message.flags |= source.get_span_context().trace_flags
        for link, linked in zip(message.links, source.links, strict=True):
            link.flags |= linked.context.trace_flags
            link.trace_state = ",".join(f"{k}={v}" for k, v in linked.context.trace_state.items())
    return request


def messages(request: Any) -> list[Any]:
    return [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def items(batch: list[ReadableSpan], encoding: Encoding) -> list[Item]:
    cleaner = _Cleaner(None)
    converted: list[Span] = [_convert(span, cleaner) for span in batch]
    return [(span.resource, span.scope, encoding.encode(span)) for span in converted]


def parsed_json(body: bytes) -> Any:
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for holder in (span, *span["links"]):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in holder:  # hexadecimal, unlike protobuf's JSON
                            raw = bytes.fromhex(holder[name])
                            holder[name] = base64.b64encode(raw).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def unique(batch: list[ReadableSpan]) -> list[ReadableSpan]:
    return list({id_of(span): span for span in batch}.values())


@given(batches)
def test_protobuf_is_what_the_sdks_encoder_writes(batch):
    batch = unique(batch)
    body = TRACES.protobuf.encode_request(items(batch, TRACES.protobuf))
    assert ExportTraceServiceRequest.FromString(body) == official(batch)


@given(batches)
def test_json_has_the_same_content_as_protobuf(batch):
    batch = unique(batch)
    body = TRACES.json.encode_request(items(batch, TRACES.json))
    assert parsed_json(body) == official(batch)


@given(batches, st.sampled_from([TRACES.protobuf, TRACES.json]))
def test_a_packed_batch_splits_into_the_same_spans_in_the_same_order(batch, encoding):
    given_items = items(batch, encoding)
    packed = encoding.encode_request(given_items, in_order)
    again = encoding.split_request(packed)
    assert [one[2] for one in again] == [one[2] for one in given_items]
    assert [(r.attributes, r.schema_url) for r, _, _ in again] == [
        (dict(r.attributes), r.schema_url) for r, _, _ in given_items
    ]
    assert [(s.name, s.version, s.attributes) for _, s, _ in again] == [
        (s.name, s.version, dict(s.attributes)) for _, s, _ in given_items
    ]


def test_a_packed_request_of_records_is_not_one_of_spans():
    assert TRACES.json.split_request(b'{"resourceSpans":[]}') == []
    with pytest.raises(ValueError, match="not a request of OTLP/JSON"):
        TRACES.json.split_request(b'{"resourceLogs":[]}')
    formats = [signal.protobuf.wire_format for signal in (LOGS, TRACES)]
    formats += [signal.json.wire_format for signal in (LOGS, TRACES)]
    assert len(set(formats)) == 4
