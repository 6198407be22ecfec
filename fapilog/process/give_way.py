"""How fapilog's threads let the application run first."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005


_thread: Final = threading.local()


def set_busy(busy: bool) -> None:
    """Set whether this thread has too much work; if so, :func:`give_way` does not pause.

    Under such a load, each pause would last until another thread has used its 5 ms,
    and the application would wait for the records that pile up.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Let other threads run during a longer piece of work.

    Only a real sleep releases the interpreter at once.  A waiting thread asks for
    the interpreter every 5 ms (:func:`sys.getswitchinterval`), and I/O that the
    kernel completes at once ends before another thread has woken up.  Blocks
    for about a tenth of a millisecond, or until a running thread releases the
    interpreter.
    """
    if not getattr(_thread, "is_busy", False):
        native.sleep(_PAUSE)
