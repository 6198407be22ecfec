"""OTLP over HTTP on a bad network, with TLS, through a proxy, and after a fork."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from fapilog.cli.receiver import Receiver
from fapilog.errors import ConfigurationError, NoAnswerError, PermanentError, RetryableError
from fapilog.protocols import Outcome
from fapilog.sinks.http import transport as network
from fapilog.sinks.http.transport import NETWORK_ERRORS
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.otlp_servers import (
    EMPTY_OK,
    Certificates,
    SocketServer,
    answer_all,
    deliver,
    opened,
    read_request,
)
from tests.support.ports import free_port
from tests.support.sinks import send_around_a_fork


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def watched(stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
    """Return the stream as httpcore sees it, with a deadline in a minute."""
    backend = network._Backend()
    backend.deadline = time.monotonic() + 60
    return backend.watch(stream)


# -- trouble on the network -----------------------------------------------------


def dribble(answer: bytes) -> Callable[[socket.socket], None]:
    """Answer correctly, but far more slowly than the time limit allows."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        for index in range(len(answer)):
            connection.sendall(answer[index : index + 1])
            time.sleep(0.05)

    return script


@pytest.mark.parametrize(
    "answer",
    [
        EMPTY_OK,
        EMPTY_OK[:-2] + b"X: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + bytes(99),
    ],
    ids=["headers", "more headers", "body"],
)
def test_a_server_that_sends_a_byte_now_and_then_does_not_stretch_the_time(answer):
    with SocketServer(dribble(answer)) as server, opened(OTLPSink(server.url)) as sink:
        with pytest.raises(RetryableError, match=r"no complete answer within 0\.3 s"):
            deliver(sink, timeout=0.3)


def test_a_server_that_does_not_read_does_not_stretch_the_time():
    def ignore(connection: socket.socket) -> None:
        server.stopping.wait()

    with SocketServer(ignore) as server, opened(OTLPSink(server.url)) as sink:
        with pytest.raises(RetryableError, match=r"no complete answer within 0\.3 s"):
            deliver(sink, "x" * 20_000_000, timeout=0.3)
        server.stopping.set()


def test_the_sinks_own_time_limit_holds_where_it_is_the_shorter_one():
    with SocketServer(dribble(EMPTY_OK)) as server:
        with opened(OTLPSink(server.url, timeout=0.2)) as sink:
            with pytest.raises(RetryableError, match=r"within 0\.2 s"):
                deliver(sink, timeout=60)


@pytest.mark.parametrize("size", [0, 10, 200_000])
def test_the_head_of_a_request_leaves_together_with_the_beginning_of_its_body(size):
    class Recorder(httpcore.NetworkStream):
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self.written.append(buffer)

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

        def close(self) -> None:
            pass

    recorder = Recorder()
    body = bytes(size)
    with httpcore.HTTP11Connection(
        httpcore.Origin(b"http", b"localhost", 80), watched(recorder)
    ) as connection:
        for _ in range(2):
            recorder.written.clear()
            connection.request("POST", "http://localhost/", content=body)
            head, _, rest = b"".join(recorder.written).partition(b"\r\n\r\n")
            assert head.startswith(b"POST / HTTP/1.1")
            assert rest == body
            assert all(len(piece) <= 1 << 16 for piece in recorder.written)
            assert len(recorder.written) == 1 + size // (1 << 16)


def test_what_is_written_before_something_is_read_has_left():
    class Echo(httpcore.NetworkStream):
        written = b""

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self.written += buffer

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self.written

    stream = watched(Echo())
    stream.write(b"ping")
    assert stream.read(10) == b"ping"


def test_time_that_is_over_before_the_request_starts_makes_no_connection():
    with Receiver(grpc_port=None) as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        with pytest.raises(RetryableError, match="no complete answer"):
            deliver(sink, timeout=1e-9)
        assert receiver.requests == 0


def test_a_stream_of_an_injected_transport_is_held_to_the_time_too():
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    with opened(OTLPSink(transport=transport)) as sink:
        outcome = deliver(sink, timeout=0.05)
    assert outcome is not None
    assert "no complete answer within 0.05 s" in outcome.message


