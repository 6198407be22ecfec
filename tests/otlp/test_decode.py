"""The decoders read what the encoders write, and refuse all other bytes without a crash."""

from __future__ import annotations

import contextlib
import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from fapilog.otlp.decode import decode_record, decode_request, split_request
from fapilog.otlp.decode_json import split_request_json
from fapilog.otlp.encode import encode_record, encode_request, in_order
from fapilog.otlp.encode_json import encode_record_json, encode_request_json
from fapilog.record import EMPTY_SCOPE, LogRecord, Resource, Scope
from tests.support.values import relaxed

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.builds(
    LogRecord,
    timestamp=st.integers(0, 2**64 - 1),
    observed_timestamp=st.integers(1, 2**64 - 1),
    severity_number=st.integers(0, 24),
    severity_text=texts,
    body=values,
    attributes=st.dictionaries(texts, values, max_size=3),
    event_name=texts,
    trace_id=st.sampled_from(["", TRACE_ID]),
    span_id=st.sampled_from(["", SPAN_ID]),
    trace_flags=st.integers(0, 255),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
)
few = st.dictionaries(texts, scalars | st.lists(scalars, max_size=2), max_size=2)
scopes = st.builds(Scope, texts, texts, texts, few)
resources = st.builds(Resource, few, texts)
plain_records = st.builds(
    LogRecord,
    timestamp=st.integers(0, 2**64 - 1),
    observed_timestamp=st.just(5),
    body=scalars,
    attributes=few,
)


@st.composite
def batches(draw: Any) -> list[tuple[Resource, Scope, LogRecord]]:
    """Draw records whose few resources and scopes alternate, as in a real batch."""
    some_resources = draw(st.lists(resources, min_size=1, max_size=2))
    some_scopes = draw(st.lists(scopes, min_size=1, max_size=2))
    turns = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=5))
    return [
        (
            some_resources[r % len(some_resources)],
            some_scopes[s % len(some_scopes)],
            draw(plain_records),
        )
        for r, s in turns
    ]


#: The functions that encode a record, pack encoded records and unpack them, by wire format.
FORMATS: dict[str, tuple[Any, Any, Any]] = {
    "protobuf": (encode_record, partial(encode_request, arrange=in_order), split_request),
    "json": (
        encode_record_json,
        partial(encode_request_json, arrange=in_order),
        split_request_json,
    ),
}
each_format = pytest.mark.parametrize("form", FORMATS)


def fields_of(record: LogRecord) -> dict[str, Any]:
    shown = {name: getattr(record, name) for name in LogRecord.__slots__ if name != "size"}
    shown["resource"] = content_of(record.resource)
    shown["scope"] = content_of(record.scope)
    if not record.trace_id:
        shown["span_id"] = ""  # a span id without a trace id is left out
    return shown


def content_of(part: Resource | Scope) -> dict[str, Any]:
    return dict(vars(part))


def items_of(batch: Any, encode: Any) -> list[Any]:
    return [(resource, scope, encode(record)) for resource, scope, record in batch]


@given(records)
@relaxed
def test_a_record_comes_back_as_it_was(record):
    assert fields_of(decode_record(encode_record(record))) == fields_of(record)


@given(batches())
@relaxed
def test_a_request_comes_back_with_resources_and_scopes(batch):
    for resource, scope, record in batch:
        record.resource, record.scope = resource, scope
    decoded = decode_request(encode_request(items_of(batch, encode_record), in_order))
    assert [fields_of(record) for record in decoded] == [fields_of(record) for *_, record in batch]


@each_format
@given(batch=batches())
@relaxed
def test_what_is_packed_comes_back_in_its_order_byte_for_byte(form, batch):
    encode, pack, unpack = FORMATS[form]
    items = items_of(batch, encode)
    again = unpack(pack(items))
    assert [encoded for *_, encoded in again] == [encoded for *_, encoded in items]
    for (resource, scope, _), (old_resource, old_scope, _) in zip(again, items, strict=True):
        assert content_of(resource) == content_of(old_resource)
        assert content_of(scope) == content_of(old_scope)
    assert [encoded for *_, encoded in unpack(pack(again))] == [encoded for *_, encoded in items]


@given(batches())
@relaxed
def test_a_packed_batch_is_a_request_that_any_receiver_takes(batch):
    packed = encode_request(items_of(batch, encode_record), in_order)
    request = ExportLogsServiceRequest.FromString(packed)
    sent = [
        record.SerializeToString(deterministic=True)
        for logs in request.resource_logs
        for scope in logs.scope_logs
        for record in scope.log_records
    ]
    assert len(sent) == len(batch)


@each_format
def test_loggers_that_take_turns_keep_their_turns(form):
    encode, pack, unpack = FORMATS[form]
    web, jobs = Resource({"service.name": "web"}), Resource({"service.name": "jobs"})
    a, b = Scope("a"), Scope("b")
    placed = [(web, a), (web, b), (jobs, a), (web, a), (web, b), (web, b)]
    items = [
        (resource, scope, encode(LogRecord(1, 2, body=number)))
        for number, (resource, scope) in enumerate(placed)
    ]
    again = unpack(pack(items))
    assert [encoded for *_, encoded in again] == [encoded for *_, encoded in items]
    assert len({id(resource) for resource, *_ in again}) == 2, "equal resources are one object"
    assert len({id(scope) for _, scope, _ in again}) == 2, "and so are equal scopes"
    assert [scope.name for _, scope, _ in again] == ["a", "b", "a", "a", "b", "b"]


