"""A backend that takes logs and spans over OTLP/HTTP, and knows which records have arrived."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def free_port() -> int:
    """Return a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Backend(ThreadingHTTPServer):
    """Serves from a thread until ``stop``.

    Attributes:
        copies: how often each record has arrived, by its number.
        bodies: the requests as they were before compression.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.copies: Counter[int] = Counter()
        self.bodies: list[bytes] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        numbers = list(numbers_of(path, body))
        with self.lock:
            self.bodies.append(body)
            self.copies.update(numbers)

    def settle(self, records: int, quiet: float) -> None:
        """Wait until all records are here, or until nothing has arrived for ``quiet`` seconds."""
        seen, since = -1, time.monotonic()
        while (now := len(self.copies)) < records and time.monotonic() - since < quiet:
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.05)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(self.path, body)
        self.answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        """Answer logfire, which asks for the name of the token's project at its start."""
        self.answer(
            b'{"project_name": "shop", "project_url": "http://localhost/shop"}', "application/json"
        )

    def answer(self, body: bytes, content_type: str) -> None:
        head = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + head.encode() + body)

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""


def numbers_of(path: str, body: bytes) -> Iterator[int]:
    if path == "/v1/logs":
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                yield from (number for record in scope.log_records for number in number_in(record))
    elif path == "/v1/traces":
        for spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in spans.scope_spans:
                yield from (number for span in scope.spans for number in number_in(span))


def number_in(message: Any) -> list[int]:
    """Return the attribute ``n`` of an order; other records have none."""
    return [
        a.value.int_value for a in message.attributes if a.key == "n" and a.value.int_value >= 0
    ]


def copies_in_file(path: Path) -> Counter[int]:
    """Return how often each record is in a file of JSON lines; a torn line does not count."""
    copies: Counter[int] = Counter()
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        fields = fields.get("record", fields)  # loguru
        fields = {**fields, **fields.get("extra", {}), **fields.get("attributes", {})}
        if fields.get("n", -1) >= 0:
            copies[fields["n"]] += 1
    return copies
