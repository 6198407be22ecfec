"""Backends for the collector's tests: a Loki and a Tempo that enforce their size limits.

They count every record and span by its id: the body up to its first space, and the span's name.
"""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

MIB: Final = 1024 * 1024
#: Loki's defaults: its limits of a tenant, of a line, and of the messages between its parts.
RATE, BURST, LINE, METADATA, MESSAGE = 4 * MIB, 6 * MIB, 256 * 1024, 64 * 1024, 4 * MIB
#: The resource attributes that `loki.yaml` makes labels, which Loki does not repeat.
LABELS: Final = {"service.name", "service.namespace", "deployment.environment.name"}


def texts(attributes: Any) -> dict[str, str]:
    """Return attributes as Loki's metadata; only texts have their exact size."""
    return {pair.key: pair.value.string_value or str(pair.value) for pair in attributes}


class Loki:
    """Loki's OTLP endpoint with Loki's default limits, and VictoriaLogs' endpoint without any."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        self.records: list[tuple[Resource, LogRecord]] = []
        self.headers: list[dict[str, str]] = []
        self.refused: Counter[int] = Counter()
        self._tokens, self._filled = float(BURST), time.monotonic()
        self._lock = threading.Lock()

    def _size(self, request: ExportLogsServiceRequest) -> tuple[int, int]:
        """Return the size of a push as Loki counts it, and a status for a bad entry, or 204."""
        total, status = 0, 204
        for of_resource in request.resource_logs:
            resource = texts(of_resource.resource.attributes)
            repeated = sum(len(k) + len(v) for k, v in resource.items() if k not in LABELS)
            for of_scope in of_resource.scope_logs:
                scope = len("scope_name" + of_scope.scope.name)
                for record in of_scope.log_records:
                    line = len(record.body.string_value.encode())
                    own = sum(len(k) + len(v.encode()) for k, v in texts(record.attributes).items())
                    own += len("observed_timestamp") + 19 + len("severity_number") + 2
                    own += len("severity_text" + record.severity_text)
                    own += len("trace_id" + "span_id") + 48 if record.trace_id else 0
                    metadata = own + repeated + scope
                    total += line + metadata
                    if line > LINE or metadata > METADATA:
                        status = 400
        return total, status

    def push(self, body: bytes, headers: dict[str, str]) -> int:
        """Take a push, and return the status of the answer."""
        request = ExportLogsServiceRequest.FromString(body)
        size, status = self._size(request)
        with self._lock:
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._filled) * RATE)
            self._filled = now
            if size > self._tokens:
                status = 429
            elif size > MESSAGE:
                status = 503
            if status != 204:
                self.refused[status] += 1
                return status
            self._tokens -= size
            self._keep(request)
            self.headers.append(headers)
        return status

    def _keep(self, request: ExportLogsServiceRequest) -> None:
        for of_resource in request.resource_logs:
            for of_scope in of_resource.scope_logs:
                for record in of_scope.log_records:
                    self.ids[record.body.string_value.partition(" ")[0]] += 1
                    self.records.append((of_resource.resource, record))


class Tempo:
    """OTLP's trace service, with gRPC's limit of 4 MiB per message."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        self.spans: list[tuple[Resource, Span]] = []
        self._lock = threading.Lock()

    def export(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if len(body) > MESSAGE:  # gRPC for Python limits the compressed message, Go's this one
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max")
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for of_resource in request.resource_spans:
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self.ids[span.name] += 1
                        self.spans.append((of_resource.resource, span))
        return ExportTraceServiceResponse().SerializeToString()


@contextlib.contextmanager
def serving_http(push: Callable[[bytes, dict[str, str]], int], port: int = 0) -> Iterator[str]:
    """Answer every POST with the status that ``push(body, headers)`` returns; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = push(body, {**dict(self.headers), ":path": self.path})
            self.send_response(status)
            if status != 204:
                self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _log_service(loki: Loki) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def export(body: bytes, _context: grpc.ServicerContext) -> bytes:
        loki.push(body, {})
        return ExportLogsServiceResponse().SerializeToString()

    return export


@contextlib.contextmanager
def serving_grpc(tempo: Tempo, loki: Loki | None = None, port: int = 0) -> Iterator[str]:
    """Serve OTLP's trace service, and its logs service if there is a ``loki``; yield the address."""
    services: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]] = {
        "trace.v1.TraceService": tempo.export
    }
    if loki is not None:
        services["logs.v1.LogsService"] = _log_service(loki)
    workers = ThreadPoolExecutor(4)
    server = grpc.server(workers)
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                f"opentelemetry.proto.collector.{name}",
                {"Export": grpc.unary_unary_rpc_method_handler(export)},
            )
            for name, export in services.items()
        )
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(0).wait()
        workers.shutdown()
