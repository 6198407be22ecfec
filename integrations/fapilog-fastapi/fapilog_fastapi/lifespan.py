"""Configures fapilog when the application starts, and delivers all records at shutdown.

The middleware serves ASGI's lifespan through :func:`serve_lifespan`, so applications that
call ``install`` need no further call. :func:`lifespan` is for applications that also
configure fapilog.  ``atexit`` hooks would not be enough, because servers may end a process
without running them.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, CapacityLimiter, to_thread
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

import fapilog
from fapilog import ConfigurationError
from fapilog.severity import Severity
from fapilog_fastapi.completion import LOGGER

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The name of a logger that writes no records.  Setting its level configures fapilog from
#: environment variables, unless fapilog is already configured.
_UNUSED: Final = "fapilog_fastapi.lifespan"

Lifespan = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]

_log: Final = fapilog.get_logger(LOGGER)


def lifespan(inner: Lifespan | None = None, *, timeout: float = 5.0, **options: Any) -> Lifespan:
    """Return a lifespan that configures fapilog at start-up and delivers all records at shutdown.

    Use it as ``FastAPI(lifespan=fapilog_fastapi.lifespan(inner, sinks="otlp"))``.  The
    application's lifespan ``inner`` runs inside the returned lifespan, and the application
    receives the state that ``inner`` yields.

    With ``options``, fapilog is configured at start-up and shut down at the end; exceptions
    of ``inner`` are logged at ERROR before the shutdown.  The event loop is never blocked.

    Without ``options``, fapilog is configured from environment variables at start-up, unless
    it is already configured.  At the end, fapilog is flushed but not shut down, as with
    :func:`fapilog_fastapi.install`.

    Args:
        inner: the application's lifespan function.
        timeout: the maximum number of seconds that the delivery at the end may take.
        **options: the options of :func:`fapilog.configure`.

    Raises:
        ConfigurationError: ``timeout`` or ``inner`` is wrong.  A wrong option raises this
            error at start-up.
    """
    seconds: object = timeout
    if isinstance(seconds, bool) or not (isinstance(seconds, (int, float)) and seconds > 0):
        msg = f"timeout={timeout!r}: use a number of seconds above 0"
        raise ConfigurationError(msg)
    _check_inner(inner)

    @contextlib.asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Any]:
        if options:
            fapilog.configure(**options)
        else:
            fapilog.set_level(None, _UNUSED)
        served = _SERVED.get()
        try:
            with _reported() if options else contextlib.nullcontext():
                if inner is None:
                    yield
                else:
                    async with inner(app) as state:
                        yield state
        finally:
            if options:
                await _on_thread(fapilog.shutdown, timeout)
            elif served is None:
                await _on_thread(fapilog.flush, timeout)
            else:
                served.timeout = timeout  # the middleware flushes later, with this timeout

    return run


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Log an exception that is raised in the ``with`` block, and raise it again."""
    try:
        yield
    except Exception as error:
        _report(error)
        raise


def _report(error: BaseException | None, reason: str = "") -> None:
    text = "the application's lifespan failed"
    _log.error(f"{text}: {reason}" if error is None else text, exc_info=error)


async def _on_thread(end: Callable[[float], object], seconds: float) -> None:
    """Call ``end(seconds)`` in a worker thread, under asyncio or trio.

    The call has a separate thread limit, because the application may be using all threads
    that anyio's default limit allows.
    """
    with CancelScope(shield=True):  # the thread cannot be cancelled, but ends within ``seconds``
        await to_thread.run_sync(end, seconds, limiter=CapacityLimiter(1))


def _check_inner(inner: object) -> None:
    if inner is not None and not callable(inner):
        msg = f"inner={inner!r}: use a function (app) -> asynchronous context manager"
        raise ConfigurationError(msg)
    plain = (inspect.isasyncgenfunction, inspect.isgeneratorfunction, inspect.iscoroutinefunction)
    if any(is_plain(inner) for is_plain in plain):
        msg = (
            f"inner={inner!r} does not return an asynchronous context manager: "
            "write an async function that yields once, and decorate it with "
            "contextlib.asynccontextmanager"
        )
        raise ConfigurationError(msg)


async def serve_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the lifespan of ``app``, and deliver all records at shutdown.

    The records are delivered before the server receives ``lifespan.shutdown.complete``.

    If fapilog is not configured at the end of the application's start-up, it is configured
    from environment variables; an invalid variable makes the start-up fail.  If several
    ``FapilogMiddleware`` objects wrap the application, only the outermost object configures
    fapilog and delivers records.  The application's exceptions are raised unchanged.
    """
    if _SERVED.get() is not None:
        await app(scope, receive, send)
        return
    token = _SERVED.set(served := _Served(send))
    try:
        await app(scope, receive, served.send)
    finally:
        # reset() fails if the coroutine was closed in another contextvars context
        with contextlib.suppress(ValueError):
            _SERVED.reset(token)


class _Served:
    """The state of one ASGI lifespan that the middleware serves.

    Attributes:
        timeout: the maximum number of seconds that the delivery at the end may take, or None
            for the time in fapilog's option ``shutdown_timeout``.
    """

    def __init__(self, send: Send) -> None:
        self.timeout: float | None = None
        self._send = send
        self._has_failed = False

    async def send(self, message: Message) -> None:
        """Send a message of the application to the server.

        Configures fapilog before it sends ``lifespan.startup.complete``, and delivers all
        records before it sends ``lifespan.shutdown.complete`` or a failure message.
        """
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            await self._start()
            await self._send(message)
        elif kind == "lifespan.shutdown.complete":
            await self._deliver()
            await self._send(message)
        elif not self._has_failed:
            await self._fail(message)

    async def _start(self) -> None:
        try:
            fapilog.set_level(None, _UNUSED)
        except ConfigurationError as error:
            # When the application catches the exception that is raised below, it sends a second
            # failure message.  Because of this flag, send() drops that message.
            self._has_failed = True
            await self._send({"type": "lifespan.startup.failed", "message": str(error)})
            raise

    async def _fail(self, message: Message) -> None:
        self._has_failed = True
        if _log.is_enabled(Severity.FATAL):  # is_enabled() is False after fapilog was shut down
            # Starlette sends this message from an ``except`` block, so exc_info() returns the
            # exception.
            _report(sys.exc_info()[1], message.get("message", ""))
        await self._deliver()
        # The server logs this failure too.  The flag prevents ``fapilog.install_stdlib()`` from
        # forwarding the server's record to fapilog, which would log the failure twice.
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            await self._send(message)
        finally:
            detach(token)

    async def _deliver(self) -> None:
        runtime = fapilog.get_runtime()
        if runtime is not None:
            seconds = runtime.exit_timeout if self.timeout is None else self.timeout
            await _on_thread(fapilog.flush, seconds)


_SERVED: Final[ContextVar[_Served | None]] = ContextVar("fapilog_fastapi_lifespan", default=None)
