"""Daemon threads that sleep until they are woken, for the pipeline and for every sink.

The first wake-up starts a thread, so a process may fork before it logs (gunicorn
preload).  A wake-up never waits for a lock, because signal handlers and finalisers
log too, and they may interrupt code that holds one.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, Final

from fapilog import context, native
from fapilog.diagnostics import announce, kind_of
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two checks for ended threads.
_POLL: Final = 0.001
#: Seconds until a failed loop runs again.
_PAUSE: Final = 0.05


class Worker:
    """Runs ``loop`` on one or several threads.

    Args:
        name: the threads' name.
        loop: the function that each thread runs.  It calls :meth:`sleep` when it
            has no work, and returns only to end the worker.  If it raises (for
            example MemoryError), it is called again.
        width: the maximum number of threads; :meth:`wake` starts the first,
            :meth:`widen` starts the others.
        finish: the function that is called once, after every loop has returned.

    Attributes:
        idle: True while the loop waits for a wake-up without a time limit, and
            before a thread exists.  Code that has added work calls :meth:`wake`
            if ``idle`` is True.
        threads: the number of threads that start or run, including the caller of
            :meth:`run_inline`.
        ended: True once every loop has returned; the worker never runs again.
    """

    def __init__(
        self,
        name: str,
        loop: Callable[[], None],
        *,
        width: int = 1,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._loop = loop
        self._width = width
        self._finish = finish
        self.ended = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's threads in a forked child."""
        self.idle = not self.ended
        self.threads = 0
        self._bell: native.SimpleQueue[None] = native.SimpleQueue()  # its put() is re-entrant
        self._idents: set[int] = set()
        self._has_returned = False
        self._counting = native.Lock()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on one of this worker's threads."""
        return native.get_ident() in self._idents

    @property
    def is_alive(self) -> bool:
        """Whether a thread exists that has not ended."""
        return self.threads > 0

    def wake(self) -> bool:
        """Wake the loop, and start a thread if there is none.

        Thread-safe, re-entrant, does not block.

        Returns:
            False if the interpreter refuses a new thread, or the worker has
            ended.
        """
        if self.ended:
            return False
        self.idle = False
        if not self.has_thread():
            self.idle = True
            return False
        try:
            self._bell.put(None)
        except MemoryError:
            self.idle = True  # otherwise later records would not wake the loop
            return False
        return True

    def has_thread(self) -> bool:
        """Start a thread if there is none; return False if the interpreter refuses it."""
        return self.threads > 0 or self._start(1)

    def widen(self) -> None:
        """Start another thread unless there are ``width`` threads.  Thread-safe."""
        if self.threads < self._width:
            self._start(self._width)

    def sleep(self, seconds: float | None) -> None:
        """Wait for a wake-up; only one of the worker's threads may call this at a time."""
        try:
            self._bell.get(timeout=seconds)
            while True:  # several calls of wake() count as one
                self._bell.get_nowait()
        except native.Empty:
            return

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the other threads to end; return True if all have ended."""
        deadline = monotonic() + seconds
        own = int(self.is_current)
        while self.threads > own and monotonic() < deadline:
            native.pause(_POLL)
        return self.threads <= own

    def _start(self, most: int) -> bool:
        """Start a thread unless there are ``most``; return False if the interpreter refuses it."""
        if not self._enter(most):
            return not self.ended
        try:
            native.start_thread(partial(self._run, self._persist), self._name)
        except (RuntimeError, MemoryError) as error:
            self._leave(has_run=False)
            # From Python 3.12 on, an ending interpreter refuses threads; shutdown() delivers then.
            if "interpreter shutdown" not in str(error):
                rest = "another thread works" if self.threads else "records wait for shutdown()"
                announce("thread", f"cannot start a thread for {self._name}: {error}; {rest}")
            return False
        return True

    def run_inline(self) -> None:
        """Run the loop on the calling thread, if no thread can be started.

        Does nothing while a thread or another call runs the loop, or after the worker has ended.
        """
        if self._enter(1):
            contextvars.copy_context().run(self._run, self._loop)

    def _persist(self) -> None:
        """Run the loop until it returns."""
        while True:
            try:
                return self._loop()
            except BaseException as error:  # noqa: BLE001 - no other thread would do the work
                message = f"{self._name} failed: {kind_of(error)}; it runs again"
                announce(f"loop {self._name}", message)
            native.sleep(_PAUSE)

    def _run(self, loop: Callable[[], None]) -> None:
        ident = native.get_ident()
        self._idents.add(ident)
        native.IN_WORKER.set(True)  # in this thread's context, or in a copy made for the loop
        with context.suppressed():
            try:
                loop()
            finally:
                self._leave(has_run=True)
                self._idents.discard(ident)

    def _enter(self, most: int) -> bool:
        """Count a thread before it starts, unless there are ``most`` or the worker has ended."""
        if not self._counting.acquire(blocking=False):
            return False  # another caller, or code that a handler interrupted, starts a thread
        try:
            is_allowed = self.threads < most and not self.ended
            self.threads += is_allowed
            return is_allowed
        finally:
            self._counting.release()

    def _leave(self, *, has_run: bool) -> None:
        """Stop counting a thread; the last one ends the worker if a loop has returned."""
        with self._counting:
            self._has_returned |= has_run
            if self.threads > 1 or not self._has_returned:
                self.threads -= 1
                return
            self.ended = True
            self.idle = False
        try:
            self._finish()
        finally:
            self.threads = 0
