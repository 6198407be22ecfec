"""Servers for the tests of the OTLP sink: scripted sockets, certificates, gRPC answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import trustme
from typing_extensions import Self

from fapilog.record import LogRecord
from fapilog.sinks.otlp.sink import OTLPSink

EMPTY_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


def record(body: str = "hello") -> LogRecord:
    return LogRecord(1, 2, 9, "INFO", body, {"n": 1})


def deliver(sink: OTLPSink, *bodies: str, timeout: float = 5.0) -> Any:
    """Encode and send one batch; the sink stays open."""
    return sink.send([sink.encode(record(body)) for body in bodies or ("hello",)], timeout)


@contextlib.contextmanager
def opened(sink: OTLPSink) -> Iterator[OTLPSink]:
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


class SocketServer:
    """Accepts connections and runs ``script(connection)`` for each, one after the other."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}/v1/logs"
        self.connections = 0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while not self.stopping.is_set():
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):  # most clients close the connection
                if not self.stopping.is_set():
                    self.connections += 1
                    self._script(connection)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        with socket.create_connection(self._listener.getsockname()):
            self._thread.join()
        self._listener.close()


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return head and body of one request; both are empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b"", b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def answer_all(connection: socket.socket, answer: bytes = EMPTY_OK) -> None:
    """Answer every request of a connection with ``answer``."""
    while read_request(connection)[0]:
        connection.sendall(answer)


class Certificates:
    """An authority, a server certificate for loopback and a client certificate."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self._server = self.authority.issue_cert("localhost", "127.0.0.1")
        client = self.authority.issue_cert("client.example")
        self.ca = str(directory / "ca.pem")
        self.key = str(directory / "key.pem")
        self.chain = str(directory / "chain.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        client.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.chain)

    def server_context(self, *, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server.configure_cert(context)
        if mutual:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc_credentials(self, *, mutual: bool = False) -> grpc.ServerCredentials:
        pair = (self._server.private_key_pem.bytes(), self._server.cert_chain_pems[0].bytes())
        return grpc.ssl_server_credentials([pair], self.authority.cert_pem.bytes(), mutual)


@contextlib.contextmanager
def grpc_server(
    export: Callable[[bytes, grpc.ServicerContext], bytes], port: int = 0
) -> Iterator[str]:
    """Run a LogsService whose Export is ``export``; yield its address."""
    handler = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.logs.v1.LogsService"
    workers = ThreadPoolExecutor(2)
    server = grpc.server(workers)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        workers.shutdown()
