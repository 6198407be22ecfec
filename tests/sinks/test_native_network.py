"""Connections of fapilog's threads in a process in which gevent has replaced the sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fapilog import native
from fapilog.cli.receiver import Receiver
from fapilog.errors import RetryableError
from fapilog.sinks.http import transport
from fapilog.sinks.http.transport import SocketStream
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.otlp_servers import (
    EMPTY_OK,
    Certificates,
    SocketServer,
    deliver,
    opened,
    read_request,
)
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def as_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Run the test as a worker in a process with replaced sockets; yield the connected hosts."""
    hosts: list[str] = []
    connect = transport.connect

    def noted(host: str, port: int, left: Callable[[], float]) -> SocketStream:
        hosts.append(host)
        return connect(host, port, left)

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(native, "is_patched", lambda: True)
    monkeypatch.setattr(transport, "connect", noted)
    token = native.IN_WORKER.set(True)
    yield hosts
    native.IN_WORKER.reset(token)


def test_one_connection_serves_several_batches_by_the_name_of_a_host(as_a_worker: list[str]):
    with Receiver("localhost", grpc_port=None) as receiver:
        url = receiver.http_endpoint.replace("127.0.0.1", "localhost")
        with opened(OTLPSink(url)) as sink:
            for _ in range(3):
                assert deliver(sink) is None
        assert receiver.requests == 3
    assert as_a_worker == ["localhost"]


def test_https_trusts_the_given_authority_only(tmp_path: Path, as_a_worker: list[str]):
    certificates = Certificates(tmp_path)
    tls = certificates.server_context()
    with Receiver("localhost", grpc_port=None, ssl_context=tls) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, certificate=certificates.ca)) as sink:
            assert deliver(sink) is None
            assert deliver(sink, "0123456789abcdef" * 20_000) is None  # several TLS records
        assert len(as_a_worker) == 1
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            with pytest.raises(RetryableError, match=r"not trusted.*certificate verify failed"):
                deliver(sink)
        assert receiver.requests == 2


def test_a_connection_that_the_server_has_closed_is_not_used_again():
    closed = threading.Semaphore(0)

    def answer_once(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(EMPTY_OK)
        connection.shutdown(socket.SHUT_RDWR)
        closed.release()

    with SocketServer(answer_once) as server, opened(OTLPSink(server.url)) as sink:
        for _ in range(3):
            assert deliver(sink) is None
            assert closed.acquire(timeout=20)  # a request may be sent until the close arrives
        assert server.connections == 3


def test_a_server_that_does_not_answer_is_given_up_at_the_time_limit():
    def say_nothing(_connection: socket.socket) -> None:
        server.stopping.wait(30)

    with SocketServer(say_nothing) as server:
        with opened(OTLPSink(server.url)) as sink:
            with pytest.raises(RetryableError, match=r"no complete answer within 0\.2 s"):
                deliver(sink, timeout=0.2)
        server.stopping.set()


def test_a_server_that_hangs_up_within_the_handshake_is_an_error_to_retry(tmp_path: Path):
    def hang_up(connection: socket.socket) -> None:
        connection.recv(1)

    certificates = Certificates(tmp_path)
    with SocketServer(hang_up) as server:
        url = server.url.replace("http:", "https:")
        with opened(OTLPSink(url, certificate=certificates.ca)) as sink:
            with pytest.raises(RetryableError):
                deliver(sink)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
def test_where_nobody_listens_the_batch_is_to_be_tried_again(host: str):
    with opened(OTLPSink(f"http://{host}:{free_port()}/v1/logs")) as sink:
        with pytest.raises(RetryableError):
            deliver(sink)


def test_a_worker_uses_the_systems_functions_and_other_callers_what_replaced_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(native, "original", lambda module, name: f"the system's {module}.{name}")
    assert transport._system("socket", "socket") == "the system's socket.socket"
    native.IN_WORKER.set(False)
    assert transport._system("socket", "socket") is socket.socket
