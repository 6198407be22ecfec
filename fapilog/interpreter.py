"""Sharing the interpreter: how fapilog's threads keep out of the application's way."""

from __future__ import annotations

import time
from typing import Final

_PAUSE: Final = 0.00005


def give_way() -> None:
    """Let the application have the interpreter, in the midst of a thread's longer work.

    A real sleep, because nothing else does so at once: a thread that waits for
    the interpreter asks for it every 5 ms (:func:`sys.getswitchinterval`), and
    I/O that the kernel completes at once has it back before another thread
    has woken up.  Blocks for a twentieth of a millisecond, and until nobody
    else is running.
    """
    time.sleep(_PAUSE)
