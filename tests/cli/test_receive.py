"""``fapilog receive`` draws traces when they are complete, with the logs of all their services."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fapilog.cli import main
from fapilog.cli.receive import Trace, Waiting, show_untraced
from fapilog.cli.receiver import ReceivedLog, ReceivedSpan
from fapilog.cli.terminal import Terminal
from fapilog.cli.timeline import Timeline

pytestmark = pytest.mark.measured

COMMAND = (sys.executable, "-m", "fapilog", "receive", "--port", "0", "--grpc-port", "0")
TRACE = b"\x01" * 16
ROOT, INNER = b"\x02" * 8, b"\x03" * 8


def spans(service: str, name: str, span_id: bytes, parent: bytes = b"") -> bytes:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    span = resource.scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id, span.parent_span_id = name, TRACE, span_id, parent
    span.start_time_unix_nano, span.end_time_unix_nano = 1_000_000, 9_000_000
    return request.SerializeToString()


def logs(*records: tuple[str, bytes, bytes]) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.name = "shop"
    for position, (body, trace_id, span_id) in enumerate(records):
        record = scope.log_records.add(trace_id=trace_id, span_id=span_id, severity_number=9)
        record.time_unix_nano = 2_000_000 + position
        record.body.string_value = body
    return request.SerializeToString()


def post(url: str, path: str, body: bytes) -> None:
    headers = {"content-type": "application/x-protobuf"}
    assert httpx.post(url + path, content=body, headers=headers, trust_env=False).status_code == 200


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    child = subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    )
    assert child.stdout
    for line in child.stdout:
        if found := re.search(r"OTLP/HTTP +OTEL_EXPORTER_OTLP_ENDPOINT=(\S+)", line):
            return child, found[1]
    raise AssertionError(child.communicate())


def test_a_trace_of_two_services_is_drawn_with_the_logs_of_both():
    child, url = start("--traces", "1")
    try:
        untraced = ("started", b"", b"")
        outside = ("of a span that is not sampled", TRACE, b"\x09" * 8)
        post(url, "/v1/logs", logs(untraced, ("asked", TRACE, ROOT), ("answered", TRACE, INNER)))
        post(url, "/v1/logs", logs(outside))
        post(url, "/v1/traces", spans("stock", "GET /stock", INNER, ROOT))
        post(url, "/v1/traces", spans("orders", "POST /orders", ROOT))
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, err) == (0, "")
    lines = [" ".join(re.sub("─{2,}", "──", line).split()) for line in out.splitlines()]
    begin = lines.index(f"trace {TRACE.hex()}")
    assert lines[begin + 1 :] == [
        "0.0 orders POST /orders ├──┤ 8.0 ms",
        "0.0 stock ├─ GET /stock ├──┤ 8.0 ms",
        "1.0 │ └ INFO shop answered",
        "1.0 └ INFO shop asked",
        "1.0 INFO shop of a span that is not sampled",
    ]
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d INFO shop started", line) for line in lines[:begin])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
def test_ctrl_c_ends_it_quietly():
    child, _ = start()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")


def test_ctrl_c_draws_the_traces_that_still_wait_for_spans():
    child, url = start()
    try:
        post(url, "/v1/logs", logs(("asked", TRACE, ROOT), ("answered", TRACE, ROOT)))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, err) == (0, "")
    assert f"trace  {TRACE.hex()}" in out
    assert out.index("asked") < out.index("answered")


def test_a_port_that_is_taken_is_one_clear_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as ended:
            main(["receive", "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert ": choose another, or 0" in err


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fapilog.cli.receiver", None)
    with pytest.raises(SystemExit) as ended:
        main(["receive"])
    assert ended.value.code == 1
    assert "pip install 'fapilog[demo]'" in capsys.readouterr().err


def test_a_trace_waits_longer_for_its_root_span(monkeypatch):
    waiting = Waiting()
    waiting._traces["a"] = Trace("a", news=100.0)
    assert waiting.whole(105.0) == []
    assert [trace.trace_id for trace in waiting.whole(111.0)] == ["a"]


def test_if_too_many_traces_wait_the_oldest_is_drawn_incomplete(monkeypatch):
    monkeypatch.setattr("fapilog.cli.receive._KEEP", 1)
    waiting = Waiting()
    record = type("Log", (), {"trace_id": "b"})()
    waiting.add([record, record], [], now=100.0)
    assert [trace.trace_id for trace in waiting.whole(100.0)] == ["b"]
    assert waiting.whole(200.0) == []


def span(number: int, parent: int) -> ReceivedSpan:
    made = Span(span_id=number.to_bytes(8, "big"), name=f"span-{number}", trace_id=TRACE)
    made.parent_span_id = parent.to_bytes(8, "big") if parent else b""
    return ReceivedSpan(made, {}, InstrumentationScope(name="shop"))


@pytest.mark.parametrize(
    "parents",
    [
        {number: number - 1 for number in range(1, 3000)},
        {1: 2, 2: 3, 3: 1},
        {1: 1},
        {1: 0, 2: 99, 3: 2},
    ],
    ids=["chain", "circle", "own parent", "parent elsewhere"],
)
def test_every_span_of_a_strange_trace_is_drawn_once(parents, capsys):
    spans = [span(number, parent) for number, parent in parents.items()]
    Timeline(Terminal(), [], spans).draw()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(spans)


def test_spans_with_the_same_id_do_not_repeat_their_records(capsys):
    spans = [span(number, number - 1) for number in range(1, 40) for _ in range(2)]
    Timeline(Terminal(), [], spans).draw()
    assert len(capsys.readouterr().out.splitlines()) == len(spans)


def test_records_without_a_trace_are_in_the_order_of_their_times_over_all_loggers(capsys):
    def received(scope: str, body: str, time: int, observed: int = 0) -> ReceivedLog:
        record = LogRecord(time_unix_nano=time, observed_time_unix_nano=observed)
        record.body.string_value = body
        return ReceivedLog(record, {}, InstrumentationScope(name=scope))

    grouped = [
        received("django", "second", 2_000_000_000),
        received("django", "fourth", 4_000_000_000),
        received("orders", "first", 1_000_000_000),
        received("orders", "third, without a time", 0, 3_000_000_000),
    ]
    show_untraced(Terminal(), grouped)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=3)[3] for line in lines] == [
        "first",
        "second",
        "third, without a time",
        "fourth",
    ]
