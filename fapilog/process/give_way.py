"""How fapilog's threads let the application run first."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005


_thread: Final = threading.local()


def set_busy(busy: bool) -> None:
    """Set whether this thread has more work than it can do; :func:`give_way` then returns at once.

    Under such a load each pause lasts until another thread has used its 5 ms, and
    the records that are not processed in time make the application wait.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Let other threads run during a longer piece of work.

    Only a real sleep does so at once.  A thread that waits for the interpreter
    asks for it every 5 ms (:func:`sys.getswitchinterval`), and I/O that the
    kernel completes at once ends before another thread has woken up.  Blocks
    for about a tenth of a millisecond, or until a running thread gives the
    interpreter back.
    """
    if not getattr(_thread, "is_busy", False):
        native.sleep(_PAUSE)
