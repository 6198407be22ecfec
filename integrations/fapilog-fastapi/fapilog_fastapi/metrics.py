"""Measures requests, for OpenTelemetry and for the Prometheus route ``/metrics``.

The metrics follow OpenTelemetry's HTTP conventions.  The middleware reports every request to
a :class:`RequestMetrics`, which records it with OpenTelemetry's metrics API.  After
:func:`add_metrics_route` was called, the ``RequestMetrics`` also adds the request to a table in
memory, which ``/metrics`` shows.
"""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from starlette.responses import Response

from fapilog import ConfigurationError
from fapilog.core.observability import Exemplar
from fapilog_fastapi.request_labels import LabelMaker
from fapilog_fastapi.request_table import BYTES, PROCESS_TABLE, SECONDS, RequestTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from prometheus_client import CollectorRegistry
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import Scope

__all__ = ["RequestMetrics", "add_metrics_route", "metrics_endpoint"]

_logger: Final = logging.getLogger(__name__)
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.37.0"
# The key in the ASGI scope under which started() stores the request's labels for finished().
_BEGUN: Final = "fapilog_fastapi.metrics"


class _Instruments:
    """The four OpenTelemetry instruments of an HTTP server.

    The conventions declare only ``http.server.request.duration`` as stable.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
    """

    def __init__(self, meter: Meter) -> None:
        self.duration = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.active = meter.create_up_down_counter(
            "http.server.active_requests", "{request}", "Number of active HTTP server requests."
        )
        self.request_size = meter.create_histogram(
            "http.server.request.body.size",
            "By",
            "Size of HTTP server request bodies.",
            explicit_bucket_boundaries_advisory=BYTES,
        )
        self.response_size = meter.create_histogram(
            "http.server.response.body.size",
            "By",
            "Size of HTTP server response bodies.",
            explicit_bucket_boundaries_advisory=BYTES,
        )


class RequestMetrics:
    """Measures the requests of one application.

    Thread-safe; neither blocks nor raises.  If an OpenTelemetry instrument raises an
    exception, ``failures`` is incremented; the first such exception is logged by the logger
    ``fapilog_fastapi.metrics``.

    Args:
        meter: the OpenTelemetry meter that records the measurements; None means a meter of
            the global provider, which is obtained at the first request.
        opentelemetry: whether to record with OpenTelemetry.  Use False if OpenTelemetry's own
            instrumentation already measures requests.
        table: the table in memory to which requests are added while ``/metrics`` is served.

    Attributes:
        failures: the number of measurements that failed.
    """

    def __init__(
        self,
        meter: Meter | None = None,
        *,
        opentelemetry: bool = True,
        table: RequestTable = PROCESS_TABLE,
    ) -> None:
        self._meter = meter
        self._opentelemetry = opentelemetry
        self._table = table
        self._labels = LabelMaker()
        self.failures = 0

    @property
    def is_active(self) -> bool:
        """Whether any measurements are recorded."""
        return self._opentelemetry or self._table.is_served

    def started(self, scope: Scope) -> None:
        """Count an HTTP request as active; does nothing for other types of ASGI scopes.

        Args:
            scope: the request's ASGI scope, in which the labels are stored until the request
                ends.
        """
        if scope["type"] != "http" or not self.is_active:
            return
        begun = self._labels.method_and_scheme(scope)
        in_table = self._table.is_served
        scope[_BEGUN] = begun, in_table
        self._count_active(begun, 1, in_table=in_table)

    def finished(
        self,
        scope: Scope,
        route: str | None,
        status: int | None,
        duration: float,
        error_type: str | None = None,
        *,
        request_size: int | None = None,
        response_size: int | None = None,
        context: Context | None = None,
    ) -> None:
        """Record the measurements of a request that has ended.

        Does nothing if :meth:`started` did not count the request, or if this method was already
        called for the request.

        Args:
            scope: the ASGI scope that was passed to :meth:`started`.
            route: the route's template, such as ``/orders/{id}``, never a path, or None if no
                route matched.
            status: the status of the response, or None if there was no response.
            duration: the duration of the request in seconds.
            error_type: the name of the exception's class, or None without an exception.
            request_size: the size of the request's body in bytes, or None if unknown.
            response_size: the size of the response's body in bytes, or None if unknown.
            context: the OpenTelemetry context with the request's span, for exemplars; None
                means the current context.
        """
        begun, in_table = scope.pop(_BEGUN, (None, False))
        if begun is None:
            return
        self._count_active(begun, -1, in_table=in_table)
        labels = self._labels.finished(begun, scope, route, status, error_type)
        if in_table:
            sizes = request_size, response_size
            self._table.add(labels, duration, sizes, _example(duration, context))
        if self._opentelemetry:
            attributes = labels.attributes()
            self._measure(lambda to: to.duration.record(duration, attributes, context))
            if request_size is not None:
                self._measure(lambda to: to.request_size.record(request_size, attributes, context))
            if response_size is not None:
                self._measure(
                    lambda to: to.response_size.record(response_size, attributes, context)
                )

    def _count_active(self, begun: tuple[str, str], change: int, *, in_table: bool) -> None:
        if in_table:
            self._table.count_active(begun, change)
        if self._opentelemetry:
            attributes = {"http.request.method": begun[0], "url.scheme": begun[1]}
            self._measure(lambda to: to.active.add(change, attributes))

    @cached_property
    def _instruments(self) -> _Instruments:
        meter = self._meter or metrics.get_meter("fapilog_fastapi", schema_url=_SCHEMA)
        return _Instruments(meter)

    def _measure(self, take: Callable[[_Instruments], None]) -> None:
        try:
            take(self._instruments)
        except Exception:
            self.failures += 1
            if self.failures == 1:
                _logger.warning(
                    "cannot record request metrics; further failures are not logged", exc_info=True
                )


