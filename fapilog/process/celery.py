"""Delivers the remaining records when a child process of a Celery worker ends.

Celery starts the child processes of a worker with the library billiard, which ends them with
``os._exit()``, so no ``atexit`` hook runs.  Before that, Celery sends a signal in each process of
its pool, and billiard runs the finalizers of ``multiprocessing`` in every other process.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: The name under which Celery stores the receiver of this module.
_UID: Final = "fapilog"
#: The priority of the finalizer; ``multiprocessing`` runs the finalizer with the lowest number
#: last.
_LAST: Final = -1000


class CeleryExit:
    """Calls ``deliver()`` when a process ends that a Celery worker has started.

    Args:
        deliver: a function that must not raise.
    """

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._deliver = deliver
        self._is_registered = False
        self._finalizer: Any = None

    def watch(self) -> None:
        """Prepare the current process and its later child processes.

        Call it in each new process, and before the first record.  Does nothing if Celery has not
        been imported.  Thread-safe.  Does not block.
        """
        if "celery.signals" not in sys.modules or "billiard.process" not in sys.modules:
            return
        if not self._is_registered:
            from multiprocessing import util  # noqa: PLC0415 - billiard has imported it

            # In a child, billiard calls _begin_life() after it has removed old finalizers.
            util.register_after_fork(self, CeleryExit._begin_life)
            self._is_registered = True
        self._begin_life()  # in a child that was spawned instead of forked

    def _begin_life(self) -> None:
        from multiprocessing import process, util  # noqa: PLC0415 - billiard has imported both

        if not isinstance(process.current_process(), sys.modules["billiard.process"].BaseProcess):
            return
        # Another receiver of the signal may log, so this receiver must be the last one.
        signal: Any = sys.modules["celery.signals"].worker_process_shutdown
        signal.disconnect(dispatch_uid=_UID)
        signal.connect(self._receive, weak=False, dispatch_uid=_UID)
        # Celery's embedded scheduler (``celery worker --beat``) and the processes that tasks
        # start do not send the signal.
        if self._finalizer is None or not self._finalizer.still_active():
            self._finalizer = util.Finalize(None, self._deliver, exitpriority=_LAST)

    def _receive(self, **_: object) -> None:
        self._deliver()