def test_a_connection_that_breaks_is_worth_another_try():
    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hang_up(connection: socket.socket) -> None:
        read_request(connection)

    def half_a_status(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 20")

    def nonsense(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    for script in (reset, hang_up, half_a_status, nonsense):
        with SocketServer(script) as server, opened(OTLPSink(server.url)) as sink:
            for _ in range(2):
                with pytest.raises(NoAnswerError, match=rf"^{server.url}: .") as caught:
                    deliver(sink)
                assert caught.value.retry_after is None
            assert server.connections == 2


LONG_HEADERS = b"".join(b"X-%d: %s\r\n" % (n, bytes(1000).hex().encode()) for n in range(100))
UNREADABLE = {
    "a body cut short": b"Content-Length: 50\r\n\r\nhalf",
    "headers cut short": b"Content-Le",
    "headers that are too long": LONG_HEADERS + b"\r\n",
    "headers that are none": b"no header at all\r\n\r\n",
    "gzip as transfer encoding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks that are none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return script


@pytest.mark.parametrize("rest", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"202"])
def test_a_success_whose_rest_cannot_be_read_is_a_success(status: bytes, rest: bytes) -> None:
    with (
        SocketServer(answering(b"HTTP/1.1 " + status + b"\r\n" + rest)) as server,
        opened(OTLPSink(server.url)) as sink,
    ):
        for _ in range(2):
            outcome = deliver(sink)
            if outcome is None:
                assert status.startswith(b"204")  # a 204 has no body
                return
            assert outcome.rejected == 0
            assert (
                f"HTTP {int(status[:3])}, but the rest of the answer cannot be" in outcome.message
            )
            assert "its records count as delivered" in outcome.message
        assert server.connections == 2  # the first connection was not used again


def test_a_body_after_204_which_has_none_costs_no_record():
    """Every second answer begins with the body of the answer before."""
    answer = b"HTTP/1.1 204 No Content\r\nContent-Length: 50\r\n\r\n" + b"x" * 50
    with (
        SocketServer(lambda connection: answer_all(connection, answer)) as server,
        opened(OTLPSink(server.url)) as sink,
    ):
        outcomes = [deliver(sink) for _ in range(4)]
    assert outcomes[::2] == [None, None]
    for outcome in outcomes[1::2]:
        assert outcome is not None
        assert outcome.rejected == 0
        assert "its records count as delivered" in outcome.message


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
BEFORE_THE_STATUS = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "103 with headers": HINTS,
    "several": b"HTTP/1.1 102 Processing\n\n" + HINTS * 20,
    "a blank line": b"\r\n",
    "a blank line, then 100": b"\r\nHTTP/1.1 100 Continue\r\n\r\n\r\n",
}


@pytest.mark.parametrize("before", BEFORE_THE_STATUS.values(), ids=BEFORE_THE_STATUS)
@pytest.mark.parametrize("is_split", [False, True])
def test_a_success_after_interim_answers_and_blank_lines_is_a_success(
    before: bytes, is_split: bool
) -> None:
    answer = before + b"HTTP/1.1 200 OK\r\n" + UNREADABLE["gzip as transfer encoding"]

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (answer[:2], answer[2:20], answer[20:]) if is_split else (answer,):
            connection.sendall(piece)
            time.sleep(0.05 * is_split)

    with SocketServer(script) as server, opened(OTLPSink(server.url)) as sink:
        outcome = deliver(sink)
    assert isinstance(outcome, Outcome)
    assert "its records count as delivered" in outcome.message


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nX: HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        HINTS * 500 + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"\r\n" * 10_000,
    ],
)
def test_interim_answers_alone_are_no_answer(answer: bytes) -> None:
    with (
        SocketServer(answering(answer)) as server,
        opened(OTLPSink(server.url)) as sink,
        pytest.raises(NoAnswerError),
    ):
        deliver(sink)


def test_a_success_whose_body_comes_too_slowly_is_a_success() -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
        connection.recv(1)  # returns when the client closes the connection

    with SocketServer(script) as server, opened(OTLPSink(server.url)) as sink:
        outcome = deliver(sink, timeout=0.1)
    assert isinstance(outcome, Outcome)
    assert "no complete answer within 0.1 s" in outcome.message


