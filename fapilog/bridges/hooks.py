"""Warnings and uncaught exceptions into the pipeline.

Python calls a hook for each warning and each uncaught exception.
``install_hooks`` wraps the present hook, whether it is the interpreter's or
the application's, in one that reports and then calls the present one;
``uninstall_hooks`` undoes it.
"""

from __future__ import annotations

import asyncio as aio
import contextlib
import sys
import threading
import warnings as python_warnings
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.bridges.event import Event, take
from fapilog.bridges.patching import Patch, SetupLock
from fapilog.severity import ERROR, FATAL, WARN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Hook = Callable[..., Any]

# The names that logging.captureWarnings() and asyncio use, so that one level
# setting applies to a warning whichever way it comes in.
_WARNINGS: Final = "py.warnings"
_ASYNCIO: Final = "asyncio"

_feed: Final = feeds.Feed()
_lock: Final = SetupLock()
_loops: Final[weakref.WeakKeyDictionary[aio.AbstractEventLoop, tuple[Hook, Hook | None]]] = (
    weakref.WeakKeyDictionary()
)


def install_hooks(
    *,
    warnings: bool = True,
    uncaught: bool = True,
    threads: bool = True,
    asyncio: bool = True,
    loop: aio.AbstractEventLoop | None = None,
) -> None:
    """Log warnings and uncaught exceptions, and still call the hooks that were there.

    A record that one of those hooks logs through :mod:`logging`, as
    ``logging.captureWarnings`` and asyncio's default handler do, is not logged
    a second time.  Calling this function again changes which hooks are
    installed and wraps hooks that were set since; it adds nothing else.
    Undone by :func:`uninstall_hooks` and by :func:`fapilog.shutdown`.
    Thread-safe; does not block.

    Args:
        warnings: whether to log warnings that the filters let through, at
            WARN, as logger ``py.warnings``.
        uncaught: whether to log the exception that ends the main thread, at
            FATAL, as logger ``sys``; a KeyboardInterrupt is not logged.
        threads: whether to log exceptions that end a thread, at ERROR, as
            logger ``threading``.
        asyncio: whether to log the errors that an event loop's exception
            handler receives (task exceptions that were never retrieved,
            failed callbacks), at ERROR, as logger ``asyncio``, with the ids of
            the task.  This covers every loop of the standard library, and the
            running loop.
        loop: a loop of another library (uvloop) that does not run yet.
    """
    wanted = {"warnings": warnings, "uncaught": uncaught, "threads": threads, "asyncio": asyncio}
    with _lock:
        _feed.follow(None)
        for name, patch in _patches.items():
            if wanted[name]:
                patch.apply()
            else:
                patch.undo()
        if asyncio:
            _hook_loop(loop or _running_loop())
        else:
            _unhook_loops()


def uninstall_hooks() -> None:
    """Undo :func:`install_hooks`: put back every hook that was there before.

    A hook that was replaced since then stays as it is, and fapilog's hook
    below it stops reporting.  Does nothing if no hook is installed.
    Thread-safe.
    """
    with _lock:
        for patch in _patches.values():
            patch.undo()
        _unhook_loops()


def installed() -> dict[str, bool]:
    """Return which hooks are installed, as arguments of :func:`install_hooks`."""
    with _lock:
        return {name: patch.active for name, patch in _patches.items()}


def _report(event: Event) -> None:
    take(_feed, event.name, event.number, lambda: event)


def _is_reported(what: object) -> bool:
    """Whether an outer hook of fapilog has reported it; wrapped hooks are still called."""
    return what is not None and feeds.PASSING.reported is what


@contextlib.contextmanager
def _reported(what: object) -> Iterator[None]:
    """Inside the block, skip what the wrapped hook logs of the same object."""
    passing = feeds.PASSING
    outer, passing.reported = passing.reported, True if what is None else what
    try:
        yield
    finally:
        passing.reported = outer


