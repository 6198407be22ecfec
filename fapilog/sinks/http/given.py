"""Sends requests through an httpx transport that the user has passed to a sink.

Importing httpx is slow.  So only this module imports it, and this module is only imported
if the user has passed a transport, for which the user's code has already imported httpx.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from fapilog.sinks.http.request import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.sinks.http.request import Request

#: Pairs of an httpx error and the httpcore error that replaces it.  The first pair whose httpx
#: error matches is used.
_ERRORS: Final = (
    (httpx.ConnectTimeout, httpcore.ConnectTimeout),
    (httpx.TimeoutException, httpcore.TimeoutException),
    (httpx.ConnectError, httpcore.ConnectError),
    (httpx.ProxyError, httpcore.ProxyError),
    (httpx.TransportError, httpcore.NetworkError),
)


class GivenTransport:
    """Posts to one URL through ``transport``.  Thread-safe if ``transport`` is thread-safe."""

    def __init__(self, transport: httpx.BaseTransport, url: str) -> None:
        self._transport = transport
        self._url = url
        self.close = transport.close

    def post(self, request: Request) -> Response:
        """Send ``request`` and return the response.  Raises errors of httpcore, not of httpx."""
        sent = httpx.Request(
            "POST",
            self._url,
            headers=list(request.headers),
            content=request.body,
            extensions={"deadline": request.deadline},
        )
        with _httpcore_errors():
            answer = self._transport.handle_request(sent)
        return Response(answer.status_code, answer.headers.raw, _chunks(answer), answer.close)


def _chunks(answer: httpx.Response) -> Iterator[bytes]:
    assert isinstance(answer.stream, httpx.SyncByteStream)  # noqa: S101 - for the type checker
    with _httpcore_errors():
        yield from answer.stream


@contextlib.contextmanager
def _httpcore_errors() -> Iterator[None]:
    """Convert httpx errors raised in the ``with`` block to httpcore errors."""
    try:
        yield
    except httpx.TransportError as error:
        kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        raise kind(str(error)) from error
