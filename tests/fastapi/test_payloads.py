from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fapilog_fastapi.payloads import MAX_BODY, PayloadCapture, PayloadLogging

from tests.support.asgi import (
    EVERYTHING,
    JSON,
    TEXT,
    Server,
    Wired,
    app_that_sends,
    body_messages,
    captured,
    http_scope,
    redacted,
    response_messages,
)

FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


def play(*arguments: Any, **options: Any) -> dict[str, Any]:
    return asyncio.run(captured(*arguments, **options))


def test_nothing_is_recorded_by_default():
    assert play(body_messages(b"{}"), options=PayloadLogging()) == {}


def test_json_bodies_are_recorded_as_fields_with_their_sizes_and_redacted_at_any_depth():
    attributes = play(
        body_messages(b'{"user": {"name": "eve", "pass', b'word": "hunter2"}}'),
        response_messages(b'[{"access_token": "abc"}]'),
    )
    assert redacted(attributes) == {
        "http.request.body.size": 48,
        "http.request.body.content": {"user": {"name": "eve", "password": "[REDACTED]"}},
        "http.response.body.size": 25,
        "http.response.body.content": [{"access_token": "[REDACTED]"}],
    }


def test_a_large_json_body_is_marked_and_no_secret_is_left_in_its_half():
    padding = b"x" * MAX_BODY
    body = b'{"id": 7, "password": ["hunter2", "' + padding + b'"]}'
    attributes = play(body_messages(body))
    assert redacted(attributes)["http.request.body.content"] == {"id": 7, "password": "[REDACTED]"}
    assert attributes["http.request.body.size"] == len(body)
    assert attributes["http.request.body.truncated"] is True


def test_a_large_body_of_which_no_part_is_safe_is_left_out_with_a_reason():
    attributes = play(body_messages(b'"' + b"x" * MAX_BODY + b'"'))
    assert attributes["http.request.body.omitted"] == "truncated"
    assert "http.request.body.content" not in attributes


def test_a_form_is_recorded_as_fields():
    attributes = play(body_messages(b"user=eve&password=hunter2"), headers=FORM)
    shown = redacted(attributes)["http.request.body.content"]
    assert shown == {"user": "eve", "password": "[REDACTED]"}


def test_listed_headers_are_recorded_as_lists_and_others_are_not():
    headers = [(b"X-Client", b"a"), (b"x-client", b"b"), (b"authorization", b"Bearer abc123def")]
    attributes = play(
        body_messages(b""),
        response_messages(b"", headers=[(b"Set-Cookie", b"sid=1"), (b"x-other", b"1")]),
        headers=headers,
        options=PayloadLogging(
            request_headers=["X-Client", "authorization"], response_headers=["set-cookie"]
        ),
    )
    assert attributes["http.request.header.x-client"] == ["a", "b"]
    assert redacted(attributes) == {
        "http.request.header.x-client": ["a", "b"],
        "http.request.header.authorization": "[REDACTED]",
        "http.response.header.set-cookie": "[REDACTED]",
    }


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([(b"content-type", b"multipart/form-data; boundary=b")], "multipart"),
        ([(b"content-type", b"image/png")], "content_type"),
        ([], "content_type"),
        ([*JSON, (b"Content-Encoding", b"gzip")], "content_encoding"),
    ],
)
def test_a_body_that_cannot_be_read_safely_is_left_out_with_its_size_and_a_reason(headers, reason):
    options = PayloadLogging(
        request_bodies=["/**"], body_types=["application/json", "multipart/form-data"]
    )
    attributes = play(body_messages(b"12345"), headers=headers, options=options)
    assert attributes == {"http.request.body.size": 5, "http.request.body.omitted": reason}


def test_text_that_holds_binary_data_is_left_out():
    attributes = play(body_messages(b"a\0b"), headers=TEXT)
    assert attributes["http.request.body.omitted"] == "unreadable"


def test_an_unencoded_body_says_so_and_is_recorded():
    headers = [*JSON, (b"content-encoding", b"identity")]
    assert play(body_messages(b"1"), headers=headers)["http.request.body.content"] == 1


def test_the_charset_of_the_content_type_is_used():
    headers = [(b"content-type", b'text/plain; format=flowed; Charset="iso-8859-1"')]
    assert play(body_messages(b"gr\xfcn"), headers=headers)["http.request.body.content"] == "grün"


def test_a_request_without_a_body_has_a_size_and_nothing_else():
    assert play(body_messages(b""), response_messages(b"")) == {
        "http.request.body.size": 0,
        "http.response.body.size": 0,
    }


def test_a_body_that_the_app_never_reads_is_named_by_its_declared_size():
    headers = [*JSON, (b"content-length", b"120")]
    attributes = play(body_messages(b"{}"), headers=headers, reads=0)
    assert attributes["http.request.body.size"] == 120
    assert attributes["http.request.body.omitted"] == "not_read"
    attributes = play(body_messages(b"{}"), headers=JSON, reads=0)
    assert not [name for name in attributes if name.startswith("http.request")]


def test_a_body_that_the_app_reads_in_part_is_marked():
    headers = [*TEXT, (b"content-length", b"11")]
    attributes = play(body_messages(b"hello world", b"!"), headers=headers, reads=1)
    assert attributes["http.request.body.size"] == 11
    assert attributes["http.request.body.content"] == "hello"
    assert attributes["http.request.body.truncated"] is True


def test_a_disconnected_client_leaves_the_bytes_that_arrived():
    messages = [*body_messages(b"one two ", b"")[:1], {"type": "http.disconnect"}]
    attributes = play(messages, headers=TEXT)
    assert attributes["http.request.body.content"] == "one two"
    assert attributes["http.request.body.truncated"] is True


