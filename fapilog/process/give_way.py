"""How fapilog's threads let the application run first."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005

_thread: Final = threading.local()


def set_busy(busy: bool) -> None:
    """Set whether :func:`give_way` does nothing on this thread, because much work waits.

    While other threads are busy, each pause lasts up to 5 ms, so a thread that pauses
    after every batch would fall behind.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Let other threads run during a longer piece of work.

    Blocks for about a tenth of a millisecond, or until a running thread releases the
    interpreter.  Without this call, another thread would wait for the interpreter for
    5 ms (:func:`sys.getswitchinterval`), even if this thread does short I/O.
    """
    if not getattr(_thread, "is_busy", False):
        native.sleep(_PAUSE)
