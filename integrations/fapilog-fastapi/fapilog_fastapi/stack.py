"""Searches the middleware layers of an application, and adds probes to them.

This package's middleware is the outermost layer.  The span of a request starts in an inner
layer (OpenTelemetry's middleware or FastAPI), and inner layers turn exceptions into
responses.  Therefore this module adds a ``Probe``, which sees the span and the exception, and
a ``RouteProbe`` before the router, and wraps the exception handlers.  The search follows the
middleware objects that Starlette has built, not the list ``app.user_middleware``.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry._logs import get_logger_provider
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Host, Mount, Router

from fapilog_fastapi.failures import noting
from fapilog_fastapi.probe import Probe, RouteProbe, is_of_fapilog

_OTEL: Final = ("opentelemetry.instrumentation.asgi", "OpenTelemetryMiddleware")
#: The maximum number of layers to search.  A chain of layers may be endless: every mock object,
#: for example, has an attribute ``app``, which is another mock object.
_MAX_LAYERS: Final = 10_000


def look_through(app: Any) -> tuple[bool, bool]:
    """Add probes to the middleware layers of ``app`` and of the applications mounted on it.

    A second call adds no further probes.  If the application's middleware has not been built
    yet, it is built by this call instead of by the first request.

    Returns:
        A pair: whether ``app`` itself, without its mounts, contains OpenTelemetry's
        middleware; and whether that middleware, or FastAPI itself, already measures requests.
    """
    telemetry = getattr(app, "_telemetry", None)
    measures = isinstance(telemetry, dict) and bool(telemetry.get("metrics"))
    has_spans = _look_through(app, set())
    return has_spans, has_spans or measures


def _look_through(app: Any, seen: set[int]) -> bool:
    innermost: Any = None
    has_spans = False
    layer: Any = app
    routes: list[Any] = []
    while layer is not None and id(layer) not in seen and len(seen) < _MAX_LAYERS:
        seen.add(id(layer))
        if isinstance(layer, Starlette):
            routes += layer.routes
            layer = _built(layer)
            continue
        if isinstance(layer, Router):
            routes += layer.routes
        elif (type(layer).__module__, type(layer).__name__) == _OTEL:
            has_spans, innermost = True, layer
        elif isinstance(layer, ServerErrorMiddleware):
            innermost = layer
        elif isinstance(layer, ExceptionMiddleware):
            _wrap_handlers(layer)
            if not isinstance(layer.app, RouteProbe):
                layer.app = RouteProbe(layer.app)
        layer = getattr(layer, "app", None)
    if innermost is not None and not isinstance(innermost.app, Probe):
        innermost.app = Probe(innermost.app)
    for route in routes:
        _look_through(_behind(route), seen)
    return has_spans


def _behind(route: Any) -> Any:
    """Return the application or router that a route contains, or None if it contains neither."""
    if isinstance(route, (Mount, Host)):
        return route.app
    # Newer versions of FastAPI store an included router in this attribute.
    return getattr(route, "original_router", None)


def _built(app: Starlette) -> Any:
    # Newer versions of FastAPI log exceptions and refused requests through OpenTelemetry.  If
    # OpenTelemetry sends these records to fapilog, they would duplicate the records that the
    # middleware logs.
    telemetry = getattr(app, "_telemetry", None)
    follows_global = isinstance(telemetry, dict) and telemetry.get("logger_provider") is None
    if follows_global and is_of_fapilog(get_logger_provider()):
        telemetry["logs"] = False  # type: ignore[index]
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    return app.middleware_stack


def _wrap_handlers(layer: ExceptionMiddleware) -> None:
    for name in ("_exception_handlers", "_status_handlers"):
        handlers = getattr(layer, name, None)
        if isinstance(handlers, dict):
            handlers.update({key: noting(handler) for key, handler in handlers.items()})
