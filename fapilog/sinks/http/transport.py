"""Opens the HTTP sinks' connections, which obey a deadline and work after a fork.

httpcore's timeouts limit each single read, so a server that occasionally sends a byte could
delay the end of a request forever.  In this module, every wait ends at the request's deadline.

fapilog delays ``os.fork()`` while a thread runs inside OpenSSL, because the child would inherit
locked locks (see ``Section`` in ``fapilog.process.fork``).  httpcore's streams wait for the
network inside OpenSSL, and would delay a fork until data arrives.  In this module, OpenSSL only
reads and writes buffers in memory, so each call is short.  A thread waits for the network only
in calls of the plain socket, during which a fork is safe.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import httpcore

from fapilog import native
from fapilog.native import monotonic
from fapilog.process.fork import RESOLVER, TLS
from fapilog.process.give_way import give_way
from fapilog.sinks.http.request import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.sinks.http.proxies import Proxy
    from fapilog.sinks.http.request import Request
    from fapilog.sinks.http.tls import ClientTLS

# Python imports this codec when it resolves the first host name.  A child process that is forked
# during the import could never connect, so the codec is imported here, before any thread starts.
codecs.lookup("idna")

KEEP_ALIVE: Final = 30.0  # the seconds after which an idle connection is closed
_WRITE_SIZE: Final = 1 << 16  # the number of bytes written between two checks of the deadline
_READ_SIZE: Final = 1 << 16

#: Matches the beginning of a final response, whose status is 200 to 599.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)[ \r\n]")
#: Matches the beginning of an interim response, such as ``100 Continue``, which the final response
#: follows.  Does not match ``101 Switching Protocols``, which is a final response.
_INTERIM: Final = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]")
_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")
_HEAD_SIZE: Final = 1 << 13  # the number of response bytes that are searched for the status

#: The errors which mean that the network failed.
NETWORK_ERRORS: Final = (
    OSError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
)
#: The errors which mean that the deadline has passed.
TIMEOUT_ERRORS: Final = (TimeoutError, httpcore.TimeoutException)
#: The errors which mean that the request was not sent.
CONNECT_ERRORS: Final = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError)

# The connection pools that a forked child inherited from its parent.  They are never freed,
# because freeing a pool might wait forever for an OpenSSL lock that was locked during the fork.
_inherited: Final[list[httpcore.ConnectionPool]] = []
# _probe() tests whether a forked process can resolve host names.  This list is empty or contains
# one tuple for this test: the process id, and the queue that receives None when the test ends.
_probes: Final[list[tuple[int, native.SimpleQueue[None]]]] = []


class DeadlineTransport:
    """Sends requests over connections that it reuses.  Not thread-safe.

    A request ends at its deadline, unless the system takes longer to resolve a host name.  If
    the network fails, the methods raise one of :data:`NETWORK_ERRORS`.
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

    def post(self, request: Request) -> Response:
        """Send ``request`` and return the response.

        If the status has arrived but the headers cannot be read, the result has the status
        but no headers, and reading its body raises the error.
        """
        self._backend.deadline = request.deadline
        self._backend.head = None
        scheme, host, port, path = request.target
        try:
            response = self._pool.handle_request(
                httpcore.Request(
                    "POST",
                    httpcore.URL(scheme=scheme, host=host, port=port, target=path),
                    headers=request.all_headers,
                    content=request.body,
                    extensions={"timeout": {"pool": self._backend.left()}},
                )
            )
        except NETWORK_ERRORS as error:
            status = _final_status(self._backend.head or b"")
            if status is None:
                raise
            return Response(status, (), _Unreadable(error), lambda: None)
        stream: Any = response.stream
        return Response(response.status, response.headers, stream, stream.close)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def after_fork(self) -> None:
        """In a forked child, close the inherited sockets, and make a new connection pool.

        The inherited pool is not closed, because a thread of the parent may have locked the
        pool's lock during the fork.
        """
        self._backend.close_sockets()
        if TLS.cut_short:
            _inherited.append(self._pool)
        self._pool = self._open()


def _final_status(head: bytes) -> int | None:
    """Return the final status in ``head``, the first bytes of a response.

    Interim responses are skipped.  Return None if ``head`` contains no final status.
    """
    while True:
        head = head.lstrip(b"\r\n")
        if status := _STATUS_LINE.match(head):
            return int(status[1])
        end = _BLANK_LINE.search(head) if _INTERIM.match(head) else None
        if end is None:
            return None
        head = head[end.end() :]


