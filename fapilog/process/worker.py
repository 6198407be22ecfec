"""Daemon threads that sleep until they are woken, for the pipeline and for every sink.

The first wake-up starts them, not the configuration, so a process may fork before
it logs (gunicorn preload).  Only the records of a dead process start one earlier.
A wake-up takes no lock that the interrupted code could hold: the bell is a
``SimpleQueue``, whose ``put`` is re-entrant.
"""

from __future__ import annotations

import contextvars
from collections import deque
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
        loop: the function of each thread.  It calls :meth:`sleep` when it has
            no work and returns only to end the thread.  If it raises (for
            example MemoryError), it is called again.
        width: the maximum number of threads; :meth:`wake` starts the first,
            :meth:`widen` starts the others.
        finish: the function that is called once, after every loop has returned.

    Attributes:
        idle: True while the loop waits for a wake-up without a time limit, and
            before a thread exists.  Code that has added work reads it
            and calls :meth:`wake` if it is True.
        ended: True once every loop has returned; the worker never runs again.
        threads: the number of threads that were started.
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
        self._finishing = deque([finish])  # the thread that pops the function calls it
        self.ended = False
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the parent's threads and bell in the child."""
        self.idle = not self.ended
        self._bell: native.SimpleQueue[None] = native.SimpleQueue()
        self.threads = 0
        self._alive = 0  # threads that have not ended
        self._idents: set[int] = set()
        self._starting = native.Lock()
        self._starter = 0  # the thread that is starting another one
        self._is_inline = False
        self._running = 0
        self._has_returned = False
        self._counting = native.RLock()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on one of this worker's threads."""
        return native.get_ident() in self._idents

    @property
    def is_alive(self) -> bool:
        """Whether a thread exists that has not ended."""
        return self._alive > 0

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
            self.idle = True  # otherwise later records would not wake it
            return False
        return True

    def has_thread(self) -> bool:
        """Start a thread if there is none; return False if the interpreter refuses it."""
        return self.threads > 0 or self._start()

    def widen(self) -> None:
        """Start another thread unless there are ``width`` threads.  Thread-safe."""
        if self._is_inline or self.threads >= self._width:
            return
        with self._starting:
            if self.threads < self._width:
                self._launch()

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
        while self._others and monotonic() < deadline:
            native.pause(_POLL)
        return not self._others

    @property
    def _others(self) -> int:
        """The number of threads, not counting the caller or a thread that it is starting."""
        return self._alive - self.is_current - (self._starter == native.get_ident())

    def _start(self) -> bool:
        if not self._starting.acquire(blocking=False):
            return True  # another caller, or the frame that a handler interrupted, is starting one
        try:
            return self._launch()
        finally:
            self._starting.release()

    def _launch(self) -> bool:
        """Start a thread; return False if that fails.  The caller holds ``_starting``."""
        if not self._enter():
            return False
        self._starter = native.get_ident()
        # Counted before the thread runs, because the loop may read the counts.
        self.threads += 1
        with self._counting:
            self._alive += 1
        try:
            native.start_thread(self._run_thread, self._name)
        except (RuntimeError, MemoryError) as error:
            self._starter = 0
            self.threads -= 1
            self._count_end()
            self._leave(has_run=False)
            # From Python 3.12 on, the ending interpreter refuses; shutdown() comes next.
            if "interpreter shutdown" not in str(error):
                rest = "another thread works" if self.threads else "records wait for shutdown()"
                announce("thread", f"cannot start a thread for {self._name}: {error}; {rest}")
            return False
        self._starter = 0
        return True

    def _run_thread(self) -> None:
        ident = native.get_ident()
        self._idents.add(ident)
        self._starter = 0
        try:
            self._run(self._persist)
        finally:
            self._idents.discard(ident)
            self._count_end()

    def _count_end(self) -> None:
        with self._counting:
            self._alive -= 1

    def run_inline(self) -> None:
        """Run the loop on the calling thread, if no thread can be started.

        Does nothing after the worker has ended, or while another call runs the
        loop, even one that the calling signal handler interrupted.
        """
        if self._starting.acquire(blocking=False):
            try:
                if self._enter():
                    self._is_inline = True
                    contextvars.copy_context().run(self._run, self._loop)
            finally:
                self._starting.release()

    def _persist(self) -> None:
        """Run the loop until it returns."""
        while not self._returns():
            native.sleep(_PAUSE)

    def _returns(self) -> bool:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - no other thread would do the work
            announce(f"loop {self._name}", f"{self._name} failed: {kind_of(error)}; it runs again")
            return False
        return True

    def _run(self, loop: Callable[[], None]) -> None:
        native.IN_WORKER.set(True)  # in this thread's context, or in a copy made for the loop
        with context.suppressed():
            try:
                loop()
            finally:
                self._leave(has_run=True)

    def _enter(self) -> bool:
        """Count a loop as running and return True, unless the worker has ended."""
        with self._counting:
            self._running += not self.ended
            return not self.ended

    def _leave(self, *, has_run: bool) -> None:
        """Count a loop as ended; the last loop ends the worker."""
        with self._counting:
            self._running -= 1
            self._has_returned |= has_run
            if self._running or not self._has_returned:
                return
            self.ended = True
            self.idle = False
        try:
            finish = self._finishing.pop()
        except IndexError:  # a signal handler has ended the worker in between
            return
        finish()