@pytest.mark.parametrize("rest", UNREADABLE.values(), ids=UNREADABLE)
def test_a_refusal_whose_rest_cannot_be_read_is_a_refusal(rest: bytes) -> None:
    with (
        SocketServer(answering(b"HTTP/1.1 404 Not Found\r\n" + rest)) as server,
        opened(OTLPSink(server.url)) as sink,
        pytest.raises(PermanentError, match="HTTP 404 Not Found"),
    ):
        deliver(sink)


def test_what_a_proxy_answers_to_connect_is_no_answer_of_the_backend(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = answering(b"HTTP/1.1 200 Connection established\r\n" + LONG_HEADERS + b"\r\n")
    with SocketServer(connect) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/v1/logs"))
        endpoint = "https://backend.invalid/v1/logs"
        with (
            opened(OTLPSink(endpoint, certificate=certificates.ca)) as sink,
            pytest.raises(RetryableError, match=r"^https://backend\.invalid"),
        ):
            deliver(sink)


def test_nobody_listening_is_worth_another_try_and_a_later_one_succeeds():
    with Receiver(grpc_port=None) as receiver:
        endpoint = receiver.http_endpoint
    port = int(endpoint.rpartition(":")[2])
    with opened(OTLPSink(endpoint)) as sink:
        with pytest.raises(RetryableError, match=r"127\.0\.0\.1.*refused"):
            deliver(sink)
        with Receiver(http_port=port, grpc_port=None) as receiver:
            assert deliver(sink) is None
            sink.close()


def test_each_address_of_a_name_is_tried_also_where_the_system_has_no_ipv6(monkeypatch):
    def without_ipv6(family: int, *args: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real_socket(family, *args, **options)

    def addresses(host: str, port: int, *rest: Any) -> list[Any]:
        ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        refusing = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", free_port()))
        ipv4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [ipv6, refusing, ipv4]

    real_socket = socket.socket
    with Receiver("0.0.0.0", grpc_port=None) as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        monkeypatch.setattr(socket, "socket", without_ipv6)
        port = receiver.http_endpoint.rpartition(":")[2]
        with opened(OTLPSink(f"http://several.example:{port}")) as sink:
            assert deliver(sink) is None
            monkeypatch.undo()


def test_a_name_that_does_not_resolve_is_worth_another_try():
    with opened(OTLPSink("http://no-such-host.invalid:4318")) as sink:
        with pytest.raises(RetryableError, match=r"no-such-host\.invalid"):
            deliver(sink)


HTTPX_ERRORS = (
    httpx.TransportError, httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout,
    httpx.ReadError, httpx.ProxyError, httpx.RemoteProtocolError,
)  # fmt: skip


@pytest.mark.parametrize("error", [*HTTPX_ERRORS, *(e for e in NETWORK_ERRORS if e is not OSError)])
def test_every_error_of_the_client_library_is_worth_another_try(error):
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("broken")

    with opened(OTLPSink(transport=httpx.MockTransport(fail))) as sink:
        with pytest.raises(RetryableError):
            deliver(sink)


# -- TLS ------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_https_trusts_the_given_authority_only(certificates):
    tls = certificates.server_context()
    with Receiver("localhost", grpc_port=None, ssl_context=tls) as receiver:
        assert receiver.http_endpoint.startswith("https://")
        with opened(OTLPSink(receiver.http_endpoint, certificate=certificates.ca)) as sink:
            assert deliver(sink) is None
            assert deliver(sink, compression_probe()) is None
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            with pytest.raises(RetryableError, match=r"not trusted.*certificate verify failed"):
                deliver(sink)
        assert receiver.requests == 2


def compression_probe() -> str:
    """Return a body that takes several TLS records."""
    return "0123456789abcdef" * 20_000


def test_the_tls_settings_that_threads_share_do_not_change_while_they_connect(
    certificates, monkeypatch
):
    changed: list[ssl.SSLContext] = []
    used: list[ssl.SSLContext] = []
    set_protocols, wrap = ssl.SSLContext.set_alpn_protocols, ssl.SSLContext.wrap_bio

    def note_change(context: ssl.SSLContext, protocols: list[str]) -> None:
        changed.append(context)
        set_protocols(context, protocols)

    def note_use(context: ssl.SSLContext, *args: Any, **options: Any) -> ssl.SSLObject:
        used.append(context)
        return wrap(context, *args, **options)

    with (
        Receiver(grpc_port=None, ssl_context=certificates.server_context()) as receiver,
        opened(OTLPSink(receiver.http_endpoint, certificate=certificates.ca)) as sink,
    ):
        monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", note_change)
        monkeypatch.setattr(ssl.SSLContext, "wrap_bio", note_use)
        for _ in range(3):
            assert deliver(sink) is None
            sink.after_fork()  # the next send reconnects
    assert len(used) == 3
    assert len(set(used)) == 1
    assert used[0] not in changed


def test_a_certificate_for_another_host_is_refused(certificates, tmp_path):
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificates.authority.issue_cert("other.example").configure_cert(other)
    with Receiver(grpc_port=None, ssl_context=other) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, certificate=certificates.ca)) as sink:
            with pytest.raises(RetryableError, match="certificate verify failed"):
                deliver(sink)
        assert receiver.requests == 0


