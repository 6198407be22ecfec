"""An httpx transport whose requests end at a deadline, whatever the server does.

Below the HTTP sinks.  The timeouts of httpx hold for one read, so a server
that sends a byte now and then keeps a request alive for ever; here every wait
for the network is cut to what is left of the request's time.

Python imports the codec of host names when it first resolves one.  A process
forked in the midst of that, on a delivery thread, would inherit the module's
lock, which nobody releases, or half of the module, and could never connect.
So it is looked up here, where no thread is at work yet.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import ssl
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import httpcore
import httpx

from fapilog.native import monotonic
from fapilog.process.fork import TLS
from fapilog.process.give_way import give_way
from fapilog.sinks.http.connection import TLSStream, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fapilog.sinks.http.proxies import Proxy
    from fapilog.sinks.http.tls import ClientTLS

codecs.lookup("idna")

#: Seconds an unused connection is kept.
KEEP_ALIVE: Final = 30.0
_WRITE_SIZE: Final = 1 << 16  # bytes written between two looks at the clock

#: The beginning of an answer, once it tells the final status.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)[ \r\n]")
_HEAD_SIZE: Final = 16  # bytes of an answer that hold its status

#: What sending a request or reading its answer raises when the network fails.
NETWORK_ERRORS: Final = (
    OSError,
    httpx.TransportError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
)
#: Those of them that mean the time was over.
TIMEOUT_ERRORS: Final = (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException)
#: Those of them that mean the request was never sent.
CONNECT_ERRORS: Final = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.ProxyError,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
)

# Connections of a parent process, where freeing them might wait for a lock of OpenSSL.
_inherited: Final[list[httpcore.ConnectionPool]] = []


class DeadlineTransport(httpx.BaseTransport):
    """Sends requests over kept connections.  Used by one thread; not thread-safe.

    A request carries its deadline, in seconds of the monotonic clock, as the
    extension ``"deadline"``.  Only one wait is not cut: name resolution, which
    the system does.  Raises one of :data:`NETWORK_ERRORS`, also while the answer
    is read.

    Args:
        tls: for https.
        proxy: an HTTP proxy, or None.
        proxy_tls: for a proxy that is itself reached by https.
    """

    def __init__(
        self,
        tls: ClientTLS | None,
        proxy: Proxy | None = None,
        proxy_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._proxy = proxy
        self._backend = _Backend(tls, proxy_tls)
        self._pool = self._open()

    def _open(self) -> httpcore.ConnectionPool:
        common: dict[str, Any] = {
            "ssl_context": self._backend.stand_in,
            "keepalive_expiry": KEEP_ALIVE,
            "network_backend": self._backend,
        }
        proxy = self._proxy
        if proxy is None:
            return httpcore.ConnectionPool(**common)
        auth = (proxy.username.encode(), proxy.password.encode())
        return httpcore.HTTPProxy(
            proxy.url,
            proxy_auth=auth if any(auth) else None,
            proxy_ssl_context=self._backend.proxy_stand_in,
            **common,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; the answer's body is read from its stream.

        If the status arrived but the headers cannot be read, the answer has no
        headers, and reading its body raises the error.
        """
        self._backend.deadline = request.extensions["deadline"]
        self._backend.head = None
        url = request.url
        try:
            response = self._pool.handle_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions={"timeout": {"pool": self._backend.left()}},
                )
            )
        except NETWORK_ERRORS as error:
            status = _STATUS_LINE.match(self._backend.head or b"")
            if status is None:
                raise
            return httpx.Response(int(status[1]), stream=_Unreadable(error))
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response.stream)
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def after_fork(self) -> None:
        """Give up the parent's connections, which stay as they are for the parent.

        The pool is not asked: the parent may have held its lock while forking.
        """
        self._backend.close_sockets()
        if TLS.cut_short:
            _inherited.append(self._pool)
        self._pool = self._open()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class _Unreadable(httpx.SyncByteStream):
    """The body of an answer whose headers could not be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        raise self._error


class _Backend(httpcore.SyncBackend):
    """Opens connections that obey the deadline of the current request.

    Attributes:
        deadline: of the current request, seconds of the monotonic clock.
        head: first bytes of the answer to the current POST; None until the POST
            is written, so a proxy's answer to CONNECT is never taken for it.
    """

    def __init__(
        self, tls: ClientTLS | None = None, proxy_tls: ssl.SSLContext | None = None
    ) -> None:
        self.deadline = 0.0
        self.head: bytes | None = None
        self._tls = tls
        self._proxy_tls = proxy_tls
        # httpcore gets these in place of the contexts.  It changes a context with each
        # connection, and these are shared by threads that may just be reading them.
        self.stand_in = _stand_in(tls)
        self.proxy_stand_in = _stand_in(proxy_tls)
        self._streams: WeakSet[httpcore.NetworkStream] = WeakSet()

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,  # noqa: ARG002 - nobody asks for one
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        with _connecting():
            return self.watch(connect(host, port, self.left))

    def start_tls(
        self, stream: httpcore.NetworkStream, context: ssl.SSLContext, host: str | None
    ) -> httpcore.NetworkStream:
        if context is self.proxy_stand_in and self._proxy_tls is not None:
            context = self._proxy_tls
        elif self._tls is not None:
            self._tls.renew()
            context = self._tls.context
        with _connecting():
            return self.watch(TLSStream(stream, context, host, self.left()))

    def watch(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        self._streams.add(stream)
        return _Stream(stream, self)

    def close_sockets(self) -> None:
        for stream in list(self._streams):
            stream.close()


@contextlib.contextmanager
def _connecting() -> Iterator[None]:
    """Raise errors of the block as those that mean the request was never sent."""
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


def _stand_in(tls: object) -> ssl.SSLContext | None:
    """Return a context that trusts nobody, if there is TLS."""
    if tls is None:
        return None
    with TLS:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Stream(httpcore.NetworkStream):
    """A connection each of whose waits ends at the deadline.

    A write is kept until the next one, or a read: so the head of a request
    leaves together with the beginning of its body.
    """

    def __init__(self, stream: httpcore.NetworkStream, backend: _Backend) -> None:
        self._stream = stream
        self._backend = backend
        self._kept = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        if self._kept:
            self.write(b"")
        backend = self._backend
        data = self._stream.read(max_bytes, backend.left())
        if backend.head is not None and len(backend.head) < _HEAD_SIZE:
            backend.head += data[:_HEAD_SIZE]
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Write two buffers at a time; the end of a request with a length is an empty one."""
        kept, self._kept = self._kept, b""
        if not kept:
            self._kept = buffer
            return
        if kept.startswith(b"POST "):
            self._backend.head = b""
        give_way()  # the libraries have been at work for long, and the kernel takes it at once
        together = max(_WRITE_SIZE - len(kept), 0)
        for data, start in ((kept + buffer[:together], 0), (buffer, together)):
            for position in range(start, len(data), _WRITE_SIZE):
                piece = data[position : position + _WRITE_SIZE]
                self._stream.write(piece, self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return self._backend.start_tls(self._stream, ssl_context, server_hostname)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
