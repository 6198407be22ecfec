"""Stores the state of one request, from its start to its completion record.

An ``Exchange`` wraps the ASGI callables ``receive`` and ``send`` of one request and reads the
messages that pass through them.  It changes only the headers of the response.  When the
request ends, for whatever reason, the ``Exchange`` calls the ``Recorder``, which logs the
completion record.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.websockets import WebSocketDisconnect

import fapilog
from fapilog_fastapi.attributes import headers_of, length
from fapilog_fastapi.correlation import active_span, request_id, trace_headers
from fapilog_fastapi.payloads import PayloadCapture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span
    from starlette.types import Message, Receive, Scope, Send

    from fapilog_fastapi.completion import Recorder

#: The key of the request's ``Exchange`` in the ASGI scope; mounted applications see it too.
KEY: Final = "fapilog_fastapi"

#: The outcomes of requests whose response was not sent completely.
DISCONNECTED: Final = "disconnected"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
INCOMPLETE: Final = "incomplete"
_BODIES: Final = frozenset({"http.response.body", "http.response.zerocopysend"})
#: A response status of 500 or higher means that the request failed.
FAILURE: Final = 500
#: The close code that a server sends when a WebSocket fails because of an internal error.
#: Source: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
INTERNAL_ERROR: Final = 1011
#: The exceptions that Starlette raises when the client has disconnected.
DISCONNECTS: Final = (ClientDisconnect, WebSocketDisconnect)


def is_fault(error: BaseException | None) -> bool:
    """Return whether ``error`` is an ``Exception`` that does not report a disconnected client."""
    return isinstance(error, Exception) and not isinstance(error, DISCONNECTS)


class Serving(NamedTuple):
    """Describes how the middleware treats the current request; the value of :data:`CURRENT`.

    asyncio can keep the context variables of a request alive long after its end, in cancelled
    timers.  Therefore this object does not refer to the ``Exchange``, so that the
    ``Exchange`` can be freed.

    Attributes:
        is_logged: whether the request gets a completion record.
        hides_access_log: whether the request is omitted from the server's access log.
    """

    is_logged: bool
    hides_access_log: bool


#: Describes how the middleware treats the current request; None outside of requests.
CURRENT: Final[ContextVar[Serving | None]] = ContextVar("fapilog_fastapi", default=None)


def is_in_request() -> bool:
    """Return whether the calling code runs in a request that gets a completion record."""
    serving = CURRENT.get()
    return serving is not None and serving.is_logged


def bind_to_request(fields: dict[str, Any]) -> None:
    """Add fields to all later records of the current request, and to its completion record."""
    # __exit__() is never called: the middleware restores the context variables after the
    # request.
    fapilog.bind(**fields).__enter__()


class Exchange:
    """The state of one request.  Used only on one event loop, but any thread may add fields.

    Attributes:
        fields: the fields that were bound during the request.
        routed: the ASGI scope of the innermost router, which contains the matched route.
        response_size: the size of the response's body in bytes, or None if the server sends a
            file of unknown size.
        span: the request's span in this process, or the caller's span if this process has not
            started a span.
        status: the status of the response, or None before the response starts.
        error: the exception that the application raised during the request, even if a handler
            turned it into a response.
        logged: the ``id()`` of the exception whose stack trace is in the completion record,
            or 0.
        outcome: why the response is not complete, such as ``disconnected``, or "" if it is
            complete.
        broken: whether the application failed although ``outcome`` and ``status`` show no
            failure.
        duration: how long the request took, in seconds, or None until the response or the
            request has ended.
        ended: whether the completion record has been logged.
    """

    def __init__(
        self,
        recorder: Recorder,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
    ) -> None:
        options = recorder.options
        self.started = perf_counter()
        self.recorder = recorder
        self.scope = self.routed = scope
        self.headers = headers
        self.request_id = request_id(headers.get(recorder.header))
        self.fields: dict[str, Any] = {}
        self.logger: fapilog.Logger | None = None
        self.span: Span | None = None
        self.hold: Any = None
        self.status: int | None = None
        self.error: BaseException | None = None
        self.logged = 0
        self.outcome = ""
        self.duration: float | None = None
        self.ended = self.was_disconnected = self.broken = False
        self.request_size = 0
        self.response_size: int | None = 0
        self._hook: Callable[[Any], Any] | None = options.context
        self.capture: PayloadCapture | None = None
        if options.payloads is not None:
            self.capture = PayloadCapture(options.payloads, scope)
            receive, send = self.capture.receive(receive), self.capture.send(send)
        self._receive = receive
        self._send = send

    def note_span(self) -> None:
        """Store the current OpenTelemetry span, if there is one, as the request's span.

        The middleware calls this method before it calls the application, and each ``Probe``
        calls it again inside the application's middleware.  The last call stores the innermost
        span.
        """
        span = active_span()
        if span is None:
            return
        self.span = span
        if self.recorder.releases_sampled and span.get_span_context().trace_flags.sampled:
            self.hold.release()

    async def add_context(self) -> dict[str, Any]:
        """Call the function from the option ``context``, and bind the fields that it returns.

        The function is called only once per request.  If it fails, the failure is logged and
        no fields are bound.

        Returns:
            The fields that were bound; an empty dict on later calls or after a failure.
        """
        hook, self._hook = self._hook, None
        if hook is None:
            return {}
        try:
            found = hook(HTTPConnection(self.scope))
            if inspect.isawaitable(found):
                found = await found
            fields = {str(name): value for name, value in dict(found or {}).items()}
        except Exception as error:  # noqa: BLE001 - the application's code; counted and logged
            self.recorder.trouble("the context hook", error)
            return {}
        bind_to_request(fields)
        return fields

    def fail(self, error: BaseException) -> None:
        """End the request because the application raised ``error`` and did not handle it."""
        if self.ended:
            if isinstance(error, Exception):
                self.recorder.late(self, error)
            return
        if self.duration is not None:
            if is_fault(error):
                self.error = error
                self.broken = bool(self.outcome)
            self.end()
            return
        if self.was_disconnected or isinstance(error, DISCONNECTS):
            self.outcome = DISCONNECTED
            self.broken = is_fault(error)
        elif isinstance(error, Exception):
            self.outcome = FAILED
        else:
            self.outcome = CANCELLED
        self.error = error
        self.end()

    def end(self) -> None:
        """Log the completion record, unless it has already been logged.  Never raises."""
        if not self.ended:
            self.ended = True
            if self.duration is None:
                self.duration = perf_counter() - self.started
            self.recorder.complete(self, self.duration)
            self.error = None  # break the reference cycle: the traceback refers to self

    def with_headers(self, message: Message) -> Message:
        """Return the start of a response, with the request id and trace headers added.

        The options decide which of these headers are added.  A header that the application
        has set is not replaced.
        """
        recorder = self.recorder
        if not recorder.adds_headers:
            return message
        headers = list(message.get("headers", ()))
        added = [(recorder.header, self.request_id.encode())] if recorder.header else []
        if recorder.options.trace_headers and self.span is not None:
            added += trace_headers(self.span)
        names = {name.lower() for name, _ in headers}
        headers += [pair for pair in added if pair[0] not in names]
        return {**message, "headers": headers}


class HTTPExchange(Exchange):
    """The state of an HTTP request.

    The completion record is logged after the response has been sent.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answer = 0  # the response's status; set even if the client has disconnected
        self._headers: Any = ()
        self._trailers = False

    async def receive(self) -> Message:
        """Receive an ASGI message, count the body's bytes, and detect a client's disconnection."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self.request_size += len(message.get("body", b""))
        elif kind == "http.disconnect" and not self.ended and self.duration is None:
            self.was_disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Send an ASGI message, and end the request after the last message of the response.

        Headers are added to the message that starts the response.
        """
        kind = message["type"]
        if kind == "http.response.start":
            if self._hook is not None:
                await self.add_context()
            await self._send(self._start(message))
            return
        await self._send(message)
        if kind == "http.response.body":
            self._count(len(message.get("body", b"")))
        elif kind == "http.response.zerocopysend":
            self._count(message.get("count"))
        elif kind == "http.response.pathsend":
            self._count(length(dict(self._headers).get(b"content-length")))
        elif kind != "http.response.trailers":
            return
        goes_on = "more_trailers" if kind == "http.response.trailers" else "more_body"
        if not message.get(goes_on, False) and not (kind in _BODIES and self._trailers):
            self._sent()

    def _count(self, size: int | None) -> None:
        known = self.response_size is not None and size is not None
        self.response_size = self.response_size + size if known else None  # type: ignore[operator]

    def finish(self) -> None:
        """End the request because the application returned."""
        if self.ended:
            return
        if self.duration is None:
            self.outcome = DISCONNECTED if self.was_disconnected else INCOMPLETE
        self.end()

    def _start(self, message: Message) -> Message:
        """Store the response's status, and return the result of ``with_headers``."""
        self._answer = message["status"]
        if not self.was_disconnected:
            self.status = self._answer
        self._trailers = message.get("trailers", False)
        message = self.with_headers(message)
        self._headers = headers_of(message)
        return message

    def _sent(self) -> None:
        if self.was_disconnected:
            self.outcome = DISCONNECTED
            self.broken = self._answer >= FAILURE and is_fault(self.error)
        if self._answer >= FAILURE and self.error is None:
            # The application may first send this error response, and then raise the exception that
            # caused it.  The completion record has to contain this exception, so the record is
            # not logged yet.
            self.duration = perf_counter() - self.started
            return
        self.end()


