"""The end of a process: interpreter exit and SIGTERM, each with one deadline.

Runtimes register here while they are open.  Delivery begins as soon as the
interpreter begins to shut down, while most versions can still start threads.  It
ends in an ``atexit`` hook, after the application's own threads have been
joined; the hook itself delivers the records for which no thread can be started.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
from typing import TYPE_CHECKING, Final, Protocol

from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.process.sigterm import Sigterm

if TYPE_CHECKING:
    from collections.abc import Callable

#: The exit timeout in seconds if no open runtime defines one.
_PATIENCE: Final = 5.0
#: Seconds reserved for closing after a delivery has used its whole time.
_LAST: Final = 0.1


class Closable(Protocol):
    """The part of a runtime that this module uses."""

    @property
    def exit_timeout(self) -> float:
        """The seconds that the runtime may take when the process ends."""

    def prepare_exit(self) -> None:
        """Start the threads that the end will need."""

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver the accepted records; return True if all were delivered in time."""

    def shutdown(self, timeout: float | None = None) -> None:
        """Deliver the accepted records and shut down."""


# Strong references: a runtime that only loggers still use must be drained too.
_open: Final[set[Closable]] = set()
_others: Final[list[Callable[[float], None]]] = []
_spent = 0.0  # seconds of the exit timeout that _begin() has used


def register(runtime: Closable, *, handle_sigterm: bool) -> None:
    """Drain ``runtime`` at the end of the process.  Thread-safe."""
    _open.add(runtime)
    if handle_sigterm:
        sigterm.install()


def unregister(runtime: Closable) -> None:
    """Forget a closed runtime; after the last one, restore SIGTERM's default action."""
    _open.discard(runtime)
    if not _open and not _others:
        sigterm.restore()


def open_runtimes() -> list[Closable]:
    """Return the runtimes that are not shut down."""
    return list(_open)


def on_sigterm(deliver: Callable[[float], None]) -> None:
    """Call ``deliver(seconds)`` when SIGTERM ends the process without ``atexit`` hooks.

    For providers that are not runtimes and use exit hooks for every other end.

    Args:
        deliver: the function, called before the runtimes are drained, with half
            of the remaining time; it must not raise.
    """
    _others.append(deliver)
    sigterm.install()


def _timeout() -> float:
    return max((runtime.exit_timeout for runtime in open_runtimes()), default=_PATIENCE)


def _deliver(deadline: float) -> None:
    for runtime in open_runtimes():
        runtime.prepare_exit()
        runtime.flush(max(deadline - monotonic(), 0.0))


def _deliver_and_close() -> None:
    """Deliver everything after SIGTERM."""
    deadline = monotonic() + _timeout()
    for deliver in tuple(_others):
        deliver(max(deadline - monotonic(), 0.0) / 2)
    _deliver(deadline - _LAST)  # the application may still log
    for runtime in open_runtimes():
        runtime.shutdown(max(deadline - monotonic(), 0.0))


def _begin() -> None:
    """Deliver, if threads can be started; Python 3.12.0 and 3.12.1 refuse to start them here."""
    global _spent  # noqa: PLW0603 - _finish() may use the remaining time
    began = monotonic()
    try:
        _deliver(began + _timeout())
    except KeyboardInterrupt:
        began = -math.inf  # the user does not want to wait, so no time remains
    _spent = monotonic() - began


def _finish() -> None:
    """Deliver the records logged after _begin() and close; a SIGTERM keeps the deadline."""
    deadline = monotonic() + max(_timeout() - _spent, _LAST)
    sigterm.is_deferred = True
    try:
        for runtime in open_runtimes():
            try:
                runtime.shutdown(max(deadline - monotonic(), 0.0))
            except KeyboardInterrupt:  # noqa: PERF203 - every runtime must be closed
                deadline = monotonic()
                runtime.shutdown(0.0)
    finally:
        sigterm.is_deferred = False
    sigterm.die_if_told(deadline)


sigterm: Final = Sigterm(_deliver_and_close)
fork.register(
    "sigterm",
    before=sigterm.before_fork,
    in_parent=sigterm.after_fork_in_parent,
    in_child=sigterm.after_fork_in_child,
)

# Registered on import, so that hooks that an application registers later run before
# _finish and may still log.  The private hook of threading, which concurrent.futures
# also uses, runs before the interpreter refuses new threads.  Without that hook,
# _finish delivers everything.
atexit.register(_finish)
if hasattr(threading, "_register_atexit"):
    with contextlib.suppress(RuntimeError):  # imported while the interpreter shuts down
        threading._register_atexit(_begin)  # noqa: SLF001
