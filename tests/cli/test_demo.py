"""``fapilog demo`` in real processes, and its checks of the records that arrive."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fapilog.cli import main
from fapilog.cli.demo import report
from fapilog.cli.demo.app import REQUEST_ID, create_app
from fapilog.cli.demo.traffic import SECRETS
from fapilog.cli.demo.verify import verify
from fapilog.cli.receiver import ReceivedLog, ReceivedSpan, Receiver
from fapilog.cli.terminal import Terminal
from fapilog.cli.timeline import Timeline, draw_log
from fapilog.delivery.ledger import Stats
from fapilog.processors.redact import MASK

PROTOCOLS = ("http/protobuf", "http/json", "grpc")
COMMAND = (sys.executable, "-c", "from fapilog.cli import main; main()", "demo")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS = 110  # after which a child counts as stuck


def environment(**variables: str) -> dict[str, str]:
    mine = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "FORCE_COLOR")}
    return {**mine, "PYTHONIOENCODING": "utf-8", **variables}


def demo(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env=environment(**variables),
        timeout=SECONDS,
    )


def accepted(output: str) -> int:
    found = re.search(r"accepted (\d+) = delivered \1 \+ rejected 0 \+ dropped 0", output)
    assert found, output
    return int(found[1])


def endpoint_of(receiver: Receiver, protocol: str) -> str:
    return str(receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint)


# ---- the whole command


@pytest.mark.measured
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_demo_shows_that_every_record_arrived_with_its_span(protocol):
    done = demo("--protocol", protocol)
    assert (done.returncode, done.stderr) == (0, "")
    count = accepted(done.stdout)
    assert f"✓ {count} of {count} records of the ledger arrived" in done.stdout
    assert re.search(r"✓ (\d+) of \1 records of requests carry the ids", done.stdout)
    assert "✓ 0 of 3 secrets" in done.stdout
    assert re.search(r"├─ charge customer .*├─+┤ .* ERROR", done.stdout)
    assert re.search(r"ERROR shop\.payments  payment failed", done.stdout)
    assert "TimeoutError: no answer within 60 ms" in done.stdout
    for field in ("form.password", "headers.authorization", "body", "database"):
        assert re.search(rf"shop\.accounts  {re.escape(field)} .*REDACTED", done.stdout)


def test_the_demo_fits_a_screen_and_has_no_colours_in_a_file():
    done = demo("--requests", "24")
    lines = done.stdout.splitlines()
    assert 20 < len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout
    assert not [secret for secret in SECRETS if secret in done.stdout]


def test_nothing_in_the_environment_changes_the_embedded_demo():
    done = demo(
        FAPILOG_LEVEL="off",
        FAPILOG_REDACT="false",
        OTEL_SDK_DISABLED="true",
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
        FORCE_COLOR="1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_gets_every_record_of_the_ledger_with_the_ids_of_its_span(protocol):
    with Receiver() as receiver:
        target = endpoint_of(receiver, protocol)
        done = demo("--endpoint", target, "--protocol", protocol, "--requests", "18")
        assert (done.returncode, done.stderr) == (0, "")
        logs, spans = receiver.logs, receiver.spans
    assert len(logs) == accepted(done.stdout)
    assert f"{len(spans)} spans delivered" in done.stdout
    names = {(span.trace_id, span.span_id): span.name for span in spans}
    places = {
        "asking the gateway": "charge customer",
        "payment failed": "charge customer",
        "reserved 1 of teapot": "reserve stock",
        "the warehouse took 220 ms": "reserve stock",
        "order received": "POST /orders",
        "login": "POST /login",
        "order read": "GET /orders/{number}",
    }
    seen = {log.body: names.get((log.trace_id, log.span_id)) for log in logs}
    assert {body: seen[body] for body in places} == places
    access = [log for log in logs if log.scope.name == "uvicorn.access"]
    assert len(access) == 18
    servers = {(s.trace_id, s.span_id) for s in spans if s.span.kind == Span.SPAN_KIND_SERVER}
    assert {(log.trace_id, log.span_id) for log in access} == servers
    outside = {log.scope.name for log in logs if not log.trace_id}
    assert outside == {"uvicorn.error"}


@pytest.mark.slow
def test_a_collector_that_is_not_there_is_told_without_a_traceback():
    done = demo("--endpoint", "http://me:hunter2@127.0.0.1:9", "--requests", "3")
    assert done.returncode == 1
    assert re.search(r"✗ 0 of \d+ records delivered", done.stdout)
    assert "refused" in done.stderr
    obstacle = done.stdout.partition("The problem")[2]
    assert re.search(r"✗ not delivered: http://127\.0\.0\.1:9/v1/logs: .*refused", obstacle)
    assert "nobody listens at 127.0.0.1:9: start the backend" in obstacle
    assert "    --endpoint=http://" in obstacle
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.measured
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to a child")
def test_ctrl_c_ends_the_demo_drained_and_without_a_traceback():
    with Receiver() as receiver:
        child = subprocess.Popen(
            [*COMMAND, "--endpoint", receiver.http_endpoint, "--requests", "10000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(),
        )
        try:
            assert receiver.wait_for(1, SECONDS)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=SECONDS)
        finally:
            child.kill()
        arrived = len(receiver.logs)
    assert (child.returncode, err) == (130, "")
    assert "interrupted; accepted" in out
    assert accepted(out) == arrived


@pytest.mark.measured
def test_a_collector_that_refuses_records_is_told_with_the_fix():
    with Receiver(grpc_port=None) as receiver:
        receiver.respond = lambda _path, _body: (404, {}, b"no such page")
        done = demo("--endpoint", receiver.http_endpoint, "--requests", "1")
    assert done.returncode == 1
    assert "1 request\n" in done.stdout
    obstacle = done.stdout.partition("The problem")[2]
    assert re.search(r"✗ rejected: http://\S+/v1/logs: HTTP 404", obstacle)
    assert "takes logs at none of the usual paths" in obstacle


def test_ctrl_c_while_the_server_starts_leaves_no_error_behind(monkeypatch):
    from fapilog.cli.demo import run as demo_run

    started: list[threading.Thread] = []

    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(demo_run, "threading", SimpleNamespace(Thread=Interrupted))
    with pytest.raises(KeyboardInterrupt), demo_run.serve(create_app()):
        pass
    (server,) = started
    server.join(SECONDS)
    assert not server.is_alive()


def call(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *options])
    return ended.value.code, capsys.readouterr().err


def test_wrong_options_end_the_demo_at_once(capsys):
    assert call(capsys, "--protocol", "udp")[0] == 2
    assert call(capsys, "--requests", "0")[0] == 2
    code, error = call(capsys, "--endpoint", "")
    assert code == 2
    assert "Invalid value for --endpoint: give the base URL" in error


def test_an_endpoint_that_is_no_url_is_one_error():
    done = demo("--endpoint", "nonsense")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fapilog: --endpoint is not a usable URL")
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fapilog.cli.demo.run", raising=False)
    code, err = call(capsys)
    assert code == 1
    assert "pip install 'fapilog[demo]'" in err
    assert err.count("\n") == 1


# ---- its checks

TRACE = bytes(range(16))
SERVER = b"\x01" * 8
INNER = b"\x02" * 8


def received_span(name: str, span_id: bytes, begin: int, end: int, **fields: Any) -> ReceivedSpan:
    request = KeyValue(key=REQUEST_ID, value=AnyValue(string_value="r1"))
    span = Span(
        name=name,
        trace_id=TRACE,
        span_id=span_id,
        start_time_unix_nano=begin,
        end_time_unix_nano=end,
        attributes=[] if "parent_span_id" in fields else [request],
        **fields,
    )
    return ReceivedSpan(span, {}, InstrumentationScope())


def received_log(body: str, span_id: bytes, time: int, request: str = "r1") -> ReceivedLog:
    attributes = [KeyValue(key=REQUEST_ID, value=AnyValue(string_value=request))]
    record = LogRecord(
        time_unix_nano=time,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        body=AnyValue(string_value=body),
        attributes=attributes if request else [],
        trace_id=TRACE if span_id else b"",
        span_id=span_id,
    )
    return ReceivedLog(record, {}, InstrumentationScope(name="shop"))


SPANS = (
    received_span("POST /orders", SERVER, 1_000_000, 9_000_000),
    received_span("charge", INNER, 3_000_000, 6_000_000, parent_span_id=SERVER),
)
LOGS = (
    received_log("in the server's span", SERVER, 2_000_000),
    received_log("in the inner span", INNER, 4_000_000),
    received_log("outside of any", b"", 500_000, request=""),
)


def verdicts(logs: Sequence[ReceivedLog], accepted: int = 3) -> list[bool]:
    stats = Stats(accepted=accepted, delivered=accepted)
    return [finding.passed for finding in verify(stats, logs, SPANS, ["hunter2"])]


def test_what_is_right_passes():
    assert verdicts(LOGS) == [True, True, True]


def test_a_lost_record_is_noticed():
    assert verdicts(LOGS[:2]) == [False, True, True]
    assert verdicts((*LOGS, LOGS[0])) == [False, True, True], "a duplicate as well"


@pytest.mark.parametrize(
    "wrong",
    [
        received_log("a span nobody knows", b"\x07" * 8, 4_000_000),
        received_log("no span", b"", 4_000_000),
        received_log("another request", INNER, 4_000_000, request="r2"),
        received_log("after the span's end", INNER, 7_000_000),
        received_log("ids outside of a request", INNER, 4_000_000, request=""),
    ],
    ids=lambda log: log.body,
)
def test_a_record_with_wrong_ids_is_noticed(wrong):
    assert verdicts((*LOGS[:2], wrong)) == [True, False, True]


def test_a_secret_that_arrived_is_noticed():
    leak = received_log("password=hunter2", SERVER, 2_000_000)
    assert verdicts((leak, *LOGS[1:])) == [True, True, False]


def test_a_line_shows_short_values_before_ids(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    received = received_log("placed", SERVER, 1_000_000, request="r" * 32)
    item = KeyValue(key="item", value=AnyValue(string_value="piano"))
    received.record.attributes.append(item)
    draw_log(Terminal(), received, "1.0  ")
    assert "placed  item=piano request.id=rrr" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["", "100"])
def test_a_record_is_cut_for_a_terminal_and_not_in_a_file(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    scope = InstrumentationScope(name="shop.orders.payment")
    log = ReceivedLog(received_log("paid " * 30, b"", 1_000_000, "r" * 60).record, {}, scope)
    draw_log(Terminal(), log, "1.0  ")
    out = capsys.readouterr().out
    is_whole = "paid " * 30 in out and "r" * 60 in out and "shop.orders.payment" in out
    assert is_whole == (columns == "")
    assert (len(out) <= 101) == (columns == "100")


@pytest.mark.parametrize(("columns", "width"), [("40", 80), ("132", 132), ("300", 160)])
def test_a_terminals_width_is_used_within_limits(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert Terminal().width == width


def test_a_timeline_has_each_record_under_its_span_in_the_order_of_time(capsys):
    failing = received_span("charge", INNER, 3_000_000, 6_000_000, parent_span_id=SERVER)
    failing.span.status.code = Status.STATUS_CODE_ERROR
    late = received_log("last", SERVER, 8_000_000)
    Timeline(Terminal(), [late, *LOGS[:2]], [failing, SPANS[0]], [REQUEST_ID]).draw()
    lines = capsys.readouterr().out.splitlines()
    shown = [" ".join(re.sub("─{2,}", "──", line).split()) for line in lines]
    assert shown == [
        "0.0 POST /orders ├──┤ 8.0 ms",
        "1.0 │ INFO shop in the server's span",
        "2.0 ├─ charge ├──┤ 3.0 ms ERROR",
        "3.0 │ └ INFO shop in the inner span",
        "7.0 └ INFO shop last",
    ]
    assert "request.id" not in "".join(lines)


texts = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=90)
times = st.integers(0, 10**13)


@given(texts, texts, texts, st.lists(st.tuples(times, times), min_size=2, max_size=2))
def test_whatever_reports_meanwhile_every_line_of_the_demo_fits(scope, field, text, spans):
    (begin, end), (inner_begin, inner_end) = spans
    log = received_log(f"{text} {MASK} {text}", INNER, inner_begin)
    log.record.attributes.append(KeyValue(key=field, value=AnyValue(string_value=f"{MASK} {text}")))
    log = ReceivedLog(log.record, {}, InstrumentationScope(name=scope))
    known = [
        received_span(text, SERVER, begin, end),
        received_span(text, INNER, inner_begin, inner_end, parent_span_id=SERVER),
    ]
    drops = {text or "lost": {"INFO": 10**6}, "queue_full": {"WARN": 3}, "shutdown": {"INFO": 9}}
    stats = Stats(accepted=10**9, dropped=10**9, drops=drops)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", "100")
        terminal = Terminal()
        Timeline(terminal, [log], known).draw()
        report.show_redacted(terminal, [log], stats)
        report.show_ledger(terminal, stats, [])
    assert max(map(len, out.getvalue().split("\n"))) <= 100
