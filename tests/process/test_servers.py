"""Real servers with several processes: each record of each process arrives exactly once."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import Ids, environment, kill, numbered, otlp, receiving

pytestmark = pytest.mark.skipif(os.name == "nt", reason="servers that fork")

WSGI = """
import fapilog
log = fapilog.get_logger("app")
fapilog.configure()
log.info("loaded")

def app(environ, start_response):
    log.info(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI = """
import asyncio, contextlib, fapilog
log = fapilog.get_logger("app")
fapilog.configure()
log.info("loaded")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                log.info("stopped")
                await asyncio.to_thread(fapilog.flush, 60)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    log.info(scope["path"])
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""
#: Configures fapilog with its first record, and does not serve the lifespan.
LAZY = """
import fapilog
log = fapilog.get_logger("app")

async def app(scope, receive, send):
    assert scope["type"] == "http"
    log.info(scope["path"])
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""
OWN_HANDLER = """
import signal, sys

def end(*_):
    fapilog.get_logger("app").info("ended by the application")
    sys.exit()

if __name__ == "__main__":
    import uvicorn
    signal.signal(signal.SIGTERM, end)
    uvicorn.run(app, port=int(sys.argv[1]))
"""


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    directory: Path, ids: Ids, *arguments: str, app: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a module with the application ``app`` beside it, until it has ended by SIGTERM."""
    (directory / "served.py").write_text(textwrap.dedent(app))
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=environment(**otlp(ids), PYTHONPATH=str(directory)),
    ) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=90)
            assert "Traceback" not in output, output
        finally:
            kill(process)


def get(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    assert connection.getresponse().read() == b"ok"
    connection.close()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


GUNICORN = {
    "prefork": (["--workers", "2"], WSGI),
    "preload": (["--workers", "2", "--preload"], WSGI),
    "threads": (["--workers", "2", "--threads", "4", "--preload"], WSGI),
    "gevent": (["--workers", "2", "-k", "gevent"], WSGI),
    "gevent, preload": (["--workers", "2", "-k", "gevent", "--preload"], WSGI),
    "uvicorn workers": (["--workers", "2", "-k", "uvicorn.workers.UvicornWorker"], ASGI),
    "uvicorn workers, preload": (
        ["--workers", "2", "-k", "uvicorn.workers.UvicornWorker", "--preload"],
        ASGI,
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "preload" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in GUNICORN
    ],
)
def test_each_record_of_a_gunicorn_arrives_once(kind: str, tmp_path: Path):
    pytest.importorskip("gunicorn")
    arguments, app = GUNICORN[kind]
    if "gevent" in arguments:
        pytest.importorskip("gevent")
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "60"]
    command = ["gunicorn", "served:app", *bind, *arguments, "--no-control-socket"]
    loads = 1 if "--preload" in arguments else 2  # per worker without preload
    with receiving() as ids:
        with running(tmp_path, ids, *command, app=app):
            until(lambda: answers(port) and ids.counts["loaded"] >= loads)
            for n in range(40):
                get(port, f"/{n}")
        assert ids.counts.pop("loaded") == loads
        # gunicorn does not stop a worker that is still starting.
        assert ids.counts.pop("stopped", 0) in ({1, 2} if app is ASGI else {0})
        ids.assert_each_once(numbered("/", 40))


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_each_record_of_a_uvicorn_arrives_once(workers: str, tmp_path: Path):
    pytest.importorskip("uvicorn")
    port = free_port()
    command = ["uvicorn", "served:app", "--port", str(port), "--workers", workers]
    with receiving() as ids:
        with running(tmp_path, ids, *command, app=ASGI):
            until(lambda: answers(port) and ids.counts["loaded"] >= int(workers))
            for n in range(40):
                get(port, f"/{n}")
        del ids.counts["loaded"]
        assert 1 <= ids.counts.pop("stopped") <= int(workers)
        ids.assert_each_once(numbered("/", 40))


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_uvicorn_that_handles_sigterm_before_fapilog_loses_nothing(workers: str, tmp_path: Path):
    pytest.importorskip("uvicorn")
    port = free_port()
    command = ["uvicorn", "served:app", "--port", str(port), "--workers", workers]
    with receiving() as ids:
        with running(tmp_path, ids, *command, app=LAZY):
            until(lambda: answers(port))
            for n in range(5):
                get(port, f"/{n}")
        ids.assert_each_once(numbered("/", 5))


def test_a_handler_that_the_application_installed_before_uvicorn_still_gets_the_signal(
    tmp_path: Path,
):
    pytest.importorskip("uvicorn")
    port = free_port()
    with receiving() as ids:
        with running(tmp_path, ids, "served", str(port), app=LAZY + OWN_HANDLER) as process:
            until(lambda: answers(port))
            get(port, "/0")
        assert process.returncode == 0
        ids.assert_each_once(["/0", "ended by the application"])