class WebSocketExchange(Exchange):
    """The state of a WebSocket.

    The completion record is logged after the application has returned.

    Attributes:
        accepted: whether the application accepted the connection.
        code: the close code of the first close message, from the client or from the server.
        closed_by: ``"client"`` or ``"server"``: the sender of that message, or "" if there
            was no close message.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.accepted = False
        self.code: int | None = None
        self.closed_by = ""

    async def receive(self) -> Message:
        """Receive an ASGI message, and store the client's close code, if any."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and not self.closed_by:
            self.closed_by, self.code = "client", message.get("code", 1005)
        return message

    async def send(self, message: Message) -> None:
        """Send an ASGI message, and store the server's close code, if any.

        Adds headers to the message ``websocket.accept``, or to ``websocket.http.response.start``,
        which refuses the WebSocket.
        """
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            if self._hook is not None:
                await self.add_context()
            self.accepted = kind == "websocket.accept"
            self.status = 101 if self.accepted else message["status"]
            message = self.with_headers(message)
        elif kind == "websocket.close" and not self.closed_by:
            self.closed_by, self.code = "server", message.get("code", 1000)
            if not self.accepted:
                self.status = 403
        await self._send(message)

    def finish(self) -> None:
        """End the request because the application returned."""
        if self.status is None and not self.closed_by:
            self.outcome = INCOMPLETE
        self.broken = self.closed_by == "server" and self.code == INTERNAL_ERROR
        self.end()

    def fail(self, error: BaseException) -> None:
        """End the request because the application raised ``error``.

        A ``WebSocketDisconnect`` is not logged as a failure: it means that the client closed
        the connection.
        """
        if isinstance(error, WebSocketDisconnect) and self.code is None:
            self.closed_by, self.code = "client", error.code
        super().fail(error)