def _around_warnings(found: Hook) -> Hook:
    def showwarning(  # noqa: PLR0917  # pragma: no cover - Python's signature; see disguised()
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        # A warning with a file is written to that file and is not an event.
        if not _patches["warnings"].active or file is not None or _is_reported(message):
            found(message, category, filename, lineno, file, line)
            return
        attributes = {
            "warning.category": category.__name__,
            "code.file.path": filename,
            "code.line.number": lineno,
        }
        with _reported(message):
            _report(Event(_WARNINGS, WARN, "WARNING", str(message), attributes))
            found(message, category, filename, lineno, file, line)

    return showwarning


def _around_excepthook(found: Hook) -> Hook:
    def excepthook(kind: type[BaseException], value: BaseException, traceback: Any) -> None:
        is_ours = _patches["uncaught"].active and not _is_reported(value)
        if not is_ours or issubclass(kind, KeyboardInterrupt):
            found(kind, value, traceback)
            return
        _report(Event("sys", FATAL, "CRITICAL", "uncaught exception", {}, exception=value))
        with _reported(value):
            found(kind, value, traceback)

    return excepthook


def _around_thread_hook(found: Hook) -> Hook:
    def excepthook(args: threading.ExceptHookArgs) -> None:  # pragma: no cover - see disguised()
        is_ours = _patches["threads"].active and not _is_reported(args.exc_value)
        # SystemExit is how a thread ends itself.
        if not is_ours or issubclass(args.exc_type, SystemExit):
            found(args)
            return
        thread, value = args.thread, args.exc_value
        attributes = (
            {} if thread is None else {"thread.id": thread.ident, "thread.name": thread.name}
        )
        body = "uncaught exception in a thread"
        _report(Event("threading", ERROR, "ERROR", body, attributes, exception=value))
        with _reported(value):
            found(args)

    return excepthook


def _around_loops(found: Hook) -> Hook:
    def call_exception_handler(  # pragma: no cover - see disguised()
        loop: aio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        exception = context.get("exception")
        what = context if exception is None else exception
        if not _patches["asyncio"].active or _is_reported(what):
            found(loop, context)
            return
        _report_loop(context)
        with _reported(what):
            found(loop, context)

    return call_exception_handler


def _report_loop(context: dict[str, Any]) -> None:
    task = context.get("task") or context.get("future")
    attributes = {"asyncio.task.name": task.get_name()} if isinstance(task, aio.Task) else {}
    body = context.get("message") or "unhandled exception in an event loop"
    event = Event(_ASYNCIO, ERROR, "ERROR", body, attributes, exception=context.get("exception"))
    _context_of(task, context.get("handle")).run(_report, event)


def _context_of(task: Any, handle: Any) -> Context:
    """Return the context of the code that failed, or an empty context.

    asyncio calls its handler wherever it notices the failure.  For a task that
    is the code that the garbage collector has interrupted, whichever it is.
    """
    get_context = getattr(task, "get_context", None)  # tasks have it since Python 3.12
    found = get_context() if get_context is not None else getattr(handle, "_context", None)
    # A copy, because the context itself may be entered now.
    return found.copy() if isinstance(found, Context) else Context()


def _running_loop() -> aio.AbstractEventLoop | None:
    try:
        return aio.get_running_loop()
    except RuntimeError:
        return None


def _hook_loop(loop: aio.AbstractEventLoop | None) -> None:
    """Hook a loop that is not a subclass of the standard library's loop."""
    if loop is None or isinstance(loop, aio.BaseEventLoop) or loop in _loops:
        return
    found = loop.get_exception_handler()

    def default(loop: aio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)

    handler = _around_loops(found or default)
    loop.set_exception_handler(handler)
    _loops[loop] = (handler, found)


def _unhook_loops() -> None:
    for loop, (handler, found) in list(_loops.items()):
        if loop.get_exception_handler() is handler:
            loop.set_exception_handler(found)
    _loops.clear()


_patches: Final = {
    "warnings": Patch(python_warnings, "showwarning", _around_warnings),
    "uncaught": Patch(sys, "excepthook", _around_excepthook),
    "threads": Patch(threading, "excepthook", _around_thread_hook),
    "asyncio": Patch(aio.BaseEventLoop, "call_exception_handler", _around_loops),
}
