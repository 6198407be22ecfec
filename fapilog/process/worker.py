"""Daemon threads that sleep until they are woken, for the pipeline and for every sink.

The first call of :meth:`Worker.wake` starts a thread.  So a process that forks before it logs
has no thread at the fork (for example gunicorn with ``preload_app``).  ``wake()`` never waits for
a lock, because signal handlers and finalisers also log, and they may interrupt code that holds
the lock.
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

#: While ``Worker.join()`` waits, it checks at this interval, in seconds, whether the threads have
#: ended.
_POLL: Final = 0.001
#: Seconds to wait before a worker's ``loop`` is called again after an exception.
_PAUSE: Final = 0.05


class Worker:
    """Runs the function ``loop`` on one or several threads.

    Args:
        name: the name of the threads.
        loop: the function that each thread runs.  The function calls :meth:`sleep` when there
            is no work, and returns only to end the worker.  If it raises (for example
            MemoryError), it is called again.
        width: the maximum number of threads.  :meth:`wake` starts the first thread, and
            :meth:`widen` starts further threads.
        finish: a function that is called once, after every thread's ``loop`` has returned.

    Attributes:
        idle: True while there is no thread, and while ``loop`` sleeps and must be woken when
            work arrives.  ``loop`` sets this attribute.  A caller that has added work must call
            :meth:`wake` if ``idle`` is True.
        threads: the number of threads that are starting or running, including the caller of
            :meth:`run_inline`.
        ended: True after every thread's ``loop`` has returned; the worker cannot be started
            again.
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
        """Whether the current thread is one of this worker's threads."""
        return native.get_ident() in self._idents

    @property
    def is_alive(self) -> bool:
        """Whether at least one thread has not ended."""
        return self.threads > 0

    def wake(self) -> bool:
        """Wake the thread that sleeps in :meth:`sleep`.  If there is no thread, start a thread.

        Thread-safe and re-entrant.  Does not block.

        Returns:
            False if a thread cannot be started, or the worker has ended.
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
            self.idle = True  # so that the caller calls wake() again after adding more work
            return False
        return True

    def has_thread(self) -> bool:
        """Start a thread if none is running.  Return False if no thread can be started."""
        return self.threads > 0 or self._start(1)

    def widen(self) -> None:
        """Start another thread, unless ``width`` threads are already running.  Thread-safe."""
        if self.threads < self._width:
            self._start(self._width)

    def sleep(self, seconds: float | None) -> None:
        """Wait for a wake-up, at most ``seconds``, or without a limit if ``seconds`` is None.

        Only one of the worker's threads may call this method at a time.
        """
        try:
            self._bell.get(timeout=seconds)
            while True:  # discard the other wake-ups in the queue
                self._bell.get_nowait()
        except native.Empty:
            return

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` until the worker's threads, except the caller's, have ended.

        Return False if some of these threads are still running.
        """
        deadline = monotonic() + seconds
        own = int(self.is_current)
        while self.threads > own and monotonic() < deadline:
            native.pause(_POLL)
        return self.threads <= own

    def _start(self, most: int) -> bool:
        """Start a thread, unless ``most`` threads are already running.

        Return False if the thread cannot be started, or if the worker has ended.
        """
        if not self._enter(most):
            return not self.ended
        try:
            native.start_thread(partial(self._run, self._persist), self._name)
        except (RuntimeError, MemoryError) as error:
            self._leave(has_run=False)
            # From Python 3.12 on, an exiting interpreter refuses to start threads.  No message is
            # written about this error, because shutdown() delivers the records without a thread.
            if "interpreter shutdown" not in str(error):
                rest = "another thread works" if self.threads else "records wait for shutdown()"
                announce("thread", f"cannot start a thread for {self._name}: {error}; {rest}")
            return False
        return True

    def run_inline(self) -> None:
        """Run the loop on the calling thread, because no thread can be started.

        Does nothing if another thread is running the loop, or if the worker has ended.
        """
        if self._enter(1):
            contextvars.copy_context().run(self._run, self._loop)

    def _persist(self) -> None:
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
        native.IN_WORKER.set(True)  # run_inline() copies the context, so its caller is unaffected
        with context.suppressed():
            try:
                loop()
            finally:
                self._leave(has_run=True)
                self._idents.discard(ident)

    def _enter(self, most: int) -> bool:
        """Add 1 to ``threads`` for a thread that is about to start.

        Return False if ``most`` threads are already running, or if the worker has ended.
        """
        if not self._counting.acquire(blocking=False):
            # Another thread holds the lock, or this is a signal handler that has interrupted code
            # that holds the lock.  So this method must not wait for the lock.
            return False
        try:
            is_allowed = self.threads < most and not self.ended
            self.threads += is_allowed
            return is_allowed
        finally:
            self._counting.release()

    def _leave(self, *, has_run: bool) -> None:
        """Subtract 1 from ``threads``.  When the last thread has ended, call ``finish``.

        ``has_run`` is False if the thread could not be started.
        """
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
