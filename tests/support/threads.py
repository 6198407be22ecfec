"""Runs threads that are switched as often as possible, to find races."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def run_at_once(work: Callable[[], object], *, threads: int = 4) -> None:
    """Run ``work`` in several threads that are switched as often as the interpreter can.

    Raises:
        AssertionError: a thread did not finish.
    """
    ended: list[bool] = []

    def run() -> None:
        work()
        ended.append(True)

    running = [threading.Thread(target=run) for _ in range(threads)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(ended) == threads
