"""Logs warnings and uncaught exceptions.

Python calls a hook for each warning and each uncaught exception.  ``install_hooks``
wraps each hook in a function that logs a record and then calls the hook.
"""

from __future__ import annotations

import asyncio as aio
import sys
import threading
import warnings as python_warnings
import weakref
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.bridges.event import Event, take
from fapilog.bridges.patching import Patch, SetupLock
from fapilog.severity import ERROR, FATAL, WARN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Hook = Callable[..., Any]

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
    """Log warnings and uncaught exceptions, and still call the previous hooks.

    If a previous hook logs the same warning or exception through :mod:`logging`,
    as ``logging.captureWarnings`` and asyncio's default handler do, fapilog
    ignores that record.  A second call changes which hooks are installed, and
    wraps hooks that were set since the first call.  :func:`uninstall_hooks` and
    :func:`fapilog.shutdown` restore the previous hooks.  Thread-safe; does not block.

    Args:
        warnings: whether to log warnings that pass Python's warning filters, at WARN, with the
            logger ``py.warnings``, as ``logging.captureWarnings`` does.
        uncaught: whether to log the exception that ends the main thread, at FATAL, with the
            logger ``sys``, unless it is a KeyboardInterrupt.
        threads: whether to log exceptions that end a thread, at ERROR, with the logger
            ``threading``.
        asyncio: whether to log the errors that an event loop's exception handler receives
            (task exceptions that were never retrieved, failed callbacks), at ERROR, with the
            logger ``asyncio`` and the trace and span ids of the failed task.  This applies to
            the running loop and to every loop of the standard library.
        loop: the event loop to use instead of the running loop; only needed for a loop of a
            library such as uvloop that is not running yet.
    """
    wanted = {"warnings": warnings, "uncaught": uncaught, "threads": threads, "asyncio": asyncio}
    with _lock:
        for name, patch in _patches.items():
            if wanted[name]:
                patch.apply()
            else:
                patch.undo()
        if asyncio:
            _hook_loop(loop or aio._get_running_loop())  # noqa: SLF001 - raises nothing
        else:
            _unhook_loops()


def uninstall_hooks() -> None:
    """Undo :func:`install_hooks`, if it was called.  Thread-safe; does not block.

    A hook of fapilog that another library has wrapped remains installed, but stops logging.
    """
    with _lock:
        for patch in _patches.values():
            patch.undo()
        _unhook_loops()


def installed() -> dict[str, bool]:
    """Return a dict that says for each hook whether it is installed.

    The keys are the names of the boolean arguments of :func:`install_hooks`.
    """
    with _lock:
        return {name: patch.active for name, patch in _patches.items()}


#: A tuple that describes what a hook logs.  Its items are: the exception, the warning or the dict
#: with the event loop's error; the ``Event`` to log; and the context of the code that failed.
_Report: TypeAlias = "tuple[object, Event, Context]"


def _wrap(name: str, describe: Callable[..., _Report | None], found: Hook) -> Hook:
    """Return a hook that logs a record and then calls ``found``, the previous hook.

    ``describe`` converts the hook's arguments to a ``_Report``, or returns None if the hook must
    not log.  The hook only logs while the patch ``_patches[name]`` is active.
    """

    def hook(*args: Any, **kwargs: Any) -> None:  # pragma: no cover - see disguised()
        passing = feeds.PASSING
        report = describe(*args, **kwargs) if _patches[name].active else None
        # Another hook of fapilog may have logged the same object before it called this hook.
        if report is None or (report[0] is not None and passing.reported is report[0]):
            found(*args, **kwargs)
            return
        what, event, context = report
        outer, passing.reported = passing.reported, True if what is None else what
        try:
            context.run(take, _feed, event.name, event.number, lambda: event)
            found(*args, **kwargs)
        finally:
            passing.reported = outer

    return hook


def _warning(  # noqa: PLR0917 - Python's signature
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,  # noqa: ARG001 - Python's signature
) -> _Report | None:
    if file is not None:  # the caller wants the warning in this file only
        return None
    attributes = {
        "warning.category": category.__name__,
        "code.file.path": filename,
        "code.line.number": lineno,
    }
    event = Event("py.warnings", WARN, "WARN", str(message), attributes)
    return message, event, copy_context()


def _uncaught(
    kind: type[BaseException],
    value: BaseException,
    traceback: Any,  # noqa: ARG001 - Python's signature
) -> _Report | None:
    if issubclass(kind, KeyboardInterrupt):
        return None
    event = Event("sys", FATAL, "FATAL", "uncaught exception", {}, exception=value)
    return value, event, copy_context()


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> _Report | None:
    if issubclass(args.exc_type, SystemExit):  # the thread called sys.exit()
        return None
    thread, value = args.thread, args.exc_value
    attributes = {} if thread is None else {"thread.id": thread.ident, "thread.name": thread.name}
    body = "uncaught exception in a thread"
    event = Event("threading", ERROR, "ERROR", body, attributes, exception=value)
    return value, event, copy_context()


def _loop_error(_loop: aio.AbstractEventLoop, context: dict[str, Any]) -> _Report:
    exception = context.get("exception")
    task = context.get("task") or context.get("future")
    attributes = {"asyncio.task.name": task.get_name()} if isinstance(task, aio.Task) else {}
    body = context.get("message") or "unhandled exception in an event loop"
    event = Event("asyncio", ERROR, "ERROR", body, attributes, exception=exception)
    what = context if exception is None else exception
    return what, event, _context_of(task, context.get("handle"))


def _context_of(task: Any, handle: Any) -> Context:
    """Return the ``contextvars`` context of the code that failed, or an empty context.

    asyncio may call its exception handler in the context of unrelated code, for example if
    the garbage collector finds the failed task.
    """
    get_context = getattr(task, "get_context", None)  # since Python 3.12
    found = get_context() if get_context is not None else getattr(handle, "_context", None)
    # A copy, because Python cannot enter a context that other code has already entered.
    return found.copy() if isinstance(found, Context) else Context()


def _hook_loop(loop: aio.AbstractEventLoop | None) -> None:
    """Wrap the exception handler of an event loop from another library, such as uvloop.

    The loops of asyncio are skipped, because the method that calls their exception handlers
    is patched: ``asyncio.BaseEventLoop.call_exception_handler``.
    """
    if loop is None or isinstance(loop, aio.BaseEventLoop) or loop in _loops:
        return
    found = loop.get_exception_handler()
    handler = _wrap("asyncio", _loop_error, found or type(loop).default_exception_handler)
    loop.set_exception_handler(handler)
    _loops[loop] = (handler, found)


def _unhook_loops() -> None:
    for loop, (handler, found) in list(_loops.items()):
        if loop.get_exception_handler() is handler:
            loop.set_exception_handler(found)
    _loops.clear()


_patches: Final = {
    "warnings": Patch(python_warnings, "showwarning", partial(_wrap, "warnings", _warning)),
    "uncaught": Patch(sys, "excepthook", partial(_wrap, "uncaught", _uncaught)),
    "threads": Patch(threading, "excepthook", partial(_wrap, "threads", _uncaught_in_thread)),
    "asyncio": Patch(
        aio.BaseEventLoop, "call_exception_handler", partial(_wrap, "asyncio", _loop_error)
    ),
}