def _example(duration: float, context: Context | None) -> Exemplar | None:
    span = trace.get_current_span(context).get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return None  # an exemplar would refer to a trace that is not stored
    return Exemplar(duration, f"{span.trace_id:032x}", f"{span.span_id:016x}", time.time())


def metrics_endpoint(
    registry: CollectorRegistry | None = None, *, requests: bool = True
) -> Callable[[Request], Response]:
    """Return an endpoint for Starlette or FastAPI that shows metrics as Prometheus text.

    The endpoint responds in the OpenMetrics format, with exemplars, if the request accepts
    that format.  Frameworks run the endpoint in a thread, so a scrape does not block the
    event loop.  This function does not block.

    Args:
        registry: a registry of prometheus_client whose metrics are shown too; None shows only
            fapilog's metrics.
        requests: whether the metrics of requests are shown.  Use False if another collector
            in the registry already shows them.

    Raises:
        ConfigurationError: prometheus-client is not installed, or the registry already has
            metrics with the same names.
    """
    try:
        from fapilog_fastapi.prometheus import Exposition  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = f"request metrics need: pip install 'fapilog-fastapi[metrics]' ({error})"
        raise ConfigurationError(msg) from None
    exposition = Exposition(registry, PROCESS_TABLE if requests else None)

    def endpoint(request: Request) -> Response:
        content, content_type = exposition.render(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    return endpoint


def add_metrics_route(
    app: Starlette,
    path: str = "/metrics",
    registry: CollectorRegistry | None = None,
    *,
    requests: bool = True,
) -> None:
    """Add a route that shows fapilog's counters and the metrics of requests as Prometheus text.

    The values are those of this process.  If several worker processes share a port, each
    scrape reaches a random worker process, so set fapilog's option ``metrics_directory``: then
    the values are the sums over all of them.  Call this function at start-up; it does not block.

    Args:
        app: the FastAPI or Starlette application; its OpenAPI schema omits the route.
        path: the path of the route.
        registry: a registry of prometheus_client whose metrics are shown too; None shows only
            fapilog's metrics.
        requests: whether the metrics of requests are shown.

    Raises:
        ConfigurationError: an option is wrong, or prometheus-client is not installed.
    """
    if not (isinstance(path, str) and path.startswith("/")):
        msg = f"path must be text that begins with '/', such as '/metrics', not {path!r}"
        raise ConfigurationError(msg)
    endpoint: Any = metrics_endpoint(registry, requests=requests)
    app.router.add_route(path, endpoint, methods=["GET"], include_in_schema=False)
