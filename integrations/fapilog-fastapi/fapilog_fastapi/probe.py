"""What stands inside the server's span, and sees what the middleware outside cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog_fastapi.exchange import KEY, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Probe:
    """Notes the span that a request runs in, and what is raised on the way out.

    Args:
        app: what is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and note both for its exchange."""
        exchange = scope.get(KEY)
        if not isinstance(exchange, Exchange):
            await self.app(scope, receive, send)
            return
        exchange.note_span()
        quieten(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            exchange.note_error(error)
            raise


class RouteProbe:
    """Notes the scope that the router gets: middleware may have made a copy.

    Args:
        app: what is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request, noting its scope."""
        exchange = scope.get(KEY)
        if isinstance(exchange, Exchange):
            exchange.routed = scope
        return self.app(scope, receive, send)


def is_of_fapilog(provider: object) -> bool:
    """Whether a provider or logger of OpenTelemetry's Logs API is fapilog's."""
    return type(provider).__module__.partition(".")[0] == "fapilog"


def quieten(scope: Scope) -> None:
    """Keep FastAPI from logging exceptions of this request to fapilog itself.

    As ``fapilog_fastapi.stack`` does for the whole application, where fapilog
    was not configured yet when that looked.
    """
    telemetry = scope.get("fastapi.telemetry")
    if telemetry is not None and is_of_fapilog(getattr(telemetry, "logger", None)):
        telemetry.logger = None
