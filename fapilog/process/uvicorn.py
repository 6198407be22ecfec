"""SIGTERM under uvicorn, which handles the signal itself while it serves.

uvicorn installs its own handler, often before it imports the application.  At its
end it restores the previous handler and raises the signals that it has noted
again (``Server.capture_signals``, since uvicorn 0.29).  If the previous handler
is the default action, the process then dies without exit hooks.  This module
puts fapilog's handler in place between these two steps.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def before_signals_are_raised_again(install: Callable[[], None]) -> None:
    """Call ``install()`` when the uvicorn that handles SIGTERM now has restored the handlers.

    Needs the module ``uvicorn.server``.  Does nothing if no uvicorn handles SIGTERM.
    ``install`` is called in the main thread, and only if a signal has ended the server.
    Thread-safe; does not block.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, sys.modules["uvicorn.server"].Server):
        return
    noted = getattr(server, "_captured_signals", None)
    if type(noted) is list:
        server._captured_signals = _Noted(noted, install)  # noqa: SLF001 - uvicorn has no hook


class _Noted(list[int]):
    """The signals that uvicorn has noted; it reads them in reverse, to raise them again."""

    def __init__(self, noted: list[int], install: Callable[[], None]) -> None:
        super().__init__(noted)
        self._install = install

    def __reversed__(self) -> Iterator[int]:
        if self:
            self._install()
        return super().__reversed__()
