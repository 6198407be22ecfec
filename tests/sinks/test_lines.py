import base64
import json
import subprocess
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.lines import (
    Progress,
    ascii_line,
    json_line,
    json_text,
    portions,
    rfc3339,
    split_written,
)
from tests.support.records import DANGEROUS, SPAN, TIME, TRACE, records, texts


def without_bytes(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [without_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: without_bytes(item) for key, item in value.items()}
    return value


def full_record():
    return LogRecord(
        timestamp=TIME,
        observed_timestamp=TIME + 1,
        severity_number=13,
        severity_text="WARNING",
        body="stock is low",
        attributes={"sku": "AB-12", "left": 3, "raw": b"\x00\xff"},
        event_name="stock.low",
        trace_id=TRACE,
        span_id=SPAN,
        trace_flags=1,
        scope=Scope("shop.stock", "1.2"),
        resource=Resource({"service.name": "shop"}),
        dropped_attributes_count=2,
    )


def test_a_line_has_the_names_of_the_log_data_model():
    line = json_line(full_record())
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "timestamp": "2026-11-23T10:15:00.123456789Z",
        "observed_timestamp": "2026-11-23T10:15:00.123456790Z",
        "severity_text": "WARNING",
        "severity_number": 13,
        "body": "stock is low",
        "scope": {"name": "shop.stock", "version": "1.2"},
        "attributes": {"sku": "AB-12", "left": 3, "raw": "AP8="},
        "resource": {"service.name": "shop"},
        "event_name": "stock.low",
        "trace_id": TRACE,
        "span_id": SPAN,
        "trace_flags": 1,
        "dropped_attributes_count": 2,
    }


def test_what_is_not_set_is_left_out():
    line = json.loads(json_line(LogRecord(timestamp=TIME, scope=Scope("shop"))))
    assert line["scope"] == {"name": "shop"}
    assert not {"event_name", "trace_id", "span_id", "trace_flags"} & line.keys()
    assert "dropped_attributes_count" not in line


def test_a_record_without_a_time_shows_when_it_was_observed():
    line = json.loads(json_line(LogRecord(observed_timestamp=TIME)))
    assert line["timestamp"] == "2026-11-23T10:15:00.123456789Z"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (5, "1970-01-01T00:00:00.000000005Z"),
        (999_999_999, "1970-01-01T00:00:00.999999999Z"),
        (1_000_000_000, "1970-01-01T00:00:01.000000000Z"),
        (951_782_400_000_000_007, "2000-02-29T00:00:00.000000007Z"),
        (2**64 - 1, "2554-07-21T23:34:33.709551615Z"),
        (-1, "1970-01-01T00:00:00.000000000Z"),
    ],
)
def test_times_are_rfc_3339_with_every_nanosecond(nanoseconds, text):
    assert rfc3339(nanoseconds) == text


def test_a_time_beyond_the_calendar_does_not_raise():
    assert rfc3339(10**30).endswith(".000000000Z")


@given(st.lists(records, min_size=1, max_size=5))
def test_no_value_can_forge_a_line(batch):
    lines = b"".join(map(json_line, batch))
    text = lines.decode("utf-8")
    assert text.endswith("\n")
    assert len(text.splitlines()) == len(batch)  # splits at every Unicode line separator too
    for line, record in zip(text.splitlines(), batch, strict=True):
        parsed = json.loads(line)
        assert parsed["body"] == without_bytes(record.body)
        assert parsed["attributes"] == without_bytes(record.attributes)
        assert parsed["severity_text"] == record.severity_text
        assert parsed["scope"]["name"] == record.scope.name
        assert parsed["resource"] == without_bytes(record.resource.attributes)


@given(records)
def test_no_value_can_drive_a_terminal_or_reorder_text(record):
    line = json_line(record).decode("utf-8")
    assert not set(line[:-1]) & set(DANGEROUS)


@pytest.mark.parametrize("character", DANGEROUS)
def test_a_dangerous_character_survives_as_an_escape(character):
    line = json_line(LogRecord(body=f"a{character}é{character}b"))
    assert character.encode() not in line[:-1]
    assert json.loads(line)["body"] == f"a{character}é{character}b"


@pytest.mark.parametrize(
    "value",
    [
        "lone \ud800 surrogate",
        2**70,
        -(10**5000),
        {1: "key that is no text"},
        {"\udfff": 1},
        object(),
        {1, 2},
        [[[{"deep": 2**64}]]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_becomes_text_and_the_rest_stays(value):
    record = LogRecord(timestamp=TIME, body=value, attributes={"odd": value, "kept": 1})
    parsed = orjson.loads(json_line(record))
    assert parsed["attributes"]["kept"] == 1
    assert "odd" in parsed["attributes"]
    assert parsed["timestamp"] == "2026-11-23T10:15:00.123456789Z"
    assert isinstance(json_text(value), str)


def test_names_that_cannot_be_encoded_do_not_raise():
    record = LogRecord(
        severity_text="\ud800",
        event_name="\ud800",
        scope=Scope("\ud800", "\ud800"),
        resource=Resource({"\ud800": "\ud800"}),
    )
    orjson.loads(json_line(record))


@given(texts)
def test_an_ascii_line_says_the_same(text):
    line = json_line(LogRecord(body=text))
    assert ascii_line(line).isascii()
    assert json.loads(ascii_line(line)) == json.loads(line)


def test_portions_hold_whole_lines_up_to_the_limit():
    lines = [b"aaa\n", b"bb\n", b"cccccccccc\n", b"d\n", b"e\n"]
    assert [p for p in portions(lines, 8) if p] == [
        b"aaa\nbb\n",
        b"cccccccccc\n",
        b"d\ne\n",
    ]
    assert list(portions(lines, None)) == [b"".join(lines)]


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(1, 20))
def test_portions_lose_and_split_nothing(lines, limit):
    taken = list(portions(lines, limit))
    assert b"".join(taken) == b"".join(lines)
    assert all(len(portion) <= limit or portion in lines for portion in taken)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, (0, b"")),
        (1, (0, b"a\n")),
        (2, (0, b"\n")),
        (3, (1, b"")),
        (4, (1, b"\n")),
        (5, (2, b"")),
    ],
)
def test_a_cut_is_told_as_whole_lines_and_what_is_missing_of_the_next(written, expected):
    assert split_written([b"aa\n", b"b\n"], written) == expected


def test_a_retry_goes_on_where_the_batch_stopped():
    progress: Progress[bytes] = Progress()
    batch = [b"1\n", b"2\n", b"3\n", b"4\n"]
    assert progress.rest(batch) == batch
    progress.advance(batch, 1)
    assert progress.rest(batch) == batch[1:]
    progress.advance(batch, 2)
    assert progress.rest(list(batch)) == batch[3:]
    other = [bytes([50, 10]), b"x\n"]
    assert progress.rest(other) == other
    progress.advance(other, 0)
    assert progress.rest(batch) == batch
    progress.clear()
    assert progress.rest(other) == other


def test_importing_the_sinks_loads_no_transport_and_no_sdk():
    code = (
        "import sys, fapilog.sinks as sinks\n"
        "sinks.ConsoleSink, sinks.FileSink, sinks.MemorySink, sinks.Sink, sinks.BatchLimits\n"
        "loaded = {'httpx', 'grpc', 'opentelemetry.sdk', 'opentelemetry.proto'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "assert set(sinks.__all__) <= set(dir(sinks))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_sink_name_is_an_attribute_error():
    import fapilog.sinks

    with pytest.raises(AttributeError, match="no attribute 'NoSuchSink'"):
        _ = fapilog.sinks.NoSuchSink  # type: ignore[attr-defined]
