"""A backend in a separate process, which parses every request and counts.

    python receiver.py [up|silent]

Prints its port, then serves until its standard input ends, so it cannot
outlive the benchmark.  ``POST /v1/logs`` takes OTLP protobuf and
``POST /loki/api/v1/push`` takes JSON, both gzipped or not; ``GET /`` returns the
counts as JSON.  With ``silent`` it reads requests and never answers.  C parsers
read the requests, several times faster than any contestant encodes them.  The
CPU seconds in the answer let a scenario check that no contestant waited for it.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from contestants import ATTRIBUTES
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

#: Bytes of a push before compression.  Loki 3.7 answers 500 to a push that becomes a
#: message of more than 4 MiB between its components; here such pushes are only counted.
LARGEST_PUSH = 4 << 20
WANTED = ATTRIBUTES | {"trace_id", "span_id"}
COUNTS = ("records", "incomplete", "oversized", "requests", "bytes")


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *, silent: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.silent = silent
        self.lock = threading.Lock()
        self.seen: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"sample": None}

    def count(self, body: bytes, **counts: int) -> None:
        with self.lock:
            self.seen["requests"] += 1
            self.seen["bytes"] += len(body)
            for name, count in counts.items():
                self.seen[name] += count

    def take_otlp(self, body: bytes) -> None:
        request = ExportLogsServiceRequest.FromString(body)
        records = [
            scope.log_records for resource in request.resource_logs for scope in resource.scope_logs
        ]
        self.count(body, records=sum(map(len, records)))
        if self.seen["sample"] is None and records:
            self.seen["sample"] = describe(records[0][0])

    def take_loki(self, body: bytes) -> None:
        entries = [
            (stream["stream"], *entry)
            for stream in orjson.loads(body)["streams"]
            for entry in stream["values"]
        ]
        incomplete = sum(not is_complete(*entry) for entry in entries)
        oversized = len(entries) if len(body) > LARGEST_PUSH else 0
        self.count(body, records=len(entries), incomplete=incomplete, oversized=oversized)


# The functions below check that all contestants deliver the same event.


def describe(record: Any) -> dict[str, Any]:
    return {
        "body": record.body.string_value,
        "attributes": sorted(attribute.key for attribute in record.attributes),
        "traced": len(record.trace_id) == 16 and len(record.span_id) == 8,
        "timed": record.time_unix_nano > 0,
    }


def is_complete(
    labels: dict[str, str], when: str, line: str, metadata: dict[str, str] | None = None
) -> bool:
    """Whether ids, time and attributes are in the labels, the metadata, or a line of JSON."""
    fields: dict[str, Any] = metadata or {}
    if not fields.keys() >= WANTED:
        fields = {**labels, **fields, **(orjson.loads(line) if line.startswith("{") else {})}
    return (
        fields.keys() >= WANTED
        and len(fields["trace_id"]) == 32
        and len(fields["span_id"]) == 16
        and int(when) > 0
    )


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.silent:
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/logs":
            self.server.take_otlp(body)
            self.answer("application/x-protobuf", b"")
        else:
            self.server.take_loki(body)
            self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def do_GET(self) -> None:
        seen = {**self.server.seen, "cpu": time.process_time()}
        self.answer("application/json", json.dumps(seen).encode())

    def answer(self, content_type: str, body: bytes) -> None:
        head = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        # A single write, because a second one would wait for the first one's acknowledgement.
        self.wfile.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body)


if __name__ == "__main__":
    receiver = Receiver(silent=sys.argv[1:] == ["silent"])
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    print(receiver.server_port, flush=True)
    sys.stdin.read()
