"""The HTTP side of the scripted backend: OTLP/HTTP and Loki's push API, with all their faults."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from tests.faults.decode import (
    DECODE_ERRORS,
    LOKI_PATH,
    SPANS_PATH,
    read_loki,
    read_otlp,
    read_spans,
    unpacked,
)
from tests.faults.rows import PROXY_PASSWORD
from tests.faults.script import DATE, Journal, Script, Step, Verdict, judge

#: The unpacked bytes of a gzip bomb, and the bytes of an answer over the protocol's limit of 4 MiB.
BOMB: Final = 16 << 20
HUGE: Final = 5 << 20
GARBAGE: Final = b"\xff\x00no answer of any protocol\x00\xff"
BAD: Final = "records that the script calls bad"
#: The bytes of a request that are read before the connection is reset.
SOME: Final = 4096

#: The seconds after which an answer is late, longer than clients of the suite wait.
LATE: Final = 1.5
#: More bytes of headers than any HTTP client reads.
HEADERS: Final = 200_000

_MEMBER: Final = 1 << 20
_PROTOBUF: Final = "application/x-protobuf"


def reset(connection: socket.socket) -> None:
    """Close a connection so that the other side gets a reset."""
    # SO_LINGER with a time of 0; close() is not enough while a buffered file holds the socket.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())


def partial_success(rejected: int) -> bytes:
    """Return an answer that takes a request except for ``rejected`` records or spans.

    The answers about spans have the same field numbers.
    """
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = BAD
    return bytes(answer.SerializeToString())


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HTTPBackend(ThreadingHTTPServer):
    """Listens on a port that the suite keeps reserved, and plays a script."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, port: int, script: Script, journal: Journal, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self.script = script
        self.journal = journal
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def start(self) -> None:
        self.server_bind()
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing, because connections break on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered, so an answer is a single write
    server: HTTPBackend
    connection: socket.socket

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        if self.server.script.takes("reset writing"):
            self.server.journal.note("reset writing")
            self.rfile.read(min(length // 2, SOME))
            reset(self.connection)
            self.close_connection = True
            return
        body = unpacked(self.rfile.read(length), self.headers.get("Content-Encoding", ""))
        kind = self.headers.get("Content-Type", "")
        try:
            records = _READ.get(self._route, read_otlp)(body, kind)
        except DECODE_ERRORS as error:
            self._answer(400, repr(error).encode(), "text/plain")
            raise
        step = self.server.script.next()
        verdict = judge(step, records, len(body), "loki" if self._is_loki else "http")
        self.server.journal.note(step.fault, verdict)
        _PLAY[verdict.act](self, step, verdict)

    @property
    def _is_loki(self) -> bool:
        return self._route == LOKI_PATH

    @property
    def _route(self) -> str:
        return urlsplit(self.path).path  # a proxy gets the whole URL

    # ---- the acts of the script

    def _die(self, _step: Step, _verdict: Verdict) -> None:
        kill_this_process()

    def _stay_silent(self, _step: Step, _verdict: Verdict) -> None:
        while self.rfile.read(1):  # until the client gives up
            continue
        self.close_connection = True

    def _dribble(self, _step: Step, _verdict: Verdict) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
            time.sleep(1)
            self.connection.sendall(bytes([byte]))

    def _reset(self, _step: Step, _verdict: Verdict) -> None:
        self.close_connection = True
        reset(self.connection)

    def _refuse(self, step: Step, verdict: Verdict) -> None:
        wish = step.retry_after
        if wish == DATE:
            wish = formatdate(time.time() + 2, usegmt=True)
        headers = {"Retry-After": wish} if wish else {}
        words = "refused by the script"
        if verdict.status == 407:
            words += f": {self.headers.get('Proxy-Authorization')}, {PROXY_PASSWORD}"
        self._answer(verdict.status, words.encode(), "text/plain", headers)

    def _refuse_in_part(self, _step: Step, verdict: Verdict) -> None:
        rejected = len(verdict.refused)
        if self._is_json:
            name = "rejectedSpans" if self._route == SPANS_PATH else "rejectedLogRecords"
            partial = {name: str(rejected), "errorMessage": BAD}
            self._succeed(json.dumps({"partialSuccess": partial}).encode())
        else:
            self._succeed(partial_success(rejected))

    def _bomb(self, _step: Step, _verdict: Verdict) -> None:
        # Members of a gzip file may be repeated, so this is fast to make.
        packed = gzip.compress(bytes(_MEMBER), 9) * (BOMB // _MEMBER)
        self._answer(200, packed, _PROTOBUF, {"Content-Encoding": "gzip"})

    def _huge(self, _step: Step, _verdict: Verdict) -> None:
        self._answer(200, bytes(HUGE), _PROTOBUF)

    def _garbage(self, _step: Step, _verdict: Verdict) -> None:
        self._answer(200, GARBAGE, _PROTOBUF)

    def _cut_body(self, _step: Step, _verdict: Verdict) -> None:
        self._send(b"Content-Length: 50\r\n\r\nhalf")

    def _send_many_headers(self, _step: Step, _verdict: Verdict) -> None:
        self._send(b"X-Padding: " + b"x" * HEADERS + b"\r\nContent-Length: 0\r\n\r\n")

    def _pack_body(self, _step: Step, _verdict: Verdict) -> None:
        self._send(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")

    def _send(self, rest: bytes) -> None:
        """Answer with a success, with ``rest`` after its status, and close."""
        self.connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest)
        self.close_connection = True

    def _answer_late(self, _step: Step, _verdict: Verdict) -> None:
        time.sleep(LATE)
        self._succeed()

    def _noise(self, _step: Step, _verdict: Verdict) -> None:
        self.connection.sendall(GARBAGE)
        self.close_connection = True

    def _take(self, _step: Step, _verdict: Verdict) -> None:
        self._succeed()

    # ---- answers

    @property
    def _is_json(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("application/json")

    def _succeed(self, body: bytes = b"") -> None:
        if self._is_loki:
            self._answer(204, b"", "")
        elif self._is_json:
            self._answer(200, body or b"{}", "application/json")
        else:
            self._answer(200, body, _PROTOBUF)

    def _answer(
        self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # after a reset, flushing fails
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Write nothing."""


_READ: Final = {LOKI_PATH: read_loki, SPANS_PATH: read_spans}
_PLAY: Final[dict[str, Callable[[_Handler, Step, Verdict], None]]] = {
    "succeed": _Handler._take,
    "die": _Handler._die,
    "silence": _Handler._stay_silent,
    "dribble": _Handler._dribble,
    "reset reading": _Handler._reset,
    "status": _Handler._refuse,
    "partial": _Handler._refuse_in_part,
    "bomb": _Handler._bomb,
    "huge": _Handler._huge,
    "garbage": _Handler._garbage,
    "noise": _Handler._noise,
    "body cut": _Handler._cut_body,
    "headers unreadable": _Handler._send_many_headers,
    "body packed": _Handler._pack_body,
    "late": _Handler._answer_late,
}
