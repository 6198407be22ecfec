"""SIGTERM under uvicorn, which handles the signal itself while it serves.

uvicorn installs its own handler, often before it imports the application.  When uvicorn
ends, it restores the previous handler and raises all captured signals again
(``Server.capture_signals``, since uvicorn 0.29).  If the previous handler is the default
action, the process then ends without exit hooks.  So this module installs fapilog's handler
after uvicorn has restored the previous handler, and before it raises the signals.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def before_signals_are_raised_again(install: Callable[[], None]) -> None:
    """Make uvicorn call ``install()`` after it has restored the previous signal handlers.

    ``install`` is called in the main thread, and only if a signal has ended the server.
    Does nothing if uvicorn does not handle SIGTERM now.  The module ``uvicorn.server`` must
    be loaded.  Thread-safe.  Does not block.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, sys.modules["uvicorn.server"].Server):
        return
    noted = getattr(server, "_captured_signals", None)
    if type(noted) is list:
        server._captured_signals = _Noted(noted, install)  # noqa: SLF001 - uvicorn has no hook


class _Noted(list[int]):
    """The signals that uvicorn has captured.  Calls ``install`` before they are raised again.

    To raise the signals, uvicorn iterates over ``reversed()`` of this list.
    """

    def __init__(self, noted: list[int], install: Callable[[], None]) -> None:
        super().__init__(noted)
        self._install = install

    def __reversed__(self) -> Iterator[int]:
        if self:
            self._install()
        return super().__reversed__()
