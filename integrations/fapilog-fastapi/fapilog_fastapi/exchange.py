"""One request and its answer: what passes between server and application, noted.

An exchange stands in for ``receive`` and ``send`` of one request.  It changes
nothing but the headers of the response, and hands itself to the recorder when
the response has ended, whichever way that was.
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

#: Where a scope has its exchange; a mounted application finds it there.
KEY: Final = "fapilog_fastapi"

#: How a request came to its end, when it is not that its response was sent.
DISCONNECTED: Final = "disconnected"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
INCOMPLETE: Final = "incomplete"
_BODIES: Final = frozenset({"http.response.body", "http.response.zerocopysend"})
#: Lowest status of a failure.
FAILURE: Final = 500
#: What a server closes a WebSocket with when it failed.
#: Source: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
INTERNAL_ERROR: Final = 1011
#: What is raised when the client has gone.
DISCONNECTS: Final = (ClientDisconnect, WebSocketDisconnect)


def is_fault(error: BaseException | None) -> bool:
    """Whether an exception is one of the application's own, and no client that has gone."""
    return isinstance(error, Exception) and not isinstance(error, DISCONNECTS)


class Serving(NamedTuple):
    """What the context says while a request is served, one for all requests of a middleware.

    Not the exchange, nor anything else of the request: event loops keep the
    contexts of timers that were cancelled long ago, with all that is in them.
    """

    is_logged: bool
    hides_access_log: bool


#: How the request is served that the running code belongs to.
CURRENT: Final[ContextVar[Serving | None]] = ContextVar("fapilog_fastapi", default=None)


def is_in_request() -> bool:
    """Whether the running code belongs to a request that gets a completion record."""
    serving = CURRENT.get()
    return serving is not None and serving.is_logged


def bind_to_request(fields: dict[str, Any]) -> None:
    """Bind fields to the rest of the request, and to its completion record, which collects them."""
    # Not left again: it lasts as long as the context, and the middleware resets that.
    fapilog.bind(**fields).__enter__()


class Exchange:
    """State of one request.  Made and used on its event loop; threads only add fields.

    Attributes:
        fields: bound during the request, for the completion record.
        routed: the scope that the innermost router got, where the route is.
        response_size: bytes of the response's body, None where the server alone knows.
        span: the server's span, or the caller's where this process has none.
        status: of the response, None before it starts.
        error: the exception that this request failed with, handled or not.
        logged: identity of the exception whose stack trace the record has.
        outcome: "" when the response was sent in whole.
        broken: whether the application failed, though neither outcome nor status say so.
        duration: seconds to the end of a failure's response whose exception may
            still come; None while there is none.
        ended: whether the completion record has been written.
    """

    __slots__ = (
        "_hook",
        "_receive",
        "_send",
        "broken",
        "capture",
        "duration",
        "ended",
        "error",
        "fields",
        "headers",
        "hold",
        "logged",
        "logger",
        "outcome",
        "recorder",
        "request_id",
        "request_size",
        "response_size",
        "routed",
        "scope",
        "span",
        "started",
        "status",
        "was_disconnected",
    )

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
        """Take the current span for this request's, as seen by the innermost that looks."""
        span = active_span()
        if span is None:
            return
        self.span = span
        if self.recorder.releases_sampled and span.get_span_context().trace_flags.sampled:
            self.hold.release()

    async def add_context(self) -> dict[str, Any]:
        """Bind what the application's hook says of the request, the first time this is called.

        A hook that fails is reported and changes nothing else.

        Returns:
            What it said.
        """
        hook, self._hook = self._hook, None
        if hook is None:
            return {}
        try:
            found = hook(HTTPConnection(self.scope))
            if inspect.isawaitable(found):
                found = await found
            fields = {str(name): value for name, value in dict(found or {}).items()}
        except Exception as error:  # noqa: BLE001 - the application's own code; counted and told
            self.recorder.trouble("the context hook", error)
            return {}
        bind_to_request(fields)
        return fields

    def note_error(self, error: BaseException) -> None:
        """Note an exception on its way to whoever answers it."""
        self.error = error

    def fail(self, error: BaseException) -> None:
        """The application raised ``error``, which goes on to the server."""
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
            # Only that excuses an error, and a cancellation.
            self.outcome = DISCONNECTED
            self.broken = is_fault(error)
        elif isinstance(error, Exception):
            self.outcome = FAILED
        else:
            self.outcome = CANCELLED
        self.error = error
        self.end()

    def finish(self) -> None:
        """The application returned."""
        raise NotImplementedError

    async def receive(self) -> Message:
        """Stand in for the server's ``receive``."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Stand in for the server's ``send``."""
        raise NotImplementedError

    def end(self) -> None:
        """Write the completion record, once.  Never raises."""
        if not self.ended:
            self.ended = True
            if self.duration is None:
                self.duration = perf_counter() - self.started
            self.recorder.complete(self, self.duration)
            self.error = None  # its frames hold this object

    def response_headers(self, present: Any) -> list[tuple[bytes, bytes]]:
        """Return the response's headers with those that the options ask for."""
        headers = list(present)
        recorder = self.recorder
        added = [(recorder.header, self.request_id.encode())] if recorder.header else []
        if recorder.options.trace_headers and self.span is not None:
            added += trace_headers(self.span)
        names = {name.lower() for name, _ in headers}
        return headers + [pair for pair in added if pair[0] not in names]


