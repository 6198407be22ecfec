"""The protobuf and JSON encoders give the same as the official messages."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ProtoRecord
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from fapilog.otlp import encode
from fapilog.otlp.encode import encode_record, encode_request
from fapilog.otlp.encode_json import encode_record_json, encode_request_json, logs_data_line
from fapilog.record import LogRecord, Resource, Scope
from tests.support.values import relaxed

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"

# Values that fapilog.values.normalise returns, and floats that it does not return.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False) | st.just(math.nan)  # JSON cannot distinguish NaNs
scalars = st.none() | st.booleans() | int64s | st.integers(0, 300) | floats | texts | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
records = st.builds(
    LogRecord,
    timestamp=st.integers(0, 2**64 - 1),
    observed_timestamp=st.integers(1, 2**64 - 1),
    severity_number=st.integers(0, 24),
    severity_text=texts,
    body=values,
    attributes=st.dictionaries(texts, values, max_size=8),
    event_name=texts,
    trace_id=st.sampled_from(["", TRACE_ID, "0" * 32, "ab" * 15, "ab" * 17]),
    span_id=st.sampled_from(["", SPAN_ID, "0" * 16, "ab" * 7, "ab" * 9]),
    trace_flags=st.integers(0, 255),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
)


def fill(message: AnyValue, value: Any) -> None:
    """Copy a Python value to an official AnyValue."""
    if value is None:
        return
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bytes):
        message.bytes_value = value
    elif isinstance(value, list):
        message.array_value.SetInParent()
        for inner in value:
            fill(message.array_value.values.add(), inner)
    else:
        message.kvlist_value.SetInParent()
        fill_pairs(message.kvlist_value.values, value)


def fill_pairs(pairs: Any, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        pair = pairs.add(key=key)
        pair.value.SetInParent()
        fill(pair.value, value)


def without_empty_values(message: Any) -> Any:
    """Remove the empty values of attributes, which the JSON encoder omits."""
    for pair in getattr(message, "attributes", ()):
        strip(pair)
    if message.HasField("body"):
        strip_nested(message.body)
    return message


def strip(pair: Any) -> None:
    if pair.value.WhichOneof("value") is None:
        pair.ClearField("value")
    else:
        strip_nested(pair.value)


def strip_nested(value: AnyValue) -> None:
    for inner in value.array_value.values:
        strip_nested(inner)
    for pair in value.kvlist_value.values:
        strip(pair)


def official(record: LogRecord) -> ProtoRecord:
    """Build the official message of a record."""
    message = ProtoRecord(
        time_unix_nano=record.timestamp,
        observed_time_unix_nano=record.observed_timestamp,
        severity_number=record.severity_number,  # type: ignore[arg-type]
        severity_text=record.severity_text,
        dropped_attributes_count=record.dropped_attributes_count,
        flags=record.trace_flags,
        event_name=record.event_name,
    )
    if record.body is not None:
        message.body.SetInParent()
        fill(message.body, record.body)
    fill_pairs(message.attributes, record.attributes)
    if record.trace_id == TRACE_ID:
        message.trace_id = bytes.fromhex(TRACE_ID)
        if record.span_id == SPAN_ID:
            message.span_id = bytes.fromhex(SPAN_ID)
    return message


def comparable(message: Any) -> bytes:
    """Serialise a message for comparisons, because messages with a NaN are never equal."""
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def nested(levels: int, wrap: Any) -> Any:
    value: Any = "innermost"
    for _ in range(levels):
        value = wrap(value)
    return value


def parse_json(line: bytes, message: Any) -> Any:
    """Parse OTLP/JSON with the official JSON parser, which expects ids as base64."""

    def convert(fields: dict[str, Any]) -> dict[str, Any]:
        for name in {"traceId", "spanId"} & fields.keys():
            fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
        return fields

    return json_format.ParseDict(json.loads(line, object_hook=convert), message)


# -- protobuf -------------------------------------------------------------------


@given(records)
@relaxed
def test_a_record_encodes_to_the_bytes_of_the_official_message(record):
    encoded = encode_record(record)
    assert comparable(ProtoRecord.FromString(encoded)) == comparable(official(record))


def test_an_ordinary_record_is_byte_for_byte_what_the_official_library_serialises():
    attributes = {"order_id": 42, "total": 9.99, "sku": "A-1", "customer": "c-7", "paid": True}
    record = LogRecord(1, 2, 9, "INFO", "order placed", attributes, "", TRACE_ID, SPAN_ID, 1)
    assert encode_record(record) == official(record).SerializeToString()


@pytest.mark.parametrize("length", [0, 1, 110, 127, 128, 129, 16383, 16384, 70000])
@pytest.mark.parametrize("key", ["k", "k" * 127, "k" * 128])
def test_text_of_every_length_class_is_framed_right(length, key):
    record = LogRecord(1, 2, body="b" * length, attributes={key: "v" * length})
    assert encode_record(record) == official(record).SerializeToString()


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2**31, 2**63 - 1, -1, -(2**63)])
def test_integers_of_every_length_class_are_encoded(number):
    record = LogRecord(1, 2, attributes={"n": number, "list": [number]})
    assert encode_record(record) == official(record).SerializeToString()


def test_non_finite_floats_stay_floats():
    record = LogRecord(1, 2, attributes={"a": math.nan, "b": math.inf, "c": -math.inf})
    numbers = [
        pair.value.double_value for pair in ProtoRecord.FromString(encode_record(record)).attributes
    ]
    assert math.isnan(numbers[0])
    assert numbers[1:] == [math.inf, -math.inf]


def test_none_is_an_attribute_without_a_value_and_no_body_at_all():
    parsed = ProtoRecord.FromString(
        encode_record(LogRecord(1, 2, body=None, attributes={"a": None}))
    )
    assert not parsed.HasField("body")
    assert parsed.attributes[0].HasField("value")
    assert parsed.attributes[0].value.WhichOneof("value") is None


def test_the_observed_time_is_always_set():
    assert (
        ProtoRecord.FromString(encode_record(LogRecord(timestamp=5))).observed_time_unix_nano == 5
    )
    assert ProtoRecord.FromString(encode_record(LogRecord())).observed_time_unix_nano > 0
    assert json.loads(encode_record_json(LogRecord(timestamp=5)))["observedTimeUnixNano"] == "5"


@pytest.mark.parametrize("encoder", [encode_record, encode_record_json])
@pytest.mark.parametrize(
    ("trace_id", "span_id"),
    [
        ("0" * 32, SPAN_ID),
        ("ab", SPAN_ID),
        ("", SPAN_ID),
        ("zz" * 16, SPAN_ID),
        (" " * 32, SPAN_ID),
    ],
)
def test_an_invalid_trace_id_is_left_out_with_its_span_id(encoder, trace_id, span_id):
    encoded = encoder(LogRecord(1, 2, trace_id=trace_id, span_id=span_id))
    parsed = parse(encoded, encoder)
    assert (parsed.trace_id, parsed.span_id) == (b"", b"")


def parse(encoded: bytes, encoder: Any) -> ProtoRecord:
    if encoder is encode_record_json:
        parsed: ProtoRecord = parse_json(encoded, ProtoRecord())
        return parsed
    return ProtoRecord.FromString(encoded)


@pytest.mark.parametrize(
    ("levels", "wrap"),
    [(32, lambda value: [value]), (31, lambda value: {"k": value}), (47, lambda value: [value])],
)
def test_values_nest_as_deep_as_a_parser_of_the_whole_request_allows(levels, wrap):
    record = LogRecord(1, 2, body=nested(levels, wrap), attributes={"a": nested(levels, wrap)})
    encoded = encode_record(record)
    assert encoded == official(record).SerializeToString()
    ExportLogsServiceRequest.FromString(encode_request([(record.resource, record.scope, encoded)]))


@pytest.mark.parametrize("encoder", [encode_record, encode_record_json])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}])
@pytest.mark.parametrize("levels", [32, 48, 60, 5000])
def test_deeper_nesting_is_cut_so_that_the_request_can_still_be_parsed(levels, wrap, encoder):
    record = LogRecord(1, 2, body="kept", attributes={"a": nested(levels, wrap), "b": 1})
    item = (record.resource, record.scope, encoder(record))
    if encoder is encode_record:
        request = ExportLogsServiceRequest.FromString(encode_request([item]))
    else:
        request = parse_json(encode_request_json([item]), ExportLogsServiceRequest())
    (parsed,) = request.resource_logs[0].scope_logs[0].log_records
    assert parsed.body.string_value == "kept"
    assert parsed.attributes[1].value.int_value == 1


class Odd:
    """A value that no processor should leave in a record."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def changed(**fields: Any) -> LogRecord:
    record = LogRecord(1, 2, 9, "INFO", "kept", {"kept": 1})
    for name, value in fields.items():
        setattr(record, name, value)
    return record


