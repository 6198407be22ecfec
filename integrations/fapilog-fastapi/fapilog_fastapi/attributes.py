"""Builds the log attributes of an HTTP request, named as in OpenTelemetry's HTTP conventions.

Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/ and
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from starlette.types import Scope

#: The HTTP methods that OpenTelemetry's conventions list for ``http.request.method``.
#: Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
_METHODS: Final = frozenset(
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"]
)
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: A ``Content-Length`` with more digits is treated as invalid; 15 digits allow almost a
#: petabyte.
_MAX_DIGITS: Final = 15


def known_methods() -> frozenset[str]:
    """Return the HTTP methods that logs and metrics report unchanged.

    The environment variable ``OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`` replaces the
    list of methods in OpenTelemetry's conventions.  Methods that are not in the list are reported
    as ``_OTHER``.
    """
    given = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "")
    return frozenset(name.strip() for name in given.split(",") if name.strip()) or _METHODS


def headers_of(holder: MutableMapping[str, Any]) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers of an ASGI scope or message as a list or a tuple.

    ASGI allows any iterable, or no headers at all.  An iterator can be read only once, and
    the application or the server has to read it too.  Therefore ``holder["headers"]`` is
    replaced with a list, unless it is already a list or a tuple.

    Source: https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope
    """
    headers: Sequence[tuple[bytes, bytes]] = holder.get("headers", ())
    if not isinstance(headers, (list, tuple)):
        headers = holder["headers"] = list(headers)
    return headers


def request_attributes(scope: Scope, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the log attributes that HTTP requests and WebSockets have in common.

    Args:
        scope: the ASGI scope of the request.
        headers: the request's headers, with names in lower case.
    """
    scheme = scope.get("scheme", "http")
    attributes: dict[str, Any] = {"url.path": scope["path"], "url.scheme": scheme}
    client = scope.get("client")
    if client:
        attributes["client.address"] = client[0]
    agent = headers.get(b"user-agent")
    if agent:
        attributes["user_agent.original"] = agent.decode("latin-1")
    version = scope.get("http_version")
    if version:
        attributes["network.protocol.version"] = version
    host = headers.get(b"host")
    address, port = _authority(host, scheme) if host else scope.get("server") or (None, None)
    if address:
        attributes["server.address"] = address
        if port:
            attributes["server.port"] = port
    return attributes


@lru_cache(maxsize=256)
def _authority(host: bytes, scheme: str) -> tuple[str | None, int | None]:
    """Return the host and port of a ``Host`` header, or two None values if it is malformed."""
    try:
        parts = urlsplit("//" + host.decode("latin-1"))
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None, None
        return parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError:
        return None, None


def length(value: bytes | None) -> int | None:
    """Return the value of a ``Content-Length`` header, or None if it is missing or invalid."""
    if value is None or not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    return int(value)


def type_name(kind: type[BaseException]) -> str:
    """Return the qualified name of an exception class, for the log attribute ``error.type``."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
