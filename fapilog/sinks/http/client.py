"""One POST within a deadline: what every HTTP sink sends its batches with.

Below the OTLP and Loki sinks.  It works on httpx's transport interface without
a client on top: a sink needs no cookies, redirects or authentication flows,
and the client would log every request at INFO into the application's own logs.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import httpcore
import httpx

from fapilog.errors import (
    AccessDeniedError,
    ConfigurationError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    SendError,
)
from fapilog.native import monotonic
from fapilog.otlp.classify import RETRYABLE_STATUSES, http_error, printable, retry_after
from fapilog.process.give_way import give_way
from fapilog.protocols import Outcome
from fapilog.sinks.http.deadline import (
    CONNECT_ERRORS,
    NETWORK_ERRORS,
    TIMEOUT_ERRORS,
    DeadlineTransport,
)
from fapilog.sinks.http.proxies import environment_proxy
from fapilog.sinks.http.tls import ClientTLS, client_context, untrusted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fapilog.sinks.http.options import HTTPOptions

#: Bytes of an answer; OTLP's recommended limit.
MAX_RESPONSE: Final = 4 << 20

_HOST: Final = re.compile(r"\w*:?//(?:[^/?#]*@)?([^/?#@]+)")


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: of HTTP, no redirect.
        headers: by their name in any case.
        body: up to :data:`MAX_RESPONSE` bytes; empty when compressed, which
            nobody asked for and which unpacked may fill the memory.
        is_cut: whether the body is longer.
        problem: why the rest of the answer could not be read; "" if it was.
            The status counts all the same: sending the request again could only
            duplicate its records.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool
    problem: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the backend took the request."""
        return httpx.codes.is_success(self.status)

    @property
    def content_type(self) -> str:
        """The media type, in lower case, with its parameters."""
        return self.headers.get("content-type", "").lower()


class HTTPClient:
    """Posts to one URL.  Thread-safe: each thread that posts has a connection of its own.

    Args:
        options: checked; TLS follows the scheme of their endpoint.
        agent: names us to the backend, unless a header of the options does.
        headers: of the protocol; they win over those of the options.
        transport: used in place of the network, for tests.

    Raises:
        ConfigurationError: the endpoint, a certificate or the environment's
            proxy cannot be used.
    """

    def __init__(
        self,
        options: HTTPOptions,
        agent: str,
        headers: Mapping[str, str],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._options = options
        self._headers = {"user-agent": agent, **options.headers, **headers}
        self._given = transport
        is_tls = transport is None and options.is_secure
        self._tls = ClientTLS(options, httpx.create_ssl_context) if is_tls else None
        self._proxy = environment_proxy(options.endpoint) if transport is None else None
        is_tls_to_proxy = self._proxy is not None and self._proxy.url.startswith("https:")
        self._proxy_tls = client_context(httpx.create_ssl_context) if is_tls_to_proxy else None
        # As many as there were posts at one time; those not in use are idle.
        self._connections: list[DeadlineTransport] = []
        self._idle: list[DeadlineTransport] = []
        try:
            self._url = httpx.URL(options.endpoint)
        except httpx.InvalidURL as error:
            msg = f"endpoint={options.shown!r}: {error}; give it in the form http://host:port"
            raise ConfigurationError(msg, "endpoint") from None

    def post(self, body: bytes, timeout: float) -> Answer:
        """Post ``body``; blocks up to ``timeout`` seconds.

        Raises:
            RetryableError: no connection: the network, TLS, a proxy, or the time.
            AccessDeniedError: the proxy refuses our credentials.
            NoAnswerError: the request was sent, and no status came back.
            PermanentError: the answer is a redirect, which is not followed.
        """
        deadline = monotonic() + timeout
        give_way()  # the body has just been put together
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._headers,
            content=body,
            extensions={"deadline": deadline},
        )
        try:
            with self._connection() as connection:
                response = connection.handle_request(request)
                answer, is_cut, problem = self._read(response, deadline, timeout)
        except NETWORK_ERRORS as error:
            kind: type[RetryableError] = NoAnswerError
            if isinstance(error, httpcore.ProxyError) and str(error).startswith("407"):
                kind = AccessDeniedError
            elif isinstance(error, CONNECT_ERRORS):
                kind = RetryableError
            msg = f"{self._options.shown}: {self._explain(error, timeout)}"
            raise kind(msg) from error
        if response.has_redirect_location:
            raise self._redirected(response)
        if "content-encoding" in response.headers:
            answer = b""
        return Answer(response.status_code, response.headers, answer, is_cut, problem)

    def _read(
        self, response: httpx.Response, deadline: float, timeout: float
    ) -> tuple[bytes, bool, str]:
        """Return the answer's body, whether it was cut, and why it cannot be read."""
        try:
            return *_read(response, deadline), ""
        except NETWORK_ERRORS as error:
            why = self._explain(error, timeout)
            return b"", False, f"the rest of the answer cannot be read: {why}"
        finally:
            with contextlib.suppress(*NETWORK_ERRORS):
                response.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[httpx.BaseTransport]:
        """Lend a connection that no other thread has."""
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
        """Return what went wrong on the network, or with the certificate of the other end."""
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
        return untrusted(words) if isinstance(cause, ssl.SSLCertVerificationError) else words

    def _redirected(self, response: httpx.Response) -> PermanentError:
        host = _HOST.match(response.headers["location"])
        return PermanentError(
            f"{self._options.shown}: HTTP {response.status_code} leads to "
            f"{self.clean(host[1]) if host else 'itself'}; "
            "redirects are not followed, set the endpoint to the final URL"
        )

    def error_of(
        self, answer: Answer, retryable: Collection[int] = RETRYABLE_STATUSES
    ) -> SendError:
        """Return the error that an answer without success stands for.

        Args:
            answer: its words are shown without our credentials.
            retryable: the statuses after which the same request may succeed.
        """
        return http_error(
            answer.status,
            answer.body,
            content_type=answer.content_type,
            wait=retry_after(answer.headers.get("retry-after"), time.time()),
            source=self._options.shown,
            clean=self.clean,
            retryable=retryable,
        )

    def unread(self, answer: Answer) -> Outcome:
        """Return the outcome of a success whose rest cannot be read: all records are delivered."""
        said = f"{self._options.shown}: HTTP {answer.status}, but {answer.problem}"
        return Outcome(0, f"{said}; its records count as delivered")

    def clean(self, words: str) -> str:
        """Return a backend's words fit to be shown."""
        secrets = self._proxy.secrets if self._proxy is not None else ()
        return printable(self._options.conceal(words, secrets))

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()
        if self._given is not None:
            self._given.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent; a transport of the user's is kept."""
        for connection in self._connections:
            connection.after_fork()
        # Those in use were lent to threads that only the parent has.
        self._idle = self._connections.copy()


def _read(response: httpx.Response, deadline: float) -> tuple[bytes, bool]:
    """Return the answer's body, and whether it was cut at :data:`MAX_RESPONSE`.

    Raises:
        TimeoutError: it is not complete at ``deadline``.
    """
    body = bytearray()
    assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - for the type checker
    for chunk in response.stream:
        body += chunk
        if len(body) > MAX_RESPONSE:
            return bytes(body[:MAX_RESPONSE]), True
        if monotonic() > deadline:
            raise TimeoutError
    return bytes(body), False
