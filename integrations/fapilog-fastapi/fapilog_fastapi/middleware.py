"""The ASGI middleware that logs each request.

The middleware creates an ``Exchange`` for each request, which observes all ASGI messages of
the request.  The middleware adds the request's id to all records of the request.  If no span is
active, the middleware continues the caller's trace.  The completion record is logged
however the request ends, and the application's exceptions are raised unchanged.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, detach

import fapilog
from fapilog_fastapi import server_logs
from fapilog_fastapi.attributes import headers_of
from fapilog_fastapi.completion import Recorder
from fapilog_fastapi.correlation import REQUEST_ID, active_span, carrier_names, remote_context
from fapilog_fastapi.exchange import CURRENT, KEY, HTTPExchange, Serving, WebSocketExchange
from fapilog_fastapi.exclusion import make_exclusion
from fapilog_fastapi.failures import unmark
from fapilog_fastapi.lifespan import serve_lifespan
from fapilog_fastapi.metrics import RequestMetrics
from fapilog_fastapi.options import make_options
from fapilog_fastapi.probe import quieten
from fapilog_fastapi.stack import look_through

if TYPE_CHECKING:
    from contextvars import Token
    from typing import TypeAlias

    from opentelemetry.context import Context
    from starlette.types import ASGIApp, Receive, Scope, Send
    from typing_extensions import Unpack

    from fapilog_fastapi.options import OptionNames

    Exchange: TypeAlias = HTTPExchange | WebSocketExchange

_UNSEEN = object()


class FapilogMiddleware:
    """Logs each request once, when it ends, and adds a request id to all records of the request.

    It also delivers all records when the application shuts down.
    :func:`fapilog_fastapi.install` adds it outside all other layers, where it sees every
    message.  Use it directly around other ASGI applications, or with ``add_middleware``.  If
    several ``FapilogMiddleware`` objects serve one request, only the outermost object logs it.

    Does not block, and after construction raises only the application's exceptions.

    Args:
        app: the ASGI application to serve.
        **options: the options of :func:`fapilog_fastapi.install`.

    Raises:
        ConfigurationError: an option is wrong; the message names the option and says how to
            fix it.
    """

    def __init__(self, app: ASGIApp, **options: Unpack[OptionNames]) -> None:
        self.app = app
        self.watched: Any = app
        self.options = make_options(options)
        self._recorder = Recorder(self.options)
        self._exclude = make_exclusion(self.options.exclude)
        hides_access_log = self.options.replace_access_log
        self._serving = Serving(is_logged=True, hides_access_log=hides_access_log)
        self._passing = Serving(is_logged=False, hides_access_log=hides_access_log)
        self._stack: Any = _UNSEEN
        self._carriers: frozenset[bytes] = frozenset()
        server_logs.install(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request, a WebSocket or the application's lifespan."""
        kind = scope["type"]
        if (kind != "http" and kind != "websocket") or KEY in scope:  # noqa: PLR1714 - faster
            if kind == "lifespan":
                await serve_lifespan(self.app, scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        if type(scope) is not dict and not hasattr(scope, "__setitem__"):
            scope = dict(scope)  # the ``Exchange`` cannot be stored in a read-only mapping
        if self._exclude is not None and self._exclude.matches(scope):
            await self._pass_by(scope, receive, send)
            return
        if getattr(self.watched, "middleware_stack", None) is not self._stack:
            self._look_through()
        headers = dict(headers_of(scope))
        made: type[Exchange] = HTTPExchange if kind == "http" else WebSocketExchange
        recorder = self._recorder
        exchange = scope[KEY] = made(recorder, scope, receive, send, headers)
        recorder.metrics.started(scope)
        hold = recorder.hold
        if hold is None:
            await self._serve(exchange)
            return
        with fapilog.hold(
            hold.level, records=hold.records, size=hold.size, seconds=hold.seconds
        ) as exchange.hold:
            await self._serve(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        current = CURRENT.set(self._serving)
        exchange.note_span()
        quieten(exchange.scope)
        remote = None
        if exchange.span is None and not self._carriers.isdisjoint(exchange.headers):
            remote = self._attach(exchange)
        try:
            with fapilog.bind(**{REQUEST_ID: exchange.request_id}), fapilog.collect() as fields:
                exchange.fields = fields
                try:
                    await self.app(exchange.scope, exchange.receive, exchange.send)
                except BaseException as error:
                    exchange.fail(error)
                    if isinstance(error, GeneratorExit):
                        # The coroutine was closed, perhaps in another contextvars context, in
                        # which detach() would fail.  With None, detach() is not called.
                        remote = None
                    raise
                exchange.finish()
        finally:
            # Break the reference cycle between the ASGI scopes and the ``Exchange``.
            exchange.scope.pop(KEY, None)
            exchange.routed.pop(KEY, None)
            if remote is not None:
                detach(remote)
            # reset() fails if the coroutine was closed in another contextvars context
            with contextlib.suppress(ValueError):
                CURRENT.reset(current)

    def _attach(self, exchange: Exchange) -> Token[Context] | None:
        try:
            token = attach(remote_context(headers_of(exchange.scope)))
        except Exception as error:  # noqa: BLE001 - the application's propagator may raise anything
            self._recorder.trouble("reading the caller's trace", error)
            return None
        exchange.span = active_span()
        return token

    def _look_through(self) -> None:
        """Search the application's middleware, and add probes to it.

        Called when a request arrives, because the application may add middleware until then.
        """
        try:
            has_spans, has_metrics = look_through(self.watched)
        except Exception as error:  # noqa: BLE001 - the application's objects may raise anything
            has_spans = has_metrics = False
            self._recorder.trouble("looking through the application's middleware", error)
        self._stack = getattr(self.watched, "middleware_stack", None)
        if has_metrics and self.options.metrics is True:
            # OpenTelemetry's instrumentation already measures every request.
            self._recorder.metrics = RequestMetrics(opentelemetry=False)
        # OpenTelemetry's middleware reads the caller's trace headers itself.  It would not start
        # a server span if the caller's span were already the current span.
        reads = self.options.trace_context and not has_spans
        self._carriers = carrier_names() if reads else frozenset()

    async def _pass_by(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an excluded request without a completion record.

        ``scope[KEY]`` prevents the ``FapilogMiddleware`` of a mounted application from
        logging the request.
        """
        scope[KEY] = self._passing
        current = CURRENT.set(self._passing)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            unmark(error)  # this exception object may have been logged for an earlier request
            raise
        finally:
            # reset() fails if the coroutine was closed in another contextvars context
            with contextlib.suppress(ValueError):
                CURRENT.reset(current)
