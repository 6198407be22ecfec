"""Delivers the remaining records when SIGTERM arrives, and then ends the process.

The signal handler starts a thread that delivers the records, and waits up to a second for the
thread.  If the delivery takes longer, the handler returns, because the code that the signal
interrupted may hold a lock that the delivery needs.  After the delivery, the thread sends SIGTERM
again, and the handler ends the process.  The thread cannot do this itself, because only the main
thread may restore the signal's default action.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final, cast

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: The longest time, in seconds, that the signal handler waits until the records are delivered.
_PATIENCE: Final = 1.0
_POLL: Final = 0.001
#: After the delivery, SIGTERM is sent every ``_PAUSE`` seconds until the process ends, up to
#: ``_ATTEMPTS`` times.
_PAUSE: Final = 0.05
_ATTEMPTS: Final = 40


class Sigterm:
    """Handles SIGTERM if the application does not handle the signal.

    Args:
        deliver: a function that delivers the remaining records within a time limit.

    Attributes:
        is_deferred: whether the handler only stores that SIGTERM has arrived, because an
            ``atexit`` hook is delivering.  The hook then calls :meth:`die_if_told`.
    """

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._deliver = deliver
        self._is_wanted = False
        self._masks: dict[int, set[signal.Signals]] = {}  # the signal mask of each forking thread
        self._watch = Watch(self)
        self._reset()

    def _reset(self) -> None:
        self.is_deferred = False
        self._is_told = False
        self._is_done = False
        self._starting = native.Lock()  # never released, so that only one delivery starts

    @property
    def is_in_place(self) -> bool:
        """Whether this object is SIGTERM's current handler."""
        return signal.getsignal(signal.SIGTERM) == self.handle

    def install(self) -> None:
        """Install the handler, unless the application handles SIGTERM.

        Outside the main thread, the handler is not installed, because Python does not allow this.
        If uvicorn handles SIGTERM, the handler is installed after uvicorn has ended.
        """
        self._is_wanted = True
        if "uvicorn.server" in sys.modules:
            from fapilog.process import uvicorn  # noqa: PLC0415 - most programs do not need it

            uvicorn.before_signals_are_raised_again(self.resume)
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self.handle)
                self._watch.install()
        except (ValueError, OSError) as error:
            announce("sigterm", f"cannot install a handler for SIGTERM: {error}")

    def resume(self) -> None:
        """Install the handler after a server has restored the default action of SIGTERM."""
        if self._is_wanted:
            self.install()

    def restore(self) -> None:
        """Remove the handler if it is still installed.  Does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread() and self.is_in_place:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Start the delivery, and end the process if the delivery takes less than a second."""
        self._is_told = True
        if self.is_deferred:
            return
        self.begin()
        self._wait(monotonic() + _PATIENCE)
        if self._is_done:
            self._die()

    def die_if_told(self, deadline: float) -> None:
        """If SIGTERM has arrived, end the process.

        If a delivery has been started, wait for it first, until ``deadline`` at the latest.
        """
        if self._is_told:
            if self._starting.locked():
                self._wait(deadline)
            self._die()

    def _wait(self, deadline: float) -> None:
        while not self._is_done and monotonic() < deadline:
            native.pause(_POLL)

    def begin(self) -> None:
        """Start a thread that delivers the records, unless there is one already.  Thread-safe."""
        self._is_told = True
        if not self._starting.acquire(blocking=False):
            return
        try:
            native.start_thread(self._run, "fapilog-sigterm")
        except (RuntimeError, MemoryError):  # an exiting interpreter cannot start threads
            self._run()

    def _run(self) -> None:
        native.IN_WORKER.set(True)
        try:
            self._deliver()
        finally:
            self._is_done = True
            self._send_again()

    def _send_again(self) -> None:
        """Send SIGTERM again, so that the handler in the main thread ends the process."""
        for _ in range(_ATTEMPTS):
            os.kill(os.getpid(), signal.SIGTERM)
            native.sleep(_PAUSE)
            if not self.is_in_place:  # the application has installed its own handler
                return
        os._exit(128 + signal.SIGTERM)  # the main thread is blocked and cannot run the handler

    def _die(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)  # if this is PID 1 of a container, SIGTERM has no effect

    def before_fork(self) -> None:
        """Block SIGTERM during a fork, until :meth:`after_fork_in_child` has run in the child.

        Otherwise :meth:`after_fork_in_child` would discard a SIGTERM that has just arrived.
        """
        if self.is_in_place:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            self._masks[threading.get_ident()] = cast("set[signal.Signals]", mask)

    def after_fork_in_parent(self) -> None:
        """Restore the signal mask that :meth:`before_fork` changed for the calling thread."""
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_fork_in_child(self) -> None:
        """Discard the state of the parent process, and then restore the thread's signal mask."""
        self._reset()
        try:
            self._watch.after_fork()
        finally:
            self.after_fork_in_parent()


