"""The labels, the metadata and the line of a record, within Loki's limits."""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.loki.metadata import fit_entries, label_name
from fapilog.sinks.loki.sink import LokiSink
from fapilog.values import DEFAULT_LIMITS, Limits, normalise
from tests.support.hostile import Hostility
from tests.support.loki import (
    KB,
    Entry,
    check_entry,
    check_labels,
    decode_json,
    decode_protobuf,
    normal_name,
)
from tests.support.values import anything, relaxed

NOW = 1_795_000_000_123_456_789
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
FORMATS = ("json", "protobuf")
each_format = pytest.mark.parametrize("form", FORMATS)

WEB = Resource(
    {
        "service.name": "web",
        "service.namespace": "shop",
        "deployment.environment.name": "prod",
        "service.instance.id": "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "host.name": "node-1",
        "process.pid": 7,
    }
)


def record_of(
    body: Any = "order placed", limits: Limits = DEFAULT_LIMITS, **fields: Any
) -> LogRecord:
    fields = {
        "timestamp": NOW,
        "observed_timestamp": NOW + 5,
        "severity_number": 9,
        "severity_text": "INFO",
        "resource": WEB,
        "scope": Scope("app.orders", "2.1"),
        **fields,
    }
    record = LogRecord(body=body, **fields)
    normalise(record, limits)
    return record


ORDINARY = record_of(attributes={"order_id": 42})


def sent(*records: LogRecord, form: Any = "json", **options: Any) -> list[Entry]:
    """Return the entries of ``records``, each checked by Loki's rules."""
    sink = LokiSink("http://loki:3100", format=form, **options)
    packed = sink.pack([sink.encode(record) for record in records])
    entries = []
    for labels, of_stream in decode_json(packed) if form == "json" else decode_protobuf(packed):
        check_labels(labels)
        for entry in of_stream:
            check_entry(entry)
            entries.append(entry)
    assert len(entries) == len(records)
    return entries


# ---- labels and metadata


@each_format
def test_labels_are_those_of_the_allow_list_and_all_else_is_metadata(form):
    (entry,) = sent(
        record_of(
            attributes={"order_id": 42, "total": 9.5, "paid": True, "sku": "A-1", "note": None},
            event_name="order.placed",
            trace_id=TRACE_ID,
            span_id=SPAN_ID,
            trace_flags=1,
        ),
        form=form,
    )
    assert dict(entry.labels) == {
        "service_name": "web",
        "service_namespace": "shop",
        "deployment_environment_name": "prod",
        "severity": "INFO",
    }
    assert (entry.time, entry.line) == (NOW, "order placed")
    assert entry.values == {
        "order_id": "42",
        "total": "9.5",
        "paid": "true",
        "sku": "A-1",
        "note": "",
        "event_name": "order.placed",
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
        "flags": "1",
        "observed_timestamp": str(NOW + 5),
        "severity_text": "INFO",
        "severity_number": "9",
        "scope_name": "app.orders",
        "scope_version": "2.1",
        "service_instance_id": "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "host_name": "node-1",
        "process_pid": "7",
    }


@pytest.mark.parametrize(
    ("number", "label"),
    [
        (1, "TRACE"),
        (5, "DEBUG"),
        (8, "DEBUG"),
        (9, "INFO"),
        (16, "WARN"),
        (17, "ERROR"),
        (24, "FATAL"),
    ],
)
def test_the_severity_label_is_the_range_whatever_the_source_calls_it(number, label):
    (entry,) = sent(record_of(severity_number=number, severity_text="Notice!"))
    assert dict(entry.labels)["severity"] == label
    assert entry.values["severity_text"] == "Notice!"


def test_a_record_without_severity_and_resource_still_has_a_label():
    (entry,) = sent(
        record_of(severity_number=0, severity_text="", resource=Resource(), scope=Scope())
    )
    assert dict(entry.labels) == {"service_name": "unknown_service"}
    assert entry.values == {"observed_timestamp": str(NOW + 5)}


def test_other_labels_can_be_chosen_and_what_is_no_label_then_is_metadata():
    resource = Resource({"service.name": "web", "team": "a", "k8s.cluster.name": "c", "empty": ""})
    (entry,) = sent(
        record_of(resource=resource), labels=["team", "k8s.cluster.name", "empty", "missing"]
    )
    assert dict(entry.labels) == {"team": "a", "k8s_cluster_name": "c"}
    assert entry.values["service_name"] == "web"
    assert entry.values["severity_text"] == "INFO"


