"""Provides the functions ``get_logger`` and ``bind`` for the records of the current request."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
from typing_extensions import Self

import fapilog
from fapilog_fastapi.correlation import REQUEST_ID
from fapilog_fastapi.exchange import KEY, Exchange, bind_to_request, is_in_request
from fapilog_fastapi.routes import route_template


class RequestLogger(fapilog.Logger):
    """A logger whose bound fields also appear in the request's completion record."""

    __slots__ = ()

    def bind(self, /, **fields: Any) -> Self:
        """Return a logger with ``fields`` added, and add the fields to the completion record."""
        if is_in_request():
            with fapilog.bind(**fields):  # adds the fields to the completion record
                pass
        return super().bind(**fields)


async def get_logger(connection: HTTPConnection) -> fapilog.Logger:
    """Return the logger of a request, for use as ``Depends(fapilog_fastapi.get_logger)``.

    The logger is named after the endpoint's module.  Its records contain the request's id,
    the route and the fields from the option ``context``.  All calls in one request return the
    same logger.  Without the middleware, the records contain only the route.  Endpoints may
    use the logger whether they are coroutine functions or not.
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
    return RequestLogger.of(fapilog.get_logger(name).bind(**fields))


def bind(**fields: Any) -> None:
    """Add fields to all later records of the current request, and to its completion record.

    In a function that FastAPI runs in a thread, the fields are added only to the later
    records of that function and to the completion record.  Outside of a request, the call
    does nothing.  Does not block or raise.

    Args:
        **fields: the names and values of the fields.  The values are copied immediately, so a
            later change of a value does not change the records.
    """
    if is_in_request():
        bind_to_request(fields)
