"""``opentelemetry-instrument`` with fapilog's distro: real servers with unchanged applications."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.zero_code import INSTRUMENT, Telemetry, receiving, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="servers that fork, and SIGTERM")

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2-open-sesame"
ORDERS = 5
#: An application that answers with its pid, so that a test knows which worker answered.
STDLIB = """
import logging, os
from fastapi import FastAPI

log = logging.getLogger("shop.orders")
app = FastAPI()

@app.get("/orders/{number}")
async def read_order(number: int):
    log.info("order %d", number)
    return os.getpid()
"""
FAPILOG = """
import logging, fapilog
from fastapi import FastAPI

fapilog.configure()
log = fapilog.get_async_logger("shop.orders")
library = logging.getLogger("shop.vendor")
app = FastAPI()

@app.get("/orders/{number}")
async def read_order(number: int):
    with fapilog.bind(order=number):
        await log.info("order read")
        library.info("looked up")
"""


def commands(document: str) -> list[str]:
    """Return the command lines of a document."""
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ *\$ (.*)$", text, re.MULTILINE)


def documented(document: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables and arguments of a document's main command."""
    (line,) = [line for line in commands(document) if f" {INSTRUMENT} " in line]
    words = shlex.split(line)
    command = words.index(INSTRUMENT)
    return dict(word.split("=", 1) for word in words[:command]), words[command:]


@dataclass
class Served:
    """The records of a server that has answered a few requests and has ended."""

    telemetry: Telemetry
    output: str


@pytest.fixture(scope="module")
def example() -> Iterator[Served]:
    """The example, run with the documentation's own commands."""
    chosen, command = documented("docs/zero-code.md")
    port = free_port()
    with receiving() as telemetry:
        with serving(telemetry, [*command, "--port", str(port)], port, ROOT, **chosen) as server:
            server.until(lambda: bool(server.get("/orders/0")))
            for number in range(1, ORDERS):
                server.get(f"/orders/{number}")
            server.get("/login?user=ann")
        yield Served(telemetry, server.output)


def test_the_example_is_run_by_the_words_in_it() -> None:
    chosen, command = documented("docs/zero-code.md")
    own = documented("examples/zero_code.py")
    assert own == ({**chosen, "OTEL_SERVICE_NAME": "shop"}, command)


def test_each_record_of_an_unchanged_application_arrives_once_with_the_ids_of_its_request(example):
    logs = example.telemetry.of_logger("shop.orders")
    orders = [log for log in logs if log.body == "order read"]
    assert [log.attributes["order"] for log in orders] == list(range(ORDERS))
    spans = example.telemetry.requests("GET /orders/{number}")
    ids = [(log.trace_id, log.span_id) for log in orders]
    assert sorted(ids) == sorted((span.trace_id, span.span_id) for span in spans)
    assert len(set(ids)) == ORDERS


def test_a_secret_that_an_unchanged_application_logs_is_redacted(example):
    (log,) = [log for log in example.telemetry.logs if log.body == "login of ann"]
    assert log.attributes == {"password": "[REDACTED]"}
    assert log.severity_text == "WARNING"
    assert not [one for one in example.telemetry.logs if SECRET in str(one.record)]


def test_the_metrics_of_an_unchanged_application_arrive(example):
    assert "http.server.active_requests" in {name for name, _ in example.telemetry.metrics}


def test_the_last_metrics_show_the_whole_ledger(example):
    sums = example.telemetry.sums
    assert sums["otel.sdk.log.created"] == len(example.telemetry.logs)
    assert sums["otel.sdk.exporter.log.exported"] == len(example.telemetry.logs)
    assert sums["otel.sdk.exporter.log.inflight"] == 0
    assert sums["fapilog.redactions"] >= 1


def test_logs_carry_all_that_the_resource_of_spans_and_metrics_says(example):
    telemetry = example.telemetry
    of_logs = telemetry.logs[0].resource
    assert of_logs["service.name"] == "shop"
    assert of_logs["telemetry.auto.version"]
    for resource in [telemetry.spans[0].resource, telemetry.metrics[0][1]]:
        assert {"service.name", "telemetry.auto.version"} <= set(resource)
        assert {name: of_logs.get(name) for name in resource} == resource


def test_the_records_of_uvicorn_itself_arrive_once(example):
    bodies = Counter(log.body for log in example.telemetry.of_logger("uvicorn.error"))
    assert bodies["Application startup complete."] == 1
    assert sum(bodies[body] for body in bodies if body.startswith("Finished server process")) == 1
    access = Counter(log.body for log in example.telemetry.of_logger("uvicorn.access"))
    assert sum(access.values()) == len(access) == ORDERS + 1


