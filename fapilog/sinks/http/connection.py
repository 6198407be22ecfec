"""Connections of the HTTP sinks: name resolution, sockets and TLS that survive forks.

Below ``fapilog.sinks.http.deadline``.  httpcore's own streams wait for the network
inside of OpenSSL, so a fork would have to wait with them.  Here OpenSSL works on
memory only and each of its steps is a short section of the fork gate; the waits
are reads and writes of a plain socket, during which a fork does no harm.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpcore

from fapilog import native
from fapilog.native import monotonic
from fapilog.process.fork import RESOLVER, TLS

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE: Final = 1 << 16

# The process, and the answer of the thread that finds out whether its resolver works.
_probes: list[tuple[int, native.SimpleQueue[None]]] = []


def connect(host: str, port: int, left: Callable[[], float]) -> SocketStream:
    """Return a connection to the first address of ``host`` that takes one.

    Args:
        host: a name or an address.
        port: the TCP port.
        left: returns the seconds left, or raises ``TimeoutError``.

    Raises:
        OSError: no address could be reached, or the time was over.
    """
    if RESOLVER.cut_short:
        _probe(host, port, left())
    with RESOLVER:
        addresses = _system("socket", "getaddrinfo")(host, port, 0, socket.SOCK_STREAM)
    failure = OSError(f"no address of {host}")
    for family, kind, protocol, _, address in addresses:
        made = _open((family, kind, protocol), address, left)
        if isinstance(made, SocketStream):
            return made
        failure = made
    raise failure


def _system(module: str, name: str) -> Any:
    """Return the system's own function in a worker, if gevent or eventlet replaced it.

    Theirs need an event loop in each thread, and threads of their own to resolve
    a name, which an ending interpreter refuses.  A worker may block.
    """
    if native.is_patched() and native.IN_WORKER.get():
        return native.original(module, name)
    return getattr(sys.modules[module], name)


def _open(
    kind: tuple[int, int, int], address: Any, left: Callable[[], float]
) -> SocketStream | OSError:
    """Return the connection to one address, or why there is none."""
    sock = None
    try:
        sock = _system("socket", "socket")(*kind)  # fails for IPv6 on a system without it
        sock.settimeout(left())
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if sock is not None:
            sock.close()
        return error
    return SocketStream(sock)


def _probe(host: str, port: int, timeout: float) -> None:
    """Find out, on a thread that may hang, whether this forked process can resolve names.

    Its parent was waiting for a name server during the fork, most likely without
    a lock; but if the thread held one, a call would never return.

    Raises:
        TimeoutError: the thread has not come back yet.
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
    with contextlib.suppress(OSError):  # an error is an answer too
        native.original("socket", "getaddrinfo")(host, port)
    answers.put(None)


class SocketStream(httpcore.NetworkStream):
    """A TCP connection.  Used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, at least one byte, or nothing at the end."""
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
            # By its type httpcore knows that there may be an answer all the same.
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether the other end has closed an idle connection."""
        if info == "is_readable":
            return self._sock.fileno() < 0 or _is_readable(self._sock)
        return None


def _is_readable(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = _system("select", "poll")()  # select() takes no descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class TLSStream(httpcore.NetworkStream):
    """TLS over a connection, which may itself be TLS, to a proxy.  Used by one thread.

    Args:
        stream: the connection; closed if the handshake fails.
        context: the client's settings.
        host: the name that the server's certificate must have.
        timeout: seconds the handshake may take.

    Raises:
        OSError: the handshake failed, or the time was over.
    """

    def __init__(
        self,
        stream: httpcore.NetworkStream,
        context: ssl.SSLContext,
        host: str | None,
        timeout: float | None,
    ) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            with TLS:
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
            self._complete(self._tls.do_handshake, timeout)
        except BaseException:
            stream.close()
            raise

    def _complete(self, step: Callable[[], Any], timeout: float | None) -> Any:
        """Repeat a step of OpenSSL until it needs no more bytes from the other end."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            needs_more, result = False, None
            try:
                with TLS:
                    result = step()
            except ssl.SSLWantReadError:
                needs_more = True
            except ssl.SSLError:
                with contextlib.suppress(OSError, httpcore.WriteError):
                    self._flush(end)  # an alert, which tells the other end why
                raise
            self._flush(end)
            if not needs_more:
                return result
            if data := self._stream.read(_READ_SIZE, _left(end)):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self, end: float | None) -> None:
        if data := self._outgoing.read():
            self._stream.write(data, _left(end))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, at least one byte, or nothing at the end."""
        try:
            data: bytes = self._complete(lambda: self._tls.read(max_bytes), timeout)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""  # whether an answer is complete is known by its length
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of ``buffer``."""
        if buffer:
            self._complete(lambda: self._tls.write(buffer), timeout)

    def close(self) -> None:
        """Close the connection, without the end that TLS has for it, as httpcore does."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for: the TLS object, or something of the connection."""
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and self._incoming.pending:
            return True
        return self._stream.get_extra_info(info)


def _left(end: float | None) -> float | None:
    """Return the seconds until ``end``.

    Raises:
        TimeoutError: there are none.
    """
    if end is None:
        return None
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
