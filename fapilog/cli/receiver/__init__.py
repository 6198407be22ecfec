"""An OTLP receiver for tests, the demo and ``fapilog receive``.

The receiver accepts OTLP over HTTP, with protobuf or JSON, and over gRPC if grpcio
is installed.  It parses requests with OpenTelemetry's protobuf classes instead of fapilog's
decoder, so that tests of fapilog's encoder do not depend on code of fapilog.  Read
:class:`Receiver` first.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from typing_extensions import Self

from fapilog.cli.receiver.http import MAX_REQUEST, REQUESTS, HTTPReceiver
from fapilog.cli.receiver.received import ReceivedLog, ReceivedSpan, python_value, python_values

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    import grpc

    from fapilog.cli.receiver.http import Answer, Respond

__all__ = ["ReceivedLog", "ReceivedSpan", "Receiver", "python_value", "python_values"]

#: How long, in seconds, running gRPC calls may continue when the receiver is stopped.
_GRACE: Final = 1.0
_SERVICES: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "/v1/logs",
    "opentelemetry.proto.collector.trace.v1.TraceService": "/v1/traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "/v1/metrics",
}


class Receiver:
    """A server that receives OTLP in a ``with`` block, and stores logs and spans in memory.

    Metrics are accepted and discarded.  Starting and stopping block briefly.  Thread-safe.

    Args:
        host: the address to listen on.
        http_port: the TCP port for HTTP; 0 selects a free port.
        grpc_port: the TCP port for gRPC; 0 selects a free port, None disables gRPC.
        keep: the maximum number of log records in memory, and the maximum number of spans.
            If more arrive, the oldest are discarded.  None means no limit.
        on_logs: a function that is called on a server thread with the log records of each request.
        respond: a function that may answer an HTTP request instead of the receiver; see
            ``Respond`` in ``fapilog.cli.receiver.http``.
        ssl_context: the TLS settings for HTTPS; None serves plain HTTP.
        grpc_credentials: the credentials for gRPC over TLS; None serves plain gRPC.

    Attributes:
        http_endpoint: the base URL, for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        grpc_endpoint: the base URL for gRPC, or None if gRPC is disabled or grpcio is missing.
        logs: the received log records in the order of arrival.
        spans: the received spans in the order of arrival.
        requests: the number of requests with a readable body, whether it is valid OTLP or not.
        respond: the argument ``respond``; a test may replace this function at any time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int | None = 0,
        *,
        keep: int | None = None,
        on_logs: Callable[[list[ReceivedLog]], None] | None = None,
        respond: Respond | None = None,
        ssl_context: ssl.SSLContext | None = None,
        grpc_credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._host = host
        self._http_port = http_port
        self._grpc_port = grpc_port
        self._keep = keep
        self._on_logs = on_logs
        self._ssl_context = ssl_context
        self._grpc_credentials = grpc_credentials
        self._changed = threading.Condition()
        self._running = contextlib.ExitStack()
        self._log_count = 0
        self.respond = respond
        self.http_endpoint = ""
        self.grpc_endpoint: str | None = None
        self.logs: list[ReceivedLog] = []
        self.spans: list[ReceivedSpan] = []
        self.requests = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start listening for HTTP and gRPC requests.

        Raises:
            OSError: the HTTP port is in use.
            RuntimeError: the gRPC port is in use.
        """
        with contextlib.ExitStack() as stack:
            address = (self._host, self._http_port)
            http = HTTPReceiver(address, self._take, self._answer, self._ssl_context)
            stack.callback(http.stop)
            scheme = "https" if self._ssl_context else "http"
            self.http_endpoint = f"{scheme}://{self._host}:{http.server_port}"
            if self._grpc_port is not None:
                self._start_grpc(self._grpc_port, stack)
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Close every connection and end every thread."""
        self._running.close()

    def wait_for(self, count: int, timeout: float = 5.0) -> bool:
        """Wait until ``count`` log records have arrived since the receiver was created.

        Return False if they have not arrived after ``timeout`` seconds.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._log_count >= count, timeout)

    def take(self) -> tuple[list[ReceivedLog], list[ReceivedSpan]]:
        """Return the log records and spans in memory, and remove them from the receiver."""
        with self._changed:
            taken = self.logs, self.spans
            self.logs, self.spans = [], []
        return taken

    def _start_grpc(self, port: int, stack: contextlib.ExitStack) -> None:
        try:
            import grpc  # noqa: PLC0415 - an extra
        except ImportError:
            return  # grpcio is not installed, so grpc_endpoint stays None
        workers = ThreadPoolExecutor(4, thread_name_prefix="otlp-receiver-grpc")
        stack.callback(workers.shutdown)
        options = [("grpc.max_receive_message_length", MAX_REQUEST), ("grpc.so_reuseport", 0)]
        server = grpc.server(workers, options=options)
        for service, path in _SERVICES.items():
            handler = grpc.unary_unary_rpc_method_handler(self._grpc_method(path))
            methods = grpc.method_handlers_generic_handler(service, {"Export": handler})
            server.add_generic_rpc_handlers((methods,))
        address = f"{self._host}:{port}"
        if self._grpc_credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, self._grpc_credentials)
        server.start()
        # Without this delay, gRPC aborts running calls, and the clients write errors to stderr.
        stack.callback(lambda: server.stop(_GRACE).wait())
        scheme = "https" if self._grpc_credentials else "http"
        self.grpc_endpoint = f"{scheme}://{self._host}:{port}"

    def _grpc_method(self, path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            import grpc  # noqa: PLC0415 - an extra

            with self._changed:
                self.requests += 1
            try:
                self._take(REQUESTS[path].FromString(body))
            except DecodeError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return b""

        return export

    def _answer(self, path: str, body: bytes) -> Answer | None:
        with self._changed:
            self.requests += 1
        return self.respond(path, body) if self.respond is not None else None

    def _take(self, request: Any) -> None:
        logs: list[ReceivedLog] = []
        for one in getattr(request, "resource_logs", ()):
            resource = python_values(one.resource.attributes)
            for group in one.scope_logs:
                logs += [ReceivedLog(log, resource, group.scope) for log in group.log_records]
        spans: list[ReceivedSpan] = []
        for one in getattr(request, "resource_spans", ()):
            resource = python_values(one.resource.attributes)
            for group in one.scope_spans:
                spans += [ReceivedSpan(span, resource, group.scope) for span in group.spans]
        with self._changed:
            self.logs += logs
            self.spans += spans
            self._log_count += len(logs)
            if self._keep is not None:
                for kept in (self.logs, self.spans):
                    del kept[: max(len(kept) - self._keep, 0)]
            self._changed.notify_all()
        if logs and self._on_logs is not None:
            self._on_logs(logs)
