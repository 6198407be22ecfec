"""The gRPC side of the scripted backend: two services, and a relay that breaks its connections.

A handler of gRPC's own server cannot reset a connection, slow down an answer, or
write noise.  Clients therefore connect to a relay of plain sockets, which passes
bytes to the server and plays these faults itself.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from tests.faults.decode import Arrived, read_otlp, read_spans
from tests.faults.http_backend import (
    BAD,
    BOMB,
    GARBAGE,
    HUGE,
    LATE,
    SOME,
    kill_this_process,
    partial_success,
    reset,
)
from tests.faults.script import Journal, Script, Step, Verdict, judge

#: The services, each with the reader of its requests.
SERVICES: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": read_otlp,
    "opentelemetry.proto.collector.trace.v1.TraceService": read_spans,
}
#: Seconds for which answers arrive at one byte per second, longer than a client's time limit.
DRIBBLE: Final = 2.5

#: The message of servers written in Rust.
TOO_LARGE: Final = "Error, decoded message length too large: found {} bytes, the limit is: {} bytes"

#: The gRPC code with the same meaning as an HTTP status.
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.OUT_OF_RANGE,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Relay:
    """Passes bytes between clients and a server, or breaks all connections at once."""

    def __init__(self, port: int, script: Script, journal: Journal) -> None:
        self._script = script
        self._journal = journal
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._address = ("127.0.0.1", port)
        self._clients: set[socket.socket] = set()
        self._slow_until = 0.0

    def start(self, server_port: int) -> None:
        self._listener.bind(self._address)
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(server_port,), daemon=True).start()

    def _accept(self, server_port: int) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", server_port))
            self._clients.add(client)
            for passing in (self._requests, self._answers):
                threading.Thread(target=passing, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), server:
            while data := client.recv(1 << 16):
                # Smaller pieces belong to HTTP/2, not to a request.
                if len(data) >= SOME and self._script.takes("reset writing"):
                    self._journal.note("reset writing")
                    self.reset()
                    return
                server.sendall(data)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                while data and time.monotonic() < self._slow_until:
                    time.sleep(1)
                    client.sendall(data[:1])
                    data = data[1:]
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        self._clients.discard(client)

    def slow_down(self) -> None:
        """Pass answers at one byte per second for :data:`DRIBBLE` seconds."""
        self._slow_until = time.monotonic() + DRIBBLE

    def reset(self) -> None:
        """Reset every client's connection."""
        for client in list(self._clients):
            self._clients.discard(client)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
                reset(client)

    def write_noise(self) -> None:
        """Write bytes that are not HTTP/2 to every client, and close."""
        for client in list(self._clients):
            self._clients.discard(client)
            with contextlib.suppress(OSError):
                client.sendall(GARBAGE)
                client.shutdown(socket.SHUT_RDWR)


class GRPCBackend:
    """The services behind a relay on a port that the suite keeps reserved."""

    def __init__(
        self,
        port: int,
        script: Script,
        journal: Journal,
        *,
        largest: int,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        self._script = script
        self._journal = journal
        self._relay = Relay(port, script, journal)
        options = [("grpc.max_receive_message_length", largest)]
        self._server = grpc.server(ThreadPoolExecutor(8), options=options)
        for service, read in SERVICES.items():
            handler = grpc.unary_unary_rpc_method_handler(partial(self._export, read))
            methods = grpc.method_handlers_generic_handler(service, {"Export": handler})
            self._server.add_generic_rpc_handlers((methods,))
        if credentials is None:
            self._port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self._port = self._server.add_secure_port("127.0.0.1:0", credentials)

    def start(self) -> None:
        self._server.start()
        self._relay.start(self._port)

    def _export(
        self,
        read: Callable[[bytes], list[Arrived]],
        body: bytes,
        context: grpc.ServicerContext,
    ) -> bytes:
        step = self._script.next()
        verdict = judge(step, read(body), len(body), "grpc")
        self._journal.note(step.fault, verdict)
        return self._play(step, verdict, len(body), context)

    def _play(
        self, step: Step, verdict: Verdict, size: int, context: grpc.ServicerContext
    ) -> bytes:
        match verdict.act:
            case "die":
                kill_this_process()
            case "silence":
                while context.is_active():  # until the client gives up
                    time.sleep(0.05)
            case "late":
                time.sleep(LATE)
            case "dribble":
                self._relay.slow_down()
            case "reset reading":
                self._relay.reset()
            case "noise":
                self._relay.write_noise()
            case "status":
                _refuse(step, verdict, size, context)
            case "partial":
                return partial_success(len(verdict.refused))
            case "bomb":
                context.set_compression(grpc.Compression.Gzip)
                return bytes(BOMB)
            case "huge":
                return bytes(HUGE)
            case "garbage":
                return GARBAGE
        return b""


def _refuse(step: Step, verdict: Verdict, size: int, context: grpc.ServicerContext) -> None:
    if step.retry_after:
        seconds = duration_pb2.Duration(seconds=int(step.retry_after))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=seconds))
        status = status_pb2.Status(code=8, message=BAD, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    is_too_large = verdict.status == 413
    words = TOO_LARGE.format(size, step.size) if is_too_large else "refused by the script"
    context.abort(_CODES[verdict.status], words)


def server_credentials(
    key: bytes, chain: bytes, authority: bytes | None = None
) -> grpc.ServerCredentials:
    """Return the server's TLS settings; clients need a certificate of ``authority``."""
    return grpc.ssl_server_credentials(
        [(key, chain)], authority, require_client_auth=authority is not None
    )
