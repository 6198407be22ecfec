"""Reads an OTLP sink's options from arguments and ``OTEL_EXPORTER_OTLP_*`` variables.

Arguments override the variables for the sink's signal (such as ``OTEL_EXPORTER_OTLP_LOGS_*``),
which override the general variables.  All options are checked once, when the sink is created.
Specification:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.options.checks import SECONDS, one_of, refuse
from fapilog.sinks.http.options import (
    DEFAULT_TIMEOUT,
    SCHEMES,
    FilePath,
    HTTPOptions,
    checked_headers,
    credentials_of,
    is_printable_text,
    join_url,
    pem_files,
    readable_file,
    split_url,
    usable_url,
    user_agent,
)
from fapilog.sinks.otlp.signal import LOGS, Signal

Protocol: TypeAlias = Literal["http/protobuf", "http/json", "grpc"]
Compression: TypeAlias = Literal["gzip", "none"]

GRPC: Final = "grpc"
USER_AGENT: Final = user_agent("otlp")

_DEFAULT_PROTOCOL: Final = "http/protobuf"
_DEFAULT_HTTP: Final = "http://localhost:4318"
_DEFAULT_GRPC: Final = "http://localhost:4317"
_GENERAL: Final = "OTEL_EXPORTER_OTLP_"
_BASE_URL: Final = f"{_GENERAL}ENDPOINT"
#: An error message contains one of these strings if HTTP was used on a gRPC port, or gRPC on an
#: HTTP port.  The advice ``_PORTS`` is then added to the message.
_OTHER_PROTOCOL: Final = ("illegal request line", "Failed parsing HTTP/2", "http1.x server")
_PORTS: Final = "use port 4318 for HTTP and 4317 for gRPC, or change OTEL_EXPORTER_OTLP_PROTOCOL"
#: The schemes that a gRPC target may have, as in unix:PATH.  Source:
#: https://grpc.github.io/grpc/core/md_doc_naming.html
_RESOLVERS: Final = ("dns", "unix", "unix-abstract", "vsock", "ipv4", "ipv6", "xds")
_HOST_AND_PORT: Final = re.compile(
    r"(?:[\w.-]+|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.]+)?\])(?::\d+)?"
)
_SUSPICIOUS_MILLISECONDS: Final = 100


class _Given(NamedTuple):
    """An option's value (or None), and the name of the argument or variable that sets it."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class OTLPOptions(HTTPOptions):
    """The checked options of an OTLP sink.  ``endpoint`` may be a gRPC target, not only a URL."""

    protocol: Protocol = _DEFAULT_PROTOCOL
    compression: Compression = "none"
    insecure: bool = False
    signal: Signal = field(default=LOGS, repr=False)

    @property
    def is_secure(self) -> bool:
        """Whether the connection uses TLS.  If so, it never falls back to plain text."""
        scheme = urlsplit(self.endpoint).scheme
        return scheme == "https" if scheme in SCHEMES else not self.insecure

    @property
    def target(self) -> str:
        """The gRPC target, which is ``host:port`` if the endpoint is a URL."""
        url = urlsplit(self.endpoint)
        return url.netloc if url.scheme in SCHEMES else self.endpoint


def resolve(
    signal: Signal = LOGS,
    *,
    endpoint: str | None = None,
    protocol: Protocol | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: Compression | None = None,
    certificate: FilePath | None = None,
    client_key: FilePath | None = None,
    client_certificate: FilePath | None = None,
    insecure: bool | None = None,
) -> OTLPOptions:
    """Return the options of an OTLP sink for ``signal``, from its arguments and the environment."""
    given = partial(_given, signal)
    chosen: Any = _choice(given("protocol", protocol), get_args(Protocol), _DEFAULT_PROTOCOL)
    packing: Any = _choice(given("compression", compression), get_args(Compression), "none")
    url, credentials = _endpoint(given("endpoint", endpoint), chosen, signal)
    given_headers = _headers(given("headers", headers))
    if credentials:
        given_headers.setdefault("authorization", credentials)
    is_plain = _choice(given("insecure", insecure), ("true", "false"), "false") == "true"
    files = [
        given("certificate", certificate),
        given("client_key", client_key),
        given("client_certificate", client_certificate),
    ]
    if not OTLPOptions(endpoint=url, protocol=chosen, insecure=is_plain).is_secure:
        files = [_if_readable(one, signal) for one in files]
        if files[2].value is None and files[1].source.startswith(_GENERAL):
            files[1] = files[2]  # ignore a key that has no certificate
    return OTLPOptions(
        endpoint=url,
        protocol=chosen,
        headers=given_headers,
        timeout=_timeout(given("timeout", timeout)),
        compression=packing,
        insecure=is_plain,
        signal=signal,
        **pem_files(*files),
    )


def with_port_hint(message: str) -> str:
    """Return the message of a failed request, with advice if HTTP and gRPC were confused."""
    is_confused = any(words in message for words in _OTHER_PROTOCOL)
    return f"{message}; {_PORTS}" if is_confused else message


def _given(signal: Signal, name: str, argument: object) -> _Given:
    """Return the value of an option, and the name of the argument or variable that sets it.

    If ``argument`` is None, the value comes from the first environment variable for this option
    that is not empty.
    """
    if argument is not None:
        return _Given(argument, name)
    for prefix in (signal.variables, _GENERAL):
        variable = prefix + name.upper()
        value = os.environ.get(variable, "").strip()
        if value:
            return _Given(value, variable)
    return _Given(None, name)


