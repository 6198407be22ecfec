"""Options of the OTLP sink, from its arguments and the ``OTEL_EXPORTER_OTLP_*`` variables.

Arguments win over the variables for logs, these over the general ones.  All
are checked once, when the sink is made, so that a wrong one fails at start-up
and the transports meet none.
Specification: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args
from urllib.parse import unquote, urlsplit

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.sinks.http.options import (
    DEFAULT_TIMEOUT,
    SCHEMES,
    FilePath,
    HTTPOptions,
    check_client_files,
    checked_headers,
    checked_timeout,
    credentials_of,
    is_printable_text,
    join_url,
    readable_file,
    split_url,
    user_agent,
)

Protocol: TypeAlias = Literal["http/protobuf", "http/json", "grpc"]
Compression: TypeAlias = Literal["gzip", "none"]

GRPC: Final = "grpc"
#: Exporter, language and version, as the specification wants them.
USER_AGENT: Final = user_agent("otlp")

_DEFAULT_PROTOCOL: Final = "http/protobuf"
_LOGS_PATH: Final = "/v1/logs"
_DEFAULT_HTTP: Final = f"http://localhost:4318{_LOGS_PATH}"
_DEFAULT_GRPC: Final = "http://localhost:4317"
_LOGS: Final = "OTEL_EXPORTER_OTLP_LOGS_"
_GENERAL: Final = "OTEL_EXPORTER_OTLP_"
_BASE_URL: Final = f"{_GENERAL}ENDPOINT"
_SUSPICIOUS_MILLISECONDS: Final = 100


class _Given(NamedTuple):
    """An option's value and where it was found, for messages; None when nowhere."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class OTLPOptions(HTTPOptions):
    """Checked options of an OTLP exporter of logs; the endpoint may be a gRPC target.

    Attributes:
        protocol: ``http/protobuf``, ``http/json`` or ``grpc``.
        compression: ``gzip`` or ``none``.
        insecure: gRPC to an endpoint without a scheme goes without TLS.
    """

    protocol: Protocol = _DEFAULT_PROTOCOL
    compression: Compression = "none"
    insecure: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether the connection uses TLS; nothing falls back to plain text."""
        scheme = urlsplit(self.endpoint).scheme
        return scheme == "https" if scheme in SCHEMES else not self.insecure

    @property
    def target(self) -> str:
        """The endpoint as a gRPC target: ``host:port`` of a URL, anything else as it is."""
        url = urlsplit(self.endpoint)
        return url.netloc if url.scheme in SCHEMES else self.endpoint


def resolve(
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
    """Return the options that arguments and environment give; see ``OTLPSink``.

    Raises:
        ConfigurationError: one is wrong; names the option or the variable.
    """
    chosen = _protocol(_given("protocol", protocol))
    url, credentials = _endpoint(_given("endpoint", endpoint), chosen)
    given_headers = _headers(_given("headers", headers))
    if credentials:
        given_headers.setdefault("authorization", credentials)
    key = readable_file(*_given("client_key", client_key))
    chain = readable_file(*_given("client_certificate", client_certificate))
    check_client_files(key, chain)
    return OTLPOptions(
        endpoint=url,
        protocol=chosen,
        headers=given_headers,
        timeout=_timeout(_given("timeout", timeout)),
        compression=_compression(_given("compression", compression)),
        certificate=readable_file(*_given("certificate", certificate)),
        client_key=key,
        client_certificate=chain,
        insecure=_insecure(_given("insecure", insecure)),
    )


def _given(name: str, argument: object) -> _Given:
    """Return what sets option ``name``; an empty variable counts as unset."""
    if argument is not None:
        return _Given(argument, name)
    for prefix in (_LOGS, _GENERAL):
        variable = prefix + name.upper()
        value = os.environ.get(variable, "").strip()
        if value:
            return _Given(value, variable)
    return _Given(None, name)


def _refused(given: _Given, fix: str) -> None:
    """Refuse a wrong value: an argument fails, a variable is announced and ignored.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

    Raises:
        ConfigurationError: it is an argument.
    """
    msg = f"{given.source}={given.value!r}: {fix}"
    if not given.source.startswith(_GENERAL):
        raise ConfigurationError(msg)
    announce(f"variable {given.source}", f"{msg}; it is ignored")


def _protocol(given: _Given) -> Protocol:
    value = str(given.value or _DEFAULT_PROTOCOL).lower()
    if value not in get_args(Protocol):
        _refused(given, f"use one of {', '.join(get_args(Protocol))}")
        return _DEFAULT_PROTOCOL
    return cast("Protocol", value)


def _compression(given: _Given) -> Compression:
    value = str(given.value or "none").lower()
    if value not in get_args(Compression):
        _refused(given, "use gzip or none")
        return "none"
    return cast("Compression", value)


def _endpoint(given: _Given, protocol: Protocol) -> tuple[str, str]:
    """Return the URL to use, without credentials, and these as a header's value."""
    value = given.value
    if value is None:
        return (_DEFAULT_GRPC if protocol == GRPC else _DEFAULT_HTTP), ""
    if (
        protocol == GRPC
        and is_printable_text(value)
        and value.partition("://")[0].lower() not in SCHEMES
    ):
        return value, ""  # host:port, or any target of a gRPC name resolver
    form = f" for {protocol}: give it in the form {_form(given.source, protocol)}"
    url = split_url(value, given.source, form)
    return join_url(url, _path(url.path, given.source, protocol)), credentials_of(url)