def test_mutual_tls_needs_the_clients_certificate(certificates):
    tls = certificates.server_context(mutual=True)
    with Receiver(grpc_port=None, ssl_context=tls) as receiver:
        with opened(
            OTLPSink(
                receiver.http_endpoint,
                certificate=certificates.ca,
                client_certificate=certificates.chain,
                client_key=certificates.key,
            )
        ) as sink:
            assert deliver(sink) is None
        with opened(OTLPSink(receiver.http_endpoint, certificate=certificates.ca)) as sink:
            with pytest.raises(RetryableError):
                deliver(sink)
        assert receiver.requests == 1


def test_https_is_never_given_up_for_plain_http():
    with Receiver(grpc_port=None) as plain:
        with opened(OTLPSink(plain.http_endpoint.replace("http://", "https://"))) as sink:
            with pytest.raises(RetryableError):
                deliver(sink)
        assert plain.requests == 0


# -- proxies --------------------------------------------------------------------


def test_the_environments_proxy_is_used_with_its_credentials(monkeypatch):
    heads: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        heads.append(read_request(connection)[0])
        connection.sendall(EMPTY_OK)

    with SocketServer(proxy) as server:
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss@{server.address}")
        with opened(OTLPSink("http://collector.example:4318")) as sink:
            assert deliver(sink) is None
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"POST http://collector.example:4318/v1/logs HTTP/1.1"
    assert b"proxy-authorization: basic dxnlcjpwqhnz" in [line.lower() for line in lines]


def test_no_proxy_leads_past_the_proxy(monkeypatch):
    with Receiver(grpc_port=None) as receiver:
        monkeypatch.setenv("http_proxy", "127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink) is None


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1080", "http://:80", "http://host:port"])
def test_a_proxy_that_is_no_http_proxy_fails_at_start(monkeypatch, proxy):
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(
        ConfigurationError, match=r"not a URL of the form http://host:port: .* add collector to"
    ):
        OTLPSink("http://collector:4318").open()


# -- fork -----------------------------------------------------------------------


def test_after_a_fork_the_childs_copy_of_the_connection_is_closed_and_a_new_one_made():
    with SocketServer(answer_all) as server, opened(OTLPSink(server.url)) as sink:
        assert deliver(sink) is None
        sink.after_fork()
        assert deliver(sink) is None
        assert server.connections == 2
        sink.close()


def test_a_transport_of_the_users_and_an_unopened_sink_outlive_a_fork():
    sink = OTLPSink(transport=httpx.MockTransport(lambda request: httpx.Response(200)))
    sink.after_fork()
    with opened(sink):
        sink.after_fork()
        assert deliver(sink) is None


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the platform has no fork")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_parent_and_child_go_on_sending_after_a_fork(protocol):
    with Receiver() as receiver:
        endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        send_around_a_fork("OTLPSink(sys.argv[1], sys.argv[2])", endpoint, protocol)
        assert sorted(log.body for log in receiver.logs) == ["before", "child", "parent"]
