"""How long a thread waits for the interpreter; used by the applications of the rows, and by others.

It imports nothing of the suite: the application runs against an installed fapilog too.
"""

from __future__ import annotations

import threading
import time


class Stalls(threading.Thread):
    """Sleeps a millisecond at a time, and notes by how much it came back late.

    What it waits for then is the interpreter, which another thread keeps.  The
    time that it waited for a processor is not counted where the kernel tells
    it (Linux): on a busy machine every thread waits for one now and then.

    Attributes:
        longest: seconds.
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
        """Return the seconds that this thread has ever waited for a processor."""
        try:
            with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except OSError:
            return 0.0