ODD_VALUES: list[tuple[dict[Any, Any], str]] = [
    ({"odd": "\ud800"}, "string_value"),
    ({"odd\udfff": 1}, "int_value"),
    ({"odd": 2**63}, "string_value"),
    ({"odd": -(2**63) - 1}, "string_value"),
    ({"odd": 2**64}, "string_value"),
    ({"odd": [-(2**70)]}, "array_value"),
    ({"odd": Odd()}, "string_value"),
    ({"odd": {1: {2: Odd()}}}, "kvlist_value"),
]
ODD_FIELDS: list[dict[str, Any]] = [
    {"attributes": {"kept": 1, 7: "odd"}},
    {"severity_text": None},
    {"severity_number": "nine"},
    {"timestamp": -1},
    {"timestamp": 2**64},
    {"observed_timestamp": "now"},
    {"trace_id": "not hexadecimal"},
    {"trace_id": 5},
    {"event_name": 7},
]


@pytest.mark.parametrize("encoder", [encode_record, encode_record_json])
@pytest.mark.parametrize(("odd", "kind"), ODD_VALUES, ids=range(len(ODD_VALUES)))
def test_a_value_that_was_not_normalised_is_sent_as_text_and_stays_as_it_is(odd, kind, encoder):
    record = changed(attributes={"kept": 1, **odd})
    parsed = parse(encoder(record), encoder)
    assert parsed.body.string_value == "kept"
    assert parsed.attributes[0].value.int_value == 1
    assert parsed.attributes[1].value.WhichOneof("value") == kind
    assert list(record.attributes.values()) == [1, *odd.values()]


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=range(len(ODD_FIELDS)))
def test_a_field_that_was_not_normalised_does_not_keep_the_record_from_being_sent(fields):
    record = changed(**fields)
    parsed = ProtoRecord.FromString(encode_record(record))
    assert parsed.body.string_value == "kept"
    assert parsed.attributes[0].value.int_value == 1
    assert json.loads(encode_record_json(record))["body"] == {"stringValue": "kept"}
    for name, value in fields.items():
        assert getattr(record, name) == value


