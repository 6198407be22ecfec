"""Provides a request's logger for ``Depends``, and binds fields to the rest of a request."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
from typing_extensions import Self

import fapilog
from fapilog_fastapi.correlation import REQUEST_ID
from fapilog_fastapi.exchange import KEY, Exchange, bind_to_request, is_in_request
from fapilog_fastapi.routes import route_template


class RequestLogger(fapilog.Logger):
    """A logger whose bound fields are also on the request's completion record."""

    __slots__ = ()

    def bind(self, /, **fields: Any) -> Self:
        """Return a logger with ``fields`` added, and add the fields to the completion record."""
        if is_in_request():
            with fapilog.bind(**fields):  # the exchange keeps every bound field
                pass
        return super().bind(**fields)


async def get_logger(connection: HTTPConnection) -> fapilog.Logger:
    """Return the logger of a request, for ``Depends(fapilog_fastapi.get_logger)``.

    The logger is named after the endpoint's module, and binds the request's id, the
    route and the fields of the option ``context``.  All callers in one request get the
    same logger.  Without the middleware, it binds only the route.  Endpoints may use the
    logger whether they are coroutine functions or not.
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
    """Bind fields to the rest of the request, and to its completion record.

    Called in a coroutine (a dependency or a handler), it adds the fields to every
    later record of the request.  Called in a function that FastAPI runs in a
    thread, it adds them to the records of that function and to the completion
    record.  Outside of a request it does nothing.  Does not block or raise.

    Args:
        **fields: the names and values of attributes; values are converted immediately.
    """
    if is_in_request():
        bind_to_request(fields)
