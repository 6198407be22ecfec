"""ASGI layers inside the server's span, which see data that the outermost middleware cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog_fastapi.exchange import KEY, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Probe:
    """Stores the request's span, and an exception of the application, in the exchange."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and store its span and exception in the exchange."""
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
    """Stores in the exchange the scope that the router gets, which will contain the route.

    It may differ from the middleware's scope, because inner middleware may copy the scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request, and store its scope in the exchange."""
        exchange = scope.get(KEY)
        if isinstance(exchange, Exchange):
            exchange.routed = scope
        return self.app(scope, receive, send)


def is_of_fapilog(provider: object) -> bool:
    """Whether a provider or logger of OpenTelemetry's Logs API comes from fapilog."""
    return type(provider).__module__.partition(".")[0] == "fapilog"


def quieten(scope: Scope) -> None:
    """Prevent FastAPI itself from logging this request's exceptions through fapilog.

    Otherwise these exceptions would be logged twice.  ``fapilog_fastapi.stack`` does this
    for the whole application, but only if fapilog is configured before the first request.
    """
    telemetry = scope.get("fastapi.telemetry")
    if telemetry is not None and is_of_fapilog(getattr(telemetry, "logger", None)):
        telemetry.logger = None
