"""A Loki without structured metadata: the sink notices it, and puts all fields into the line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fapilog
from fapilog.errors import PermanentError
from fapilog.protocols import BatchLimits
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks import LokiSink
from fapilog.sinks.loki.lines import MAX_LINE, metadata_line
from fapilog.values import normalise
from tests.support.loki import Entry, FakeLoki, refuse, refuse_metadata, refuse_metadata_2_8

FORMATS = ("json", "protobuf")
each_format = pytest.mark.parametrize("form", FORMATS)
NOW = 1_795_000_000_000_000_000
WEB = Resource({"service.name": "web", "host.name": "h1", "process.pid": 7})
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)')


def record_of(body: Any, when: int = NOW, /, **attributes: Any) -> LogRecord:
    record = LogRecord(when, when + 1, 9, "INFO", body, attributes, resource=WEB)
    record.scope = Scope("shop.orders", "1.2")
    record.trace_id, record.span_id, record.trace_flags = TRACE, SPAN, 1
    normalise(record)
    return record


def logfmt(line: str) -> dict[str, str]:
    """Parse logfmt; fail if a part of the line is not a pair, or if a name occurs twice."""
    assert _PAIR.sub("", line) == "", line
    found = _PAIR.findall(line)
    pairs = {name: json.loads(text) if text[:1] == '"' else text for name, text in found}
    assert len(pairs) == len(found)
    return pairs


def sent(server: FakeLoki, sink: LokiSink, *records: LogRecord) -> list[Entry]:
    """Send records in one batch and return Loki's entries."""
    sink.open()
    try:
        assert sink.send([sink.encode(record) for record in records], 10) is None
    finally:
        sink.close()
    return server.entries


# ---- the switch


@each_format
@pytest.mark.parametrize("refusal", [refuse_metadata, refuse_metadata_2_8])
def test_the_batch_that_loki_refuses_arrives_and_later_ones_are_not_refused(form, refusal, capsys):
    with FakeLoki(refusal) as server:
        sink = LokiSink(server.url, format=form, limits=BatchLimits(delay=30))
        runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web", "host.name": "h"})
        for number in range(50):
            runtime.get_logger("shop").info("order placed", n=number, user=f"u {number}")
        assert runtime.flush(30)
        assert len(server.requests) == 2, "the refused request, and the same batch without metadata"
        runtime.get_logger("shop").error("one more", n=50)
        assert runtime.flush(30)
        assert len(server.requests) == 3
        stats = runtime.stats().sinks["loki"]
        runtime.shutdown(10)
        entries = server.entries
    assert (stats.delivered, stats.rejected, stats.pending) == (51, 0, 0)
    assert not any(entry.metadata for entry in entries)
    found = [logfmt(entry.line) for entry in entries]
    assert sorted(int(pairs["n"]) for pairs in found) == list(range(51))
    assert found[7]["user"] == "u 7"
    assert found[7]["body"] == "order placed"
    assert found[7]["host_name"] == "h"
    assert found[7]["scope_name"] == "shop"
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "metadata" in one]
    assert line.startswith("fapilog: loki: metadata: Loki accepts no structured metadata, so it is")
    assert "query it with | logfmt; set metadata='line'" in line


def test_labels_of_any_length_do_not_hide_the_reason():
    static = {f"label_{number}": "x" * 2000 for number in range(9)}
    with FakeLoki(refuse_metadata) as server:
        (entry,) = sent(server, LokiSink(server.url, labels=static), record_of("hello"))
    assert dict(entry.labels)["label_8"] == "x" * 2000
    assert logfmt(entry.line)["body"] == "hello"


def test_another_400_changes_nothing():
    def too_old(entries: list[Entry]) -> Any:
        return refuse(entries, lambda entry: "entry for stream '{}' has timestamp too old")

    with FakeLoki(too_old) as server:
        sink = LokiSink(server.url)
        with pytest.raises(PermanentError, match="timestamp too old"):
            sent(server, sink, record_of("one"))
        server.respond = lambda entries: None
        (entry,) = sent(server, sink, record_of("two"))
    assert (entry.line, entry.values["host_name"]) == ("two", "h1")


def test_by_option_the_line_is_used_from_the_first_request(capsys):
    with FakeLoki(refuse_metadata) as server:
        (entry,) = sent(server, LokiSink(server.url, metadata="line"), record_of("hello", n=1))
        assert len(server.requests) == 1
    assert logfmt(entry.line)["n"] == "1"
    assert capsys.readouterr().err == ""


def test_by_option_structured_metadata_is_never_given_up_and_costs_one_request(capsys):
    with FakeLoki(refuse_metadata) as server:
        sink = LokiSink(server.url, metadata="structured", limits=BatchLimits(delay=30))
        runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web"})
        for number in range(100):
            runtime.get_logger("shop").info("order placed", n=number)
        assert runtime.flush(30)
        stats = runtime.stats().sinks["loki"]
        runtime.shutdown(10)
        assert len(server.requests) == 1
    assert (stats.delivered, stats.rejected) == (0, 100)
    assert "this feature is disallowed" in capsys.readouterr().err


@each_format
def test_records_that_a_spool_kept_from_before_the_switch_go_into_the_line(form):
    with FakeLoki(refuse_metadata) as server:
        old = LokiSink("http://loki", format=form)
        packed = old.pack([old.encode(record_of("before", NOW, n=1))])
        sink = LokiSink(server.url, format=form, metadata="line")
        mixed = [*sink.unpack(packed), sink.encode(record_of("after", NOW + 5, n=2))]
        again = sink.unpack(sink.pack(mixed))
        assert again == mixed
        sink.open()
        assert sink.send(again, 10) is None
        sink.close()
        before, after = (logfmt(entry.line) for entry in server.entries)
    assert (before.pop("body"), before.pop("n")) == ("before", "1")
    assert (after.pop("body"), after.pop("n")) == ("after", "2")
    assert int(after.pop("observed_timestamp")) == int(before.pop("observed_timestamp")) + 5
    assert before == after, "both ways write the same fields"


