"""Sees to it that a signal's handler runs in children of ``multiprocessing``.

Python runs a handler between two of its own steps.  A signal that comes after
the last step before a blocking call therefore waits for that call to return,
which may be never.  ``Pool`` ends its processes by SIGTERM just when they are
about to wait for work, and waits for them: every program with a Python handler
for SIGTERM would hang now and then.  A second signal ends the blocking call.

Elsewhere nothing makes the two coincide, and the one wake-up descriptor of a
process is left to event loops.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from fapilog.diagnostics import announce

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds a handler is given to begin before the signal is repeated.
_PATIENCE: Final = 0.05
_MAX_PATIENCE: Final = 1.0


class SignalWatch:
    """Repeats one signal until its handler runs.  Does nothing on Windows.

    Args:
        number: of the signal.
        handler: what handles it; it calls :meth:`begun` first.  While another
            handler is in its place nothing is repeated.
    """

    def __init__(self, number: signal.Signals, handler: Callable[..., Any]) -> None:
        self._number = number
        self._handler = handler
        self._is_registered = False
        self._descriptors: tuple[int, ...] = ()
        self._has_begun = False

    def install(self) -> None:
        """Watch this process if it is a child of ``multiprocessing``, and those it will start.

        For the main thread.
        """
        self._register()
        process: Any = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            self.start()

    def start(self) -> None:
        """Watch this process, unless an event loop watches its signals.

        For the main thread; further calls do nothing.
        """
        if self._descriptors or not hasattr(signal, "pthread_kill"):
            return
        try:
            reader, writer = self._descriptors = os.pipe()
            os.set_blocking(writer, False)
            others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            if others == -1:
                threading.Thread(
                    target=self._run, args=(reader,), name="fapilog-signals", daemon=True
                ).start()
            else:
                self._stop(others)
        except (OSError, RuntimeError) as error:  # no descriptor, no thread
            self._stop(-1)
            announce("signals", f"{self._number.name} may be handled late: {error}")

    def begun(self) -> None:
        """Note that the handler runs."""
        self._has_begun = True

    def after_fork(self) -> None:
        """Leave the parent's signals to the parent."""
        self._has_begun = False
        if self._descriptors:
            self._stop(-1)
        self._register()

    def _register(self) -> None:
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None and not self._is_registered:
            self._is_registered = True  # and so it is in children
            util.register_after_fork(self, SignalWatch._begin_life)

    def _begin_life(self) -> None:
        """In a child of ``multiprocessing``, before anything of the application's runs."""
        if signal.getsignal(self._number) is self._handler:
            signal.set_wakeup_fd(-1)  # that of a loop which runs in the parent
            self.start()

    def _stop(self, others: int) -> None:
        signal.set_wakeup_fd(others)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = ()

    def _run(self, reader: int) -> None:
        while not self._has_begun and (numbers := os.read(reader, 1024)):
            if self._number in numbers:
                self._insist()

    def _insist(self) -> None:
        main = threading.main_thread().ident or 0
        patience = _PATIENCE
        while True:
            time.sleep(patience)
            if self._has_begun or signal.getsignal(self._number) is not self._handler:
                return
            signal.pthread_kill(main, self._number)
            patience = min(2 * patience, _MAX_PATIENCE)
