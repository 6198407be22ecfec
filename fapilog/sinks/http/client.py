"""Posts a request within a deadline, and converts a failure to one of fapilog's errors.

This module does not use ``httpx.Client``, because it would log every request at INFO in the
application's logs, and because httpx is slow to import.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import httpcore

from fapilog.errors import (
    AccessDeniedError,
    ConfigurationError,
    NoAnswerError,
    PermanentError,
    RetryableError,
)
from fapilog.native import monotonic
from fapilog.otlp.classify import RETRYABLE_STATUSES, http_error, retry_after
from fapilog.process.give_way import give_way
from fapilog.sinks.http.proxies import environment_proxy
from fapilog.sinks.http.request import Request, target_of
from fapilog.sinks.http.tls import ClientTLS, client_context, default_context, untrusted
from fapilog.sinks.http.transport import (
    CONNECT_ERRORS,
    NETWORK_ERRORS,
    TIMEOUT_ERRORS,
    DeadlineTransport,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import httpx

    from fapilog.otlp.classify import Refusals
    from fapilog.sinks.http.given import GivenTransport
    from fapilog.sinks.http.options import HTTPOptions
    from fapilog.sinks.http.request import Response

#: The maximum size of a response body in bytes, as OTLP recommends.
MAX_RESPONSE: Final = 4 << 20

_HOST: Final = re.compile(r"\w*:?//(?:[^/?#]*@)?([^/?#@]+)")


class Answer(NamedTuple):
    """The answer to a request that the backend accepted.

    Attributes:
        status: the HTTP status, which is between 200 and 299.
        body: the body, or ``b""`` if the body is compressed or cannot be read.
        content_type: the media type with its parameters, in lower case.
        problem: the reason why the body could not be read, or "".
    """

    status: int
    body: bytes
    content_type: str
    problem: str


class HTTPClient:
    """Posts requests to one URL.  Thread-safe: threads never share a connection.

    Args:
        options: the options, which have been validated.
        agent: the value of the ``User-Agent`` header, used unless the options contain this header.
        headers: the headers that the protocol requires; they override the options' headers.
        transport: an httpx transport to use instead of the network, for tests.
        retryable: the HTTP statuses after which the same request is sent again.
        refusals: pairs of a pattern and an error class.  If the pattern matches the text of a
            response with status 400, this error is raised.
        refuses_long: whether a response of more than :data:`MAX_RESPONSE` bytes is a permanent
            error, whatever its status, as OTLP requires.  If False, the response is truncated.

    Raises:
        ConfigurationError: the endpoint, a certificate, or the proxy in an environment variable
            is invalid.
    """

    def __init__(
        self,
        options: HTTPOptions,
        agent: str,
        headers: Mapping[str, str],
        transport: httpx.BaseTransport | None = None,
        retryable: Collection[int] = RETRYABLE_STATUSES,
        *,
        refusals: Refusals = (),
        refuses_long: bool = True,
    ) -> None:
        self._options = options
        all_headers = {"user-agent": agent, **options.headers, **headers}
        self._headers = [(name.encode(), value.encode()) for name, value in all_headers.items()]
        self._retryable = retryable
        self._refusals = refusals
        self._refuses_long = refuses_long
        is_tls = transport is None and options.is_secure
        self._tls = ClientTLS(options, default_context) if is_tls else None
        self._proxy = environment_proxy(options.endpoint) if transport is None else None
        self.clean = partial(options.conceal, proxy=self._proxy)
        is_tls_to_proxy = self._proxy is not None and self._proxy.url.startswith("https:")
        self._proxy_tls = client_context(default_context) if is_tls_to_proxy else None
        self._connections: list[DeadlineTransport] = []  # all connections, idle or in use
        self._idle: list[DeadlineTransport] = []  # connections that no thread is using
        try:
            self._target = target_of(options.endpoint)
        except ValueError as error:
            msg = f"endpoint={options.shown!r}: {error}; give it in the form http://host:port"
            raise ConfigurationError(msg, "endpoint") from None
        self._given: GivenTransport | None = None
        if transport is not None:
            from fapilog.sinks.http.given import GivenTransport  # noqa: PLC0415 - loads httpx

            self._given = GivenTransport(transport, options.endpoint)

    def post(self, body: bytes, timeout: float) -> Answer:
        """Post ``body`` and return the answer.  Blocks up to ``timeout`` seconds.

        Raises:
            SendError: the connection failed, or the backend did not accept the request.
        """
        deadline = monotonic() + timeout
        give_way()  # let the application's threads run, because the body took time to encode
        request = Request(self._target, self._headers, body, deadline)
        try:
            with self._connection() as connection:
                response = connection.post(request)
                answer, problem = self._read(response, deadline, timeout)
        except NETWORK_ERRORS as error:
            kind: type[RetryableError] = NoAnswerError
            if isinstance(error, httpcore.ProxyError) and str(error).startswith("407"):
                kind = AccessDeniedError
            elif isinstance(error, CONNECT_ERRORS):
                kind = RetryableError
            msg = f"{self._options.shown}: {self._explain(error, timeout)}"
            raise kind(msg) from error
        return self._checked(response, answer, problem)

    def _read(self, response: Response, deadline: float, timeout: float) -> tuple[bytes, str]:
        """Return the response body and "", or b"" and the reason why the body cannot be read."""
        try:
            return _body_of(response, deadline), ""
        except NETWORK_ERRORS as error:
            return b"", self._explain(error, timeout)
        finally:
            with contextlib.suppress(*NETWORK_ERRORS):
                response.close()

    def _checked(self, response: Response, body: bytes, problem: str) -> Answer:
        status, shown = response.status, self._options.shown
        if (location := response.redirects_to) is not None:
            host = _HOST.match(location)
            msg = (
                f"{shown}: HTTP {status} leads to {self.clean(host[1]) if host else 'this host'}; "
                "redirects are not followed: set the endpoint to the final URL"
            )
            raise PermanentError(msg)
        if len(body) > MAX_RESPONSE and self._refuses_long:
            msg = f"{shown}: HTTP {status}, and the answer exceeds {MAX_RESPONSE} bytes"
            raise PermanentError(msg)
        if response.header("content-encoding") is not None:
            body = b""  # ignore a compressed body, which might fill the memory when decompressed
        content_type = (response.header("content-type") or "").lower()
        if not response.is_success:
            raise http_error(
                status,
                body,
                content_type=content_type,
                wait=retry_after(response.header("retry-after"), time.time()),
                source=shown,
                clean=self.clean,
                retryable=self._retryable,
                refusals=self._refusals,
            )
        if problem:
            problem = (
                f"{shown}: HTTP {status}, but the rest of the answer cannot be read: {problem}; "
                "its records count as delivered"
            )
        return Answer(status, body, content_type, problem)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[DeadlineTransport | GivenTransport]:
        """Yield an idle or new connection, which no other thread uses in the ``with`` block."""
        if self._given is not None:
            yield self._given
            return
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = DeadlineTransport(self._tls, self._proxy, self._proxy_tls)
            self._connections.append(connection)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def _explain(self, error: BaseException, timeout: float) -> str:
        if isinstance(error, TIMEOUT_ERRORS):
            return f"no complete answer within {timeout:g} s"
        words = self.clean(str(error)) or type(error).__name__
        if isinstance(error, httpcore.ProxyError):
            words = f"the proxy answers HTTP {words}"
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None and self._tls is not None:
            self._tls.doubt()
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(words, self._options)
        return words

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        if self._given is not None:
            self._given.close()

    def after_fork(self) -> None:
        """In a forked child, replace all connections that this client has opened.

        A transport that the user passed to the client is not replaced.
        """
        for connection in self._connections:
            connection.after_fork()
        # The threads that used these connections exist only in the parent process, so in the
        # child, all connections are idle.
        self._idle = self._connections.copy()


def _body_of(response: Response, deadline: float) -> bytes:
    """Return the response's body.  Stop reading after :data:`MAX_RESPONSE` bytes.

    Raises:
        TimeoutError: the body was not complete before ``deadline``.
    """
    body = bytearray()
    for chunk in response.chunks:
        body += chunk
        if len(body) > MAX_RESPONSE:
            break
        if monotonic() > deadline:
            raise TimeoutError
    return bytes(body)
