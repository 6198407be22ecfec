"""WebSockets: one record per connection, with how it was accepted and closed."""

from __future__ import annotations

import asyncio

import pytest
import websockets
from fapilog_fastapi import FapilogMiddleware, install
from fastapi import FastAPI, WebSocket, WebSocketException
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

import fapilog
from tests.support.asgi import Server, http_scope
from tests.support.serving import WEBSOCKETS, TestClient, serving


def chat(**options):
    app = FastAPI()
    install(app, **options)

    @app.websocket("/rooms/{room}")
    async def room(websocket: WebSocket, room: str):
        await websocket.accept()
        fapilog.get_logger("chat").info("joined")
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            return

    @app.websocket("/careless")
    async def careless(websocket: WebSocket):
        await websocket.accept()
        await websocket.receive_text()

    @app.websocket("/closing/{code}")
    async def closing(websocket: WebSocket, code: int):
        await websocket.accept()
        await websocket.close(code)

    @app.websocket("/refused")
    async def refused(websocket: WebSocket):
        await websocket.close()

    @app.websocket("/denied")
    async def denied(websocket: WebSocket):
        await websocket.send_denial_response(PlainTextResponse("no", status_code=401))

    @app.websocket("/boom")
    async def boom(websocket: WebSocket):
        await websocket.accept()
        raise ValueError("boom")

    return app


def test_a_websocket_is_one_record_when_it_has_closed(logged):
    http = TestClient(chat())
    with http.websocket_connect("/rooms/7?x=1", headers={"x-request-id": "r-1"}) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
        assert dict(socket.extra_headers or [])[b"x-request-id"] == b"r-1"
    joined, record = logged()
    assert joined.attributes["request.id"] == record.attributes["request.id"] == "r-1"
    assert (record.severity_text, record.body) == ("INFO", "WebSocket /rooms/{room} 1000")
    attributes = record.attributes
    assert attributes["http.route"] == "/rooms/{room}"
    assert attributes["http.response.status_code"] == 101
    assert attributes["websocket.accepted"] is True
    assert attributes["websocket.close.code"] == 1000
    assert attributes["websocket.closed_by"] == "client"
    assert attributes["url.scheme"] == "ws"
    assert attributes["url.query"] == "x=1"
    assert attributes["network.protocol.name"] == "websocket"


@pytest.mark.parametrize(("code", "severity"), [(1000, "INFO"), (1011, "ERROR"), (4000, "INFO")])
def test_the_server_may_close_it(logged, code, severity):
    with TestClient(chat()).websocket_connect(f"/closing/{code}") as socket:
        assert socket.receive()["code"] == code
    record = logged.closed()
    assert record.severity_text == severity
    assert record.attributes["websocket.closed_by"] == "server"
    assert record.attributes["websocket.close.code"] == code


@pytest.mark.parametrize(("path", "status"), [("/refused", 403), ("/denied", 401)])
def test_a_refused_handshake_has_its_status(logged, path, status):
    with pytest.raises(Exception):  # noqa: B017 - of a kind that differs by version
        with TestClient(chat()).websocket_connect(path):
            pass
    record = logged.closed()
    assert (record.severity_text, record.body) == ("WARN", f"WebSocket {path} {status}")
    assert record.attributes["websocket.accepted"] is False
    assert record.attributes["http.response.status_code"] == status


def test_an_exception_in_a_websocket_is_an_error_with_a_trace(logged):
    with pytest.raises(ValueError, match="boom"):
        with TestClient(chat()).websocket_connect("/boom") as socket:
            socket.receive()
    record = logged.closed()
    assert record.severity_text == "ERROR"
    assert record.attributes["error.type"] == "ValueError"
    assert "boom" in record.attributes["exception.stacktrace"]


@pytest.mark.parametrize("code", [1000, 1001, 1006])
def test_an_uncaught_disconnect_of_a_client_is_not_an_error(logged, code):
    with pytest.raises(WebSocketDisconnect):
        with TestClient(chat()).websocket_connect("/careless") as socket:
            socket.close(code)
    record = logged.closed()
    assert record.severity_text == "INFO"
    assert record.attributes["request.outcome"] == "disconnected"
    assert record.attributes["websocket.close.code"] == code
    assert "exception.stacktrace" not in record.attributes


@pytest.mark.skipif(not WEBSOCKETS, reason="this uvicorn's WebSockets use what is deprecated")
@pytest.mark.parametrize("replace", [True, False])
def test_through_a_real_server_the_handshake_is_logged_once(logged, replace):
    async def main(port):
        async with websockets.connect(f"ws://127.0.0.1:{port}/rooms/7") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"

    fapilog.install_stdlib("info")
    with serving(chat(replace_access_log=replace)) as port:
        asyncio.run(main(port))
    lines = [r for r in logged() if "WebSocket /rooms/7" in str(r.body)]
    assert len(lines) == (0 if replace else 1)
    assert logged.closed().attributes["websocket.close.code"] == 1000


@pytest.mark.parametrize("how", ["close", "exception"])
def test_a_failure_of_the_server_is_logged_with_its_cause_regardless_of_sampling(logged, how):
    app = FastAPI()
    install(app, sample=0.0, debug_on_error=True)

    @app.websocket("/")
    async def failing(websocket: WebSocket):
        await websocket.accept()
        fapilog.get_logger("chat").debug("what led there")
        if how == "exception":
            raise WebSocketException(1011)
        await websocket.close(1011)

    with TestClient(app).websocket_connect("/") as socket:
        socket.receive()
    debug, record = logged()
    assert (debug.body, record.severity_text) == ("what led there", "ERROR")
    assert record.attributes["error.type"] == "1011"
    assert "exception.stacktrace" not in record.attributes


def test_a_handshake_that_is_not_answered_is_incomplete(logged):
    async def nothing(scope, receive, send):
        await receive()

    scope = http_scope(type="websocket", path="/ws")
    server = Server(scope, [{"type": "websocket.connect"}])
    asyncio.run(server.play(FapilogMiddleware(nothing)))
    record = logged.closed()
    assert (record.severity_text, record.body) == ("WARN", "WebSocket /ws incomplete")
    assert record.attributes["request.outcome"] == "incomplete"
