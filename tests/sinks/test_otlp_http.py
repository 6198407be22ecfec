"""OTLP over HTTP on real sockets: the requests, and the effect of every answer."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
from opentelemetry import context as otel_context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from fapilog.cli.receiver import Receiver
from fapilog.cli.receiver.http import Answer
from fapilog.context import BOUND, SUPPRESSED
from fapilog.errors import (
    AccessDeniedError,
    ConfigurationError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.protocols import Outcome
from fapilog.sinks.http.client import MAX_RESPONSE
from fapilog.sinks.otlp import sink as otlp
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.otlp_servers import (
    EMPTY_OK,
    SocketServer,
    answer_all,
    deliver,
    opened,
    read_request,
)

PROTOBUF = {"Content-Type": "application/x-protobuf"}
SECRET = "s3cr3t-token"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# -- requests -------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_records_arrive_over_a_socket_in_both_encodings(protocol, compression):
    with Receiver(grpc_port=None) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, protocol, compression=compression)) as sink:
            assert deliver(sink, "one", "two") is None
            assert deliver(sink, "three") is None
        assert [log.body for log in receiver.logs] == ["one", "two", "three"]
        assert receiver.logs[0].attributes == {"n": 1}
        assert receiver.requests == 2


@pytest.mark.parametrize(
    ("protocol", "content_type"),
    [("http/protobuf", "application/x-protobuf"), ("http/json", "application/json")],
)
def test_a_request_says_what_it_is_and_who_sends_it(protocol, content_type):
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    sink = OTLPSink(
        "http://collector:4318/base/v1/logs?a=b",
        protocol,
        headers={"X-Scope-OrgID": "team"},
        compression="gzip",
        transport=httpx.MockTransport(handle),
    )
    with opened(sink):
        assert deliver(sink) is None
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://collector:4318/base/v1/logs?a=b")
    assert request.headers["host"] == "collector:4318"
    assert request.headers["content-type"] == content_type
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["x-scope-orgid"] == "team"
    assert request.headers["user-agent"].startswith("fapilog-otlp/")
    body = gzip.decompress(request.content)
    assert b"hello" in body
    if protocol == "http/protobuf":
        assert len(ExportLogsServiceRequest.FromString(body).resource_logs) == 1


def test_requests_share_one_connection():
    with SocketServer(answer_all) as server, opened(OTLPSink(server.url)) as sink:
        for _ in range(3):
            assert deliver(sink) is None
        assert server.connections == 1
        sink.close()


def test_a_connection_that_the_server_closed_while_idle_is_replaced():
    closed = threading.Event()

    def answer_once(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(EMPTY_OK)
        connection.close()
        closed.set()

    with SocketServer(answer_once) as server, opened(OTLPSink(server.url)) as sink:
        assert deliver(sink) is None
        assert closed.wait(10)
        assert deliver(sink) is None
        assert server.connections == 2


def test_a_request_over_the_protocols_limit_is_not_made(monkeypatch):
    monkeypatch.setattr(otlp, "MAX_REQUEST", 100)
    with Receiver(grpc_port=None) as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        with pytest.raises(TooLargeError, match="exceeds the protocol's limit"):
            deliver(sink, "x" * 200)
        assert deliver(sink, "x") is None
        assert receiver.requests == 1


def test_a_sink_that_was_not_opened_opens_itself():
    with Receiver(grpc_port=None) as receiver:
        sink = OTLPSink(receiver.http_endpoint)
        assert deliver(sink) is None
        sink.close()
        sink.close()


def test_own_requests_are_kept_out_of_traces_and_of_fapilogs_own_logs():
    seen: list[tuple[object, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        key = otel_context._SUPPRESS_INSTRUMENTATION_KEY
        seen.append((otel_context.get_value(key), BOUND.get()))
        return httpx.Response(503 if len(seen) > 1 else 200)

    bound, current = BOUND.get(), otel_context.get_current()
    with opened(OTLPSink(transport=httpx.MockTransport(handle))) as sink:
        deliver(sink)
        with pytest.raises(RetryableError):
            deliver(sink)
    assert seen == [(True, SUPPRESSED)] * 2
    assert BOUND.get() is bound
    assert otel_context.get_current() == current


def test_the_http_client_writes_no_line_for_a_request(caplog):
    caplog.set_level(logging.INFO)
    with Receiver(grpc_port=None) as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        deliver(sink)
    assert caplog.records == []


# -- answers --------------------------------------------------------------------


def test_partial_success_counts_rejected_records_and_is_not_an_error():
    answer = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old")
    ).SerializeToString()
    with Receiver(grpc_port=None, respond=lambda path, body: (200, PROTOBUF, answer)) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink, "a", "b", "c") == Outcome(2, "too old")
        assert receiver.requests == 1


def test_partial_success_is_read_in_json_as_well():
    answer = b'{"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": "slow down"}}'
    json_type = {"Content-Type": "application/json"}
    with Receiver(grpc_port=None, respond=lambda path, body: (200, json_type, answer)) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, "http/json")) as sink:
            assert deliver(sink) == Outcome(0, "slow down")


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_status_of_success_is_success(status):
    with Receiver(grpc_port=None, respond=lambda path, body: (status, {}, b"")) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink) is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_retryable_answer_carries_the_seconds_it_asks_for(status):
    answer: Answer = (status, {"Retry-After": "12"}, b"")
    with Receiver(grpc_port=None, respond=lambda path, body: answer) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            with pytest.raises(RetryableError, match=f"HTTP {status}") as caught:
                deliver(sink)
    assert caught.value.retry_after == 12


def test_retry_after_may_be_a_date():
    when = datetime.now(timezone.utc) + timedelta(seconds=100)
    answer = (503, {"Retry-After": format_datetime(when, usegmt=True)}, b"")
    with Receiver(grpc_port=None, respond=lambda path, body: answer) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            with pytest.raises(RetryableError) as caught:
                deliver(sink)
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 100


@pytest.mark.parametrize(("path", "status"), [("/v1/logs", 400), ("/nowhere", 404)])
def test_a_final_answer_names_the_endpoint_and_the_backends_reason(path, status):
    def respond(path: str, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        return (
            (400, {"Content-Type": "application/json"}, b'{"message": "bad data"}')
            if path == "/v1/logs"
            else None
        )

    with Receiver(grpc_port=None, respond=respond) as receiver:
        with opened(OTLPSink(receiver.http_endpoint + path)) as sink:
            with pytest.raises(PermanentError) as caught:
                deliver(sink)
        reason = "bad data" if status == 400 else "no such path: /nowhere"
        assert str(caught.value).startswith(f"{receiver.http_endpoint}{path}: HTTP {status} ")
        assert str(caught.value).endswith(reason)


def test_an_answer_to_a_request_that_is_too_large_is_read_although_sending_it_failed():
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # otherwise a reset could discard the answer
            pass

    with SocketServer(refuse) as server, opened(OTLPSink(server.url)) as sink:
        with pytest.raises(PermanentError, match="HTTP 413"):
            deliver(sink, "x" * 3_000_000)


def test_an_answer_that_repeats_our_credentials_shows_none_of_them():
    answer: Answer = (401, {}, f"the token '{SECRET}' has expired".encode())
    with Receiver(grpc_port=None, respond=lambda path, body: answer) as receiver:
        headers = {"authorization": f"Bearer {SECRET}"}
        with opened(OTLPSink(receiver.http_endpoint, headers=headers)) as sink:
            with pytest.raises(AccessDeniedError, match=r"the token '\[REDACTED\]' has expired"):
                deliver(sink)


def test_a_long_token_in_an_answer_is_hidden_before_the_answer_is_cut():
    token = SECRET * 300
    answer: Answer = (401, {}, f"invalid: Bearer {token}; Bearer {token}".encode())
    with Receiver(grpc_port=None, respond=lambda path, body: answer) as receiver:
        headers = {"authorization": f"Bearer {token}"}
        with opened(OTLPSink(receiver.http_endpoint, headers=headers)) as sink:
            with pytest.raises(AccessDeniedError) as caught:
                deliver(sink)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    with Receiver(grpc_port=None) as other, Receiver(grpc_port=None) as receiver:
        location = other.http_endpoint + "/v1/logs"
        receiver.respond = lambda path, body: (status, {"Location": location}, b"")
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            host = other.http_endpoint.removeprefix("http://")
            with pytest.raises(PermanentError, match=rf"HTTP {status} leads to {host}; .*endpoint"):
                deliver(sink)
        assert other.requests == 0


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/v2/logs", "this host"),
        ("//other.example/x?token=abc", r"other\.example"),
        ("https://me:pass@other.example:1/x", r"other\.example:1"),
        ("http://[", r"\["),
    ],
)
def test_of_a_redirect_only_the_host_is_shown(location, shown):
    answer: Answer = (307, {"Location": location}, b"")
    with Receiver(grpc_port=None, respond=lambda path, body: answer) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            with pytest.raises(PermanentError, match=rf"leads to {shown}; redirects"):
                deliver(sink)


def test_an_endpoint_that_is_no_url_for_the_client_fails_at_start():
    with pytest.raises(ConfigurationError, match=r"^endpoint='http://xn--"):
        OTLPSink("http://xn--\u00e9/").open()


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 999999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_a_huge_answer_is_cut_off_and_final(status, framing):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    def flood(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 %d X\r\n" % status + framing)
        while True:
            connection.sendall(chunk)

    with SocketServer(flood) as server, opened(OTLPSink(server.url)) as sink:
        with pytest.raises(
            PermanentError, match=f"HTTP {status}, and the answer exceeds {MAX_RESPONSE}"
        ):
            deliver(sink)


def test_a_compressed_answer_nobody_asked_for_is_not_unpacked():
    bomb = gzip.compress(bytes(100_000_000))
    headers = {"Content-Encoding": "gzip", **PROTOBUF}
    with Receiver(grpc_port=None) as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        receiver.respond = lambda path, body: (200, headers, bomb)
        assert deliver(sink) is None
        receiver.respond = lambda path, body: (400, headers, bomb)
        with pytest.raises(PermanentError, match=r"HTTP 400 Bad Request$"):
            deliver(sink)
