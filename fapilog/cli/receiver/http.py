"""An HTTP server that receives OTLP requests.

Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fapilog.otlp.protobuf import delimited

if TYPE_CHECKING:
    import ssl

#: The maximum size of a request's body in bytes, before and after decompression.  The
#: specification recommends this limit.
MAX_REQUEST: Final = 64 << 20
REQUESTS: Final[Mapping[str, type[Message]]] = {
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}

#: The status, headers and body of an HTTP response.
Answer: TypeAlias = "tuple[int, Mapping[str, str], bytes]"
#: A function that is called with a request's path and decompressed body.  It returns a response,
#: or None if the receiver must process the request as usual.
Respond: TypeAlias = Callable[[str, bytes], "Answer | None"]

#: The exceptions that the parsers of JSON, gzip and protobuf raise for invalid input.
_WRONG: Final = (
    *(DecodeError, json_format.ParseError, ValueError, zlib.error),
    *(RecursionError, TypeError, AttributeError),
)
_LENGTH: Final = re.compile("[0-9]{1,18}")
#: The maximum number of characters in an error message, which may quote the request.
_MAX_MESSAGE: Final = 500
#: Matches ``Host`` headers that always refer to the local machine.
_LOCAL_HOST: Final = re.compile(
    r"(localhost\.?|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]*)?", re.IGNORECASE
)
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


class HTTPReceiver(HTTPServer):
    """An HTTP server that parses OTLP requests, with one thread per connection.

    Args:
        address: the host and the TCP port to listen on.
        take: the function that is called with each parsed request, on the connection's thread.
        respond: the function that may answer a request before it is parsed; see ``Respond``.
        tls: the TLS settings, or None to serve plain HTTP.

    Raises:
        OSError: the port is in use.
    """

    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        take: Callable[[Message], None],
        respond: Respond,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(address, _Handler)
        if tls is not None:
            # The connection's thread does the handshake, so a slow client blocks no other client.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self._take = take
        self._respond = respond
        self._is_local = _LOCAL_HOST.fullmatch(address[0]) is not None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="otlp-receiver", daemon=True
        )
        self._acceptor.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread that serves the connection ``request``."""
        thread = threading.Thread(
            target=self._serve,
            args=(request, client_address),
            name="otlp-receiver-connection",
            daemon=True,
        )
        self._connections[request] = thread
        thread.start()

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            # A client may disconnect at any time, even during the TLS handshake.
            with contextlib.suppress(OSError):
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            self._connections.pop(request, None)

    def stop(self) -> None:
        """Close every connection and end every thread."""
        self.shutdown()
        self._acceptor.join()
        for connection, thread in list(self._connections.items()):
            with contextlib.suppress(OSError):  # the client may have closed the connection already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        self.server_close()

    def serves(self, hosts: Sequence[str]) -> bool:
        """Return whether the server accepts a request with these ``Host`` headers.

        A server on a loopback address accepts only local names, as a protection against DNS
        rebinding: a website could let its host name resolve to 127.0.0.1, so that its scripts
        reach this server through a browser.  A server on any other address accepts all names.
        """
        return not self._is_local or all(map(_LOCAL_HOST.fullmatch, hosts))

    def answer(self, path: str, content_type: str, encoding: str, body: bytes) -> Answer:
        """Process a request that was read completely, and return the response."""
        is_json = content_type.startswith(_JSON)
        try:
            body = _unpack(body, encoding)
            answer = self._respond(path, body)
            if answer is not None:
                return answer
            if path not in REQUESTS:
                return _failure(404, f"no such path: {path}", is_json=is_json)
            if not is_json and not content_type.startswith(_PROTOBUF):
                return _failure(415, f"send {_PROTOBUF} or {_JSON}")
            self._take(_parse(REQUESTS[path], body, is_json=is_json))
        except OverflowError as error:
            return _failure(413, str(error), is_json=is_json)
        except _WRONG as error:
            return _failure(400, f"not an OTLP request: {error}", is_json=is_json)
        return 200, {"Content-Type": _JSON if is_json else _PROTOBUF}, b"{}" if is_json else b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fapilog-receiver"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffers writes, so that a response is sent with one write
    server: HTTPReceiver

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        hosts = self.headers.get_all("Host", [])
        if not self.server.serves(hosts):
            msg = f"{', '.join(hosts)} is not a name of this server: use localhost or 127.0.0.1"
            self._send(_failure(403, msg), close=True)
        elif not _LENGTH.fullmatch(length) or "Transfer-Encoding" in self.headers:
            self._send(_failure(411, "Content-Length is missing"), close=True)
        elif int(length) > MAX_REQUEST:
            self._send(_failure(413, f"the body has more than {MAX_REQUEST} bytes"), close=True)
        else:
            body = self.rfile.read(int(length))
            if len(body) < int(length):  # the client closed the connection early
                self._send(_failure(400, "the body is shorter than Content-Length"), close=True)
                return
            content_type = self.headers.get("Content-Type", "").lower()
            encoding = self.headers.get("Content-Encoding", "").lower()
            self._send(self.server.answer(self.path, content_type, encoding, body))

    def _send(self, answer: Answer, *, close: bool = False) -> None:
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Write nothing.  The base class would write one line per request to stderr."""


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding != "gzip":
        return body
    unpacked = zlib.decompressobj(wbits=31).decompress(body, MAX_REQUEST + 1)
    if len(unpacked) > MAX_REQUEST:
        msg = f"the body has more than {MAX_REQUEST} bytes after decompression"
        raise OverflowError(msg)
    return unpacked


def _parse(kind: type[Message], body: bytes, *, is_json: bool) -> Message:
    if not is_json:
        return kind.FromString(body)
    orjson.loads(body)  # rejects lone surrogates, NaN and deep nesting, unlike json.loads()
    fields = json.loads(body, object_hook=_with_base64_ids)
    if not isinstance(fields, dict):
        msg = f"a JSON object is expected, not {type(fields).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - the request's value is wrong
    return json_format.ParseDict(fields, kind(), ignore_unknown_fields=True)


def _with_base64_ids(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert ids from hexadecimal, used in OTLP/JSON, to base64, which ``ParseDict`` needs."""
    for name in _IDS & fields.keys():
        fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
    return fields


def _failure(status: int, message: str, *, is_json: bool = False) -> Answer:
    """Return an error response, whose body is a ``google.rpc.Status`` with ``message``."""
    message = message[:_MAX_MESSAGE]
    if is_json:
        return status, {"Content-Type": _JSON}, json.dumps({"message": message}).encode()
    encoded = delimited(b"\x12", message.encode("utf-8", "replace"))
    return status, {"Content-Type": _PROTOBUF}, encoded
