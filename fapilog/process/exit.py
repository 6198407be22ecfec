"""The end of a process: interpreter exit, SIGTERM, and one deadline for both.

Runtimes register here while they are open.  Draining begins as soon as the
interpreter begins to shut down, when most versions still start threads, and
ends in an ``atexit`` hook, after the application's own threads have been
joined.  What has no thread by then is delivered by that hook itself.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, Protocol, cast

from fapilog.diagnostics import announce
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.process.signal_watch import SignalWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Closable(Protocol):
    """A runtime, seen from here."""

    @property
    def exit_timeout(self) -> float:
        """Seconds the runtime may take at exit."""
        ...

    def prepare_exit(self) -> None:
        """Start the threads that the end will need."""
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what was accepted; True when done in time."""
        ...

    def shutdown(self, timeout: float | None = None) -> None:
        """Deliver and end."""
        ...


# Open runtimes are kept alive: one whose loggers alone are in use must be drained too.
_open: set[Closable] = set()
_spent = 0.0
_deadline: float | None = None
_sigterm_wanted = False
_is_told = False  # by SIGTERM, to end
_is_finishing = False
_others: list[Callable[[float], None]] = []
# The signal masks of threads that fork.
_masks: dict[int, set[signal.Signals]] = {}

#: Seconds of an exit where no runtime says how long it may take.
_PATIENCE: Final = 5.0


def register(runtime: Closable, *, handle_sigterm: bool) -> None:
    """Drain ``runtime`` at the end of the process.  Thread-safe."""
    _open.add(runtime)
    if handle_sigterm:
        _handle_sigterm()


def unregister(runtime: Closable) -> None:
    """Forget a runtime that was shut down."""
    _open.discard(runtime)


def open_runtimes() -> list[Closable]:
    """Return the runtimes that are not shut down."""
    return list(_open)


def on_sigterm(deliver: Callable[[float], None]) -> None:
    """Call ``deliver(seconds)`` when SIGTERM ends the process, which runs no ``atexit`` hooks.

    For what is no runtime, and has exit hooks of its own for other ends.  It
    is called before the runtimes are drained, with half of the time that is
    left, and must not raise.
    """
    _others.append(deliver)
    _handle_sigterm()


def resume_sigterm() -> None:
    """Handle SIGTERM again where a server has given it its default action back.

    Does nothing where it was never asked for.
    """
    if _sigterm_wanted:
        _handle_sigterm()


def _timeout() -> float:
    return max((runtime.exit_timeout for runtime in list(_open)), default=_PATIENCE)


def _time_left() -> float:
    """Return what is left of the one deadline, which begins with the first call."""
    global _deadline  # noqa: PLW0603 - shared by nested calls
    if _deadline is None:
        _deadline = monotonic() + max(_timeout() - _spent, 0.1)
    return max(_deadline - monotonic(), 0.0)


def _begin() -> None:
    """Deliver what is there, if threads can be started; Python 3.12.0 and 3.12.1 refuse here."""
    global _spent  # noqa: PLW0603 - the one deadline is shared with _finish
    began = monotonic()
    deadline = began + _timeout()
    try:
        for runtime in list(_open):
            runtime.prepare_exit()
            runtime.flush(max(deadline - monotonic(), 0.0))
    except KeyboardInterrupt:
        began = -math.inf  # the user will not wait: nothing of the deadline is left
    _spent = monotonic() - began


def _finish() -> None:
    """Deliver what came since, and end; a signal in the midst of it has the same deadline."""
    global _deadline, _is_finishing  # noqa: PLW0603 - shared by nested calls
    _is_finishing = True
    try:
        _time_left()  # begins now
        for runtime in list(_open):
            try:
                runtime.shutdown(_time_left())
            except KeyboardInterrupt:  # noqa: PERF203 - each runtime is closed
                _deadline = monotonic()
                runtime.shutdown(0.0)
    finally:
        _is_finishing = False
    if _is_told:
        _die()


def _handle_sigterm() -> None:
    global _sigterm_wanted  # noqa: PLW0603 - for resume_sigterm()
    _sigterm_wanted = True
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
            _watch.install()
    except (ValueError, OSError) as error:
        announce("sigterm", f"no handler for SIGTERM can be installed: {error}")


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """Deliver and die, or let the frame do so that this signal has interrupted."""
    global _is_told
    _watch.begun()
    is_ending, _is_told = _is_told or _is_finishing, True
    if is_ending:
        return
    try:
        for deliver in tuple(_others):
            deliver(_time_left() / 2)
        _finish()
    finally:
        _die()


def _die() -> None:
    """Die as the sender of the signal expects: of the signal."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)  # the first process of a container survives the signal


_watch: Final = SignalWatch(signal.SIGTERM, _on_sigterm)


def restore_sigterm() -> None:
    """Give SIGTERM its default action back, if it is still ours.  Main thread only."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is _on_sigterm
        and not _open
        and not _others
    ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def before_fork() -> None:
    """Hold SIGTERM back until the child is ready for it.

    Before, it still has the locks of its parent's threads, and Python forgets
    signals that come to it.
    """
    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _masks[threading.get_ident()] = cast("set[signal.Signals]", mask)


def after_fork_in_child() -> None:
    """Forget what the parent was told, then let SIGTERM through; the last of fapilog's hooks."""
    global _is_told, _is_finishing  # noqa: PLW0603 - the child's own from here on
    _is_told = _is_finishing = False
    try:
        _watch.after_fork()
    finally:
        after_fork()


def after_fork() -> None:
    """Let SIGTERM through."""
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# Registered on import, so that hooks an application registers later run before
# _finish and may still log.  The earlier hook is private, and is what
# concurrent.futures uses: it runs before the interpreter refuses new threads.
# Without it, atexit does all.
atexit.register(_finish)
if hasattr(threading, "_register_atexit"):
    with contextlib.suppress(RuntimeError):  # imported while the interpreter shuts down
        threading._register_atexit(_begin)  # noqa: SLF001
fork.register("sigterm", before=before_fork, in_parent=after_fork, in_child=after_fork_in_child)