def _form(source: str, protocol: Protocol) -> str:
    """Return how an endpoint is written there."""
    if protocol == GRPC:
        return "http://host:4317 or host:4317"
    if source == _BASE_URL:
        return f"http://host:4318, to which {_LOGS_PATH} is added"
    return f"http://host:4318{_LOGS_PATH}"


def _path(path: str, source: str, protocol: Protocol) -> str:
    """Return the path that requests go to.

    The general variable is a base URL, to which the signal's path is added;
    the one for logs is used as it is.  An argument is used as it is as well,
    except that one without a path means the standard path.
    """
    if protocol == GRPC:
        return ""
    if source == _BASE_URL:
        base = path.rstrip("/")
        if base.endswith(_LOGS_PATH):
            announce(
                source,
                f"{source}: {_LOGS_PATH} is added to it, though it ends so; give it without, "
                f"or give {_LOGS}ENDPOINT",
            )
        return base + _LOGS_PATH
    if not path:
        return "/" if source.startswith(_LOGS) else _LOGS_PATH
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
    """Return a header written ``name=value``, percent-encoded as in W3C Baggage.

    Raises:
        ConfigurationError: it is not; the text, maybe a piece of a token, is not shown.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        msg = f"{source}: entry {position} is not of the form name=value"
        raise ConfigurationError(msg)
    return {unquote(name.strip()): unquote(value.strip())}


def _timeout(given: _Given) -> float:
    value = given.value
    if value is None:
        return DEFAULT_TIMEOUT
    if given.source.startswith(_GENERAL):
        return _milliseconds(given)
    return checked_timeout(value, given.source)


def _milliseconds(given: _Given) -> float:
    """Return a timeout in seconds; 0 means without a limit.

    Milliseconds by the specification.  The OpenTelemetry SDK for Python reads
    seconds, so a value that only makes sense so is announced.
    """
    text, variable = str(given.value), given.source
    if not (text.isascii() and text.isdigit()):
        _refused(given, "give a whole number of milliseconds")
        return DEFAULT_TIMEOUT
    number = int(text[:12])
    if 0 < number < _SUSPICIOUS_MILLISECONDS:
        announce(variable, f"{variable}={number} is {number} milliseconds, not seconds")
    return number / 1000 or math.inf


def _insecure(given: _Given) -> bool:
    """Only ``true``, in any case, is true: https://opentelemetry.io/docs/specs/otel/configuration/."""
    if isinstance(given.value, bool):
        return given.value
    text = str(given.value or "false").lower()
    if text not in {"true", "false"}:
        _refused(given, "use true or false")
    return text == "true"
