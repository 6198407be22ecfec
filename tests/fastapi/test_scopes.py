"""Optional parts of ASGI scopes and messages: missing keys, and headers that can be read once."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import fapilog_fastapi
import pytest
from fapilog_fastapi import PayloadLogging

import fapilog
from fapilog.sinks import MemorySink

HEADERS = [(b"host", b"shop.example"), (b"x-request-id", b"r-1"), (b"traceparent", b"")]
MINIMAL = {
    "http": {"type": "http", "method": "GET", "path": "/orders", "http_version": "1.1"},
    "websocket": {"type": "websocket", "path": "/orders"},
    "lifespan": {"type": "lifespan"},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {
        "exclude": ["//other.example/"],
        "payloads": PayloadLogging(
            request_headers=["x-request-id"],
            response_headers=["x-shop"],
            response_bodies=["/**"],
        ),
        "trace_headers": True,
    },
]


@pytest.fixture
def sink() -> Any:
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    yield sink
    fapilog.shutdown()


class Application:
    """Notes its scope, and answers as its kind of connection requires."""

    def __init__(self, headers: Any) -> None:
        self.headers = headers
        self.seen: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen = dict(scope)
        self.seen["headers"] = list(scope.get("headers", ()))
        start = {"type": "http.response.start", "status": 200, **self.headers}
        if scope["type"] == "http":
            await send(start)
            await send({"type": "http.response.body", "body": b"{}"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept", **self.headers})
            await send({"type": "websocket.close"})


def serve(app: Application, scope: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append({**message, "headers": list(message.get("headers", ()))})

    middleware = fapilog_fastapi.FapilogMiddleware(app, **options)
    asyncio.run(middleware(scope, receive, send))
    return sent


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything"])
@pytest.mark.parametrize("kind", MINIMAL)
def test_a_scope_without_its_optional_keys_is_served(kind, options, sink):
    app = Application({})
    serve(app, dict(MINIMAL[kind]), options)
    fapilog.flush(10)
    assert app.seen["type"] == kind
    completed = [r for r in sink.records if r.attributes.get("url.path") == "/orders"]
    assert len(completed) == (kind != "lifespan")


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_headers_that_can_be_read_once_reach_the_application_and_the_record(kind, options, sink):
    app = Application({})
    serve(app, {**MINIMAL[kind], "headers": iter(HEADERS)}, options)
    fapilog.flush(10)
    assert app.seen["headers"] == HEADERS
    (completed,) = [r for r in sink.records if r.attributes.get("url.path") == "/orders"]
    assert completed.attributes["server.address"] == "shop.example"
    assert completed.attributes["request.id"] == "r-1"


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_response_headers_that_can_be_read_once_reach_the_client(kind, options, sink):
    app = Application({"headers": iter([(b"x-shop", b"s-1")])})
    sent = serve(app, dict(MINIMAL[kind]), options)
    assert (b"x-shop", b"s-1") in sent[0]["headers"]


@pytest.mark.parametrize("options", [*OPTIONS, {"exclude": ["/orders"]}])
@pytest.mark.parametrize("kind", MINIMAL)
def test_a_scope_that_cannot_be_changed_is_served(kind, options, sink):
    app = Application({})
    scope: Any = MappingProxyType({**MINIMAL[kind], "headers": HEADERS})
    serve(app, scope, options)
    fapilog.flush(10)
    assert app.seen["headers"] == HEADERS
    completed = [r for r in sink.records if r.attributes.get("url.path") == "/orders"]
    assert len(completed) == (kind != "lifespan" and options.get("exclude") != ["/orders"])
    assert set(scope) == {*MINIMAL[kind], "headers"}
