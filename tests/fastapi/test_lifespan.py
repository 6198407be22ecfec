"""The lifespan: ``install`` delivers at its end, and ``lifespan`` also configures fapilog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import anyio
import pytest
from fapilog_fastapi import FapilogMiddleware, install, lifespan
from fastapi import FastAPI, Request
from starlette.applications import Starlette

import fapilog
from fapilog import ConfigurationError
from fapilog.sinks import MemorySink
from tests.support.serving import TestClient

# ---- what install() and FapilogMiddleware do


class Server:
    """Runs the lifespan of an application as a server does.

    Attributes:
        sent: the messages of the application, with the bodies that were delivered before.
    """

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink
        self.sent: list[tuple[str, list[object]]] = []
        self.messages: list[str] = []

    async def run(self, app: Any) -> None:
        types = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, Any]:
            return {"type": next(types)}

        async def send(message: Any) -> None:
            self.sent.append((message["type"], [record.body for record in self.sink.records]))
            self.messages.append(message.get("message", ""))
            if message["type"].endswith("failed"):
                logging.getLogger("uvicorn.error").error(message["message"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server, and a sink to which only a flush delivers."""
    sink = MemorySink()
    fapilog.configure(sinks=[sink], level="info", schedule_delay=3600)
    yield Server(sink)
    fapilog.shutdown()


@contextlib.asynccontextmanager
async def own(_app: Any) -> Any:
    fapilog.get_logger("shop").info("starting")
    yield
    fapilog.get_logger("shop").info("stopping")


def installed(app: Starlette) -> Any:
    install(app)
    return app


def added(app: Starlette) -> Any:
    app.add_middleware(FapilogMiddleware)
    return app


def twice(app: Starlette) -> Any:
    return installed(added(app))


@pytest.mark.parametrize("add", [installed, added, twice, FapilogMiddleware])
@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_all_records_are_delivered_before_the_server_learns_that_the_application_has_ended(
    kind: type[Starlette], add: Callable[[Starlette], Any], server: Server
) -> None:
    asyncio.run(server.run(add(kind(lifespan=own))))
    assert server.sent[0][0] == "lifespan.startup.complete"
    assert server.sent[1] == ("lifespan.shutdown.complete", ["starting", "stopping"])


def test_an_application_without_a_lifespan_delivers_at_the_end(server: Server) -> None:
    app = installed(FastAPI())
    fapilog.get_logger("shop").info("imported")
    asyncio.run(server.run(app))
    assert server.sent[1] == ("lifespan.shutdown.complete", ["imported"])


