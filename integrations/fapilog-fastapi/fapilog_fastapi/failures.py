"""Exceptions on their way out of the application, noted once.

Exception handlers turn exceptions into responses and servers log what they
are raised, so an exception can be seen by several.  Here is how the exchange
hears of those that are handled, and how the server's own report is known to be
a second one.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError

from fapilog_fastapi.exchange import KEY, Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

#: Errors of one request that are logged at most.
MAX_ERRORS: Final = 20
_MAX_PARTS: Final = 16
_MAX_PART: Final = 64
_MARK: Final = "_fapilog_fastapi_logged"
_WRAPPED: Final = "_fapilog_fastapi_wrapped"


def mark_as_logged(error: BaseException) -> None:
    """Note on an exception that its stack trace has been logged."""
    try:
        vars(error)[_MARK] = True
    except Exception:  # noqa: BLE001 - a class of its own kind: the server logs it again
        return


def unmark(error: BaseException) -> None:
    """Take the mark off an exception that is raised again where nothing logs it."""
    with contextlib.suppress(Exception):  # as above
        vars(error).pop(_MARK, None)


def is_logged(error: object) -> bool:
    """Whether the stack trace of ``error`` has been logged."""
    try:
        return isinstance(error, BaseException) and _MARK in vars(error)
    except Exception:  # noqa: BLE001 - as above
        return False


def is_validation_error(error: object) -> bool:
    """Whether FastAPI raised ``error`` because the request does not fit the endpoint."""
    return isinstance(error, (RequestValidationError, WebSocketRequestValidationError))


def validation_errors(error: Any, *, inputs: bool) -> dict[str, Any]:
    """Return where a request did not fit and how, and how often.

    Args:
        error: of FastAPI; its messages may quote what the client sent.
        inputs: whether messages and the values themselves are told.
    """
    found = error.errors()
    names = ("loc", "type", *(("msg", "input") if inputs else ()))
    # Where values are told the whole path is, for redaction to see the names in it.
    path = _whole_path if inputs else _path
    listed = [
        {name: path(e[name]) if name == "loc" else e[name] for name in names if name in e}
        for e in found[:MAX_ERRORS]
    ]
    return {"validation.errors": listed, "validation.error_count": len(found)}


def _whole_path(location: Any) -> str:
    return ".".join(map(str, location))


def _path(location: Any) -> str:
    """Return where it did not fit; keys that clients choose show no more than a name does."""
    parts = [str(part) if _is_plain(part) else "*" for part in location[:_MAX_PARTS]]
    return ".".join(parts)


def _is_plain(part: object) -> bool:
    """Whether a part of a path is an index, or may be the name of a field or a header."""
    if not isinstance(part, str):
        return True
    return len(part) <= _MAX_PART and part.replace("-", "_").isidentifier()


def noting(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return an exception handler that tells the exchange of the exception.

    A coroutine function stays one: others are run in a thread.
    """
    if getattr(handler, _WRAPPED, False):
        return handler
    wrapper: Callable[..., Any]
    if _is_async(handler):

        async def wrapper(connection: Any, error: BaseException) -> Any:
            _note(connection, error)
            return await handler(connection, error)

    else:

        def wrapper(connection: Any, error: BaseException) -> Any:
            _note(connection, error)
            return handler(connection, error)

    functools.update_wrapper(wrapper, handler, updated=())
    setattr(wrapper, _WRAPPED, True)
    return wrapper


def _is_async(handler: Any) -> bool:
    """Whether calling it makes a coroutine, as Starlette sees it."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object may be one as well
    )


def _note(connection: Any, error: BaseException) -> None:
    exchange = connection.scope.get(KEY)
    if isinstance(exchange, Exchange):
        exchange.note_error(error)
