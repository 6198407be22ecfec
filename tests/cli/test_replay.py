"""``fapilog spool replay`` as a shell calls it, with a receiver in this process."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk.trace import TracerProvider

from fapilog import Runtime
from fapilog.cli.receiver import Receiver
from fapilog.otel import SpanExporter
from fapilog.sinks.otlp.sink import OTLPSink
from fapilog.spool import Quarantine, SpoolOptions
from fapilog.spool.quarantine import QuarantineFile
from fapilog.spool.survey import survey
from tests.support.spool import crash, failing, segments
from tests.support.spool_shell import (
    Shell,
    held,
    leave,
    make_shell,
    make_spool,
    packed,
    refuse,
)


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Shell:
    return make_shell(capsys, monkeypatch, tmp_path)


@pytest.fixture
def receiver(monkeypatch):
    with Receiver(grpc_port=None) as receiver:
        monkeypatch.setenv("FAPILOG_SINKS", f"otlp:{receiver.http_endpoint}")
        yield receiver


def arrived(receiver: Receiver) -> list[str]:
    return [log.body for log in receiver.logs]


def test_replay_sends_the_records_of_dead_processes_only(shell, tmp_path, receiver):
    first = leave(tmp_path, ("a", "b"), ("c",))
    leave(tmp_path, ("d",))
    living = make_spool(tmp_path)
    living.append(*packed("mine"))
    code, out, err = shell("replay")
    assert (code, out, err) == (0, "✓ otlp: 4 records delivered\n", "")
    assert arrived(receiver) == ["a", "b", "c", "d"]
    assert not first.exists()
    assert living.pending_records == 1
    living.close()
    assert shell("replay")[1] == "✓ otlp: 1 record delivered\n"
    assert shell("replay")[1] == "nothing to send\n"
    assert segments(tmp_path) == []


def test_replay_leaves_everything_while_the_backend_is_away(shell, tmp_path, receiver):
    leave(tmp_path, ("a", "b"), ("c",))
    receiver.respond = lambda _path, _body: (503, {}, b"come back later")
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 0 records delivered, 3 left on disk\n")
    assert "503" in out
    receiver.respond = None
    assert shell("replay")[:2] == (0, "✓ otlp: 3 records delivered\n")
    assert arrived(receiver) == ["a", "b", "c"]


def test_replay_goes_on_after_a_short_trouble(shell, tmp_path, receiver):
    leave(tmp_path, ("a",))
    answers = [(503, {}, b""), (429, {"Retry-After": "0"}, b"")]
    receiver.respond = lambda _path, _body: answers.pop() if answers else None
    assert shell("replay")[:2] == (0, "✓ otlp: 1 record delivered\n")


def refuses(text: bytes):
    def respond(_path, body):
        return (400, {}, b"invalid") if text in body else None

    return respond


def test_replay_delivers_the_good_records_and_puts_the_bad_in_quarantine(shell, tmp_path, receiver):
    leave(tmp_path, ("a", "bad", "c"), ("bad", "bad"), ("d",))
    receiver.respond = refuses(b"bad")
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 3 records delivered, 3 refused, now in quarantine\n")
    assert "400" in out
    assert arrived(receiver) == ["a", "c", "d"]
    receiver.respond = None
    assert shell("replay")[:2] == (0, "nothing to send\n")
    assert shell("replay", "--quarantine")[:2] == (0, "✓ otlp: 3 records delivered\n")
    assert sorted(arrived(receiver)) == ["a", "bad", "bad", "bad", "c", "d"]


def test_replay_without_room_in_quarantine_keeps_refused_records(
    shell, tmp_path, receiver, monkeypatch
):
    monkeypatch.setenv("FAPILOG_SPOOL__QUARANTINE_BYTES", "0")
    leave(tmp_path, ("bad",))
    receiver.respond = refuses(b"bad")
    code, out, _ = shell("replay")
    assert (code, out.splitlines()[0]) == (1, "✗ otlp: 0 records delivered, 1 left on disk")
    receiver.respond = None
    assert shell("replay")[:2] == (0, "✓ otlp: 1 record delivered\n")


def test_replay_of_the_quarantine_keeps_records_that_are_refused_again(shell, tmp_path, receiver):
    refuse(tmp_path, "bad")
    refuse(tmp_path, "mended")
    receiver.respond = refuses(b"bad")
    code, out, _ = shell("replay", "--quarantine")
    assert code == 1
    assert out.startswith("✗ otlp: 1 record delivered, 1 left on disk\n")
    assert arrived(receiver) == ["mended"]
    assert sum(found.records for found in held(tmp_path)) == 1


def test_replay_of_the_quarantine_keeps_all_while_the_backend_is_away(shell, tmp_path, receiver):
    refuse(tmp_path, "a")
    refuse(tmp_path, "b")
    receiver.respond = lambda _path, body: (503, {}, b"") if b"b" in body[-40:] else None
    code, out, _ = shell("replay", "--quarantine")
    assert code == 1
    assert "left on disk" in out
    assert sum(found.records for found in held(tmp_path)) >= 1


def test_replay_of_a_sink_that_is_not_configured_says_so(shell, tmp_path, monkeypatch):
    leave(tmp_path, ("a",), name="otlp-2")
    monkeypatch.setenv("FAPILOG_SINKS", "console,otlp")
    code, out, _ = shell("replay")
    assert code == 1
    assert "otlp-2: no such sink is configured" in out
    assert "console, otlp" in out
    assert len(segments(tmp_path)) == 1


def test_replay_of_one_sink_leaves_the_others(shell, tmp_path, receiver):
    leave(tmp_path, ("a",))
    leave(tmp_path, ("b",), name="other")
    assert shell("replay", "--sink", "otlp")[:2] == (0, "✓ otlp: 1 record delivered\n")
    code, _, err = shell("replay", "--sink", "kafka")
    assert code == 2
    assert (
        err
        == "fapilog: --sink kafka: no records of this sink are on disk; sinks with records: other\n"
    )


def test_replay_does_not_send_another_wire_format(shell, tmp_path, receiver):
    leave(tmp_path, ("a",))
    leave(tmp_path, ("b",), wire_format="otlp-json")  # the same destination in another directory
    code, out, _ = shell("replay")
    assert code == 1
    assert re.search("✗ otlp~[0-9a-f]+: no such sink is configured for OTLP http/protobuf to", out)
    assert "✓ otlp: 1 record delivered\n" in out
    assert arrived(receiver) == ["a"]


def test_replay_skips_damage_and_says_how_much_is_lost(shell, tmp_path, receiver):
    leave(tmp_path, ("a",), ("b",), ("c",))
    (path,) = segments(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x0a\x01b", b"\x0a\x01X"))
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 2 records delivered\n")
    assert "1 record damaged and lost" in out
    assert arrived(receiver) == ["a", "c"]


def test_a_batch_that_the_sink_cannot_unpack_goes_to_the_quarantine_and_stays(
    shell, tmp_path, receiver
):
    spool = make_spool(tmp_path)
    spool.append(b"\xff\xff\xff", [9])
    spool.append(packed("a")[0], [9, 9])
    spool.append(*packed("good"))
    crash(spool)
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 1 record delivered, 3 refused, now in quarantine\n")
    assert "cannot be unpacked" in out
    assert arrived(receiver) == ["good"]
    code, out, _ = shell("replay", "--quarantine")
    assert code == 1
    assert out.startswith("✗ otlp: 0 records delivered, 3 left on disk\n")


def test_ctrl_c_during_a_replay_keeps_records_that_were_not_delivered(
    shell, tmp_path, receiver, monkeypatch
):
    leave(tmp_path, ("a",), ("b",))
    seen = []

    def respond(_path, body):
        seen.append(body)
        return

    receiver.respond = respond
    real = OTLPSink.send

    def send(self, batch, timeout):
        if seen:
            raise KeyboardInterrupt
        return real(self, batch, timeout)

    monkeypatch.setattr(OTLPSink, "send", send)
    code, out, _ = shell("replay")
    assert code == 130
    assert "1 record delivered, 1 left on disk" in out
    monkeypatch.undo()


def test_a_terminal_sees_the_progress(shell, tmp_path, receiver, monkeypatch):
    leave(tmp_path, ("a", "b"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _self: True, raising=False)
    code, out, err = shell("replay")
    assert (code, out) == (0, "✓ otlp: 2 records delivered\n")
    assert "otlp: 0 of 2 records" in err


def test_replay_tells_of_records_the_backend_took_and_threw_away(shell, tmp_path, receiver):
    leave(tmp_path, ("a", "b", "c"))
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    answer.partial_success.error_message = "too old"
    body = answer.SerializeToString()
    receiver.respond = lambda _path, _body: (200, {"Content-Type": "application/x-protobuf"}, body)
    code, out, _ = shell("replay")
    assert (code, out.splitlines()[0]) == (1, "✗ otlp: 2 records delivered, 1 rejected")
    assert "too old" in out
    assert segments(tmp_path) == []


def test_replay_passes_on_a_backends_warning(shell, tmp_path, receiver):
    leave(tmp_path, ("a",))
    answer = ExportLogsServiceResponse()
    answer.partial_success.error_message = "deprecated"
    body = answer.SerializeToString()
    receiver.respond = lambda _path, _body: (200, {"Content-Type": "application/x-protobuf"}, body)
    code, out, _ = shell("replay")
    assert (code, out.splitlines()[0]) == (0, "✓ otlp: 1 record delivered")
    assert "deprecated" in out


def test_replay_to_a_wrong_address_leaves_everything_on_disk(shell, tmp_path, receiver):
    leave(tmp_path, ("a", "b"), ("c",))
    requests = []

    def respond(_path, body):
        requests.append(body)
        return 404, {}, b"not here"

    receiver.respond = respond
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 0 records delivered, 3 left on disk\n")
    assert "404" in out
    assert len(requests) == 1


def test_a_sink_that_breaks_leaves_everything_on_disk(shell, tmp_path, receiver, monkeypatch):
    leave(tmp_path, ("a",))
    monkeypatch.setattr(OTLPSink, "send", failing(ZeroDivisionError("oops")))
    code, out, _ = shell("replay")
    assert code == 1
    assert out.startswith("✗ otlp: 0 records delivered, 1 left on disk\n")
    assert "oops" in out


def test_replay_of_a_quarantine_in_another_format_or_in_use_says_so(shell, tmp_path, receiver):
    refuse(tmp_path, "a")
    (path,) = (found.path for found in held(tmp_path))
    options = SpoolOptions(tmp_path / "elsewhere", min_free=0)
    assert Quarantine("otlp", "otlp-json", options).add(b"{}", [9], "no")
    for other in (tmp_path / "elsewhere").rglob("*.seg"):
        other.rename(path.with_name(other.name))
    code, out, _ = shell("replay", "--quarantine")
    assert code == 1
    assert "holds otlp-json, the sink takes otlp-protobuf" in out
    assert arrived(receiver) == ["a"]
    refuse(tmp_path, "b")
    with QuarantineFile(held(tmp_path)[-1].path):
        code, out, _ = shell("replay", "--quarantine")
    assert code == 1
    assert "in use by another process" in out
    assert out.startswith("✗ otlp: 0 records delivered, 2 left on disk\n")


# ---- spans


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_replay_sends_spooled_and_refused_spans(protocol, shell, monkeypatch, tmp_path, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    spans: Any = [tracer.start_span(name, attributes={"n": 1}) for name in ("good", "bad")]
    for span in spans:
        span.end()
    receiver.respond = lambda _path, _body: (503, {}, b"")
    with Runtime(spool={"directory": tmp_path / "spool"}, shutdown_timeout=0.1) as runtime:
        SpanExporter(runtime).export(spans)
    receiver.respond = refuses(b"bad")
    code, out, _ = shell("replay")
    assert (code, out.splitlines()[0]) == (
        1,
        "✗ traces: 1 record delivered, 1 refused, now in quarantine",
    )
    assert [span.span.name for span in receiver.spans] == ["good"]
    shown = shell("quarantine")[1]
    assert spans[1].get_span_context().trace_id.to_bytes(16, "big").hex() in shown
    assert '"name":"bad"' in shown
    receiver.respond = None
    assert shell("replay", "--quarantine")[:2] == (0, "✓ traces: 1 record delivered\n")
    assert [span.span.name for span in receiver.spans] == ["good", "bad"]


def test_adopt_gives_spans_to_the_sink_of_spans_only(shell, monkeypatch, tmp_path, receiver):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    span: Any = tracer.start_span("work")
    span.end()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with Runtime(spool={"directory": tmp_path / "spool"}, shutdown_timeout=0.1) as runtime:
        SpanExporter(runtime).export([span])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    (name,) = [report.path.name for report in survey(tmp_path / "spool")]
    assert name.startswith("traces~")
    code, out, _ = shell("adopt", name, "--sink", "otlp", "--yes")
    assert code == 1
    assert "holds otlp-traces-protobuf, the sink takes otlp-protobuf" in out
    assert shell("adopt", name, "--sink", "traces", "--yes")[0] == 0
    assert shell("replay")[:2] == (0, "✓ traces: 1 record delivered\n")


def test_a_wrong_variable_of_spans_costs_no_records(shell, monkeypatch, tmp_path, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318")
    leave(tmp_path, ("a",))
    assert shell("replay")[:2] == (0, "✓ otlp: 1 record delivered\n")
