"""Lets a log call wait until a console that a person reads has written the record.

Without this wait, the output of ``print`` and log lines would appear on a terminal in the wrong
order, and in a notebook a log line would appear below a later cell.  The worker thread and the
sinks work as usual; only the thread that logs waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.delivery.sending_queue import SendingQueue
    from fapilog.engine.pipeline import Pipeline

#: The longest wait of a log call, in seconds.  The wait is limited because a user may have paused
#: the terminal with Ctrl-S.
_PATIENCE: Final = 0.25
#: While a log call waits, it checks repeatedly whether the consoles have written the record.  This
#: is the time between the first two checks, in seconds.  Each later interval is a quarter longer
#: than the previous interval, up to 2 ms.
_POLL: Final = 0.00005


class Prompt:
    """Replaces a pipeline's worker as the object that log calls wake.

    The method :meth:`wake` wakes the worker, and then waits up to 0.25 s until the consoles
    have written all records.  If this time passes, the next log calls return without waiting.
    Log calls wait again as soon as the consoles have written all records.  Thread-safe.

    Args:
        pipeline: the pipeline whose worker is woken.
        consoles: the sending queues of the consoles that a person reads.

    Attributes:
        idle: always True, so that every log call calls :meth:`wake`.
    """

    idle: Final = True

    def __init__(self, pipeline: Pipeline, consoles: Sequence[SendingQueue]) -> None:
        self._pipeline = pipeline
        self._consoles = consoles
        sinks: list[Any] = [queue.sink for queue in consoles]
        self._notes = [sink.note_caller for sink in sinks if hasattr(sink, "note_caller")]
        self._is_behind = False

    def wake(self) -> bool:
        """Wake the worker, and wait until the consoles have written every record.

        Blocks up to 0.25 s.  Returns False if the interpreter refuses to start the worker's
        thread.
        """
        pipeline = self._pipeline
        for note_caller in self._notes:
            note_caller()
        if not pipeline.hurry():
            return False
        if not pipeline.is_own_thread():
            deadline = monotonic() + (0.0 if self._is_behind else _PATIENCE)
            self._is_behind = not self._wait(deadline)
        return True

    def _wait(self, deadline: float) -> bool:
        """Wait until the consoles have written all records; return False at the deadline.

        The queue of a console is checked only after the pipeline has passed the records to it.
        """
        pipeline, poll = self._pipeline, _POLL
        target = pipeline.entered()
        flushed: list[tuple[SendingQueue, int]] | None = None
        while True:
            if flushed is None and pipeline.has_handed(target):
                flushed = [(queue, queue.start_flush()) for queue in self._consoles]
            if flushed is not None and all(queue.flush_done(end) for queue, end in flushed):
                return True
            if monotonic() >= deadline:
                return False
            native.pause(poll)
            poll = min(poll * 1.25, 0.002)