class _Unreadable:
    """The body of a response whose headers could not be read.  Iterating raises ``error``."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        raise self._error


class _Backend(httpcore.SyncBackend):
    """Opens connections for httpcore, and stores the state of the current request.

    Attributes:
        deadline: the deadline of the current request, in seconds of the monotonic clock.
        head: the first bytes of the response to the current POST; None before the POST is
            written, so that a proxy's response to CONNECT is not confused with this response.
        stand_in: a dummy TLS context, passed to httpcore instead of the real TLS context.
            httpcore would change the real context while other threads may be using it.
        proxy_stand_in: a dummy TLS context, passed to httpcore instead of the real TLS context
            for connections to the proxy.
    """

    def __init__(
        self, tls: ClientTLS | None = None, proxy_tls: ssl.SSLContext | None = None
    ) -> None:
        self.deadline = 0.0
        self.head: bytes | None = None
        self._tls = tls
        self._proxy_tls = proxy_tls
        self.stand_in = _stand_in(tls)
        self.proxy_stand_in = _stand_in(proxy_tls)
        self._streams: WeakSet[httpcore.NetworkStream] = WeakSet()

    def left(self) -> float:
        """Return the seconds until the deadline.  Raise ``TimeoutError`` if it has passed."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
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
            return self.watch(TLSStream(stream, context, host, self.left))

    def watch(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        self._streams.add(stream)
        return _RequestStream(stream, self)

    def close_sockets(self) -> None:
        for stream in list(self._streams):
            stream.close()


@contextlib.contextmanager
def _connecting() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


def _stand_in(tls: object) -> ssl.SSLContext | None:
    """Return a dummy TLS context that trusts no server, or None if ``tls`` is None."""
    if tls is None:
        return None
    with TLS:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _RequestStream(httpcore.NetworkStream):
    """Forwards httpcore's reads and writes to a connection, and ends them at the deadline.

    The stream delays each written buffer until the next write or read, so that the headers of
    a request are sent together with the beginning of its body.
    """

    def __init__(self, stream: httpcore.NetworkStream, backend: _Backend) -> None:
        self._stream = stream
        self._backend = backend
        self._kept = b""

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        if self._kept:
            self.write(b"")
        backend = self._backend
        data = self._stream.read(max_bytes, backend.left())
        if backend.head == b"":  # skip leading blank lines, which the parser h11 refuses
            while data and not (data := data.lstrip(b"\r\n")):
                data = self._stream.read(max_bytes, backend.left())
        if backend.head is not None and len(backend.head) < _HEAD_SIZE:
            backend.head += data[: _HEAD_SIZE - len(backend.head)]
        return data

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        """Write the delayed buffer and ``buffer``, or delay ``buffer`` if no buffer is delayed.

        httpcore writes ``b""`` after each request, so no part of a request stays delayed.
        """
        kept, self._kept = self._kept, b""
        if not kept:
            self._kept = buffer
            return
        if kept.startswith(b"POST "):
            self._backend.head = b""
        give_way()  # let other threads run now, because sendall() often returns without waiting
        together = max(_WRITE_SIZE - len(kept), 0)
        for data, start in ((kept + buffer[:together], 0), (buffer, together)):
            for position in range(start, len(data), _WRITE_SIZE):
                piece = data[position : position + _WRITE_SIZE]
                self._stream.write(piece, self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        return self._backend.start_tls(self._stream, ssl_context, server_hostname)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def connect(host: str, port: int, left: Callable[[], float]) -> SocketStream:
    """Return a connection to the first address of ``host`` that accepts a connection.

    ``left`` is a function that returns the seconds until the deadline, or raises
    ``TimeoutError`` if the deadline has passed.

    Raises:
        OSError: no address could be reached before the deadline.
    """
    if RESOLVER.cut_short:
        _probe(host, port, left())
    with RESOLVER:
        addresses = _system("socket", "getaddrinfo")(host, port, 0, socket.SOCK_STREAM)
    failure = OSError(f"no address of {host}")
    for family, kind, protocol, _, address in addresses:
        try:
            sock = _system("socket", "socket")(family, kind, protocol)
        except OSError as error:  # the system may not support IPv6, for example
            failure = error
            continue
        try:
            sock.settimeout(left())
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return SocketStream(sock)
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _system(module: str, name: str) -> Any:
    """Return the function ``name`` of ``module``.

    If gevent or eventlet has patched the module, a worker thread of fapilog gets the original
    function.  The patched functions need an event loop in each thread, and cannot resolve host
    names while the interpreter exits.
    """
    if native.is_patched() and native.IN_WORKER.get():
        return native.original(module, name)
    return getattr(sys.modules[module], name)


def _probe(host: str, port: int, timeout: float) -> None:
    """Test on a separate thread whether this forked process can resolve host names.

    The test is needed if a thread of the parent was resolving a host name during the fork.  If
    that thread had locked the system's resolver, the test never ends, and this function raises
    ``TimeoutError`` after ``timeout`` seconds.
    """
    if not _probes or _probes[0][0] != os.getpid():
        answers: native.SimpleQueue[None] = native.SimpleQueue()
        native.start_thread(partial(_resolve, host, port, answers), "fapilog-resolver")
        _probes[:] = [(os.getpid(), answers)]
    try:
        _probes[0][1].get(timeout=timeout)
    except native.Empty:
        raise TimeoutError from None
    RESOLVER.cut_short = False


def _resolve(host: str, port: int, answers: native.SimpleQueue[None]) -> None:
    with contextlib.suppress(OSError):  # an error also proves that the resolver works
        native.original("socket", "getaddrinfo")(host, port)
    answers.put(None)


class SocketStream(httpcore.NetworkStream):
    """A TCP connection.  Not thread-safe."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for data, and return at most ``max_bytes`` bytes.

        Return ``b""`` if the peer has closed the connection.
        """
        self._sock.settimeout(timeout)
        return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of ``buffer``."""
        self._sock.settimeout(timeout)
        try:
            self._sock.sendall(buffer)
        except TimeoutError:
            raise
        except OSError as error:
            # After a WriteError, httpcore still reads a response that the server may have sent.
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        """Return whether a read would return immediately, if ``info`` is ``"is_readable"``.

        An idle connection becomes readable when the peer closes it.  For any other ``info``,
        return None.
        """
        if info != "is_readable":
            return None
        sock = self._sock
        if sock.fileno() < 0:
            return True
        if not hasattr(select, "poll"):  # Windows has no poll()
            return bool(select.select([sock], [], [], 0)[0])
        poll = _system("select", "poll")()  # select() does not support descriptors above 1023
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))


class TLSStream(httpcore.NetworkStream):
    """A TLS connection over ``stream``, which may be a TLS connection to a proxy.

    Not thread-safe.  The server's certificate must contain ``host``.  ``left`` is a function that
    returns the seconds until the deadline, or raises ``TimeoutError`` if the deadline has passed.

    Raises:
        OSError: the handshake failed, and ``stream`` was closed.
    """

    def __init__(
        self,
        stream: httpcore.NetworkStream,
        context: ssl.SSLContext,
        host: str | None,
        left: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._left = left
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            with TLS:
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
            self._complete(self._tls.do_handshake)
        except BaseException:
            stream.close()
            raise

    def _complete(self, step: Callable[[], Any]) -> Any:
        """Call ``step``, an OpenSSL operation, until it needs no more bytes from the server.

        After each call, the bytes that OpenSSL has produced are sent to the server.
        """
        while True:
            needs_more, result = False, None
            try:
                with TLS:
                    result = step()
            except ssl.SSLWantReadError:
                needs_more = True
            except ssl.SSLError:
                with contextlib.suppress(OSError, httpcore.WriteError):
                    self._flush()  # sends the server a TLS alert with the reason
                raise
            self._flush()
            if not needs_more:
                return result
            if data := self._stream.read(_READ_SIZE, self._left()):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._stream.write(data, self._left())

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        """Wait for data, and return at most ``max_bytes`` bytes.

        Return ``b""`` if the peer has closed the connection.
        """
        try:
            data: bytes = self._complete(lambda: self._tls.read(max_bytes))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""  # httpcore raises an error if the response is incomplete
        return data

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        """Write all of ``buffer``."""
        if buffer:
            self._complete(lambda: self._tls.write(buffer))

    def close(self) -> None:
        """Close the connection without sending the TLS alert ``close_notify``."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Return the ``ssl.SSLObject`` if ``info`` is ``"ssl_object"``.

        Return True for ``"is_readable"`` if received bytes have not been decrypted yet.
        Otherwise, return the result of the underlying stream.
        """
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and self._incoming.pending:
            return True
        return self._stream.get_extra_info(info)