class Watch:
    """Starts the delivery of records when SIGTERM arrives in a child of ``multiprocessing``.

    If a signal arrives just before a blocking call, Python runs the handler only after the
    call returns.  ``multiprocessing.Pool`` sends SIGTERM to its processes just when they begin to
    wait for work, and then joins them.  So a process might wait for work forever, and the pool
    might wait forever for the process.

    Therefore a thread reads the file descriptor to which the interpreter writes signal numbers
    (``signal.set_wakeup_fd``).  If an event loop already uses ``set_wakeup_fd``, the thread is
    not started.

    Args:
        handler: the SIGTERM handler, which starts the delivery.
    """

    def __init__(self, handler: Sigterm) -> None:
        self._handler = handler
        self._is_registered = False
        self._writer: int | None = None

    def install(self) -> None:
        """Start a thread that waits for SIGTERM, in each child process of ``multiprocessing``.

        If this process is such a child, its thread is started now.  Later child processes of
        this process start their threads themselves.
        """
        self._register()
        parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
        # While a spawned child process imports its main module, parent_process() still returns
        # None, so the command line is checked too.
        is_spawned = "--multiprocessing-fork" in sys.orig_argv
        if is_spawned or (parent is not None and parent() is not None):
            self.start()

    def start(self) -> None:
        """Start a thread that waits for SIGTERM.  Must be called in the main thread.

        Does nothing if the application already uses ``signal.set_wakeup_fd``.
        """
        if self._writer is not None or os.name == "nt" or native.is_patched():
            return
        others = signal.set_wakeup_fd(-1)
        if others != -1:
            _give_back(others)
            return
        try:
            self._start()
        except (OSError, RuntimeError) as error:
            announce("signals", f"SIGTERM may be handled late: cannot watch for it: {error}")

    def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            reader, writer = os.pipe()
            undo.callback(os.close, reader)
            undo.callback(os.close, writer)
            os.set_blocking(writer, False)
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, -1)
            pipe = os.fstat(reader)
            native.start_thread(lambda: self._run(reader, pipe), "fapilog-signals")
            self._writer = writer
            undo.pop_all()

    def _run(self, reader: int, pipe: os.stat_result) -> None:
        with contextlib.suppress(OSError):  # the application may have closed the descriptor
            while os.path.samestat(os.fstat(reader), pipe):
                numbers = os.read(reader, 1024)
                if not numbers:
                    return
                if signal.SIGTERM in numbers and self._handler.is_in_place:
                    self._handler.begin()

    def after_fork(self) -> None:
        """Forget the thread and the pipe of the parent process in a forked child.

        The file descriptors of the pipe are not closed, because the application may have closed
        them, and may now use the same numbers for other files.
        """
        if self._writer is not None:
            others = signal.set_wakeup_fd(-1)
            if others != self._writer:
                _give_back(others)
            self._writer = None
        self._register()

    def _register(self) -> None:
        util = sys.modules.get("multiprocessing.util")
        register = getattr(util, "register_after_fork", None)
        if register is not None and not self._is_registered:
            register(self, Watch._begin_life)
            self._is_registered = True

    def _begin_life(self) -> None:
        if self._handler.is_in_place:
            self.start()


def _give_back(descriptor: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
