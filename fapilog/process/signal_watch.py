"""Sees to it that a signal's handler runs in children of ``multiprocessing``.

Python runs a handler between two of its own steps.  A signal that comes after
the last step before a blocking call therefore waits for that call to return,
which may be never.  ``Pool`` sends SIGTERM to its processes just when they are
about to wait for work, and waits for them: with a Python handler for SIGTERM
it would hang now and then, and so would programs that end their own processes
as soon as their work is done.  A second signal ends the blocking call.

The interpreter tells of signals by one descriptor a process
(``signal.set_wakeup_fd``).  Event loops need it more: who has it keeps it.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any, Final

from fapilog.diagnostics import announce

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds a handler is given to begin before the signal is repeated.
_PATIENCE: Final = 0.05
_MAX_PATIENCE: Final = 1.0


class SignalWatch:
    """Repeats one signal until its handler runs.

    Does nothing on Windows, nor where threads are greenlets.

    Args:
        number: of the signal.
        handler: what handles it; it calls :meth:`begun` first.  While another
            handler is in its place nothing is repeated.
    """

    def __init__(self, number: signal.Signals, handler: Callable[..., Any]) -> None:
        self._number = number
        self._handler = handler
        self._is_registered = False
        self._writer: int | None = None
        self._has_begun = False

    def install(self) -> None:
        """Watch this process if it is a child of ``multiprocessing``, and those it will start.

        For the main thread.
        """
        self._register()
        if _is_child_of_multiprocessing():
            self.start()

    def start(self) -> None:
        """Watch this process, unless somebody else watches its signals.

        Where an event loop takes the descriptor later, the watch is over.  For
        the main thread; further calls do nothing.
        """
        if self._writer is not None or not _can_watch():
            return
        others = signal.set_wakeup_fd(-1)
        if others != -1:
            _give_back(others)
            return
        try:
            self._start()
        except (OSError, RuntimeError) as error:  # no descriptor, no thread
            announce("signals", f"{self._number.name} may be handled late: {error}")

    def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            reader, writer = os.pipe()
            undo.callback(os.close, reader)
            undo.callback(os.close, writer)
            os.set_blocking(writer, False)
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, -1)
            threading.Thread(
                target=self._run,
                args=(reader, os.fstat(reader)),
                name="fapilog-signals",
                daemon=True,
            ).start()
            self._writer = writer
            undo.pop_all()

    def begun(self) -> None:
        """Note that the handler runs: the watch is over."""
        self._has_begun = True

    def after_fork(self) -> None:
        """Forget the parent's watch.

        Its pipe stays open: the application may have closed it and have its
        own files by these numbers.
        """
        self._has_begun = False
        if self._writer is not None:
            others = signal.set_wakeup_fd(-1)
            if others != self._writer:  # -1 where an event loop had it and has ended
                _give_back(others)
            self._writer = None
        self._register()

    def _register(self) -> None:
        util = sys.modules.get("multiprocessing.util")
        register = getattr(util, "register_after_fork", None)
        if register is not None and not self._is_registered:
            register(self, SignalWatch._begin_life)
            self._is_registered = True  # and so it is in children

    def _begin_life(self) -> None:
        """In a forked child of ``multiprocessing``, before it does its work."""
        if self._is_in_place:
            self.start()

    @property
    def _is_in_place(self) -> bool:
        return signal.getsignal(self._number) is self._handler

    def _run(self, reader: int, pipe: os.stat_result) -> None:
        with contextlib.suppress(OSError):  # the application closed what it does not know
            while not self._has_begun and os.path.samestat(os.fstat(reader), pipe):
                numbers = os.read(reader, 1024)
                if self._number in numbers and self._is_in_place:
                    self._insist()
                elif not numbers:
                    return

    def _insist(self) -> None:
        main = threading.main_thread().ident or 0
        patience = _PATIENCE
        while True:
            time.sleep(patience)
            if not self._is_in_place or self._has_begun:
                return
            signal.pthread_kill(main, self._number)
            patience = min(2 * patience, _MAX_PATIENCE)


def _give_back(descriptor: int) -> None:
    """Let others have the wake-up descriptor again, unless they have closed it."""
    with contextlib.suppress(OSError, ValueError):
        signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def _is_child_of_multiprocessing() -> bool:
    parent_of = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    # Spawned ones know their parent only after they have imported its main module.
    is_spawned = "--multiprocessing-fork" in sys.orig_argv
    return is_spawned or (parent_of is not None and parent_of() is not None)


def _can_watch() -> bool:
    # gevent and others put their own function here; reading would block all of their threads.
    has_threads = isinstance(_thread.start_new_thread, types.BuiltinFunctionType)
    return has_threads and hasattr(signal, "pthread_kill")