def test_an_attribute_of_a_record_is_no_label_whatever_its_name():
    (entry,) = sent(record_of(attributes={"team": "a", "service.name": "mine"}), labels=["team"])
    assert dict(entry.labels) == {"service_name": "unknown_service"}
    assert entry.values["team"] == "a"


def test_a_hundred_thousand_trace_ids_are_in_at_most_ten_streams():
    sink = LokiSink("http://loki:3100")
    streams = set()
    for number in range(1, 100_001):
        record = copy.copy(ORDINARY)
        record.trace_id, record.severity_number = f"{number:032x}", number % 24 + 1
        streams.add(sink.encode(record)[0])
    assert len(streams) == 6


# ---- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("service.name", "service_name"),
        ("a-b c/d", "a_b_c_d"),
        ("a..b__c", "a_b_c"),
        ("1st", "key_1st"),
        ("_private", "key_private"),
        ("__name__", "key_name_"),
        ("größe", "gr_e"),
        ("日本", "key_"),
        (".", "key_"),
        ("x" * 256, "x" * 256),
    ],
)
def test_names_are_what_loki_makes_of_them(name, expected):
    assert label_name(name) == expected


@given(st.text())
@relaxed
def test_loki_changes_no_name_that_was_made_for_it(name):
    made = label_name(name)
    assert normal_name(made) == made


@each_format
def test_names_that_become_the_same_stay_apart_and_none_hides_a_field_of_the_record(form):
    names = ["a.b", "a_b", "a-b", "日本", "本", "service.name", "service_name", "severity"]
    fields = ["trace_id", "observed_timestamp", "host.name", "scope_name", "log.record.uid"]
    attributes = {name: f"of {name}" for name in [*names, *fields, "dropped_attributes_count"]}
    (entry,) = sent(
        record_of(
            attributes=attributes,
            trace_id=TRACE_ID,
            span_id=SPAN_ID,
            dropped_attributes_count=3,
        ),
        form=form,
    )
    values = entry.values
    assert sorted(text for text in values.values() if text.startswith("of ")) == sorted(
        attributes.values()
    )
    assert (values["a_b"], values["a_b_2"], values["a_b_3"]) == ("of a.b", "of a_b", "of a-b")
    assert (values["trace_id"], values["trace_id_2"]) == (TRACE_ID, "of trace_id")
    assert values["host_name"] == "node-1"
    assert values["dropped_attributes_count"] == "3"
    assert dict(entry.labels)["service_name"] == "web"


def test_an_attribute_may_be_called_trace_id_where_there_is_no_span():
    (entry,) = sent(record_of(attributes={"trace_id": "mine"}))
    assert entry.values["trace_id"] == "mine"


def test_attributes_in_mappings_are_found_by_their_path_and_lists_are_json():
    request = {"method": "GET", "headers": {"accept": "*/*"}, "empty": {}}
    (entry,) = sent(record_of(attributes={"request": request, "ids": [1, "b", None], "raw": b"\0"}))
    assert entry.values | {
        "request_method": "GET",
        "request_headers_accept": "*/*",
        "request_empty": "{}",
        "ids": '[1,"b",null]',
        "raw": "AA==",
    } == entry.values  # fmt: skip


# ---- limits


@pytest.mark.parametrize("body", ["x" * 300_000, "é" * 200_000, "\U0001f600" * 65_537])
def test_a_line_is_cut_at_256_kb_and_marked(body):
    trace = "x" * 100
    limits = Limits(text=1 << 20, record=1 << 22)
    (entry,) = sent(record_of(body, limits, attributes={"exception.stacktrace": trace}))
    assert 256 * KB - 4 <= len(entry.line.encode()) <= 256 * KB
    head, _, mark = entry.line.partition("…")
    assert mark == f"(truncated, {len(body) + 1 + len(trace)} characters)"
    assert body.startswith(head)


