"""ASGI middleware that ``stack`` puts inside the application's other middleware.

The outermost middleware cannot see the request's span, exception and route.  This middleware can,
and stores them in the request's ``Exchange``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog_fastapi.exchange import KEY, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Probe:
    """ASGI middleware that stores data of the request in the request's ``Exchange``.

    The data is OpenTelemetry's current span, and an exception that the application raises.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and store its span and its exception in the ``Exchange``."""
        exchange = scope.get(KEY)
        if not isinstance(exchange, Exchange):
            await self.app(scope, receive, send)
            return
        exchange.note_span()
        quieten(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            exchange.error = error
            raise


class RouteProbe:
    """ASGI middleware before the router, which stores the router's scope in the ``Exchange``.

    The router adds the matched route to this scope.  The outermost middleware may have a
    different scope, because the middleware in between may copy the scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request, and store its scope in the ``Exchange``."""
        exchange = scope.get(KEY)
        if isinstance(exchange, Exchange):
            exchange.routed = scope
        return self.app(scope, receive, send)


def is_of_fapilog(provider: object) -> bool:
    """Return whether an OpenTelemetry ``LoggerProvider`` or ``Logger`` belongs to fapilog."""
    return type(provider).__module__.partition(".")[0] == "fapilog"


def quieten(scope: Scope) -> None:
    """Prevent FastAPI from logging this request's exceptions through OpenTelemetry to fapilog.

    Otherwise fapilog would log these exceptions twice.  ``fapilog_fastapi.stack`` prevents
    this for the whole application, but only if fapilog is configured before the first
    request.
    """
    telemetry = scope.get("fastapi.telemetry")
    if telemetry is not None and is_of_fapilog(getattr(telemetry, "logger", None)):
        telemetry.logger = None
