"""Handles Ctrl-C while a command loads its modules, and defines the exit codes."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Exit code when an option or a variable is wrong; typer uses it for wrong arguments.
WRONG_USAGE: Final = 2
#: Exit code after Ctrl-C: 128 + SIGINT, as in shells.
INTERRUPTED: Final = 130


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End the process immediately on Ctrl-C inside the block, which only loads modules.

    A KeyboardInterrupt is not enough, because some modules turn it into another error.
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
