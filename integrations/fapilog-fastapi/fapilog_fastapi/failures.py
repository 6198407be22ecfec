"""Makes sure that each exception of the application is logged once.

Exception handlers turn exceptions into responses.  This module wraps the handlers, so that
the ``Exchange`` of the request stores the exception.  Servers log the exceptions that are not
handled.  This module stores an attribute in each exception that fapilog has logged, and the
filters in ``server_logs`` drop the server's record of such an exception.
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

#: The maximum number of validation errors that are logged per request.
MAX_ERRORS: Final = 20
_MAX_PARTS: Final = 16
_MAX_PART: Final = 64
_MARK: Final = "_fapilog_fastapi_logged"
_WRAPPED: Final = "_fapilog_fastapi_wrapped"


def mark_as_logged(error: BaseException) -> None:
    """Store an attribute in ``error``, so that ``server_logs`` drops the server's record of it."""
    with contextlib.suppress(Exception):  # without the attribute, the server logs the error again
        vars(error)[_MARK] = True


def unmark(error: BaseException) -> None:
    """Remove the attribute that ``mark_as_logged`` stores, so that the server logs ``error``."""
    with contextlib.suppress(Exception):  # exceptions without a __dict__ do not have the attribute
        vars(error).pop(_MARK, None)


def is_logged(error: object) -> bool:
    """Return whether ``mark_as_logged`` was called for ``error``."""
    try:
        return isinstance(error, BaseException) and _MARK in vars(error)
    except Exception:  # noqa: BLE001 - an unusual class has no mark
        return False


def is_validation_error(error: object) -> bool:
    """Return whether FastAPI raised ``error`` because a request failed validation."""
    return isinstance(error, (RequestValidationError, WebSocketRequestValidationError))


def validation_errors(error: Any, *, inputs: bool) -> dict[str, Any]:
    """Return the log attributes of a failed validation: the errors and their number.

    Args:
        error: FastAPI's validation error; its messages may quote values that the client sent.
        inputs: whether to include the messages and the values that the client sent.
    """
    found = error.errors()
    names = ("loc", "type", *(("msg", "input") if inputs else ()))
    # If inputs are logged, redaction later uses the names in an input's path to decide whether to
    # mask the input.  Therefore the path has to contain all names.
    path = _whole_path if inputs else _path
    listed = [
        {name: path(e[name]) if name == "loc" else e[name] for name in names if name in e}
        for e in found[:MAX_ERRORS]
    ]
    return {"validation.errors": listed, "validation.error_count": len(found)}


def _whole_path(location: Any) -> str:
    return ".".join(map(str, location))


def _path(location: Any) -> str:
    """Return the path of an invalid value in the request, such as ``body.items.0.price``.

    Names that do not look like the name of a field or header are replaced with ``*``, because
    the client may have chosen them.
    """
    return ".".join(str(part) if _is_plain(part) else "*" for part in location[:_MAX_PARTS])


def _is_plain(part: object) -> bool:
    """Return whether ``part`` of an error's location is an index or looks like a name."""
    if not isinstance(part, str):
        return True
    return len(part) <= _MAX_PART and part.replace("-", "_").isidentifier()


def noting(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an exception handler, so that it first stores the exception in the ``Exchange``.

    The wrapper of a coroutine function is a coroutine function, because Starlette runs all
    other functions in a thread.
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
    """Return whether Starlette treats the handler as a coroutine function."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - or an object with an async __call__
    )


def _note(connection: Any, error: BaseException) -> None:
    exchange = connection.scope.get(KEY)
    if isinstance(exchange, Exchange):
        exchange.error = error
