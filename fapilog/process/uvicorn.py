"""Installs fapilog's SIGTERM handler in a process in which uvicorn handles this signal.

uvicorn installs its own handler, often before it imports the application.  When uvicorn
ends, it restores the previous handler and raises all captured signals again
(``Server.capture_signals``, since uvicorn 0.29).  If the previous handler is the default
action, the process then ends without running ``atexit`` hooks.  So this module installs
fapilog's handler after uvicorn has restored the previous handler, and before uvicorn raises the
signals.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def before_signals_are_raised_again(install: Callable[[], None]) -> None:
    """Make uvicorn call ``install()`` after it has restored the previous signal handlers.

    uvicorn calls ``install`` in the main thread, and only if a signal has ended the server.
    Does nothing if uvicorn is not handling SIGTERM.  The module ``uvicorn.server`` must already
    be imported.  Thread-safe.  Does not block.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, sys.modules["uvicorn.server"].Server):
        return
    noted = getattr(server, "_captured_signals", None)
    if type(noted) is list:
        server._captured_signals = _Noted(noted, install)  # noqa: SLF001 - uvicorn has no hook


class _Noted(list[int]):
    """The list of signals that uvicorn has captured.

    uvicorn iterates over ``reversed()`` of this list to raise the signals again, so
    ``__reversed__`` first calls ``install``.
    """

    def __init__(self, noted: list[int], install: Callable[[], None]) -> None:
        super().__init__(noted)
        self._install = install

    def __reversed__(self) -> Iterator[int]:
        if self:
            self._install()
        return super().__reversed__()
