"""``install(app)`` is the only line: real servers deliver every record when a signal ends them."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.zero_code import INSTRUMENT, Server, Telemetry, receiving, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM, and servers that fork")

REQUESTS = 5
APPLICATIONS = """
import contextlib
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import fapilog, fapilog_fastapi

log = fapilog.get_logger("shop")

def read_order(request):
    log.info("order read")
    return PlainTextResponse(request.path_params["number"])

routes = [Route("/orders/{number}", read_order)]

@contextlib.asynccontextmanager
async def own(app):
    yield
    log.info("closing")

async def bare(scope, receive, send):
    assert scope["type"] == "http"
    log.info("order read")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read"})

fastapi = FastAPI(routes=routes)
fapilog_fastapi.install(fastapi)
starlette = Starlette(routes=routes, lifespan=own)
fapilog_fastapi.install(starlette)
added = FastAPI(routes=routes, lifespan=own)
added.add_middleware(fapilog_fastapi.FapilogMiddleware)
mounted = FastAPI(routes=[Mount("/", app=fastapi)])
router = Mount("/", routes=routes, middleware=[Middleware(fapilog_fastapi.FapilogMiddleware)])
routed = Starlette(routes=[router])
wrapped = fapilog_fastapi.FapilogMiddleware(bare)
"""
EVENTS = Counter({"order read": REQUESTS, "GET": REQUESTS})
CLOSING = Counter({**EVENTS, "closing": 1})


def seen(telemetry: Telemetry) -> Counter[str]:
    """Count the bodies; all completion records count as their method."""
    return Counter(
        log.body.split()[0] if log.scope.name == "fapilog_fastapi" else log.body
        for log in telemetry.logs
        if not log.scope.name.startswith("uvicorn")
    )


def ask(server: Server) -> None:
    server.until(lambda: bool(server.get("/orders/0")))
    for number in range(1, REQUESTS):
        server.get(f"/orders/{number}")


def run(
    directory: Path, *command: str, ending: signal.Signals = signal.SIGTERM
) -> tuple[Telemetry, str]:
    """Serve five requests, end the server, and return what arrived and what it has printed."""
    (directory / "served.py").write_text(APPLICATIONS)
    port = free_port()
    command = tuple(word.replace("PORT", str(port)) for word in command)
    with receiving() as telemetry:
        with serving(telemetry, [*command], port, directory) as server:
            server.ending = ending
            ask(server)
        return telemetry, server.output


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("fastapi", EVENTS),
        ("starlette", CLOSING),
        ("added", CLOSING),
        ("mounted", EVENTS),
        pytest.param("routed", EVENTS, marks=pytest.mark.slow),
        ("wrapped", EVENTS),
    ],
)
def test_every_record_arrives_when_sigterm_ends_uvicorn(app, expected, tmp_path):
    telemetry, output = run(tmp_path, "uvicorn", f"served:{app}", "--port", "PORT")
    assert seen(telemetry) == expected
    assert "Traceback" not in output


GUNICORN = "gunicorn --bind 127.0.0.1:PORT --workers 2 -k uvicorn_worker.UvicornWorker"
COMMANDS = {
    "uvicorn, no lifespan": "uvicorn --port PORT --lifespan off",
    "uvicorn, workers": "uvicorn --port PORT --workers 2",
    "uvicorn, reload": "uvicorn --port PORT --reload",
    "gunicorn": f"{GUNICORN} --no-control-socket",
    "gunicorn, preload": f"{GUNICORN} --no-control-socket --preload",
    "hypercorn": "hypercorn --bind 127.0.0.1:PORT",
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_every_record_arrives_however_the_server_runs_and_ends(kind, ending, tmp_path):
    command = COMMANDS[kind].split()
    for name in (command[0], "uvicorn_worker"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    telemetry, _ = run(tmp_path, *command, "served:fastapi", ending=ending)
    assert seen(telemetry) == EVENTS


def test_spans_arrive_too_if_fapilogs_distro_configures_them(tmp_path):
    telemetry, _ = run(tmp_path, INSTRUMENT, "uvicorn", "served:fastapi", "--port", "PORT")
    assert seen(telemetry) == EVENTS
    spans = {span.span_id for span in telemetry.requests("GET /orders/{number}")}
    assert len(spans) == REQUESTS
    completed = [log for log in telemetry.logs if log.scope.name == "fapilog_fastapi"]
    assert {log.span_id for log in completed} == spans
