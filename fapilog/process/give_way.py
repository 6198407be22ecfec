"""Sharing the interpreter: how fapilog's threads keep out of the application's way."""

from __future__ import annotations

import threading
from typing import Final

from fapilog import native

_PAUSE: Final = 0.00005


class _Thread(threading.local):
    """What the running thread does about others that wait."""

    is_busy = False


_thread: Final = _Thread()


def set_busy(busy: bool) -> None:
    """Say whether this thread has more work than it gets done, so that :func:`give_way` returns.

    Under such a load a pause lasts until whoever runs meanwhile has had its
    5 ms, and what does not get done in the end makes the application wait.
    """
    _thread.is_busy = busy


def give_way() -> None:
    """Let the application have the interpreter, in the midst of a thread's longer work.

    A real sleep, because nothing else does so at once: a thread that waits for
    the interpreter asks for it every 5 ms (:func:`sys.getswitchinterval`), and
    I/O that the kernel completes at once has it back before another thread
    has woken up.  Blocks for about a tenth of a millisecond; where other
    threads are running, until one of them gives way or is asked to.
    """
    if not _thread.is_busy:
        native.sleep(_PAUSE)
