"""Start-up and shutdown of fapilog with the application's own lifespan.

Wrong options fail at start-up.  At shutdown everything is delivered within one
deadline, on a thread, because servers may end a process without running what
belongs to its exit.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, Final

import fapilog
from fapilog import ConfigurationError
from fapilog_fastapi.completion import LOGGER

#: A name that nobody logs by: asking for its level configures, where nothing is configured yet.
_NOBODY: Final = "fapilog_fastapi.lifespan"

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(inner: Lifespan | None = None, *, timeout: float = 5.0, **options: Any) -> Lifespan:
    """Return a lifespan that configures fapilog and delivers what was logged.

    ``FastAPI(lifespan=fapilog_fastapi.lifespan(own, sinks="otlp"))``.  The
    application's own lifespan runs inside, with its state.  With options the
    runtime is configured at start-up and shut down at the end; what start-up or
    shutdown of the application raises is logged before that, at ERROR.
    Without, what is configured stays - the environment's settings, where
    nothing is - and is flushed at the end.  Neither blocks the event loop.

    Args:
        inner: the application's own lifespan.
        timeout: seconds that the delivery at the end may take.
        **options: as for :func:`fapilog.configure`.

    Raises:
        ConfigurationError: ``timeout`` or ``inner`` is wrong; at start-up, an
            option is.
    """
    seconds: object = timeout
    if isinstance(seconds, bool) or not (isinstance(seconds, (int, float)) and seconds > 0):
        msg = f"timeout={timeout!r}: use seconds above 0"
        raise ConfigurationError(msg)
    _check_inner(inner)

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Any]:
        if options:
            fapilog.configure(**options)
        else:
            fapilog.set_level(None, _NOBODY)
        try:
            with _reported() if options else nullcontext():
                if inner is None:
                    yield
                else:
                    async with inner(app) as state:
                        yield state
        finally:
            end = fapilog.shutdown if options else fapilog.flush
            await asyncio.to_thread(end, timeout)

    return run


@contextmanager
def _reported() -> Iterator[None]:
    """Log what the application's lifespan raises: when the server does, fapilog is shut down."""
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
            f"inner={inner!r} makes no asynchronous context manager: "
            "let it yield once, and decorate it with contextlib.asynccontextmanager"
        )
        raise ConfigurationError(msg)