def test_what_the_application_and_uvicorn_write_stays_as_it_is(example):
    assert len(re.findall(r"INFO: .*GET /orders/\d", example.output)) == ORDERS
    assert "Traceback" not in example.output
    assert not re.search("fapilog|not loaded", example.output)


def test_an_application_that_configures_fapilog_itself_gets_its_records_once(tmp_path):
    (tmp_path / "served.py").write_text(FAPILOG)
    port = free_port()
    command = [INSTRUMENT, "uvicorn", "served:app", "--port", str(port)]
    with receiving() as telemetry:
        with serving(telemetry, command, port, tmp_path) as server:
            server.until(lambda: bool(server.get("/orders/0")))
            for number in range(1, ORDERS):
                server.get(f"/orders/{number}")
    assert "fapilog" not in server.output
    spans = {span.span_id for span in telemetry.requests("GET /orders/{number}")}
    for name in ("shop.orders", "shop.vendor"):
        logs = telemetry.of_logger(name)
        assert [log.attributes["order"] for log in logs] == list(range(ORDERS))
        assert {log.span_id for log in logs} == spans


HEALTH_CHECK = "--timeout-worker-healthcheck"
GUNICORN = ["gunicorn", "served:app", "-k", "uvicorn_worker.UvicornWorker", "--workers", "2"]
GUNICORN_OPTIONS = ["--graceful-timeout", "60", "--no-control-socket"]
SERVERS = {
    "gunicorn": [*GUNICORN, *GUNICORN_OPTIONS],
    "gunicorn, preload": [*GUNICORN, *GUNICORN_OPTIONS, "--preload"],
    "uvicorn, workers": [
        *("uvicorn", "served:app", "--workers", "2"),
        *(HEALTH_CHECK, "60"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
def test_each_record_and_each_span_of_every_worker_arrives_once(kind, tmp_path):
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    uvicorn = pytest.importorskip("uvicorn")
    if HEALTH_CHECK in SERVERS[kind] and not hasattr(
        uvicorn.Config("served:app"), "timeout_worker_healthcheck"
    ):
        pytest.skip("this uvicorn ends workers that take more than 5 s to start")
    (tmp_path / "served.py").write_text(STDLIB)
    port = free_port()
    where = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in kind else ["--port", str(port)]
    asked: Counter[str] = Counter()

    def two_have_answered() -> bool:
        asked[server.get("/orders/1")] += 1
        return len(asked) == 2

    with receiving() as telemetry:
        with serving(telemetry, [INSTRUMENT, *SERVERS[kind], *where], port, tmp_path) as server:
            server.until(two_have_answered)
            for _ in range(10):
                asked[server.get("/orders/1")] += 1
    assert_complete(telemetry, asked)
    assert "Traceback" not in server.output


@pytest.mark.slow
def test_each_record_and_each_span_arrives_once_although_uvicorn_reloads(tmp_path):
    served = tmp_path / "served.py"
    served.write_text(STDLIB)
    port = free_port()
    command = [INSTRUMENT, "uvicorn", "served:app", "--port", str(port), "--reload"]
    asked: Counter[str] = Counter()

    def another_has_answered() -> bool:
        asked[server.get("/orders/1")] += 1
        return len(asked) == 2

    with receiving() as telemetry:
        with serving(telemetry, command, port, tmp_path) as server:
            server.until(lambda: bool(asked.update([server.get("/orders/1")]) or asked))
            served.write_text(STDLIB + "\n# changed\n")
            server.until(another_has_answered)
    assert_complete(telemetry, asked)


def assert_complete(telemetry: Telemetry, asked: Counter[str]) -> None:
    """Compare the records of each process with the requests that it has answered."""
    logs = telemetry.of_logger("shop.orders")
    spans = telemetry.requests("GET /orders/{number}")
    assert Counter(str(log.resource["process.pid"]) for log in logs) == asked
    assert Counter(log.span_id for log in logs) == Counter(span.span_id for span in spans)
    instances = {log.span_id: log.resource.get("service.instance.id") for log in logs}
    assert {s.span_id: s.resource.get("service.instance.id") for s in spans} == instances
    assert len(set(instances.values())) in {1, len(asked)}  # older SDKs do not set it
    assert "http.server.active_requests" in {name for name, _ in telemetry.metrics}
