"""Puts the middleware around an application, with ``fapilog_fastapi.install(app)``.

The middleware must be the outermost layer: outside the layer that turns exceptions into
responses, and outside the layers that OpenTelemetry's instrumentation adds later.
``app.add_middleware`` cannot add a layer in this position.  Therefore ``install`` replaces
the application's class with a subclass, whose ``__call__`` runs the middleware.
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
    """Log the requests of a FastAPI or Starlette application with fapilog.

    Call ``install`` at any time before the first request, before or after middleware and
    instrumentation are added.  A second call only replaces the options.  Does
    not block.

    When the application shuts down, all records are delivered; this takes at most
    the time in fapilog's option ``shutdown_timeout`` and does not block the event loop.  If
    fapilog is not configured at the end of the application's start-up, it is configured
    from environment variables; an invalid variable makes the start-up fail.

    Args:
        app: the application; requests to applications mounted on it are logged too.
        **options: the options, as keyword arguments:

            - ``request_id_header`` (``"X-Request-ID"``): the header of requests and
              responses that contains the request's id.  With None, the id is generated and
              appears only in records.
            - ``trace_headers`` (False): whether responses get ``traceparent``
              and ``X-Trace-ID`` headers.
            - ``trace_context`` (True): whether the caller's trace headers are
              read if no OpenTelemetry instrumentation reads them.
            - ``context``: a function ``(connection) -> mapping``, or a coroutine
              function; the fields in the mapping are bound once per request.
            - ``exclude``: the URLs to exclude, as regular expressions, separated
              by commas or in a list.  Expressions that start with ``/`` are searched
              for in the URL's path, all other expressions in its scheme, host and path.
              By default, the environment variables ``OTEL_PYTHON_FASTAPI_EXCLUDED_URLS``
              and ``OTEL_PYTHON_EXCLUDED_URLS`` contain the expressions.
            - ``sample`` (1.0): the fraction of successful requests that are logged.
            - ``slow``: the duration in seconds from which a request is slow; slow
              requests are always logged.
            - ``severity``: the severities of completion records by status or class of
              statuses, such as ``{"4xx": "INFO", 404: "DEBUG"}``.
            - ``replace_access_log`` (True): whether the server's access log is suppressed.
            - ``validation_inputs`` (False): whether values that failed validation are logged.
            - ``debug_on_error`` (False): whether debug records are buffered and only
              logged if the request fails: True, or a :class:`DebugOnError`.
            - ``payloads``: the headers and bodies to log, as a
              :class:`~fapilog_fastapi.payloads.PayloadLogging`.
            - ``metrics`` (False): whether OpenTelemetry measures the requests: True, or a
              :class:`~fapilog_fastapi.metrics.RequestMetrics`.

    Raises:
        ConfigurationError: an option is wrong, or ``app`` is not a Starlette
            application; the message says how to fix it.
    """
    given: object = app
    if not isinstance(given, Starlette):
        msg = f"app={app!r} is not a FastAPI or Starlette application: use FapilogMiddleware(app)"
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
    """Undo :func:`~fapilog_fastapi.install`; does nothing if ``install`` was not called.

    The server's access log is enabled again, unless the process contains another installed
    application or another :class:`FapilogMiddleware`.
    """
    plain = getattr(type(app), "_fapilog_plain", None)
    if plain is not None:
        app.__class__ = plain
        server_logs.release(vars(app).pop(_ATTRIBUTE))


def _installed_class(plain: type[Starlette]) -> type[Starlette]:
    """Return a subclass of ``plain`` whose instances serve requests through the middleware.

    Raises:
        ConfigurationError: ``plain`` cannot be subclassed.
    """
    if plain in _classes:
        return _classes[plain]

    async def serve(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await vars(self)[_ATTRIBUTE](scope, receive, send)

    body = {"__call__": serve, "__module__": plain.__module__, "__doc__": plain.__doc__}
    try:
        made = type(plain.__name__, (plain,), {**body, "_fapilog_plain": plain})
    except Exception as error:  # a metaclass may raise any exception
        msg = f"app: {plain.__name__} cannot be subclassed ({error}): use FapilogMiddleware(app)"
        raise ConfigurationError(msg) from error
    _classes[plain] = made
    return made
