"""Measures how long a thread waits for the interpreter, for the applications of rows and others.

It imports nothing of the suite, because the application also runs with an installed fapilog.
"""

from __future__ import annotations

import threading
import time


class Stalls(threading.Thread):
    """Sleeps for a millisecond at a time, and notes how late it woke up.

    The delay is the wait for the interpreter, which another thread holds.  On Linux
    the kernel reports the wait for a processor, which is left out, because on a busy
    machine every thread waits for a processor now and then.

    Attributes:
        longest: the longest delay in seconds.
    """

    def __init__(self) -> None:
        super().__init__(name="stalls", daemon=True)
        self.longest = 0.0

    def run(self) -> None:
        queued = self._queued()
        while True:
            began = time.monotonic()
            time.sleep(0.001)
            late = time.monotonic() - began - 0.001
            if late > 0.005:
                before, queued = queued, self._queued()
                self.longest = max(self.longest, late - (queued - before))
            else:
                queued = self._queued()

    @staticmethod
    def _queued() -> float:
        """Return the total seconds that this thread has waited for a processor."""
        try:
            with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except OSError:
            return 0.0
