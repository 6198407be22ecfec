"""Options that every HTTP sink has: where to post, as whom, trusting whom, for how long.

Checked once, when a sink is made, so that a wrong one fails at start-up and
the client below meets none.  No message shows the value of a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FilePath: TypeAlias = "str | os.PathLike[str]"

#: Seconds one request may take in all.
DEFAULT_TIMEOUT: Final = 10.0
#: Half of the default level's time for 8 % more bytes of logs.
GZIP_LEVEL: Final = 1
#: Threads that may send for one sink at once.
MAX_CONCURRENCY: Final = 64
SCHEMES: Final = ("http", "https")

_BASIC: Final = "Basic "
_MASK: Final = "[REDACTED]"
_SHORTEST_SECRET: Final = 4

_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_OWN_HEADERS: Final = frozenset(
    {"content-encoding", "content-length", "content-type", "connection", "transfer-encoding"}
)


@dataclass(frozen=True, kw_only=True)
class HTTPOptions:
    """Checked options of a client that posts to one URL.

    Attributes:
        endpoint: the URL, without credentials.
        headers: sent with every request, names in lower case.
        timeout: seconds one request may take; infinite without a limit.
        certificate: PEM file of the authorities to trust instead of the
            default ones.
        client_key: PEM file of the client's key.
        client_certificate: PEM file of the client's certificate chain.
    """

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = DEFAULT_TIMEOUT
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None

    @property
    def is_secure(self) -> bool:
        """Whether the connection uses TLS; nothing falls back to plain text."""
        return urlsplit(self.endpoint).scheme == "https"

    @property
    def shown(self) -> str:
        """The endpoint for messages, without the query, which may hold a token."""
        return self.endpoint.partition("?")[0]

    def conceal(self, text: str, more: Collection[str] = ()) -> str:
        """Return ``text``, a backend's words, without our credentials and ``more`` secrets."""
        for secret in sorted({*self._secrets(), *more}, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _MASK)
        return text

    def _secrets(self) -> set[str]:
        """Return whatever a header or the URL's query may be there to keep from others."""
        secrets = {value for _, value in parse_qsl(urlsplit(self.endpoint).query)}
        for value in self.headers.values():
            secrets |= {value, value.rpartition(" ")[2], basic_credentials(value)[1]}
        return secrets


def basic_credentials(header: str) -> tuple[str, str]:
    """Return user and password of a basic authorization (RFC 7617); ``("", "")`` for others."""
    if not header.startswith(_BASIC):
        return "", ""
    try:
        pair = base64.b64decode(header.removeprefix(_BASIC), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    user, _, password = pair.partition(":")
    return user, password


def user_agent(sink: str) -> str:
    """Return what names us to a backend: sink, language and versions."""
    return f"fapilog-{sink}/{version('fapilog')} Python/{platform.python_version()}"


def is_printable_text(value: object) -> bool:
    """Whether ``value`` is a str without spaces and control characters."""
    return isinstance(value, str) and value.isprintable() and " " not in value


def split_url(value: object, source: str, form: str) -> SplitResult:
    """Return the parts of an http or https URL.

    Args:
        value: what was given.
        source: the option or the variable it was found in.
        form: how such a URL looks, for the message.

    Raises:
        ConfigurationError: it is none, or has no host or a wrong port.
    """
    try:
        url = urlsplit(str(value))
        is_right = (
            is_printable_text(value)
            and url.scheme in SCHEMES
            and bool(url.hostname)
            and url.port != 0
        )
    except ValueError:
        is_right = False
    if not is_right:
        msg = f"{source} is not a usable URL{form}"
        raise ConfigurationError(msg)
    return url


def join_url(url: SplitResult, path: str) -> str:
    """Return ``url`` with another path, without credentials and fragment."""
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], path, url.query, ""))


def credentials_of(url: SplitResult) -> str:
    """Return the credentials of a URL as an ``Authorization``, or ""."""
    if not url.username and not url.password:
        return ""
    return basic(unquote(url.username or ""), unquote(url.password or ""))


def basic(username: str, password: str) -> str:
    """Return an ``Authorization`` by RFC 7617."""
    return _BASIC + base64.b64encode(f"{username}:{password}".encode()).decode()


def checked_headers(headers: Mapping[str, str], source: str) -> dict[str, str]:
    """Return headers by their name in lower case.

    Raises:
        ConfigurationError: one cannot be sent, or is the client's own.
    """
    checked = {}
    for name, content in headers.items():
        lower = str(name).lower()
        if not _HEADER_NAME.fullmatch(lower) or lower in _OWN_HEADERS:
            msg = f"{source}: {lower!r} is no header that can be set; leave it out"
            raise ConfigurationError(msg)
        if not isinstance(content, str) or not _HEADER_VALUE.fullmatch(content):
            msg = f"{source}: the value of {lower!r} must be a str of printable ASCII"
            raise ConfigurationError(msg)
        checked[lower] = content.strip()
    return checked


def checked_timeout(value: object, source: str) -> float:
    """Return seconds above 0.

    Raises:
        ConfigurationError: they are not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        msg = f"{source}={value!r}: give seconds above 0"
        raise ConfigurationError(msg)
    return float(value)


def readable_file(value: Any, source: str) -> str | None:
    """Return the path of a file that can be read; None for None.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if value is None:
        return None
    path = os.fspath(value)
    try:
        with open(path, "rb"):  # noqa: PTH123 - only to see that it can be read
            return str(path)
    except OSError as error:
        msg = f"{source}={path!r}: {error.strerror}; give the path of a readable PEM file"
        raise ConfigurationError(msg) from None


def check_client_files(key: str | None, chain: str | None) -> None:
    """Check that a client's key has its certificate.

    Raises:
        ConfigurationError: it has none.
    """
    if key and not chain:
        msg = "client_key without client_certificate: give the certificate that belongs to the key"
        raise ConfigurationError(msg)


def checked_concurrency(value: object) -> int:
    """Return how many threads may send at once.

    Raises:
        ConfigurationError: it is no integer from 1 to :data:`MAX_CONCURRENCY`.
    """
    if type(value) is not int or not 1 <= value <= MAX_CONCURRENCY:
        msg = f"concurrency={value!r}: give an integer from 1 to {MAX_CONCURRENCY}"
        raise ConfigurationError(msg)
    return value