class HTTPExchange(Exchange):
    """An HTTP request; its record is written when the last piece of the response was sent."""

    __slots__ = ("_answer", "_headers", "_trailers")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answer = 0  # the status, also where nobody gets to see it
        self._headers: Any = ()
        self._trailers = False

    async def receive(self) -> Message:
        """Receive, counting the request's body and noting that the client has gone."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self.request_size += len(message.get("body", b""))
        elif kind == "http.disconnect" and not self.ended and self.duration is None:
            self.was_disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Send, with the headers added; the end of the response ends the exchange."""
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
        """The application returned."""
        if self.ended:
            return
        if self.duration is None:
            self.outcome = DISCONNECTED if self.was_disconnected else INCOMPLETE
        self.end()

    def _start(self, message: Message) -> Message:
        """Note how the response starts; returns the message with the headers added."""
        self._answer = message["status"]
        if not self.was_disconnected:
            self.status = self._answer
        self._trailers = message.get("trailers", False)
        if self.recorder.adds_headers:
            headers = self.response_headers(message.get("headers", ()))
            message = {**message, "headers": headers}
        self._headers = headers_of(message)
        return message

    def _sent(self) -> None:
        if self.was_disconnected:
            self.outcome = DISCONNECTED
            self.broken = self._answer >= FAILURE and is_fault(self.error)
        if self._answer >= FAILURE and self.error is None:
            # Where no probe stands, who answers an exception raises it again.
            self.duration = perf_counter() - self.started
            return
        self.end()


class WebSocketExchange(Exchange):
    """A WebSocket; its record is written when the application has returned.

    Attributes:
        accepted: whether the handshake was answered with 101.
        code: of the close message, whoever sent the first.
        closed_by: ``"client"``, ``"server"``, or "" where nobody closed.
    """

    __slots__ = ("accepted", "closed_by", "code")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.accepted = False
        self.code: int | None = None
        self.closed_by = ""

    async def receive(self) -> Message:
        """Receive, noting how the client closes."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and not self.closed_by:
            self.closed_by, self.code = "client", message.get("code", 1005)
        return message

    async def send(self, message: Message) -> None:
        """Send, with the headers added to the handshake, noting how the server closes."""
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            if self._hook is not None:
                await self.add_context()
            self.accepted = kind == "websocket.accept"
            self.status = 101 if self.accepted else message["status"]
            if self.recorder.adds_headers:
                headers = self.response_headers(message.get("headers", ()))
                message = {**message, "headers": headers}
        elif kind == "websocket.close" and not self.closed_by:
            self.closed_by, self.code = "server", message.get("code", 1000)
            if not self.accepted:
                self.status = 403
        await self._send(message)

    def finish(self) -> None:
        """The application returned."""
        if self.status is None and not self.closed_by:
            self.outcome = INCOMPLETE
        self.broken = self.closed_by == "server" and self.code == INTERNAL_ERROR
        self.end()

    def fail(self, error: BaseException) -> None:
        """As of HTTP; a client that closes normally is no failure."""
        if isinstance(error, WebSocketDisconnect) and self.code is None:
            self.closed_by, self.code = "client", error.code
        super().fail(error)
