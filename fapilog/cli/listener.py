"""Finds out what listens at an address: nobody, HTTP or gRPC, each with or without TLS.

Error messages of HTTP and gRPC do not tell these cases apart: a server closes the connection, for
example, both if it expects TLS and if it expects another protocol.  So this module opens
connections itself.  It sends no record and no credentials.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The connection preface of HTTP/2 with an empty SETTINGS frame.  Source: RFC 9113, section 3.4.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HTTP: Final = b"HTTP/"
_FRAME: Final = 9  # the number of bytes in the header of an HTTP/2 frame
_SETTINGS: Final = 4  # the type of an HTTP/2 frame; an HTTP/2 server sends it first
_PATIENCE: Final = 1.0  # how long a server may take to end a connection, in seconds
_H2: Final = "h2"
_HTTP_1: Final = "http/1.1"
#: The codes of OpenSSL for a certificate of another host name or IP address.  Source:
#: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_WRONG_HOST: Final = (62, 64)


class Speaks(Enum):
    """The protocol of the server at an address, or the reason why it is not known."""

    UNKNOWN_HOST = "unknown host"
    NOBODY = "nobody"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    HTTP = "HTTP"
    GRPC = "gRPC"
    HTTPS = "HTTPS"
    GRPC_TLS = "gRPC with TLS"
    OTHER = "other"

    @property
    def is_tls(self) -> bool:
        """Whether the server expects TLS."""
        return self in {Speaks.HTTPS, Speaks.GRPC_TLS}

    @property
    def is_grpc(self) -> bool:
        """Whether the server accepts only HTTP/2, as a gRPC server does."""
        return self in {Speaks.GRPC, Speaks.GRPC_TLS}

    @property
    def is_known(self) -> bool:
        """Whether the server's protocol is known."""
        return self.is_tls or self in {Speaks.HTTP, Speaks.GRPC}


class Listener(NamedTuple):
    """The server at an address.

    Attributes:
        speaks: the protocol of the server, or the reason why it is not known.
        distrust: the reason why the client does not trust the server's certificate, or None.
        hosts: the host names in the server's certificate, if the certificate is trusted but does
            not contain the host name of the address.
        has_h2: whether the server accepts HTTP/2, which gRPC needs.
        hangs_up: whether the server ends each connection when the TLS handshake is complete.  A
            server does so if it requires a certificate that the client does not have.
    """

    speaks: Speaks
    distrust: ssl.SSLCertVerificationError | None = None
    hosts: tuple[str, ...] = ()
    has_h2: bool = False
    hangs_up: bool = False


def listener_at(
    host: str, port: int, timeout: float, context: ssl.SSLContext | None = None
) -> Listener:
    """Find out what listens at ``port`` of ``host``.

    Opens up to six connections, one after the other, and waits up to ``timeout`` seconds for each
    of them.  Name resolution by the system can exceed this limit.

    Args:
        host: the host name or IP address, without brackets.
        port: the TCP port.
        timeout: the time limit for one connection, in seconds.
        context: the client's TLS settings, with which the server's certificate is checked, or
            None if the client uses no TLS.  Its ALPN protocols are changed.
    """
    address = (host, port)
    refusal = _refusal(address, timeout)
    if refusal is not None:
        return Listener(refusal)
    chosen = _alpn(address, timeout, _H2, _HTTP_1)
    if chosen is None:
        return _plain(address, timeout)
    only_h2 = chosen == _H2 and _alpn(address, timeout, _HTTP_1) != _HTTP_1
    speaks = Speaks.GRPC_TLS if only_h2 else Speaks.HTTPS
    has_h2 = chosen == _H2
    if context is None:
        return Listener(speaks, has_h2=has_h2)
    context.set_alpn_protocols([_H2 if only_h2 else _HTTP_1])
    try:
        hangs_up = _hangs_up(address, timeout, context)
        return Listener(speaks, has_h2=has_h2, hangs_up=hangs_up)
    except ssl.SSLCertVerificationError as error:
        hosts = _certified(address, timeout, context) if error.verify_code in _WRONG_HOST else ()
        return Listener(speaks, error, hosts, has_h2)


def _refusal(address: tuple[str, int], timeout: float) -> Speaks | None:
    """Return the reason why no connection is possible, or None if one is."""
    try:
        with socket.create_connection(address, timeout):
            return None
    except socket.gaierror:
        return Speaks.UNKNOWN_HOST
    except ConnectionRefusedError:
        return Speaks.NOBODY
    except OSError:
        return Speaks.UNREACHABLE


@contextlib.contextmanager
def _tls(
    address: tuple[str, int], timeout: float, context: ssl.SSLContext
) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(address, timeout) as connection,
        context.wrap_socket(connection, server_hostname=address[0]) as wrapped,
    ):
        yield wrapped


def _alpn(address: tuple[str, int], timeout: float, *offers: str) -> str | None:
    """Return the ALPN protocol that the server chose, or "" if it chose none.

    Return None if there was no TLS handshake.  The certificate is not verified, because nothing is
    sent over this connection.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(offers))
    try:
        with _tls(address, timeout, context) as connection:
            return connection.selected_alpn_protocol() or ""
    except ssl.SSLError as error:
        # With an alert about the offers, the server shows that it speaks TLS.
        return "" if "ALERT" in (error.reason or "") else None
    except OSError:
        return None


def _hangs_up(address: tuple[str, int], timeout: float, context: ssl.SSLContext) -> bool:
    """Return whether the server ends the connection as soon as the TLS handshake is complete.

    In TLS 1.3, a server refuses a client without a certificate only then.

    Raises:
        ssl.SSLCertVerificationError: the client does not trust the server's certificate.
    """
    try:
        with _tls(address, timeout, context) as connection:
            connection.settimeout(min(timeout, _PATIENCE))
            return connection.recv(1) == b""
    except ssl.SSLCertVerificationError:
        raise
    except TimeoutError:
        return False
    except OSError:
        return True


def _certified(
    address: tuple[str, int], timeout: float, context: ssl.SSLContext
) -> tuple[str, ...]:
    """Return the host names and IP addresses in the server's certificate."""
    context.check_hostname = False
    try:
        with _tls(address, timeout, context) as connection:
            certificate = connection.getpeercert() or {}
    except OSError:
        return ()
    finally:
        context.check_hostname = True
    return tuple(str(pair[1]) for pair in certificate.get("subjectAltName", ()))


def _plain(address: tuple[str, int], timeout: float) -> Listener:
    """Return what listens at ``address``, which does not expect TLS."""
    host = address[0].encode("ascii", "replace")
    request = b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host
    answer = _exchange(address, timeout, request)
    frame = _exchange(address, timeout, _PREFACE) or b""
    has_h2 = len(frame) >= _FRAME and frame[3] == _SETTINGS
    if answer is not None and answer.startswith(_HTTP):
        return Listener(Speaks.HTTP, has_h2=has_h2)
    if has_h2:
        return Listener(Speaks.GRPC, has_h2=True)
    return Listener(Speaks.SILENT if answer is None else Speaks.OTHER)


def _exchange(address: tuple[str, int], timeout: float, request: bytes) -> bytes | None:
    """Send ``request`` and return the first bytes of the answer.

    Return b"" if the server closed the connection, and None if it did not answer in time.
    """
    answer = b""
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.sendall(request)
            while len(answer) < _FRAME and (data := connection.recv(1024)):
                answer += data
    except TimeoutError:
        return answer or None
    except OSError:
        return answer  # the server has reset the connection
    return answer
