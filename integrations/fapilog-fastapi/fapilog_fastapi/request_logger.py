"""The request's own logger, for ``Depends``, and fields for the rest of a request."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
from typing_extensions import Self

import fapilog
from fapilog_fastapi.correlation import REQUEST_ID
from fapilog_fastapi.exchange import KEY, Exchange, bind_to_request, is_in_request
from fapilog_fastapi.routes import route_template


class RequestLogger(fapilog.Logger):
    """A logger whose bound fields are on the request's completion record too."""

    __slots__ = ()

    def bind(self, /, **fields: Any) -> Self:
        """Return a logger whose records carry ``fields`` too; so does the completion record."""
        if is_in_request():
            with fapilog.bind(**fields):  # the exchange collects what is bound
                pass
        return super().bind(**fields)


async def get_logger(connection: HTTPConnection) -> fapilog.Logger:
    """Return the logger of a request: ``Depends(fapilog_fastapi.get_logger)``.

    Named after the endpoint's module, bound with the request's id, the route
    and what the option ``context`` says.  The same object for all of a
    request.  Where the middleware is not installed, a logger with the route.
    Use it in coroutine functions and in others.
    """
    scope = connection.scope
    exchange = scope.get(KEY)
    if not isinstance(exchange, Exchange):
        return _make(scope, {})
    if exchange.logger is None:
        context = await exchange.add_context()
        exchange.logger = _make(scope, {**context, REQUEST_ID: exchange.request_id})
    return exchange.logger


def _make(scope: Any, fields: dict[str, Any]) -> fapilog.Logger:
    name = getattr(scope.get("endpoint"), "__module__", None) or "fapilog_fastapi"
    route = route_template(scope)
    if route is not None:
        fields["http.route"] = route
    return RequestLogger.of(fapilog.get_logger(name, **fields))


def bind(**fields: Any) -> None:
    """Bind fields to the rest of the request, and to its completion record.

    In a coroutine - a dependency, a handler - every later record of the
    request has them.  In a function that FastAPI runs in a thread, records
    logged there, and the completion record.  Outside of a request it does
    nothing.  Does not block or raise.

    Args:
        **fields: attribute names and values, converted now.
    """
    if is_in_request():
        bind_to_request(fields)
