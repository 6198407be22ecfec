"""Starts and shuts down fapilog with the application's lifespan.

Wrong options fail at start-up.  At shutdown, a thread delivers all records within
one deadline; exit hooks are not enough, because servers may end a process without
running them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import fapilog
from fapilog import ConfigurationError
from fapilog_fastapi.completion import LOGGER

#: An unused logger name: setting its level configures fapilog if it is not configured yet.
_UNUSED: Final = "fapilog_fastapi.lifespan"

Lifespan = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]


def lifespan(inner: Lifespan | None = None, *, timeout: float = 5.0, **options: Any) -> Lifespan:
    """Return a lifespan that configures fapilog and delivers all records at the end.

    Use it as ``FastAPI(lifespan=fapilog_fastapi.lifespan(own, sinks="otlp"))``.
    The application's own lifespan runs inside it and keeps its state.  With options,
    fapilog is configured at start-up and shut down at the end; before the shutdown,
    exceptions from the application's lifespan are logged at ERROR.  Without options,
    the current configuration stays, and fapilog is flushed at the end; if fapilog is
    not configured yet, the environment configures it.  The event loop is never
    blocked.

    Args:
        inner: the application's own lifespan.
        timeout: the seconds that the delivery at the end may take.
        **options: the options of :func:`fapilog.configure`.

    Raises:
        ConfigurationError: ``timeout`` or ``inner`` is wrong.  A wrong option
            raises this error at start-up.
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
        try:
            with _reported() if options else contextlib.nullcontext():
                if inner is None:
                    yield
                else:
                    async with inner(app) as state:
                        yield state
        finally:
            end = fapilog.shutdown if options else fapilog.flush
            await asyncio.to_thread(end, timeout)

    return run


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Log an exception of the application's lifespan before fapilog is shut down."""
    try:
        yield
    except Exception as error:
        fapilog.get_logger(LOGGER).error("the application's lifespan failed", exc_info=error)
        raise


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
