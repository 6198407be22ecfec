"""Checks the options that all HTTP sinks share: URL, credentials, certificates, time limit.

The options are checked once, when a sink is made.  An invalid option raises
``ConfigurationError``, whose message contains no secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from fapilog.errors import ConfigurationError
from fapilog.options.checks import refuse, whole
from fapilog.otlp.classify import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.sinks.http.proxies import Proxy

FilePath: TypeAlias = "str | os.PathLike[str]"
#: A file's path or None, and the name of the option or environment variable that sets it.
FileOption: TypeAlias = "tuple[FilePath | None, str]"

DEFAULT_TIMEOUT: Final = 10.0  # the time limit for one request in seconds
#: The gzip compression level of request bodies.  For logs, level 1 is twice as fast as gzip's
#: default level, and its output is 8 % larger.
GZIP_LEVEL: Final = 1
#: Checks the option ``concurrency``, the number of threads that send for one sink: 1 to 64.
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
    """The options of a client that posts to one URL, after they have been validated.

    Attributes:
        endpoint: the URL, without credentials.
        headers: the headers of every request; the names are in lower case.
        timeout: the time limit for one request in seconds; infinity means no limit.
        certificate: the path of a file with certificate authorities; None for the default
            authorities.
        client_key: the path of the client's private key.
        client_certificate: the path of the client's certificate chain.
        sources: a mapping from each option that contains a file's path, such as
            ``"client_key"``, to the name of the argument or environment variable that sets
            the path.
    """

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = DEFAULT_TIMEOUT
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_secure(self) -> bool:
        """Whether the connection uses TLS.  If so, it never falls back to plain text."""
        return urlsplit(self.endpoint).scheme == "https"

    @property
    def shown(self) -> str:
        """The endpoint as shown in messages, without its query, which may contain a token."""
        return self.endpoint.partition("?")[0]

    def conceal(self, text: str, proxy: Proxy | None = None) -> str:
        """Return ``text``, which a backend or proxy has sent, in a form that is safe to show.

        Secrets of the request and of ``proxy`` are masked if they have at least four characters.
        Control characters become spaces, and a long text is truncated.
        """
        secrets = self._secrets() | (proxy.secrets if proxy else frozenset())
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _MASK)
        return printable(text)

    def _secrets(self) -> set[str]:
        """Return all values in the URL's query and in the headers.  Any of them may be secret."""
        secrets = {value for _, value in parse_qsl(urlsplit(self.endpoint).query)}
        for value in self.headers.values():
            secrets |= {value, value.rpartition(" ")[2], basic_credentials(value)[1]}
        return secrets


def basic_credentials(header: str) -> tuple[str, str]:
    """Return the user name and the password in the value of an ``Authorization`` header.

    Both strings are "" if the header does not contain valid basic credentials.
    """
    if not header.startswith(_BASIC):
        return "", ""
    try:
        pair = base64.b64decode(header.removeprefix(_BASIC), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    user, _, password = pair.partition(":")
    return user, password


def user_agent(sink: str) -> str:
    """Return a sink's ``User-Agent`` header, with the versions of fapilog and Python."""
    return f"fapilog-{sink}/{own_version()} Python/{platform.python_version()}"


def own_version() -> str:
    """Return the version of the installed fapilog, or ``unknown``."""
    try:
        return version("fapilog")
    except PackageNotFoundError:  # PyInstaller and zipapp omit the metadata
        return "unknown"


def is_printable_text(value: object) -> bool:
    """Return whether ``value`` is a printable str without spaces."""
    return isinstance(value, str) and value.isprintable() and " " not in value


def split_url(value: object, source: str, form: str) -> SplitResult:
    """Return the parts of an http or https URL.

    ``source`` is the name of the option or environment variable that contains the URL.
    ``form`` is appended to the error message, and describes a valid URL.
    """
    url = usable_url(str(value)) if is_printable_text(value) else None
    if url is None:
        msg = f"{source} is not a usable URL{form}"
        raise ConfigurationError(msg, source)
    return url


def usable_url(text: str) -> SplitResult | None:
    """Return the parts of an http or https URL, or None if ``text`` is not such a URL."""
    with suppress(ValueError):
        url = urlsplit(text)
        if url.scheme in SCHEMES and url.hostname and url.port != 0:
            return url
    return None


def join_url(url: SplitResult, path: str) -> str:
    """Return ``url`` without credentials and fragment, and with ``path`` as its path."""
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], path, url.query, ""))


def credentials_of(url: SplitResult) -> str:
    """Return the ``Authorization`` header's value for the credentials in a URL.

    Return "" if the URL contains no credentials.
    """
    if not url.username and not url.password:
        return ""
    return basic(unquote(url.username or ""), unquote(url.password or ""))


def basic(username: str, password: str) -> str:
    """Return the ``Authorization`` header's value for basic authentication (RFC 7617)."""
    return _BASIC + base64.b64encode(f"{username}:{password}".encode()).decode()


def checked_headers(headers: Mapping[str, str], source: str) -> dict[str, str]:
    """Check that the headers can be sent, and return them with lower-case names.

    Raises:
        ConfigurationError: a header cannot be sent.  The error shows ``source``, the option or
            environment variable that contains the headers, but not the header's value.
    """
    checked = {}
    for name, content in headers.items():
        lower = str(name).lower()
        if not _HEADER_NAME.fullmatch(lower) or lower in _OWN_HEADERS:
            msg = f"{source}: the header {lower!r} cannot be set; leave it out"
            raise ConfigurationError(msg, source)
        value = without_newline(content)
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            msg = f"{source}: the value of {lower!r} must be a str of printable ASCII"
            raise ConfigurationError(msg, source)
        checked[lower] = value.strip()
    return checked


def without_newline(secret: Any) -> Any:
    """Remove newlines at the end of a secret, which may have been read from a file.

    A value that is not a str is returned unchanged.
    """
    return secret.rstrip("\r\n") if isinstance(secret, str) else secret


def pem_files(
    certificate: FileOption, client_key: FileOption, client_certificate: FileOption
) -> dict[str, Any]:
    """Check that the PEM files can be read, and return arguments for :class:`HTTPOptions`.

    Raises:
        ConfigurationError: a file cannot be read, or ``client_key`` is set but
            ``client_certificate`` is not.
    """
    files: dict[str, Any] = {
        "certificate": readable_file(*certificate),
        "client_key": readable_file(*client_key),
        "client_certificate": readable_file(*client_certificate),
    }
    if files["client_key"] and not files["client_certificate"]:
        source = client_key[1]
        msg = f"{source} without client_certificate: give the certificate that belongs to the key"
        raise ConfigurationError(msg, source)
    given = (certificate, client_key, client_certificate)
    sources = {name: source for name, (_, source) in zip(files, given, strict=True)}
    return {**files, "sources": sources}


def readable_file(path: FilePath | None, source: str) -> str | None:
    """Check that a file can be read, and return its path.  Return None if ``path`` is None."""
    if path is None:
        return None
    name = os.fspath(path)
    try:
        with open(name, "rb"):  # noqa: PTH123 - checks that the file can be read
            return str(name)
    except OSError as error:
        fix = f"{error.strerror}; give the path of a readable PEM file"
        refuse(source, name, fix)