def test_values_that_are_together_too_long_are_cut_and_marked_and_small_ones_stay():
    attributes = {"a": "x" * 60_000, "b": "y" * 60_000, "order_id": 42, "sku": "s" * 100}
    (entry,) = sent(record_of(attributes=attributes, trace_id=TRACE_ID, span_id=SPAN_ID))
    values = entry.values
    assert sum(len(name) + len(text.encode()) for name, text in values.items()) > 63 * KB
    for name in ("a", "b"):
        head, _, mark = values[name].partition("…")
        assert attributes[name].startswith(head)  # type: ignore[attr-defined]
        assert mark == "(truncated, 60000 characters)"
    assert (values["order_id"], values["sku"]) == ("42", "s" * 100)
    assert values["trace_id"] == TRACE_ID


def test_attributes_beyond_128_entries_are_counted():
    attributes = {f"k{number}": number for number in range(128)}
    (entry,) = sent(record_of(attributes=attributes, dropped_attributes_count=2))
    left = sum(name.startswith("k") for name in entry.values)
    assert len(entry.values) >= 126
    assert entry.values["dropped_attributes_count"] == str(128 - left + 2)


def test_a_mapping_with_too_many_values_is_one_entry_of_json():
    wide = {f"k{number}": number for number in range(500)}
    (entry,) = sent(record_of(attributes={"wide": wide, "order_id": 42}))
    assert json.loads(entry.values["wide"]) == wide
    assert "dropped_attributes_count" not in entry.values


def test_a_huge_resource_is_cut_and_counted_and_leaves_room_for_the_record():
    attributes: dict[str, Any] = {f"r{number}": "x" * 1000 for number in range(200)}
    resource = Resource({"service.name": "n" * 5000, **attributes})
    (entry,) = sent(record_of(resource=resource, attributes={"order_id": 42}))
    name = dict(entry.labels)["service_name"]
    assert len(name.encode()) <= 2048
    assert name.endswith("…(truncated, 5000 characters)")
    left = sum(name.startswith("r") for name in entry.values)
    assert left < 64
    assert entry.values["dropped_attributes_count"] == str(200 - left)
    assert entry.values["order_id"] == "42"


def test_a_label_of_wide_characters_is_cut_by_its_bytes():
    (entry,) = sent(record_of(resource=Resource({"service.name": "€" * 2000})))
    assert 2000 < len(dict(entry.labels)["service_name"].encode()) <= 2048


@given(
    st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), st.text(max_size=80), max_size=9),
    st.integers(-10, 300),
    st.integers(-2, 10),
)
@relaxed
def test_entries_are_cut_to_any_size_and_count(entries, size, count):
    before = dict(entries)
    left_out = fit_entries(entries, size, count)
    assert len(entries) <= max(count, 0)
    assert sum(len(name) + len(text.encode()) for name, text in entries.items()) <= max(size, 0)
    assert left_out == len(before) - len(entries)
    for name, text in entries.items():
        assert text == before[name] or "…" in text
    if count >= 9 and sum(len(n) + len(t.encode()) for n, t in before.items()) <= size:
        assert entries == before


# ---- lines


def test_the_line_of_an_exception_has_its_stack_trace_which_is_not_sent_twice():
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\nKeyError: 7'
    attributes = {"exception.type": "KeyError", "exception.message": "7"}
    record = record_of("failed", attributes={**attributes, "exception.stacktrace": trace})
    (entry,) = sent(record)
    assert entry.line == f"failed\n{trace}"
    assert entry.values["exception_type"] == "KeyError"
    assert "exception_stacktrace" not in entry.values
    assert record.attributes["exception.stacktrace"] == trace, "the record is shared"
    (entry,) = sent(record, line="json")
    assert entry.values["exception_stacktrace"] == trace
    (entry,) = sent(record_of(None, attributes={"exception.stacktrace": trace}))
    assert entry.line == trace


@pytest.mark.parametrize(
    ("body", "event", "line"),
    [
        ("text", "e", "text"),
        ({"a": [1, None]}, "e", '{"a":[1,null]}'),
        (None, "order.placed", "order.placed"),
        (None, "", ""),
        ("", "e", ""),
        (7.5, "", "7.5"),
        (True, "", "true"),
        (b"\xff", "", "/w=="),
    ],
)
def test_a_body_of_any_type_is_a_line(body, event, line):
    assert sent(record_of(body, event_name=event))[0].line == line