def _refused(given: _Given, fix: str) -> None:
    """Raise an error about an invalid argument, or ignore an invalid environment variable.

    A variable that is ignored is reported on stderr.  The message contains ``fix``, which
    describes valid values.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    value, source = given
    if not source.startswith(_GENERAL):
        refuse(source, value, fix)
    announce(f"variable {source}", f"{source}={value!r}: {fix}; it is ignored")


def _if_readable(given: _Given, signal: Signal) -> _Given:
    """Return ``given``, but without its value if an environment variable names an unreadable file.

    This function is called for endpoints without TLS.  Their connections do not use the file, and
    the variable may be meant for another exporter, so the error is only reported on stderr.
    """
    if not given.source.startswith(_GENERAL):
        return given
    try:
        readable_file(*given)
    except ConfigurationError as error:
        why = f"it is ignored, because the endpoint of the {signal.name} uses no TLS"
        announce(f"variable {given.source}", f"{error}; {why}")
        return _Given(None, given.source)
    return given


def _choice(given: _Given, choices: tuple[str, ...], default: str) -> str:
    value = str(given.value or default).lower()
    if value in choices:
        return value
    _refused(given, f"use {one_of(*choices).allowed}")
    return default


def _endpoint(given: _Given, protocol: Protocol, signal: Signal) -> tuple[str, str]:
    """Return the URL without credentials, and the value of the ``Authorization`` header.

    The second value is "" if the URL contains no credentials.
    """
    value = given.value
    if value is None:
        return (_DEFAULT_GRPC if protocol == GRPC else _DEFAULT_HTTP + signal.path), ""
    if (
        protocol == GRPC
        and is_printable_text(value)
        and value.partition("://")[0].lower() not in SCHEMES
        and _is_target(value)
    ):
        return value, ""  # the value is host:port or another gRPC target
    form = f" for {protocol}: give it in the form {_form(given.source, protocol, signal)}"
    url = split_url(value, given.source, form)
    return join_url(url, _path(url.path, given.source, protocol, signal)), credentials_of(url)


def _is_target(value: str) -> bool:
    """Return whether gRPC can resolve ``value``: host, host:port, or an address like unix:PATH."""
    scheme, colon, address = value.partition(":")
    if scheme in _RESOLVERS and colon and not address.isdecimal():  # in dns:4317, dns is a host
        return bool(address.strip("/"))
    return bool(_HOST_AND_PORT.fullmatch(value)) and usable_url(f"http://{value}") is not None


def _form(source: str, protocol: Protocol, signal: Signal) -> str:
    if protocol == GRPC:
        return "http://host:4317 or host:4317"
    if source == _BASE_URL:
        return f"http://host:4318, to which {signal.path} is added"
    return f"http://host:4318{signal.path}"


def _path(path: str, source: str, protocol: Protocol, signal: Signal) -> str:
    """Return the path to which the sink sends requests.

    The signal's path is added to the path of the URL in ``OTEL_EXPORTER_OTLP_ENDPOINT``, and to a
    URL without a path in the argument ``endpoint``.
    """
    if protocol == GRPC:
        return ""
    if source == _BASE_URL:
        base = path.rstrip("/")
        if base.endswith(signal.path):
            announce(
                source,
                f"{source} already ends with {signal.path}, which is added again; remove "
                f"{signal.path} from it, or set {signal.variables}ENDPOINT instead",
            )
        return base + signal.path
    if not path:
        return "/" if source.startswith(signal.variables) else signal.path
    return path


def _headers(given: _Given) -> dict[str, str]:
    value = given.value or {}
    if isinstance(value, Mapping):
        return checked_headers(value, given.source)
    headers: dict[str, str] = {}
    for position, pair in enumerate(value.split(","), start=1):
        if not pair.strip():
            continue
        try:
            headers.update(checked_headers(_pair(pair, given.source, position), given.source))
        except ConfigurationError as error:
            if not given.source.startswith(_GENERAL):
                raise
            announce(f"variable {given.source} {position}", f"{error}; it is ignored")
    return headers


def _pair(text: str, source: str, position: int) -> dict[str, str]:
    """Parse a header in the form ``name=value``, percent-encoded as in W3C Baggage.

    The error message contains ``source`` and ``position``, but not ``text``, which may be part
    of a token.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        msg = f"{source}: entry {position} does not have the form name=value"
        raise ConfigurationError(msg, source)
    return {unquote(name.strip()): unquote(value.strip())}


def _timeout(given: _Given) -> float:
    """Return a timeout in seconds; infinity means no limit.

    According to the specification, a variable contains milliseconds, or 0 for no limit.  For a
    number below 100, a warning is written to stderr, because the user may have meant seconds,
    which the OpenTelemetry SDK for Python expects.
    """
    text, source = str(given.value), given.source
    if given.value is None:
        return DEFAULT_TIMEOUT
    if not source.startswith(_GENERAL):
        SECONDS.check(source, given.value)
        return float(given.value)
    if not (text.isascii() and text.isdigit()):
        _refused(given, "use a whole number of milliseconds")
        return DEFAULT_TIMEOUT
    number = int(text[:12])
    if 0 < number < _SUSPICIOUS_MILLISECONDS:
        announce(source, f"{source}={number} means {number} milliseconds, not seconds")
    return number / 1000 or math.inf
