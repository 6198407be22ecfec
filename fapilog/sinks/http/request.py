"""Defines an HTTP request and its response without httpx, which is slow to import.

Importing httpx also imports its command-line program, which imports rich, click and pygments if
they are installed.  So only :mod:`fapilog.sinks.http.given` imports httpx.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_PORTS: Final = {"http": 80, "https": 443}
_PRINTABLE: Final = {chr(code) for code in range(0x21, 0x7F)}
#: The characters that are not percent-encoded in the query of a URL.  ``_PATH_SAFE`` contains the
#: characters that are not percent-encoded in the path.
#: Source: https://url.spec.whatwg.org/#percent-encoded-bytes
_QUERY_SAFE: Final = "".join(_PRINTABLE - set('"#<>'))
_PATH_SAFE: Final = "".join(_PRINTABLE - set('"#<>?`{}'))
_LIKE_IPV4: Final = re.compile(r"[0-9]+(\.[0-9]+){3}")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Target(NamedTuple):
    """The parts of a URL, in the form in which they are sent.

    Attributes:
        scheme: ``b"http"`` or ``b"https"``.
        host: the host name in ASCII, or the IP address without brackets.
        port: the port, or None for the scheme's default port.
        path: the path and the query, percent-encoded.
    """

    scheme: bytes
    host: bytes
    port: int | None
    path: bytes

    @property
    def authority(self) -> bytes:
        """The value of the ``Host`` header."""
        host = b"[%b]" % self.host if b":" in self.host else self.host
        return host if self.port is None else b"%b:%d" % (host, self.port)


class Request(NamedTuple):
    """A POST request.

    Attributes:
        target: the parts of the URL.
        headers: the headers, to which :attr:`all_headers` adds ``Host`` and ``Content-Length``.
        body: the body.
        deadline: the latest time for the end of the response, in seconds of the monotonic clock.
    """

    target: Target
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    deadline: float

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, ``Content-Length``, and ``Host`` if ``headers`` does not contain it."""
        has_host = any(name == b"host" for name, _ in self.headers)
        host = [] if has_host else [(b"Host", self.target.authority)]
        return [*host, *self.headers, (b"Content-Length", b"%d" % len(self.body))]


class Response(NamedTuple):
    """A response whose body has not been read yet.

    Attributes:
        status: the HTTP status.
        headers: the names and values of the headers.
        chunks: the body in pieces.  Iterating over them may raise a network error.
        close: the function that releases the connection.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: Iterable[bytes]
    close: Callable[[], object]

    def header(self, name: str) -> str | None:
        """Return the values of a header, joined by commas, or None if the header is missing.

        ``name`` is the header's name in lower case.
        """
        wanted = name.encode()
        found = [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]
        return ", ".join(found) if found else None

    @property
    def redirects_to(self) -> str | None:
        """The ``Location`` header of a redirect, or None if the response is not a redirect."""
        return self.header("location") if self.status in _REDIRECTS else None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of a status


def target_of(url: str) -> Target:
    """Return the parts of an http or https URL.

    Raises:
        ValueError: the host or the port is invalid.
    """
    parts = urlsplit(url)
    port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    if parts.query:
        path += f"?{quote(parts.query, safe=_QUERY_SAFE)}"
    return Target(parts.scheme.encode(), _host(parts.hostname or ""), port, path.encode())


def _host(name: str) -> bytes:
    if not name.isascii():
        import idna  # noqa: PLC0415 - large, and names are usually ASCII

        return idna.encode(name)
    if ":" in name:
        IPv6Address(name)
    elif _LIKE_IPV4.fullmatch(name):
        IPv4Address(name)
    return name.encode()
