"""Provides Python's original clock, threads, locks and sleep, even if libraries replace them.

gevent and eventlet replace functions of the standard library with cooperative
functions (``monkey.patch_all()``), before or after an application configures fapilog.
A background thread that mixed original and cooperative functions could wait forever for a lock
or a wake-up, or stop every greenlet of the process.  So fapilog's background threads are always
threads of the operating system, and this module looks up the original functions once, at import.
Only :func:`pause`, in which an application's thread waits, lets other greenlets run.

Test tools such as freezegun and time-machine stop ``time.monotonic``: they
replace the function in the modules that imported it, or inside ``time``.  Code
that waits for a deadline on a stopped clock would never return.  These tools
do not stop ``time.clock_gettime(CLOCK_MONOTONIC)``, and do not replace a function
that is stored in a ``functools.partial`` object.  Therefore :data:`monotonic` is a
``partial`` of this function.  The timestamps of records do not come from this
module, because tests freeze them on purpose.
"""

from __future__ import annotations

import _queue
import _thread
import sys
import threading
import time
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Returns the time in seconds.  All deadlines and intervals use this clock.  Windows has no
#: ``clock_gettime``, so on Windows a test tool that freezes time before this module is imported
#: also stops this clock.
monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else partial(time.monotonic)
)


def original(module: str, name: str) -> Any:
    """Return the original object ``module.name``, even if gevent or eventlet has replaced it."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched(module):
        return gevent.get_original(module, name)
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.already_patched:
        return getattr(eventlet.original(module), name)
    return getattr(import_module(module), name)


if TYPE_CHECKING:
    Lock = threading.Lock
    RLock = threading.RLock
else:
    Lock = original("_thread", "allocate_lock")
    RLock = original("_thread", "RLock")
# gevent and eventlet replace the classes in ``queue``, but not in ``_queue``.
SimpleQueue = _queue.SimpleQueue
Empty = _queue.Empty
get_ident: Final[Callable[[], int]] = original("_thread", "get_ident")
#: Blocks the calling thread and all its greenlets.  Only for background threads and for very
#: short waits.
sleep: Final[Callable[[float], None]] = original("time", "sleep")
_start_new_thread: Final[Callable[..., int]] = original("_thread", "start_new_thread")

#: True in code that does fapilog's background work, on a background thread or, if no thread
#: can be started, on the thread that shuts fapilog down.
IN_WORKER: Final[ContextVar[bool]] = ContextVar("fapilog_in_worker", default=False)


def is_patched() -> bool:
    """Return whether gevent or eventlet makes ``threading`` start greenlets instead of threads."""
    return _thread.start_new_thread is not _start_new_thread


def pause(seconds: float) -> None:
    """Wait for ``seconds`` and let other greenlets of the calling thread run."""
    if is_patched() and not IN_WORKER.get():
        try:
            time.sleep(seconds)
        except (AssertionError, RuntimeError):
            pass  # in an event loop's callback or a signal handler, no other greenlet can run
        else:
            return
    sleep(seconds)


def start_thread(target: Callable[[], object], name: str) -> None:
    """Run ``target`` on a new daemon thread of the operating system.

    The thread is named ``name``, unless gevent or eventlet has replaced :mod:`threading`.

    Raises:
        RuntimeError: the operating system cannot start a thread, or the interpreter is
            shutting down.
    """
    if is_patched():
        _start_new_thread(target, ())
    else:
        threading.Thread(target=_run, args=(target,), name=name, daemon=True).start()


def _run(target: Callable[[], object]) -> None:
    try:
        target()
    finally:
        if is_patched():
            # If gevent or eventlet has patched threading while this thread ran, the thread is
            # missing from threading's table, and threading would print a traceback when the
            # thread ends.  This call adds the thread to the table.
            threading.current_thread()