@pytest.mark.parametrize("lying", [b"-5", b"1e3", b"9" * 5000, b"\xff"])
def test_a_nonsensical_content_length_is_ignored(lying):
    headers = [*JSON, (b"content-length", lying)]
    assert not [n for n in play([], headers=headers, reads=0) if n.startswith("http.request")]


def test_only_responses_with_listed_statuses_have_bodies_and_headers_are_always_there():
    options = PayloadLogging(
        request_headers=["x-a"],
        request_bodies=["/**"],
        response_bodies=["/**"],
        body_statuses=["4xx"],
    )
    headers = [*JSON, (b"x-a", b"1")]
    fine = play(body_messages(b"{}"), headers=headers, options=options)
    assert fine == {"http.request.header.x-a": ["1"]}
    failed = play(
        body_messages(b"{}"), response_messages(b"[]", status=404), headers=headers, options=options
    )
    assert failed["http.request.body.content"] == {}
    assert failed["http.response.body.content"] == []
    nothing = play(body_messages(b"{}"), (), headers=headers, options=options)
    assert nothing["http.request.body.content"] == {}
    assert "http.response.body.size" not in nothing


def test_a_status_that_is_known_better_decides():
    capture = PayloadCapture(
        PayloadLogging(request_bodies=["/**"], body_statuses=["5xx"]), http_scope()
    )
    server = Server(http_scope(), body_messages(b"{}"))
    app = app_that_sends(response_messages(b"{}"))
    asyncio.run(app(server.scope, capture.receive(server.receive), capture.send(server.send)))
    assert capture.attributes() == {}
    assert capture.attributes(500)["http.request.body.content"] == {}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_has_no_body_attributes(method, status):
    attributes = play([], response_messages(b"", status=status), method=method)
    assert not [name for name in attributes if name.startswith("http.response")]


@pytest.mark.parametrize(
    ("message", "declared"),
    [
        ({"type": "http.response.pathsend", "path": "/etc/hosts"}, []),
        ({"type": "http.response.zerocopysend", "file": 3, "count": 9}, []),
        ({"type": "http.response.pathsend", "path": "/x"}, [(b"content-length", b"17")]),
    ],
)
def test_a_file_that_the_server_sends_is_not_read(message, declared):
    start = {"type": "http.response.start", "status": 200, "headers": [*JSON, *declared]}
    attributes = play([], [start, message])
    assert attributes["http.response.body.omitted"] == "file"
    assert attributes.get("http.response.body.size") == (17 if declared else None)


def test_messages_of_extensions_pass_as_they_are():
    start, body = response_messages(b"{}")
    messages: list[dict[str, Any]] = [
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.push", "path": "/a", "headers": []},
        {"type": "http.response.debug", "info": {}},
        {**start, "trailers": True},
        body,
        {"type": "http.response.trailers", "headers": [(b"x", b"y")], "more_trailers": False},
    ]
    wired = Wired(app_that_sends(messages))
    server = Server(http_scope(), body_messages(b"{}"))
    asyncio.run(server.play(wired))
    assert len(server.sent) == len(messages)
    assert all(sent is message for sent, message in zip(server.sent, messages, strict=True))
    assert wired.captures[0].attributes()["http.response.body.content"] == {}


def test_headers_that_can_be_read_only_once_reach_the_server_and_are_looked_at():
    start: dict[str, Any] = {"type": "http.response.start", "status": 200}
    start["headers"] = iter(JSON)
    options = PayloadLogging(response_headers=["content-type"], response_bodies=["/**"])
    server = Server(http_scope(), [])
    wired = Wired(app_that_sends([start, {"type": "http.response.body", "body": b"{}"}]), options)
    asyncio.run(server.play(wired))
    assert list(server.sent[0]["headers"]) == JSON
    assert wired.captures[0].attributes()["http.response.body.content"] == {}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bodies_of_any_type_of_bytes_are_copied(kind):
    start, body = response_messages(b"")
    attributes = play([], [start, {**body, "body": kind(b"[1, 2]")}])
    assert attributes["http.response.body.content"] == [1, 2]


def test_websockets_and_lifespan_pass_untouched():
    for kind in ("websocket", "lifespan"):
        capture = PayloadCapture(EVERYTHING, {"type": kind})
        server = Server({}, [])
        receive, send = server.receive, server.send
        assert capture.receive(receive) is receive
        assert capture.send(send) is send
        assert capture.attributes() == {}


def test_requests_that_are_not_recorded_are_not_wrapped():
    options = PayloadLogging(response_bodies=["/**"])
    receive = Server({}, []).receive
    assert PayloadCapture(options, http_scope()).receive(receive) is receive


def test_an_error_of_the_server_passes_to_the_app():
    async def send(message):
        raise OSError("gone")

    async def run():
        capture = PayloadCapture(EVERYTHING, http_scope())
        start, body = response_messages(b"{}")
        for message in (start, body):
            with pytest.raises(OSError, match="gone"):
                await capture.send(send)(message)
        return capture.attributes()

    assert "http.response.body.content" not in asyncio.run(run())


def test_headers_are_read_before_middleware_further_out_changes_them():
    async def send(message):
        message["headers"][:] = [(b"content-encoding", b"gzip")]

    async def run():
        capture = PayloadCapture(EVERYTHING, http_scope())
        for message in response_messages(b'{"a": 1}'):
            if message["type"] == "http.response.start":
                await capture.send(send)(message)
            else:
                await capture.send(Server({}, []).send)(message)
        return capture.attributes()

    assert asyncio.run(run())["http.response.body.content"] == {"a": 1}
