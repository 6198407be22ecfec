"""Copies the headers and bodies of one request for its completion record.

A :class:`PayloadCapture` wraps the ASGI callables ``receive`` and ``send``.  It copies the
first bytes of the bodies that the options select.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog_fastapi.attributes import headers_of, length
from fapilog_fastapi.body_content import NOTHING, content_of
from fapilog_fastapi.payload_options import BODY_TYPES, MAX_BODY, PayloadLogging
from fapilog_fastapi.queries import redact_query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Message, Receive, Scope, Send

__all__ = ["BODY_TYPES", "MAX_BODY", "PayloadCapture", "PayloadLogging", "redact_query"]

_FORM: Final = "application/x-www-form-urlencoded"
# Statuses of responses without a body: https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1
_BODILESS: Final = frozenset({204, 205, 304})


class BodyCapture:
    """The content type, the size and the first bytes of a request's or a response's body.

    Args:
        name: the prefix of the body's log attributes, such as ``http.request.body``.
        options: the options that select the bodies to log.
    """

    __slots__ = ("_charset", "_declared", "_kind", "_name", "_options", "held", "is_whole",
                 "refusal", "size")  # fmt: skip

    def __init__(self, name: str, options: PayloadLogging) -> None:
        self._name = name
        self._options = options
        self._kind = self._charset = ""
        self._declared: int | None = None
        self.held = bytearray()
        self.size = 0
        self.is_whole = False
        self.refusal = ""

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Read the content type from the headers, and decide whether the body can be logged."""
        content_type, encoding = "", ""
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-type":
                content_type = value.decode("latin-1")
            elif lowered == b"content-encoding":
                encoding = value.decode("latin-1").strip().lower()
            elif lowered == b"content-length":
                self._declared = length(value)
        media_type, _, parameters = content_type.partition(";")
        media_type = media_type.strip().lower()
        self._charset = _parameter(parameters, "charset")
        if media_type.startswith("multipart/"):  # a multipart body may contain files
            self.refusal = "multipart"
        elif not self._options.wants_type(media_type):
            self.refusal = "content_type"
        # a kilobyte of a compressed body may be a gigabyte after decoding
        elif encoding not in {"", "identity"}:
            self.refusal = "content_encoding"
        elif media_type == _FORM:
            self._kind = "form"
        else:
            is_json = media_type.endswith(("/json", "+json"))
            self._kind = "json" if is_json else "text"

    def add(self, body: object, *, more: object) -> None:
        """Count the bytes of an ASGI message's ``body``, and copy them up to ``body_limit``.

        If ``more`` is false, the message is the last message of the body.
        """
        if isinstance(body, (bytes, bytearray, memoryview)):
            view = memoryview(body)
            self.size += view.nbytes
            room = self._options.body_limit - len(self.held)
            if room > 0 and not self.refusal:
                self.held += bytes(body) if view.nbytes <= room else view.cast("B")[:room]
        if not more:
            self.is_whole = True

    def attributes(self) -> dict[str, Any]:
        """Return the body's size, and its content or the reason why the content is missing."""
        attributes: dict[str, Any] = {}
        size = self.size if self.is_whole or self._declared is None else self._declared
        if size or self.is_whole:
            attributes[f"{self._name}.size"] = size
        omitted = self.refusal
        if not size and omitted != "file":
            return attributes
        if not omitted and not self.held:
            omitted = "not_read"
        if not omitted:
            whole = self.is_whole and self.size == len(self.held)
            content, complete = content_of(bytes(self.held), self._kind, self._charset, whole=whole)
            if content is NOTHING:
                omitted = "truncated" if not whole else "unreadable"
            else:
                attributes[f"{self._name}.content"] = content
                if not complete:
                    attributes[f"{self._name}.truncated"] = True
        if omitted:
            attributes[f"{self._name}.omitted"] = omitted
        return attributes


class PayloadCapture:
    """Copies the selected headers and bodies of one request and its response.

    Used for only one request, on its event loop; neither blocks nor raises.  WebSockets are
    not captured.  Messages pass unchanged, in order and without delay; at most
    ``options.body_limit`` bytes of each body are stored.

    Args:
        options: the headers and bodies to log.
        scope: the request's ASGI scope.
    """

    def __init__(self, options: PayloadLogging, scope: Scope) -> None:
        self._options = options
        self._is_http = scope["type"] == "http"
        self._status: int | None = None
        self._headers: dict[str, Any] = {}
        self._request: BodyCapture | None = None
        self._response: BodyCapture | None = None
        if not self._is_http:
            return
        headers = headers_of(scope)
        self._note_headers("http.request.header.", options.request_headers, headers)
        if options.wants_request_body(scope):
            self._request = BodyCapture("http.request.body", options)
            self._request.begin(headers)
        if scope.get("method") != "HEAD" and options.wants_response_body(scope):
            self._response = BodyCapture("http.response.body", options)

    @property
    def held(self) -> int:
        """The number of bytes that are stored of both bodies, the request's and the response's."""
        return sum(len(body.held) for body in (self._request, self._response) if body)

    def receive(self, receive: Receive) -> Receive:
        """Return ``receive``, or a function that wraps it and copies the request's body."""
        body = self._request
        if body is None:
            return receive

        async def receive_and_copy() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.add(message.get("body", b""), more=message.get("more_body", False))
            return message

        return receive_and_copy

    def send(self, send: Send) -> Send:
        """Return ``send``, or a function that wraps it and copies the response."""
        if not self._is_http:
            return send

        async def send_and_copy(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                # The message is read before it is sent, because send() passes it to other
                # middleware, which may change it.
                self._begin_response(message)
                await send(message)
                return
            await send(message)
            body = self._response
            if body is not None:
                if kind == "http.response.body":
                    body.add(message.get("body", b""), more=message.get("more_body", False))
                elif kind in {"http.response.pathsend", "http.response.zerocopysend"}:
                    body.refusal = body.refusal or "file"

        return send_and_copy

    def attributes(self, status: int | None = None) -> dict[str, Any]:
        """Return the attributes for the completion record; their values are not yet redacted.

        Args:
            status: the status of the response, such as 500 if the server responds to an
                exception; None means the status of the message that passed through
                :meth:`send`, if any.
        """
        attributes = dict(self._headers)
        if status is None:
            status = self._status
        if self._options.wants_status(status):
            for body in (self._request, self._response):
                if body is not None:
                    attributes.update(body.attributes())
        return attributes

    def _begin_response(self, message: Message) -> None:
        self._status = status = message.get("status")
        headers = headers_of(message)
        self._note_headers("http.response.header.", self._options.response_headers, headers)
        if self._response is not None:
            if status in _BODILESS or not self._options.wants_status(status):
                self._response = None
            else:
                self._response.begin(headers)

    def _note_headers(
        self, prefix: str, names: Iterable[str], headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Store each header in ``names`` as a log attribute whose value is a list.

        Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/
        """
        if not names:
            return
        for raw, value in headers:
            name = raw.decode("latin-1").lower()
            if name in names:
                self._headers.setdefault(prefix + name, []).append(value.decode("latin-1"))


def _parameter(parameters: str, wanted: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == wanted:
            return value
    return ""
