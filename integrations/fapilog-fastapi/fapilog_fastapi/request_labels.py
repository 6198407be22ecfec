"""Labels of request metrics: the standard's names, and few enough values of each.

A metric keeps a series for every combination of labels, for good, so nothing
that a client can choose freely may become one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from starlette.types import Scope

#: Stands for what is not told apart.
OTHER: Final = "_OTHER"

#: Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (http.request.method)
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_SCHEMES: Final = frozenset({"http", "https"})
_VERSIONS: Final = frozenset({"0.9", "1.0", "1.1", "2", "3"})
_MAX_ROUTES: Final = 1000
_MAX_ERRORS: Final = 100
_SERVER_ERROR: Final = 500


class Labels(NamedTuple):
    """The labels of one finished request; an empty text stands for none."""

    method: str
    scheme: str
    route: str
    status: int
    error: str
    version: str

    def attributes(self) -> dict[str, str | int]:
        """Return them by the names of the semantic conventions.

        Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
        """
        named: dict[str, str | int] = {
            "http.request.method": self.method,
            "url.scheme": self.scheme,
            "http.route": self.route,
            "http.response.status_code": self.status,
            "error.type": self.error,
            "network.protocol.version": self.version,
        }
        return {name: value for name, value in named.items() if value}


class Distinct:
    """Tells a bounded number of values apart; all further ones are :data:`OTHER`.  Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return ``value``, or what stands for it."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class LabelMaker:
    """Makes the labels of requests, with bounds on each.  Thread-safe; does not block.

    The known methods may be given by the environment, as the standard demands:
    ``OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS``, separated by commas.
    """

    def __init__(self) -> None:
        listed = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "")
        methods = frozenset(name.strip() for name in listed.split(",") if name.strip())
        self._methods = methods or METHODS
        self._routes = Distinct(_MAX_ROUTES)
        self._errors = Distinct(_MAX_ERRORS)

    def method_and_scheme(self, scope: Scope) -> tuple[str, str]:
        """Return the labels that are known when a request begins."""
        method, scheme = scope.get("method", ""), scope.get("scheme", "http")
        return (
            method if method in self._methods else OTHER,
            scheme if scheme in _SCHEMES else OTHER,
        )

    def finished(
        self,
        begun: tuple[str, str],
        scope: Scope,
        route: str | None,
        status: int | None,
        error_type: str | None,
    ) -> Labels:
        """Return the labels of a request that ended.

        Args:
            begun: what :meth:`method_and_scheme` returned when it began.
            scope: the request's ASGI scope.
            route: the template, never a path; None where none matched.
            status: of the response; None where there was none.
            error_type: class of the exception; without one a status from 500 up is it.
        """
        code = status if status is not None and 100 <= status <= 599 else 0  # noqa: PLR2004
        if not error_type and code >= _SERVER_ERROR:
            error_type = str(code)
        version = scope.get("http_version", "")
        return Labels(
            *begun,
            self._routes(route) if route else "",
            code,
            self._errors(error_type) if error_type else "",
            version if version in _VERSIONS else "",
        )
