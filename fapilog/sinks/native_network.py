"""Connections for workers in processes where gevent or eventlet replaced ``socket`` and ``ssl``.

Their sockets need an event loop in each thread, and threads of their own to
resolve a name, which an ending interpreter refuses.  A worker needs neither:
it may block.  TLS runs in memory, because a context that was made before the
replacement can wrap no socket after it.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpcore

from fapilog import native
from fapilog.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_TLS_SIZE: Final = 1 << 16


def connect(host: str, port: int, timeout: float) -> httpcore.NetworkStream:
    """Connect to the first address of ``host`` that answers, each within ``timeout`` seconds.

    Raises:
        OSError: no address answers, or there is none.
    """
    addresses = native.original("socket", "getaddrinfo")(host, port, 0, socket.SOCK_STREAM)
    error = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        connection = None
        try:
            connection = native.original("socket", "socket")(family, kind, protocol)
            connection.settimeout(timeout)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as failed:
            error = failed
            if connection is not None:
                connection.close()
        else:
            return _Stream(connection)
    raise error


class _Stream(httpcore.NetworkStream):
    """A connection over a socket of the system."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._socket.settimeout(timeout)
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)
        except TimeoutError:
            raise
        except OSError as error:  # httpcore still reads the answer of a server that hung up
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _TLSStream(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._is_readable() if info == "is_readable" else None

    def _is_readable(self) -> bool:
        """Whether the server has sent something, or hung up: the connection cannot be used."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


class _TLSStream(httpcore.NetworkStream):
    """TLS over another stream, which may itself be TLS to a proxy."""

    def __init__(
        self,
        stream: httpcore.NetworkStream,
        context: ssl.SSLContext,
        hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        try:
            self._exchange(self._tls.do_handshake, timeout)
        except BaseException:
            self.close()
            raise

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._exchange(lambda: self._tls.read(max_bytes), timeout)
        except ssl.SSLEOFError:
            return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            view = view[self._exchange(lambda: self._tls.write(view), timeout) :]  # noqa: B023

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _TLSStream(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._tls if info == "ssl_object" else self._stream.get_extra_info(info)

    def _exchange(self, step: Callable[[], _T], timeout: float | None) -> _T:
        """Repeat a step of TLS until it has what it needs of the other end."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:  # noqa: PERF203 - it asks for more
                self._send(deadline)
                data = self._stream.read(_TLS_SIZE, _left(deadline))
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self._send(deadline)
                return result

    def _send(self, deadline: float | None) -> None:
        if self._outgoing.pending:
            self._stream.write(self._outgoing.read(), _left(deadline))


def _left(deadline: float | None) -> float | None:
    """Return the seconds to a deadline.

    Raises:
        TimeoutError: it is over.
    """
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
