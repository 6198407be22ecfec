"""Delivers the remaining records when the process ends.

Each open ``Runtime`` is registered in this module.  A first hook delivers the records when the
interpreter begins to shut down, because most versions of Python can still start threads at that
time.  An ``atexit`` hook delivers the records that are logged later, after the application's own
threads have ended.  If no thread can be started, the ``atexit`` hook delivers on the main thread.
Both hooks share one time limit.  ``sigterm.py`` delivers when SIGTERM arrives, and ``celery.py``
delivers in child processes of Celery, which end without these hooks.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
from typing import TYPE_CHECKING, Final, Protocol

from fapilog.diagnostics import announce_suppressed
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.process.celery import CeleryExit
from fapilog.process.sigterm import Sigterm

if TYPE_CHECKING:
    from collections.abc import Callable

#: The time limit, in seconds, for the functions passed to ``on_sigterm()`` if no runtime is
#: open.
_PATIENCE: Final = 5.0
#: The part of the time limit that is reserved for shutting down the runtimes after the delivery,
#: in seconds.
_LAST: Final = 0.1


class Closable(Protocol):
    """The interface of ``Runtime`` that this module uses."""

    @property
    def exit_timeout(self) -> float:
        """The time limit for the runtime's delivery when the process ends, in seconds."""

    def prepare_exit(self) -> None:
        """Start the threads that deliver records, if they are not running."""

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver the accepted records.  Return True if this succeeds within ``timeout``."""

    def shutdown(self, timeout: float | None = None) -> None:
        """Deliver the accepted records, and shut down the runtime."""


# These references keep the open runtimes alive, because an application may store only loggers.
_open: Final[set[Closable]] = set()
_others: Final[list[Callable[[float], None]]] = []
_reports: Final[list[Callable[[float], None]]] = []
_sources: Final[list[Callable[[float], None]]] = []
_spent = 0.0  # seconds that _begin() took; _finish() gets only the remaining time


def register(runtime: Closable, *, handle_sigterm: bool) -> None:
    """Deliver the records of ``runtime`` when the process ends.  Thread-safe.

    If ``handle_sigterm`` is True, also install fapilog's SIGTERM handler.
    """
    _open.add(runtime)
    _celery.watch()
    if handle_sigterm:
        sigterm.install()


def unregister(runtime: Closable) -> None:
    """Remove a closed runtime.

    If no runtime remains, and no function was passed to ``on_sigterm()``, also remove fapilog's
    SIGTERM handler.
    """
    _open.discard(runtime)
    if not _open and not _others:
        sigterm.restore()


def open_runtimes() -> list[Closable]:
    """Return the runtimes that have not been shut down."""
    return list(_open)


def on_sigterm(deliver: Callable[[float], None]) -> None:
    """Call ``deliver`` when SIGTERM arrives, because no ``atexit`` hooks run after the signal.

    Args:
        deliver: a function that must not raise.  It is called before the runtimes deliver.  Its
            argument is its time limit in seconds: half of the time that remains for all
            deliveries.
    """
    _others.append(deliver)
    sigterm.install()


def after_sigterm(report: Callable[[float], None]) -> None:
    """Call ``report`` after the runtimes have delivered because of SIGTERM, if time remains.

    Args:
        report: a function that must not raise.  Its argument is the remaining time in seconds.
    """
    _reports.append(report)


def before_delivery(fetch: Callable[[float], None]) -> None:
    """Call ``fetch`` before the runtimes deliver, at the interpreter's exit and at SIGTERM.

    Unlike :func:`on_sigterm`, this function installs no handler of SIGTERM.

    Args:
        fetch: a function that must not raise.  It may pass records to the runtimes.  Its
            argument is its time limit in seconds: half of the remaining time.
    """
    if fetch not in _sources:
        _sources.append(fetch)


def _fetch(deadline: float) -> None:
    for fetch in tuple(_sources):
        fetch(max(deadline - monotonic(), 0.0) / 2)


def _timeout() -> float:
    return max((runtime.exit_timeout for runtime in open_runtimes()), default=_PATIENCE)


def _deliver(deadline: float) -> None:
    _fetch(deadline)
    for runtime in open_runtimes():
        runtime.prepare_exit()
        runtime.flush(max(deadline - monotonic(), 0.0))


def _deliver_and_close() -> None:
    deadline = monotonic() + _timeout()
    for deliver in tuple(_others):
        deliver(max(deadline - monotonic(), 0.0) / 2)
    _deliver(deadline - _LAST)  # shutdown() then delivers what other threads have logged since
    for runtime in open_runtimes():
        runtime.shutdown(max(deadline - monotonic(), 0.0))
    for report in tuple(_reports):
        if (left := deadline - monotonic()) > 0:
            report(left)
    announce_suppressed()


def _begin() -> None:
    """Deliver the accepted records before the ``atexit`` hooks run.

    Python 3.12.0 and 3.12.1 cannot start threads at this time, so _finish() may have to deliver.
    """
    global _spent  # noqa: PLW0603 - _finish() may use the remaining time
    began = monotonic()
    try:
        _deliver(began + _timeout())
    except KeyboardInterrupt:
        began = -math.inf  # after Ctrl+C, _finish() gets no more time
    _spent = monotonic() - began


def _finish() -> None:
    """Deliver the records that were logged after _begin(), and shut down all runtimes."""
    deadline = monotonic() + max(_timeout() - _spent, _LAST)
    sigterm.is_deferred = True
    try:
        _fetch(deadline)
        for runtime in open_runtimes():
            try:
                runtime.shutdown(max(deadline - monotonic(), 0.0))
            except KeyboardInterrupt:  # noqa: PERF203 - every runtime must be closed
                deadline = monotonic()
                runtime.shutdown(0.0)
    finally:
        sigterm.is_deferred = False
    announce_suppressed()
    sigterm.die_if_told(deadline)


sigterm: Final = Sigterm(_deliver_and_close)
fork.register(
    "sigterm",
    before=sigterm.before_fork,
    in_parent=sigterm.after_fork_in_parent,
    in_child=sigterm.after_fork_in_child,
)
_celery: Final = CeleryExit(_deliver_and_close)
fork.register("sigterm", in_child=_celery.watch)

# Exit hooks run in the reverse order of their registration.  So hooks that the application
# registers later run before _finish, and may still log.  A hook that is registered with the
# private function threading._register_atexit runs earlier, while the interpreter can still start
# threads.  If this function does not exist, _finish delivers all records.
atexit.register(_finish)
if hasattr(threading, "_register_atexit"):
    with contextlib.suppress(RuntimeError):  # raised if the interpreter is already exiting
        threading._register_atexit(_begin)  # noqa: SLF001
