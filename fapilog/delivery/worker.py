"""Daemon threads that sleep until they are woken; the pipeline and every sink have some.

They are started by the first wake-up, not at configuration, so a process that
forks before it logs (gunicorn preload) needs no care.  Waking takes no lock
that a signal handler could find held: the bell is a ``SimpleQueue``, whose
``put`` is re-entrant.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from fapilog import context
from fapilog.clock import monotonic
from fapilog.diagnostics import announce, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks at a thread that is being started.
_POLL: Final = 0.001
#: Seconds until a loop that failed is run again.
_PAUSE: Final = 0.05


class Worker:
    """Runs ``loop`` on a thread of its own, or on several.

    Args:
        name: the threads' name.
        loop: what each thread runs; it calls :meth:`sleep` when it has nothing
            to do and returns only to end the thread.  Where it raises, for
            want of memory, it is called again.
        width: threads at most; the first is started by :meth:`wake`, others by
            :meth:`widen`.
        finish: called once when every loop has returned, :attr:`ended` is
            True and none will begin.

    Attributes:
        idle: True while the loop waits for a wake-up without a time limit,
            and before a thread exists.  Whoever adds work reads it after
            adding and calls :meth:`wake` when it is set.
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
        self._finishing = deque([finish])  # whoever takes it out calls it
        self.ended = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's threads and bell."""
        self.idle = not self.ended
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._starter = 0  # the thread that holds it
        self._is_inline = False
        self._running = 0
        self._has_returned = False
        self._counting = threading.RLock()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on one of this worker's threads."""
        return threading.current_thread() in self._threads

    @property
    def is_alive(self) -> bool:
        """Whether a thread exists that has not ended."""
        return any(thread.is_alive() for thread in self._threads)

    def wake(self) -> bool:
        """Wake the loop, starting a thread when there is none.

        Thread-safe, re-entrant, does not block.

        Returns:
            False when the interpreter refuses a new thread, or the loop has
            ended.
        """
        if self.ended:
            return False
        self.idle = False
        if not self._threads and not self._start():
            self.idle = True
            return False
        try:
            self._bell.put(None)
        except MemoryError:
            self.idle = True  # or nobody would wake it again
            return False
        return True

    @property
    def threads(self) -> int:
        """How many have been started."""
        return len(self._threads)

    def widen(self) -> None:
        """Start another thread if there may be one; by the threads and whoever adds work."""
        if self._is_inline or len(self._threads) >= self._width:
            return
        with self._starting:
            if len(self._threads) < self._width:
                self._launch()

    def sleep(self, seconds: float | None) -> None:
        """Wait for a wake-up; by one of the worker's threads at a time."""
        try:
            self._bell.get(timeout=seconds)
            while True:  # many calls of wake() are one wake-up
                self._bell.get_nowait()
        except queue.Empty:
            return

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for all threads to end; True when they have, or never ran."""
        deadline = monotonic() + seconds
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                self._join(thread, deadline)
        return not self.is_alive

    def _join(self, thread: threading.Thread, deadline: float) -> None:
        while not self._has_joined(thread, deadline) and monotonic() < deadline:
            # It is just being started: by the frame that a signal handler has
            # interrupted, which cannot go on, or by another thread.
            if self._starter == threading.get_ident():
                return
            time.sleep(_POLL)

    def _has_joined(self, thread: threading.Thread, deadline: float) -> bool:
        try:
            thread.join(max(deadline - monotonic(), 0.0))
        except RuntimeError:  # not yet
            return False
        return True

    def _start(self) -> bool:
        if not self._starting.acquire(blocking=False):
            return True  # another caller is at it, perhaps the one this handler interrupted
        try:
            return self._launch()
        finally:
            self._starting.release()

    def _launch(self) -> bool:
        """Start a thread; False when there is none to be had.  Holds ``_starting``."""
        if not self._enter():
            return False
        self._starter = threading.get_ident()
        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(
                target=self._run, args=(self._persist,), name=self._name, daemon=True
            )
            # Known before it runs: the loop may ask whether it is on this thread.
            self._threads.append(thread)
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if thread in self._threads:
                self._threads.remove(thread)
            self._leave(has_run=False)
            # From Python 3.12 on an ending interpreter refuses; shutdown() is about to come.
            if "interpreter shutdown" not in str(error):
                rest = "there is another one" if self._threads else "records wait for shutdown()"
                announce("thread", f"no thread for {self._name}: {error}; {rest}")
            return False
        return True

    def run_inline(self) -> None:
        """Run the loop on the calling thread, where no thread is to be had.

        Does nothing where another call of it is at work, be it in the frame
        that a signal handler has interrupted, or once the worker has ended.
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
            time.sleep(_PAUSE)

    def _returns(self) -> bool:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - there is no other thread to go on
            announce(f"loop {self._name}", f"{self._name}: {kind_of(error)}; it goes on")
            return False
        return True

    def _run(self, loop: Callable[[], None]) -> None:
        with context.suppressed():
            try:
                loop()
            finally:
                self._leave(has_run=True)

    def _enter(self) -> bool:
        """Count one more loop, unless the worker has ended."""
        with self._counting:
            self._running += not self.ended
            return not self.ended

    def _leave(self, *, has_run: bool) -> None:
        """Count one loop less; the last one ends the worker."""
        with self._counting:
            self._running -= 1
            self._has_returned |= has_run
            if self._running or not self._has_returned:
                return
            self.ended = True
            self.idle = False
        try:
            finish = self._finishing.pop()
        except IndexError:  # a signal handler came between, and ran the loop to its end as well
            return
        finish()
