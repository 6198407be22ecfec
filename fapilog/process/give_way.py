"""Pauses of fapilog's threads, which let the application's threads run first."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005

_thread: Final = threading.local()


def set_busy(busy: bool) -> None:
    """Turn off the pauses of :func:`give_way` on this thread, or turn them on again.

    While other threads are busy, each pause lasts up to 5 ms, so a thread that pauses after
    every batch could not keep up with new records.

    Args:
        busy: whether so much work is waiting that this thread must not pause.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Pause this thread, so that other threads can run during a longer piece of work.

    Blocks for about a tenth of a millisecond, or until the thread that runs next releases the
    interpreter lock.  Without this call, another thread would wait 5 ms
    (:func:`sys.getswitchinterval`) for the interpreter lock, even if this thread does short
    I/O.
    """
    if not getattr(_thread, "is_busy", False):
        native.sleep(_PAUSE)