def test_the_memos_stay_bounded_when_every_record_has_keys_of_its_own():
    for number in range(3000):
        encode_record(LogRecord(1, 2, body="x" * number, attributes={f"key{number}": "text"}))
    assert len(encode._text_heads) <= encode._KEYS
    assert len(encode._body_heads) <= 1024
    record = LogRecord(1, 2, body="x", attributes={"key0": "text"})
    assert encode_record(record) == official(record).SerializeToString()


# -- requests -------------------------------------------------------------------


def items_of(placed: list[tuple[Resource, Scope, str]], encoder: Any) -> list[Any]:
    return [
        (resource, scope, encoder(LogRecord(1, 2, body=body))) for resource, scope, body in placed
    ]


def shape(request: Any) -> list[Any]:
    return [
        (
            {pair.key: pair.value.string_value for pair in resource.resource.attributes},
            resource.schema_url,
            [
                (
                    (group.scope.name, group.scope.version, group.schema_url),
                    [record.body.string_value for record in group.log_records],
                )
                for group in resource.scope_logs
            ],
        )
        for resource in request.resource_logs
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_request_groups_by_resource_and_scope_and_keeps_the_order(as_json):
    web = Resource({"service.name": "web"}, "https://example.com/schema/1")
    jobs = Resource({"service.name": "jobs"})
    a = Scope("a", "1.0", "https://example.com/schema/2", {"team": "x"})
    b = Scope("b")
    placed = [(web, a, "1"), (web, b, "2"), (jobs, a, "3"), (web, a, "4"), (web, b, "5")]
    if as_json:
        request = parse_json(
            encode_request_json(items_of(placed, encode_record_json)), ExportLogsServiceRequest()
        )
    else:
        request = ExportLogsServiceRequest.FromString(
            encode_request(items_of(placed, encode_record))
        )
    in_a = ("a", "1.0", "https://example.com/schema/2")
    assert shape(request) == [
        (
            {"service.name": "web"},
            "https://example.com/schema/1",
            [(in_a, ["1", "4"]), (("b", "", ""), ["2", "5"])],
        ),
        ({"service.name": "jobs"}, "", [(in_a, ["3"])]),
    ]
    (attribute,) = request.resource_logs[0].scope_logs[0].scope.attributes
    assert (attribute.key, attribute.value.string_value) == ("team", "x")


def test_equal_resources_that_are_not_the_same_object_stay_apart():
    placed = [(Resource({"a": "1"}), Scope("s"), "1"), (Resource({"a": "1"}), Scope("s"), "2")]
    request = ExportLogsServiceRequest.FromString(encode_request(items_of(placed, encode_record)))
    assert len(request.resource_logs) == 2


def test_resource_and_scope_attributes_may_hold_anything():
    resource = Resource({"tuple": ("a", "b"), "big": 2**70, "odd": Odd()})  # type: ignore[dict-item]
    scope = Scope("name\ud800", attributes={"nested": {"k": [1, None]}})
    for request in (
        ExportLogsServiceRequest.FromString(
            encode_request(items_of([(resource, scope, "x")], encode_record))
        ),
        parse_json(
            encode_request_json(items_of([(resource, scope, "x")], encode_record_json)),
            ExportLogsServiceRequest(),
        ),
    ):
        (logs,) = request.resource_logs
        sent = {pair.key: pair.value for pair in logs.resource.attributes}
        assert [one.string_value for one in sent["tuple"].array_value.values] == ["a", "b"]
        assert sent["big"].string_value == str(2**70)
        assert sent["odd"].string_value
        assert logs.scope_logs[0].scope.name == "name\\ud800"


def test_what_is_kept_of_resources_and_scopes_is_bounded():
    for number in range(2000):
        resource, scope = Resource({"n": number}), Scope(str(number))
        request = encode_request(items_of([(resource, scope, "x")], encode_record))
        (logs,) = ExportLogsServiceRequest.FromString(request).resource_logs
        assert logs.resource.attributes[0].value.int_value == number
        assert logs.scope_logs[0].scope.name == str(number)
    assert encode._resource.cache_info().currsize <= 64
    assert encode._scope.cache_info().currsize <= 1024


# -- JSON -----------------------------------------------------------------------


@given(records)
@relaxed
def test_a_record_in_json_parses_to_the_official_message(record):
    parsed = parse_json(encode_record_json(record), ProtoRecord())
    assert comparable(parsed) == comparable(without_empty_values(official(record)))


def test_json_follows_the_rules_of_otlp_where_they_differ_from_protobufs():
    record = LogRecord(
        timestamp=1700000000000000001,
        observed_timestamp=1700000000000000002,
        severity_number=9,
        severity_text="INFO",
        body={"raw": b"\x00\xff", "none": None, "nan": math.nan},
        attributes={"big": 2**53 + 1, "list": [True, -1.5]},
        event_name="order.placed",
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        trace_flags=1,
        dropped_attributes_count=3,
    )
    assert json.loads(encode_record_json(record)) == {
        "timeUnixNano": "1700000000000000001",
        "observedTimeUnixNano": "1700000000000000002",
        "severityNumber": 9,
        "severityText": "INFO",
        "body": {
            "kvlistValue": {
                "values": [
                    {"key": "raw", "value": {"bytesValue": "AP8="}},
                    {"key": "none"},
                    {"key": "nan", "value": {"doubleValue": "NaN"}},
                ]
            }
        },
        "attributes": [
            {"key": "big", "value": {"intValue": "9007199254740993"}},
            {
                "key": "list",
                "value": {"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": -1.5}]}},
            },
        ],
        "droppedAttributesCount": 3,
        "flags": 1,
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "eventName": "order.placed",
    }


@given(st.lists(records, min_size=1, max_size=3))
@relaxed
def test_a_line_of_an_otlp_file_is_one_line_and_one_logs_data(batch):
    items = [(record.resource, record.scope, encode_record_json(record)) for record in batch]
    line = logs_data_line(items)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    parsed = parse_json(line, LogsData())
    sent = [comparable(record) for record in parsed.resource_logs[0].scope_logs[0].log_records]
    assert sent == [comparable(without_empty_values(official(record))) for record in batch]
