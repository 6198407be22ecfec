"""With a capture between them, app and client see the same messages at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from fapilog_fastapi.payloads import MAX_BODY, PayloadLogging
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.asgi import (
    JSON,
    TEXT,
    Server,
    Wired,
    body_messages,
    http_scope,
    response_messages,
)

CHUNKS = st.lists(st.binary(max_size=40), min_size=1, max_size=8)
TYPES = st.sampled_from(
    [
        JSON,
        TEXT,
        [(b"content-type", b"application/x-www-form-urlencoded; charset=utf-16")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")],
        [],
    ]
)
ALL_TYPES = ["application/json", "text/plain", "*/*"]


class Recorder:
    """An app that notes the messages it receives, and sends the given ones, in turns."""

    def __init__(self, messages: list[dict[str, Any]], turns: list[bool]) -> None:
        self.messages = [*messages]
        self.turns = turns
        self.received: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for reads in self.turns:
            if reads:
                self.received.append(await receive())
            elif self.messages:
                await send(self.messages.pop(0))
        for message in self.messages:
            await send(message)


def play(wired: bool, scope: Any, request: Any, response: Any, turns: Any, limit: int) -> Any:
    app = Recorder(response, turns)
    options = PayloadLogging(
        request_headers=["content-type"],
        request_bodies=["/**"],
        response_bodies=["/**"],
        body_types=ALL_TYPES,
        body_limit=limit,
    )
    middleware = Wired(app, options)
    server = Server(scope, request)
    asyncio.run(server.play(middleware if wired else app))
    if wired:
        capture = middleware.captures[0]
        assert middleware.most_held <= 2 * limit
        for body in (capture._request, capture._response):
            assert body is None or len(body.held) <= limit
        assert isinstance(capture.attributes(), dict)
    return app.received, server.sent


@settings(max_examples=100, deadline=None)
@given(
    request=CHUNKS,
    response=CHUNKS,
    types=st.tuples(TYPES, TYPES),
    turns=st.lists(st.booleans(), max_size=14),
    status=st.sampled_from([200, 204, 404, 500]),
    limit=st.integers(1, 64),
)
def test_any_body_in_any_pieces_reaches_both_sides_as_without_a_capture(
    request, response, types, turns, status, limit
):
    scope = http_scope(headers=types[0])
    sent = response_messages(*response, status=status, headers=types[1])
    plain = play(False, scope, body_messages(*request), sent, turns, limit)
    assert play(True, scope, body_messages(*request), sent, turns, limit) == plain


def test_each_of_a_thousand_chunks_is_with_the_client_before_the_app_makes_the_next():
    chunks = [b"data: %d\n\n" % n for n in range(1000)]
    client: list[bytes] = []

    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for n, chunk in enumerate(chunks):
            assert len(client) == n
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            assert client[-1] is chunk
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        if message.get("body"):
            client.append(message["body"])

    options = PayloadLogging(response_bodies=["/**"], body_types=["text/*"], body_limit=200)
    wired = Wired(app, options)
    asyncio.run(wired(http_scope(), Server({}, []).receive, send))
    assert client == chunks
    attributes = wired.captures[0].attributes()
    assert attributes["http.response.body.size"] == sum(map(len, chunks))
    assert attributes["http.response.body.content"].startswith("data: 0")
    assert attributes["http.response.body.truncated"] is True
    assert wired.most_held <= 200


def test_the_first_bytes_are_with_the_client_before_they_are_copied():
    held: list[int] = []

    async def app(scope, receive, send):
        for message in response_messages(b"[1]"):
            await send(message)

    async def send(message):
        held.append(wired.captures[0].held)

    wired = Wired(app, PayloadLogging(response_bodies=["/**"]))
    asyncio.run(wired(http_scope(), Server({}, []).receive, send))
    assert held == [0, 0]
    assert wired.captures[0].held == 3


def test_a_body_of_tiny_pieces_holds_no_more_than_its_bytes():
    pieces = [b"ab"] * MAX_BODY
    wired = Wired(Recorder(response_messages(b""), [True] * len(pieces)))
    asyncio.run(Server(http_scope(), body_messages(*pieces)).play(wired))
    (capture,) = wired.captures
    assert capture.held == MAX_BODY
    assert capture.attributes()["http.request.body.size"] == 2 * MAX_BODY
