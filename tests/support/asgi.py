"""A server and a middleware for tests of the layers between them: plain ASGI, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fapilog_fastapi.payloads import PayloadCapture, PayloadLogging

import fapilog
from fapilog.sinks import MemorySink

EVERYTHING = PayloadLogging(request_bodies=["/**"], response_bodies=["/**"])
JSON = [(b"content-type", b"application/json")]
TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


def http_scope(**changes: Any) -> dict[str, Any]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/orders/7",
        "root_path": "",
        "query_string": b"",
        "headers": JSON,
        "extensions": {},
    }
    return {**scope, **changes}


def body_messages(*pieces: bytes) -> list[dict[str, Any]]:
    last = len(pieces) - 1
    return [
        {"type": "http.request", "body": piece, "more_body": n < last}
        for n, piece in enumerate(pieces)
    ]


def response_messages(
    *pieces: bytes, status: int = 200, headers: Any = tuple(JSON)
) -> list[dict[str, Any]]:
    last = len(pieces) - 1
    start = {"type": "http.response.start", "status": status, "headers": list(headers)}
    return [start] + [
        {"type": "http.response.body", "body": piece, "more_body": n < last}
        for n, piece in enumerate(pieces)
    ]


class Wired:
    """The smallest middleware, which keeps the captures that it makes."""

    def __init__(self, app: Any, options: PayloadLogging = EVERYTHING) -> None:
        self.app = app
        self.options = options
        self.captures: list[PayloadCapture] = []
        self.most_held = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        capture = PayloadCapture(self.options, scope)
        self.captures.append(capture)

        async def watched_receive() -> Any:
            self.most_held = max(self.most_held, capture.held)
            return await receive()

        async def watched_send(message: Any) -> None:
            self.most_held = max(self.most_held, capture.held)
            await send(message)

        await self.app(scope, capture.receive(watched_receive), capture.send(watched_send))
        self.most_held = max(self.most_held, capture.held)


class Server:
    """Plays a request to an app, and keeps the messages that the app received and sent."""

    def __init__(self, scope: dict[str, Any], messages: Iterable[dict[str, Any]]) -> None:
        self.scope = scope
        self._messages = list(messages)
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        return self._messages.pop(0) if self._messages else {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def play(self, app: Any) -> None:
        await app(self.scope, self.receive, self.send)


def app_that_sends(
    messages: Iterable[dict[str, Any]], *, reads: int | None = None
) -> Callable[..., Any]:
    """Return an app that reads a number of messages, or the whole body, and sends ``messages``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left = reads
        while left is None or left > 0:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                break
            left = None if left is None else left - 1
        for message in messages:
            await send(message)

    return app


async def captured(
    messages: Iterable[dict[str, Any]],
    response: Iterable[dict[str, Any]] = tuple(response_messages(b"{}")),
    *,
    options: PayloadLogging = EVERYTHING,
    reads: int | None = None,
    **scope: Any,
) -> dict[str, Any]:
    """Play one request through a capture, and return its attributes."""
    wired = Wired(app_that_sends(response, reads=reads), options)
    await Server(http_scope(**scope), messages).play(wired)
    (capture,) = wired.captures
    return capture.attributes()


def redacted(attributes: dict[str, Any]) -> dict[str, Any]:
    """Log the attributes, and return the record's attributes at a sink."""
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    fapilog.get_logger("request").info("served", **attributes)
    assert fapilog.flush(10)
    (record,) = sink.records
    return dict(record.attributes)