def test_a_line_of_json_holds_the_record_and_the_metadata_stays():
    attributes: dict[str, Any] = {"order_id": 42, "user": {"name": 'a"b'}}
    record = record_of({"k": 1}, attributes=attributes, event_name="e", trace_id=TRACE_ID)
    (entry,) = sent(record, line="json")
    assert json.loads(entry.line) == {
        "severity_text": "INFO",
        "body": {"k": 1},
        "scope": {"name": "app.orders"},
        "event_name": "e",
        "trace_id": TRACE_ID,
        "attributes": attributes,
    }
    assert entry.values["order_id"] == "42"


def test_a_line_of_logfmt_holds_the_record_in_pairs():
    attributes = {
        "order id": 42,
        "note": 'say "hi"\n',
        "empty": "",
        "path": "/a?b=c",
        "a": {"b": 1},
    }
    (entry,) = sent(record_of("order placed", attributes=attributes), line="logfmt")
    assert entry.line == (
        'severity_text=INFO body="order placed" scope_name=app.orders order_id=42 '
        'note="say \\"hi\\"\\n" empty="" path="/a?b=c" a_b=1'
    )


def test_lines_of_json_and_logfmt_that_would_be_too_long_stay_json_and_logfmt():
    attributes = {f"a{number}": "\x01" * 16_000 for number in range(5)}
    record = record_of("\x02" * 60_000, attributes=attributes)
    (entry,) = sent(record, line="json")
    fields = json.loads(entry.line)
    assert fields["dropped_attributes_count"] == "5"
    assert fields["body"].endswith("…(truncated, 60000 characters)")
    (entry,) = sent(record, line="logfmt")
    assert "dropped_attributes_count=5" in entry.line
    assert 'body="' in entry.line


# ---- arbitrary records


@each_format
@pytest.mark.parametrize("line", ["message", "json", "logfmt"])
@given(body=anything, attributes=st.dictionaries(st.text(), anything, max_size=5))
@relaxed
def test_loki_takes_any_record(form, line, body, attributes):
    record = record_of(body, attributes=attributes)
    (entry,) = sent(record, form=form, line=line)
    assert entry.values["observed_timestamp"] == str(NOW + 5)


@each_format
def test_loki_takes_records_that_no_pipeline_has_made_normal(form):
    hostility = Hostility(3, lambda this: None)
    for number in range(300):
        value = hostility.value()
        fields = hostility.fields(2, value)
        sent(LogRecord(NOW, 0, body=value, attributes={"n": number, **fields}), form=form)


@each_format
def test_ids_that_are_none_and_times_that_are_missing_are_made_up_for(form):
    odd: dict[str, Any] = {"trace_id": 5, "span_id": "x", "severity_text": None, "timestamp": -1}
    record = LogRecord(body="kept")
    for name, value in odd.items():
        setattr(record, name, value)
    (entry,) = sent(record, form=form)
    assert entry.line == "kept"
    assert entry.time > 0
    assert "trace_id" not in entry.values
    assert vars_of(record)["trace_id"] == 5, "the record stays as it is"


def vars_of(record: LogRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in LogRecord.__slots__}


def test_both_formats_say_the_same():
    records = [
        record_of(f"n {number}", timestamp=NOW + number, attributes={"n": number, "f": {"x": "é"}})
        for number in range(50)
    ]
    assert sent(*records) == sent(*records, form="protobuf")


@given(st.integers(1, 2**62))
@relaxed
def test_any_time_is_kept_to_the_nanosecond(when):
    for form in FORMATS:
        assert sent(record_of(timestamp=when), form=form)[0].time == when


def test_records_that_loki_would_take_for_one_get_an_id_each():
    sink = LokiSink("http://loki:3100")
    twins = [record_of("tick"), record_of("tick"), record_of("tock"), record_of("tick")]
    entries = [orjson.loads(sink.encode(record)[2]) for record in twins]
    assert len({json.dumps(entry) for entry in entries}) == 4
    assert ["log_record_uid" in metadata for *_, metadata in entries] == [False, True, False, True]
    (later,) = sent(record_of("tick", timestamp=NOW + 1))
    assert "log_record_uid" not in later.values


def test_what_is_kept_to_tell_such_records_apart_is_bounded():
    sink = LokiSink("http://loki:3100")
    for number in range(5000):
        sink.encode(record_of(str(number)))
    assert len(sink._twins) <= 1024
