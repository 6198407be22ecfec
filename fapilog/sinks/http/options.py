"""Options that every HTTP sink has: URL, credentials, certificates, time limit.

They are checked once, when a sink is made, so that a wrong option fails at
start-up and the client can rely on them.  No message shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from fapilog.errors import ConfigurationError
from fapilog.options.checks import refuse, whole

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FilePath: TypeAlias = "str | os.PathLike[str]"
#: A path, and the option or the variable that holds it.
FileOption: TypeAlias = "tuple[FilePath | None, str]"

#: Seconds that one request may take in all.
DEFAULT_TIMEOUT: Final = 10.0
#: Level 1 takes half of the default level's time and makes 8 % more bytes of logs.
GZIP_LEVEL: Final = 1
#: The number of threads that may send for one sink at the same time.
CONCURRENCY: Final = whole(1, 64)
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
        headers: headers of every request, by their name in lower case.
        timeout: seconds that one request may take; infinity for no limit.
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
        """Return a backend's answer with our credentials and ``more`` secrets masked."""
        for secret in sorted({*self._secrets(), *more}, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _MASK)
        return text

    def _secrets(self) -> set[str]:
        """Return the values of the URL's query and of the headers: any of them may be a secret."""
        secrets = {value for _, value in parse_qsl(urlsplit(self.endpoint).query)}
        for value in self.headers.values():
            secrets |= {value, value.rpartition(" ")[2], basic_credentials(value)[1]}
        return secrets


def basic_credentials(header: str) -> tuple[str, str]:
    """Return user and password of a basic ``Authorization``; ``("", "")`` if it is another one."""
    if not header.startswith(_BASIC):
        return "", ""
    try:
        pair = base64.b64decode(header.removeprefix(_BASIC), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    user, _, password = pair.partition(":")
    return user, password


def user_agent(sink: str) -> str:
    """Return the ``User-Agent`` of a sink: sink, language and versions."""
    return f"fapilog-{sink}/{version('fapilog')} Python/{platform.python_version()}"


def is_printable_text(value: object) -> bool:
    """Whether ``value`` is a str without spaces and control characters."""
    return isinstance(value, str) and value.isprintable() and " " not in value


def split_url(value: object, source: str, form: str) -> SplitResult:
    """Return the parts of an http or https URL.

    Args:
        value: the URL.
        source: the option or the variable that holds it.
        form: how such a URL looks, for the error.

    Raises:
        ConfigurationError: the value is not such a URL, or has no host or a
            wrong port.
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
        raise ConfigurationError(msg, source)
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
    """Return the ``Authorization`` of a user (RFC 7617)."""
    return _BASIC + base64.b64encode(f"{username}:{password}".encode()).decode()


def checked_headers(headers: Mapping[str, str], source: str) -> dict[str, str]:
    """Return headers by their name in lower case.

    Raises:
        ConfigurationError: a header cannot be sent, or is set by the client.
    """
    checked = {}
    for name, content in headers.items():
        lower = str(name).lower()
        if not _HEADER_NAME.fullmatch(lower) or lower in _OWN_HEADERS:
            msg = f"{source}: the header {lower!r} cannot be set; leave it out"
            raise ConfigurationError(msg, source)
        if not isinstance(content, str) or not _HEADER_VALUE.fullmatch(content):
            msg = f"{source}: the value of {lower!r} must be a str of printable ASCII"
            raise ConfigurationError(msg, source)
        checked[lower] = content.strip()
    return checked


def pem_files(
    certificate: FileOption, client_key: FileOption, client_certificate: FileOption
) -> dict[str, str | None]:
    """Return the paths of the PEM files by the option's name.

    Args:
        certificate: path of the authorities' certificates, and the option or
            the variable that holds it.
        client_key: path of the client's key, and where it is from.
        client_certificate: path of its certificates, and where it is from.

    Raises:
        ConfigurationError: a file cannot be read, or the key has no certificate.
    """
    files = {
        "certificate": readable_file(*certificate),
        "client_key": readable_file(*client_key),
        "client_certificate": readable_file(*client_certificate),
    }
    if files["client_key"] and not files["client_certificate"]:
        msg = "client_key without client_certificate: give the certificate that belongs to the key"
        raise ConfigurationError(msg, "client_key")
    return files


def readable_file(path: FilePath | None, source: str) -> str | None:
    """Return the path of a file, or None without one.

    Raises:
        ConfigurationError: the file cannot be read; the error names its source.
    """
    if path is None:
        return None
    name = os.fspath(path)
    try:
        with open(name, "rb"):  # noqa: PTH123 - only to see that it can be read
            return str(name)
    except OSError as error:
        fix = f"{error.strerror}; give the path of a readable PEM file"
        refuse(source, name, fix)