def test_the_lifespan_and_install_deliver_together_within_the_time_of_the_lifespan(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    monkeypatch.setattr(fapilog, "flush", times.append)
    asyncio.run(server.run(installed(FastAPI(lifespan=lifespan(own, timeout=7)))))
    asyncio.run(server.run(installed(FastAPI())))
    asyncio.run(server.run(FastAPI(lifespan=lifespan(timeout=8))))
    assert times == [7, 5.0, 8]  # without the lifespan: shutdown_timeout


def test_the_delivery_needs_none_of_the_threads_of_the_application(server: Server) -> None:
    @contextlib.asynccontextmanager
    async def busy(app: Any) -> Any:
        async with own(app):
            anyio.to_thread.current_default_thread_limiter().total_tokens = 1
            await anyio.to_thread.current_default_thread_limiter().acquire()
            yield

    asyncio.run(server.run(installed(FastAPI(lifespan=busy))))
    assert server.sent[1] == ("lifespan.shutdown.complete", ["starting", "stopping"])


@pytest.mark.parametrize("stage", ["startup", "shutdown"])
def test_an_exception_of_the_lifespan_is_one_record_and_reaches_the_server(
    stage: str, server: Server
) -> None:
    @contextlib.asynccontextmanager
    async def failing(_app: Any) -> Any:
        if stage == "startup":
            raise RuntimeError("no database")
        yield
        raise RuntimeError("no database")

    fapilog.install_stdlib()
    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(server.run(installed(FastAPI(lifespan=failing))))
    failure = "the application's lifespan failed"
    assert server.sent[-1] == (f"lifespan.{stage}.failed", [failure])
    assert "RuntimeError: no database" in server.messages[-1]
    assert fapilog.flush(30)
    (record,) = server.sink.records
    assert record.severity_text == "ERROR"
    assert record.attributes["exception.message"] == "no database"


def test_an_exception_is_one_record_also_if_the_lifespan_has_shut_fapilog_down(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    @contextlib.asynccontextmanager
    async def failing(app: Any) -> Any:
        if app:
            raise RuntimeError("no database")
        yield

    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(server.run(installed(FastAPI(lifespan=lifespan(failing, sinks=[server.sink])))))
    assert server.sent[-1] == ("lifespan.startup.failed", ["the application's lifespan failed"])
    assert len(server.sink.records) == 1
    assert "fapilog:" not in capfd.readouterr().err


def test_a_failure_that_an_application_only_reports_is_logged_with_its_reason(
    server: Server,
) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    asyncio.run(server.run(FapilogMiddleware(app)))
    body = "the application's lifespan failed: no database"
    assert server.sent == [("lifespan.startup.failed", [body])]


def test_an_application_that_does_not_serve_the_lifespan_raises_as_before(server: Server) -> None:
    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        assert scope["type"] == "http", "only http"

    with pytest.raises(AssertionError, match="only http"):
        asyncio.run(server.run(FapilogMiddleware(app)))
    assert server.sent == []


def test_a_wrong_variable_stops_the_start_with_one_line_unless_the_application_configures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAPILOG_SINKS", "nonsense")
    server = Server(MemorySink())
    with pytest.raises(ConfigurationError, match="FAPILOG_SINKS"):
        asyncio.run(server.run(installed(FastAPI())))
    assert [kind for kind, _ in server.sent] == ["lifespan.startup.failed"]
    assert server.messages[0].startswith("FAPILOG_SINKS: 'nonsense'")
    assert "\n" not in server.messages[0]
    app = FastAPI(lifespan=lifespan(own, sinks=[server.sink]))
    asyncio.run(server.run(installed(app)))
    assert server.sent[-1] == ("lifespan.shutdown.complete", ["starting", "stopping"])


# ---- what lifespan() does


def test_a_lifespan_with_options_configures_delivers_and_shuts_down():
    sink = MemorySink()
    app = FastAPI(lifespan=lifespan(sinks=[sink], level="debug"))
    install(app)

    @app.get("/")
    async def root():
        fapilog.get_logger("shop").debug("x")

    with TestClient(app) as http:
        http.get("/")
    assert [r.body for r in sink.records] == ["x", "GET / 200"]
    assert not [t for t in threading.enumerate() if t.name.startswith("fapilog-")]


def test_without_options_the_lifespan_leaves_the_configuration_and_flushes(logged):
    with TestClient(FastAPI(lifespan=lifespan())):
        fapilog.get_logger("shop").info("x")
    assert [r.body for r in logged.sink.records] == ["x"]
    fapilog.get_logger("shop").info("still there")
    assert logged.bodies() == ["x", "still there"]


def test_the_applications_own_lifespan_runs_inside_with_its_state(logged):
    steps = []

    @contextlib.asynccontextmanager
    async def own(app):
        steps.append(f"start {app.title}")
        yield {"database": "connected"}
        fapilog.get_logger("shop").info("closing")
        steps.append("stop")

    app = FastAPI(title="shop", lifespan=lifespan(own))

    @app.get("/")
    async def root(request: Request):
        return request.state.database

    with TestClient(app) as http:
        assert http.get("/").json() == "connected"
    assert steps == ["start shop", "stop"]
    assert [r.body for r in logged.sink.records] == ["closing"]


def test_a_wrong_option_of_the_lifespan_stops_the_start():
    with (
        pytest.raises(ConfigurationError, match="level"),
        TestClient(FastAPI(lifespan=lifespan(level="loud"))),
    ):
        pass
    with pytest.raises(ConfigurationError, match="timeout"):
        lifespan(timeout=0)
    with pytest.raises(ConfigurationError, match="inner"):
        lifespan(cast("Any", "own"))


async def generator(app):
    yield


async def coroutine(app):
    return


def plain_generator(app):
    yield


@pytest.mark.parametrize("inner", [generator, coroutine, plain_generator])
def test_a_lifespan_without_its_decorator_is_refused_at_once(inner):
    with pytest.raises(ConfigurationError, match=r"^inner=.*asynccontextmanager"):
        lifespan(inner)
    lifespan(contextlib.asynccontextmanager(generator))


def test_an_application_that_fails_to_start_still_delivers(logged):
    @contextlib.asynccontextmanager
    async def own(app):
        fapilog.get_logger("shop").error("no database")
        if app:
            raise RuntimeError("no database")
        yield

    with (
        pytest.raises(RuntimeError, match="no database"),
        TestClient(FastAPI(lifespan=lifespan(own))),
    ):
        pass
    assert [r.body for r in logged.sink.records] == ["no database"]


@pytest.mark.parametrize("stage", ["start", "stop"])
def test_an_exception_of_the_applications_lifespan_is_logged_before_the_shutdown(stage):
    @contextlib.asynccontextmanager
    async def own(app):
        if stage == "start":
            raise RuntimeError("no database")
        yield
        raise RuntimeError("no database")

    sink = MemorySink()
    with (
        pytest.raises(RuntimeError, match="no database"),
        TestClient(FastAPI(lifespan=lifespan(own, sinks=[sink]))),
    ):
        pass
    (record,) = sink.records
    assert (record.severity_text, record.body) == ("ERROR", "the application's lifespan failed")
    assert record.attributes["exception.message"] == "no database"


def test_the_end_of_the_lifespan_does_not_block_the_loop():
    entered, leave = threading.Event(), threading.Event()

    class Stuck(MemorySink):
        def send(self, batch, timeout):
            entered.set()
            leave.wait(20)
            super().send(batch, timeout)

    sink = Stuck()
    app = FastAPI(lifespan=lifespan(sinks=[sink], timeout=20))

    async def main():
        manager = app.router.lifespan_context(app)
        await manager.__aenter__()
        fapilog.get_logger("shop").info("x")
        await asyncio.to_thread(entered.wait, 20)
        end = asyncio.create_task(manager.__aexit__(None, None, None))
        await asyncio.sleep(0)  # runs while the delivery is stuck
        assert not end.done()
        leave.set()
        await end

    asyncio.run(main())
    assert [r.body for r in sink.records] == ["x"]
