"""The one line: ``fapilog_fastapi.install(app)``.

The middleware has to stand outside of everything, also of what an
instrumentation adds later and of the layer that answers exceptions.  There is
no such place in the list of middleware, so the application is given a class
whose ``__call__`` leads through it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from starlette.applications import Starlette

from fapilog import ConfigurationError
from fapilog_fastapi import server_logs
from fapilog_fastapi.middleware import FapilogMiddleware

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from typing_extensions import Unpack

    from fapilog_fastapi.options import OptionNames

_ATTRIBUTE: Final = "_fapilog_middleware"
_classes: WeakKeyDictionary[type[Starlette], type[Starlette]] = WeakKeyDictionary()


def install(app: Starlette, **options: Unpack[OptionNames]) -> None:
    """Log the requests of a FastAPI or Starlette application through fapilog.

    Call it anywhere before the first request, before or after middleware and
    instrumentation.  A second call does nothing but give new options.  Does
    not block.

    Args:
        app: the application.  What is mounted on it is covered.
        **options: all of them by name:

            - ``request_id_header`` (``"X-Request-ID"``): header that an id is
              taken from and returned in; None makes one for the records only.
            - ``trace_headers`` (False): return ``traceparent`` and ``X-Trace-ID``.
            - ``trace_context`` (True): take over the caller's trace where no
              OpenTelemetry instrumentation does.
            - ``context``: function ``(connection) -> mapping``, or a coroutine
              function; its fields are bound once a request.
            - ``exclude``: URLs to leave out: regular expressions, separated by
              commas or in a list.  Those that start with ``/`` are for the
              path, others for scheme, host and path.  None reads
              ``OTEL_PYTHON_FASTAPI_EXCLUDED_URLS`` and
              ``OTEL_PYTHON_EXCLUDED_URLS``.
            - ``sample`` (1.0): ratio of successful requests that are logged.
            - ``slow``: seconds from which on a request is slow; it is always
              logged then.
            - ``severity``: by status or class, ``{"4xx": "INFO", 404: "DEBUG"}``.
            - ``replace_access_log`` (True): drop the server's own access lines.
            - ``validation_inputs`` (False): log what did not validate, too.
            - ``debug_on_error`` (False): True, or a :class:`DebugOnError`.
            - ``payloads``: headers and bodies to log, as a
              :class:`~fapilog_fastapi.payloads.PayloadLogging`.
            - ``metrics`` (False): True, or a :class:`~fapilog_fastapi.metrics.RequestMetrics`.

    Raises:
        ConfigurationError: an option is wrong, or ``app`` is no application
            of Starlette; names the fix.
    """
    given: object = app
    if not isinstance(given, Starlette):
        msg = f"app={app!r} is no FastAPI or Starlette application: use FapilogMiddleware(app)"
        raise ConfigurationError(msg)
    plain: type[Starlette] = getattr(type(app), "_fapilog_plain", type(app))
    made = _installed_class(plain)
    middleware = FapilogMiddleware(partial(plain.__call__, app), **options)
    middleware.watched = app
    if _ATTRIBUTE in vars(app):
        server_logs.release(vars(app)[_ATTRIBUTE])
    vars(app)[_ATTRIBUTE] = middleware
    app.__class__ = made


def uninstall(app: Starlette) -> None:
    """Undo :func:`~fapilog_fastapi.install`; does nothing where it was not called.

    The servers' own access logs come back with the last application, and no
    :class:`FapilogMiddleware` elsewhere.
    """
    plain = getattr(type(app), "_fapilog_plain", None)
    if plain is not None:
        app.__class__ = plain
        server_logs.release(vars(app).pop(_ATTRIBUTE))


def _installed_class(plain: type[Starlette]) -> type[Starlette]:
    """Return a class like ``plain`` that serves through the middleware.

    Raises:
        ConfigurationError: ``plain`` refuses to have a subclass.
    """
    if plain in _classes:
        return _classes[plain]

    async def serve(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await vars(self)[_ATTRIBUTE](scope, receive, send)

    body = {"__call__": serve, "__module__": plain.__module__, "__doc__": plain.__doc__}
    try:
        made = type(plain.__name__, (plain,), {**body, "_fapilog_plain": plain})
    except Exception as error:  # what __init_subclass__ or a metaclass of the application's raises
        msg = f"app: {plain.__name__} takes no plain subclass ({error}): use FapilogMiddleware(app)"
        raise ConfigurationError(msg) from error
    _classes[plain] = made
    return made
