"""Clients that disconnect from a real server: a separate outcome, and no error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import pytest
from fapilog_fastapi import FapilogMiddleware, install
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.requests import ClientDisconnect

import fapilog
from tests.support.asgi import Server, http_scope
from tests.support.serving import abort, allow_sockets, serving

STREAMS = 1_000


def streams():
    app = FastAPI()

    @app.get("/async")
    async def asynchronous():
        async def pieces():
            while True:
                yield b"piece"
                await asyncio.sleep(0.01)

        return StreamingResponse(pieces())

    @app.get("/sync")
    async def synchronous():
        def pieces():
            while True:
                yield b"piece"
                time.sleep(0.01)

        return StreamingResponse(pieces())

    return app


async def abort_all(port, paths):
    limit = asyncio.Semaphore(100)

    async def one(path):
        async with limit:
            await abort(port, path)

    await asyncio.gather(*(one(path) for path in paths))


@pytest.mark.slow
def test_a_thousand_aborted_streams_are_a_thousand_records_and_no_error(logged, traces, caplog):
    allow_sockets(1_000)
    app = streams()
    install(app)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=traces.provider)
    fapilog.install_stdlib()
    paths = ["/sync" if number % 10 == 0 else "/async" for number in range(STREAMS)]
    with caplog.at_level(logging.WARNING), serving(app) as port:
        asyncio.run(abort_all(port, paths))
    FastAPIInstrumentor.uninstrument_app(app)
    records = logged("http.server.request.completed")
    assert len(records) == STREAMS
    assert {(r.severity_text, r.attributes["request.outcome"]) for r in records} == {
        ("INFO", "disconnected")
    }
    assert {r.attributes["http.response.status_code"] for r in records} == {200}
    assert all(r.trace_id and r.span_id for r in records)
    assert caplog.records == []  # this includes "Failed to detach context"
    assert [r for r in logged() if r.severity_number > 9] == []


def test_an_upload_that_breaks_off_is_not_an_error(logged):
    app = FastAPI()
    install(app)
    read = asyncio.Event()

    @app.post("/upload")
    async def upload(request: Request):
        async for _ in request.stream():
            read.set()

    async def main(port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc")
        await writer.drain()
        writer.transport.abort()

    fapilog.install_stdlib()
    with serving(app) as port:
        asyncio.run(main(port))
    record = logged.completed()
    assert (record.severity_text, record.body) == ("INFO", "POST /upload disconnected")
    assert [r for r in logged() if r.severity_number > 9] == []


def test_a_disconnect_that_the_application_raises_reaches_the_server(logged):
    async def app(scope, receive, send):
        raise ClientDisconnect

    async def nothing(message=None):
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ClientDisconnect):
        asyncio.run(FapilogMiddleware(app)(scope, nothing, nothing))
    assert logged.completed().attributes["request.outcome"] == "disconnected"


def test_a_generator_that_the_collector_closes_disturbs_nothing(logged, caplog):
    """A request whose task ends in the middle, as when an event loop is closed."""

    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def nothing(message=None):
        return {"type": "http.request"}

    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"traceparent", trace.encode())],
    }
    loop = asyncio.new_event_loop()
    coroutine = FapilogMiddleware(app)(scope, nothing, nothing)
    task = loop.create_task(coroutine)
    loop.call_soon(loop.stop)
    loop.run_forever()
    coroutine.close()  # in a different context than the one it was started in
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert logged.completed().attributes["request.outcome"] == "cancelled"
    assert caplog.records == []


async def leave(app):
    """Send a request, disconnect, and handle the messages that the server would get."""
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    server = Server(http_scope(method="GET", path="/", headers=[]), messages)
    with contextlib.suppress(KeyError):
        await server.play(app)


@pytest.mark.parametrize("arrange", ["install", "add_middleware", "function"])
def test_an_exception_after_the_client_disconnected_is_still_logged(logged, arrange):
    app = FastAPI()

    @app.get("/")
    async def page(request: Request):
        await request.body()
        assert await request.is_disconnected()
        raise KeyError("a fault")

    async def call(scope, receive, send):
        await app(scope, receive, send)

    served: Any = app
    if arrange == "install":
        install(app)
    elif arrange == "add_middleware":
        app.add_middleware(FapilogMiddleware)
    else:
        served = FapilogMiddleware(call)
    asyncio.run(leave(served))
    (record,) = [r for r in logged() if r.scope.name == "fapilog_fastapi"]
    assert record.body.startswith("GET /")
    assert record.body.endswith("disconnected")
    assert record.severity_text == "ERROR"
    assert record.attributes["exception.type"] == record.attributes["error.type"] == "KeyError"


def test_a_handled_exception_after_the_client_disconnected_is_not_an_error(logged):
    app = FastAPI()
    install(app)

    @app.exception_handler(KeyError)
    async def answer(request, error):
        return JSONResponse({}, status_code=409)

    @app.get("/")
    async def page(request: Request):
        await request.body()
        assert await request.is_disconnected()
        raise KeyError("no fault")

    asyncio.run(leave(app))
    (record,) = logged()
    assert record.severity_text == "INFO"
