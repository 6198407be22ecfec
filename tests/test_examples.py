"""The programs in ``examples/`` start as their pages say, and their records arrive."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from fapilog.cli.receiver import ReceivedLog, Receiver
from tests.support.loki import FakeLoki
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 90  # after which a child counts as stuck

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets and SIGTERM")


def environment(receiver: Receiver) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    return {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint, "COLUMNS": "100"}


def run(receiver: Receiver, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={**environment(receiver), "PYTHONIOENCODING": "utf-8"},
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def find(receiver: Receiver, body: str) -> ReceivedLog:
    (log,) = [log for log in receiver.logs if log.body == body]
    return log


def serve(receiver: Receiver, module: str, address: Path, path: str) -> httpx.Response:
    """Serve an example on a Unix socket, send one request, and end it with SIGTERM."""
    child = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"{module}:app", "--uds", str(address)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment(receiver),
    )
    try:
        answer = get(address, path)
        child.terminate()
        child.wait(SECONDS)
    finally:
        child.kill()
    return answer


def get(address: Path, path: str) -> httpx.Response:
    """Send a request to the server as soon as it listens."""
    deadline = time.monotonic() + SECONDS
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(str(address)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(address)), timeout=SECONDS) as client:
        return client.get(f"http://shop{path}")


def test_the_application_of_the_image_delivers_to_loki_until_sigterm_ends_it(tmp_path):
    dockerfile = (ROOT / "examples" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    command = json.loads(re.findall(r"^CMD (.+)$", dockerfile, re.MULTILINE)[0])
    compose = yaml.safe_load((ROOT / "examples" / "docker" / "compose.yaml").read_text("utf-8"))
    variables = compose["services"]["app"]["environment"]
    with FakeLoki() as loki:
        sinks = variables["FAPILOG_SINKS"].replace("http://loki:3100", loki.url)
        child = subprocess.Popen(
            [sys.executable, "-m", *command, "--uds", str(tmp_path / "s")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **variables, "FAPILOG_SINKS": sinks},
            text=True,
        )
        try:
            assert get(tmp_path / "s", "/orders/1001").status_code == 200
            assert get(tmp_path / "s", "/orders/2001").status_code == 404
            child.terminate()
            lines, _ = child.communicate(timeout=SECONDS)
        finally:
            child.kill()
        entries = {entry.line for entry in loki.entries}
    wanted = {"order read", "GET /orders/{number} 200", "no such order", "GET /orders/{number} 404"}
    assert wanted <= entries
    assert wanted <= {json.loads(line)["body"] for line in lines.splitlines()}


@pytest.mark.slow
def test_the_load_makes_errors_slow_requests_and_secrets_that_no_record_shows():
    serve_service = runpy.run_path(str(ROOT / "examples/two_services/__main__.py"))["serve"]
    load_example = runpy.run_path(str(ROOT / "examples/two_services/load.py"))
    with Receiver(grpc_port=None) as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint}
        with ExitStack() as stack:
            stock = serve_service(stack, "stock", free_port(), **endpoint)
            orders = serve_service(stack, "orders", free_port(), STOCK_URL=stock, **endpoint)
            load = {"ORDERS_URL": orders, "STOCK_URL": stock, "REQUESTS_PER_SECOND": "100"}
            done = subprocess.run(
                [sys.executable, "examples/two_services/load.py", "22"],
                cwd=ROOT,
                capture_output=True,
                check=True,
                env={**os.environ, **load},
                text=True,
                timeout=SECONDS,
            )
            metrics = httpx.get(f"{orders}/metrics").text
            assert receiver.wait_for(60, SECONDS)
        logs, spans = receiver.logs, receiver.spans
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"200", "409", "500"}
    assert {log.severity_text for log in logs} >= {"INFO", "WARN", "ERROR"}
    services: dict[str, set[str]] = {log.trace_id: set() for log in logs}
    for log in logs:
        services[log.trace_id].add(log.resource["service.name"])
    assert {"orders", "stock"} in services.values()
    slowest = max(s.span.end_time_unix_nano - s.span.start_time_unix_nano for s in spans)
    assert slowest > 10**9
    assert len([log for log in logs if log.body == "login"]) == 2
    assert load_example["PASSWORD"] not in str(logs)
    assert load_example["TOKEN"] not in str(logs)
    assert "fapilog_records_accepted_total" in metrics
    assert "http_server" not in metrics, "OpenTelemetry sends these"


def test_the_demos_application_serves_by_itself(tmp_path):
    with Receiver(grpc_port=None) as receiver:
        answer = serve(receiver, "examples.demo", tmp_path / "s", "/orders/1001")
        log = find(receiver, "order read")
    assert answer.status_code == 200
    (span,) = [span for span in receiver.spans if span.span_id == log.span_id]
    assert (span.trace_id, span.name) == (log.trace_id, "GET /orders/{number}")


def test_fastapi_in_ten_lines_gives_two_records_of_one_request(tmp_path):
    with Receiver(grpc_port=None) as receiver:
        answer = serve(receiver, "examples.fastapi_ten_lines", tmp_path / "s", "/hello/ada")
        greeting = find(receiver, "greeting")
        completion = find(receiver, "GET /hello/{name} 200")
    assert answer.json() == {"hello": "ada"}
    assert greeting.attributes["visitor"] == "ada"
    assert greeting.attributes["request.id"] == answer.headers["x-request-id"]
    assert completion.attributes["request.id"] == answer.headers["x-request-id"]
    assert completion.attributes["http.route"] == "/hello/{name}"


def test_records_of_structlog_arrive_typed_traced_and_redacted():
    with Receiver(grpc_port=None) as receiver:
        assert run(receiver, "examples/structlog_app.py") == ""
    received, charging, failed = (
        find(receiver, body) for body in ("order received", "charging", "payment failed")
    )
    assert received.attributes == {"quantity": 2, "item": "teapot", "shop.version": "1.2"}
    assert charging.attributes["card"]["token"] == "[REDACTED]"
    assert failed.attributes["exception.type"] == "TimeoutError"
    assert {log.scope.name for log in receiver.logs} == {"shop.orders"}
    assert len({log.span_id for log in receiver.logs} - {""}) == 1


def test_records_of_loguru_arrive_typed_traced_and_redacted():
    with Receiver(grpc_port=None) as receiver:
        assert run(receiver, "examples/loguru_app.py") == ""
    first = find(receiver, "order of 2 received")
    assert (first.attributes["quantity"], first.attributes["item"]) == (2, "teapot")
    charged = find(receiver, "charged 19.98")
    assert (charged.severity_text, charged.attributes["amount"]) == ("SUCCESS", 19.98)
    failed = find(receiver, "order failed")
    assert failed.attributes["exception.type"] == "LookupError"
    assert failed.attributes["item"] == "piano"
    assert failed.trace_id not in {"", first.trace_id}
    tokens = {log.attributes["card"]["token"] for log in receiver.logs if log.body == "charging"}
    assert tokens == {"[REDACTED]"}
    assert first.trace_id == charged.trace_id != ""


def test_an_asynchronous_service_has_a_span_and_a_context_for_each_job():
    with Receiver(grpc_port=None) as receiver:
        assert run(receiver, "examples/async_service.py", "9") == ""
    jobs = [log for log in receiver.logs if "job" in log.attributes]
    assert sorted(log.attributes["job"] for log in jobs) == list(range(9))
    assert {log.span_id for log in jobs} == {span.span_id for span in receiver.spans}
    assert len({log.span_id for log in jobs}) == 9
    failed = [log.attributes["job"] for log in jobs if log.body == "mail failed"]
    assert sorted(failed) == [0, 5]
    assert {log.attributes["worker"] for log in jobs} <= {"w0", "w1", "w2"}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_an_asynchronous_service_delivers_its_records_when_it_is_asked_to_end(asked):
    with Receiver(grpc_port=None) as receiver:
        child = subprocess.Popen(
            [sys.executable, "examples/async_service.py", "100000"],
            cwd=ROOT,
            env=environment(receiver),
        )
        try:
            assert receiver.wait_for(20, SECONDS)
            child.send_signal(asked)
            assert child.wait(SECONDS) == 0
        finally:
            child.kill()
    assert find(receiver, "stopped").attributes["left"] > 0
    spans = {span.span_id for span in receiver.spans}
    assert {log.span_id for log in receiver.logs if log.body == "mail sent"} <= spans


@pytest.mark.slow
def test_two_services_draw_one_trace_with_the_logs_of_both():
    with Receiver(grpc_port=None) as receiver:  # the example starts its own
        shown = run(receiver, "-m", "examples.two_services", "piano", "2")
    lines = [line.split() for line in shown.splitlines()]
    assert shown.startswith('POST /orders/piano?quantity=2 -> 409 {"detail":"out of stock"}\n')
    assert sum(line[0] == "trace" for line in lines) == 1
    assert any(line[1:4] == ["orders", "POST", "/orders/{item}"] for line in lines)
    assert any("stock" in line and "/stock/{item}" in line for line in lines)
    for record in (
        ["INFO", "orders", "order", "received"],
        ["ERROR", "stock", "cannot", "reserve", "2", "of", "piano"],
        ["WARN", "orders", "order", "refused"],
    ):
        assert any(
            line[n : n + len(record)] == record for line in lines for n in range(len(line))
        ), record
