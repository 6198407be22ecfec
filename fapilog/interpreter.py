"""Sharing the interpreter: how fapilog's threads keep out of the application's way."""

from __future__ import annotations

import threading
import time
from typing import Final

_PAUSE: Final = 0.00005


class _Thread(threading.local):
    """What the running thread does about others that wait."""

    keeps_on = False


_thread: Final = _Thread()


def keep_on(busy: bool) -> None:
    """Say whether this thread has more work than it can do, so that :func:`give_way` does nothing.

    Under such a load each pause lasts until the application's own 5 ms are
    over, and what the thread does not get done makes the application wait.
    """
    _thread.keeps_on = busy


def give_way() -> None:
    """Let the application have the interpreter, in the midst of a thread's longer work.

    A real sleep, because nothing else does so at once: a thread that waits for
    the interpreter asks for it every 5 ms (:func:`sys.getswitchinterval`), and
    I/O that the kernel completes at once has it back before another thread
    has woken up.  Blocks for a twentieth of a millisecond, and until nobody
    else is running.
    """
    if not _thread.keeps_on:
        time.sleep(_PAUSE)