def test_an_empty_scope_and_an_empty_request_come_back():
    record = encode_record(LogRecord(1, 2))
    ((resource, scope, encoded),) = split_request(
        encode_request([(Resource(), EMPTY_SCOPE, record)])
    )
    assert (resource.attributes, encoded) == ({}, record)
    assert scope is EMPTY_SCOPE
    assert split_request(b"") == []
    assert split_request_json(b'{"resourceLogs":[]}') == []


def test_numbers_that_json_has_no_word_for_come_back():
    record = LogRecord(1, 2, body=[math.inf, -math.inf], attributes={"n": 2**63 - 1})
    assert decode_record(encode_record(record)).body == [math.inf, -math.inf]
    resource = Resource({"high": math.inf, "n": -(2**63), "raw": b"\x00\xff", "none": None})
    ((again, *_),) = split_request_json(
        encode_request_json([(resource, EMPTY_SCOPE, encode_record_json(record))], in_order)
    )
    assert again.attributes == resource.attributes


def test_fields_of_a_later_version_of_the_protocol_are_passed_over():
    unknown = b"\xfa\x7f\x01x" + b"\xf8\x7f\x05"  # field 2047 as a string and as a number
    record = LogRecord(1, 2, 9, "INFO", "kept", {"k": "v"})
    assert fields_of(decode_record(encode_record(record) + unknown)) == fields_of(record)


# -- malformed bytes ------------------------------------------------------------


def some_items(form: str) -> list[Any]:
    encode = FORMATS[form][0]
    resource = Resource({"service.name": "web", "list": [1, {"k": b"v"}]}, "https://schema")
    scope = Scope("logger", "1.0", "", {"team": "x"})
    record = LogRecord(1, 2, 9, "INFO", {"a": [1.5, None]}, {"n": -1}, "e", TRACE_ID, SPAN_ID, 1)
    return [(resource, scope, encode(record))] * 2


@each_format
@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_bit_anywhere_is_a_value_error_or_other_data_but_nothing_else(form, bit):
    _, pack, unpack = FORMATS[form]
    packed = pack(some_items(form))
    decode = decode_request if form == "protobuf" else unpack
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << bit
        with contextlib.suppress(ValueError):
            for *_, encoded in unpack(bytes(damaged)):
                assert isinstance(encoded, bytes)
        with contextlib.suppress(ValueError):
            decode(bytes(damaged))


@each_format
def test_a_request_that_is_cut_short_anywhere_is_refused(form):
    _, pack, unpack = FORMATS[form]
    packed = pack(some_items(form))
    for end in range(1, len(packed)):
        with pytest.raises(ValueError):
            unpack(packed[:end])


@given(st.binary(max_size=200))
@relaxed
def test_any_bytes_raise_nothing_but_value_error(data):
    for decode in (decode_record, decode_request, split_request, split_request_json):
        with contextlib.suppress(ValueError):
            decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(
            ["resourceLogs", "resource", "scopeLogs", "scope", "logRecords", "schemaUrl",
             "attributes", "key", "value", "name", "version", "stringValue", "intValue",
             "arrayValue", "values", "kvlistValue", "bytesValue", "doubleValue"]
        ),
        inner, max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@given(json_values)
@relaxed
def test_any_json_raises_nothing_but_value_error(value):
    with contextlib.suppress(ValueError):
        split_request_json(json.dumps(value).encode())


@pytest.mark.parametrize("levels", [60, 10_000])
def test_values_nested_without_end_are_refused(levels):
    nested = b"\x0a\x01x"  # AnyValue: string "x"
    for _ in range(levels):
        inner = b"\x0a" + varint(len(nested)) + nested  # ArrayValue: values
        nested = b"\x2a" + varint(len(inner)) + inner
    with pytest.raises(ValueError, match="nested"):
        decode_record(b"\x2a" + varint(len(nested)) + nested)
    text = '{"arrayValue":{"values":[' * levels + "{}" + "]}}" * levels
    pairs = '{"resourceLogs":[{"resource":{"attributes":[{"key":"k","value":%s}]},"schemaUrl":"","scopeLogs":[]}]}'
    with pytest.raises(ValueError, match="not a request of OTLP/JSON"):
        split_request_json((pairs % text).encode())


def varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"\x08\x05", "a number where a string"),  # time_unix_nano
        (b"\x12\x01x", "a string or message where a number"),  # severity_number
        (b"\x45\x00\x00", "truncated"),  # flags
        (b"\x0a\x02ab", "2 bytes where 8"),  # time_unix_nano as a string
        (b"\x1a\x01\xff", "utf-8"),  # severity_text
    ],
)
def test_a_field_of_the_wrong_type_is_refused_with_the_reason(encoded, reason):
    with pytest.raises(ValueError, match=reason):
        decode_record(encoded)
