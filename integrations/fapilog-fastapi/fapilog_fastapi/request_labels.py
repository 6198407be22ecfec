"""Makes the labels of request metrics, each with a limited number of values.

A metrics system stores a time series for every combination of label values, so a client must
not be able to choose the value of a label freely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog_fastapi.attributes import known_methods

if TYPE_CHECKING:
    from starlette.types import Scope

#: The label value that replaces unknown values, and every new value of a label that has reached
#: its maximum number of distinct values.
OTHER: Final = "_OTHER"

_SCHEMES: Final = frozenset({"http", "https"})
_VERSIONS: Final = frozenset({"0.9", "1.0", "1.1", "2", "3"})
_MAX_ROUTES: Final = 1000
_MAX_ERRORS: Final = 100
_SERVER_ERROR: Final = 500


class Labels(NamedTuple):
    """The labels of one finished request; "" or 0 means that the label is absent."""

    method: str
    scheme: str
    route: str
    status: int
    error: str
    version: str

    def attributes(self) -> dict[str, str | int]:
        """Return the labels under their names in OpenTelemetry's conventions.

        Labels that are absent are omitted.

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
    """A callable that limits the number of distinct values of a metric label.

    After ``limit`` distinct values, each new value is replaced with :data:`OTHER`.
    Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return ``value``, or :data:`OTHER` if the value is new and the limit is reached."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class LabelMaker:
    """Makes the metric labels of requests.  Thread-safe; does not block."""

    def __init__(self) -> None:
        self._methods = known_methods()
        self._routes = Distinct(_MAX_ROUTES)
        self._errors = Distinct(_MAX_ERRORS)

    def method_and_scheme(self, scope: Scope) -> tuple[str, str]:
        """Return the labels ``method`` and ``scheme``, which a request has from its start."""
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
        """Return the labels of a request that has ended.

        ``begun`` is the result of :meth:`method_and_scheme`; :meth:`RequestMetrics.finished`
        explains the other parameters.  If ``error_type`` is missing, a status of 500 or
        higher becomes the error type.
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
