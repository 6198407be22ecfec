"""Handles Ctrl-C while a command loads its modules, and defines the exit codes."""

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
#: The exit code after Ctrl-C: 128 + SIGINT, as in shells.
INTERRUPTED: Final = 130


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End the process immediately if the user presses Ctrl-C inside the block.

    The block must only import modules.  A KeyboardInterrupt would not be enough, because
    some modules catch it during their import and raise another error.  Nothing changes if
    the process has its own handler for SIGINT, or outside of the main thread.
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
