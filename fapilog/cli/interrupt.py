"""Handles Ctrl-C while a command imports modules, and defines the exit codes."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The exit code for a wrong option or environment variable, as in typer.
WRONG_USAGE: Final = 2
#: The exit code after Ctrl-C: 128 plus the number of SIGINT, as in shells.
INTERRUPTED: Final = 130


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End the process immediately if the user presses Ctrl-C inside the block.

    The block must only import modules, because the process ends without any cleanup.
    KeyboardInterrupt would not be sufficient: some modules catch it while they are imported, and
    raise a different error.  This function does nothing in a thread other than the main thread,
    or if the process has set a handler for SIGINT.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