@each_format
def test_equal_records_of_one_nanosecond_stay_two_entries(form):
    with FakeLoki(refuse_metadata) as server:
        sink = LokiSink(server.url, format=form, metadata="line")
        entries = sent(server, sink, record_of("same"), record_of("same"))
    assert len({entry.line for entry in entries}) == 2


# ---- the line


def test_a_message_becomes_logfmt_with_the_names_of_the_metadata_and_the_message_first():
    record = record_of("order placed", order_id=42, note='say "hi"', empty="", body="mine")
    with FakeLoki() as server:
        (plain,) = sent(server, LokiSink(server.url), record)
    with FakeLoki() as server:
        (entry,) = sent(server, LokiSink(server.url, metadata="line"), record)
    pairs = logfmt(entry.line)
    assert list(pairs)[:2] == ["body", "order_id"]
    assert pairs.pop("body") == "order placed"
    assert pairs.pop("body_2") == "mine"
    assert pairs == {name: text for name, text in plain.values.items() if name != "body"}
    assert entry.labels == plain.labels


def test_the_stack_trace_and_every_character_survive_in_one_line():
    text = 'boom\n  File "a.py", line 1\tü✓\U0001f600 \x00\x1b[31m = \\ {x}'
    with FakeLoki() as server:
        (entry,) = sent(server, LokiSink(server.url, metadata="line"), record_of(text))
    assert "\n" not in entry.line
    assert logfmt(entry.line)["body"] == text


def test_a_logfmt_line_gets_only_what_it_lacks():
    record = record_of("order placed", order_id=42)
    with FakeLoki() as server:
        sink = LokiSink(server.url, line="logfmt", metadata="line")
        (entry,) = sent(server, sink, record)
    assert entry.line.startswith('severity_text=INFO body="order placed" scope_name=shop.orders')
    pairs = logfmt(entry.line)
    assert (pairs["host_name"], pairs["scope_version"], pairs["order_id"]) == ("h1", "1.2", "42")


def test_a_json_line_stays_one_object_and_gets_only_what_it_lacks():
    attributes = {"order.id": 42, "nested": {"a": 1}, "scope": "s"}
    with FakeLoki() as server:
        sink = LokiSink(server.url, line="json", metadata="line")
        (entry,) = sent(server, sink, record_of({"text": "order placed"}, **attributes))
    fields = json.loads(entry.line, object_pairs_hook=unique)
    assert fields.pop("attributes") == attributes
    assert fields == {
        "severity_text": "INFO",
        "body": {"text": "order placed"},
        "scope": {"name": "shop.orders"},
        "trace_id": TRACE,
        "span_id": SPAN,
        "observed_timestamp": str(NOW + 1),
        "severity_number": "9",
        "scope_version": "1.2",
        "host_name": "h1",
        "process_pid": "7",
        "flags": "1",
    }


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


TEXTS = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda char, count: char * count, st.sampled_from('a"\x01é\U0001f600'), st.just(70_000)
    ),
    st.builds(lambda char: char * 262_144, st.sampled_from("a\x01\n")),
)


@given(
    body=TEXTS,
    kind=st.sampled_from(["message", "json", "logfmt"]),
    metadata=st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), TEXTS, max_size=4),
)
def test_no_line_exceeds_lokis_limit_and_each_can_be_parsed(body, kind, metadata):
    record = record_of(body, **{name: text[:60_000] for name, text in metadata.items()})
    sink = LokiSink("http://loki", line=kind, metadata="line")
    _, _, entry = sink.encode(record)
    _, line = json.loads(entry)
    assert len(line.encode()) <= MAX_LINE
    fields = json.loads(line, object_pairs_hook=unique) if kind == "json" else logfmt(line)
    assert fields["severity_number"] == "9" or "dropped_attributes_count" in fields


def test_metadata_that_does_not_fit_is_counted():
    pairs = {f"k{number}": "v" * 100 for number in range(60)} | {"dropped_attributes_count": "2"}
    line = metadata_line("message", "x" * (MAX_LINE - 2000), pairs)
    found = logfmt(line)
    assert len(line.encode()) <= MAX_LINE
    assert int(found["dropped_attributes_count"]) == 2 + 60 - sum(name[0] == "k" for name in found)


@pytest.mark.parametrize("kind", ["message", "json", "logfmt"])
@pytest.mark.parametrize(
    "line",
    [
        "order placed",
        "",
        "7",
        "[1]",
        "{}",
        '{"a":1}',
        '{"body":1,"attributes":2}',
        "\x01" * 262_144,
        "a" * 262_144,
        'a="' * 80_000,
    ],
)
def test_a_line_that_an_earlier_process_spooled_in_another_format_is_kept(kind, line):
    made = metadata_line(kind, line, {"n": "1", "scope": "s"})
    assert len(made.encode()) <= MAX_LINE or kind == "logfmt"
    if kind == "json":
        fields = json.loads(made, object_pairs_hook=unique)
        assert fields["n"] == "1"
        assert fields["scope"] == "s"
    elif kind == "message":
        assert logfmt(made)["n"] == "1"
    else:
        assert line in made or made.startswith(line[:1000])
