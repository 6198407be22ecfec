"""Sends requests through an httpx transport that the user passed.

Only this module imports httpx, because the import takes long.  A user who passes such a
transport has already imported httpx.
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

#: Errors of httpx and the httpcore errors that replace them.  The first matching row applies.
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
        """Send ``request`` and return the response.  Raises httpcore's errors, not httpx's."""
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
    """Convert an httpx error that the block raises to the corresponding httpcore error."""
    try:
        yield
    except httpx.TransportError as error:
        kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
        raise kind(str(error)) from error
