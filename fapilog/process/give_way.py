"""Short pauses of fapilog's threads, so that the application's threads run first."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005

_thread: Final = threading.local()


def set_busy(busy: bool) -> None:
    """Turn off the pauses of :func:`give_way` for the calling thread, or turn them on again.

    While other threads are busy, each pause lasts up to 5 ms, so a thread that pauses after
    every batch could not keep up with new records.

    Args:
        busy: True to turn the pauses off.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Pause the calling thread for a moment, so that other threads can run.

    Blocks for about a tenth of a millisecond, or until the thread that runs next releases the
    interpreter lock (GIL).  Without this call, another thread may have to wait 5 ms
    (:func:`sys.getswitchinterval`) for the lock.
    """
    if not getattr(_thread, "is_busy", False):
        native.sleep(_PAUSE)
