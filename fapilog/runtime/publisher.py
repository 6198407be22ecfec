"""Writes the ledger of a runtime into the file that the worker processes share."""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.diagnostics import announce, describe
from fapilog.process.worker import Worker

if TYPE_CHECKING:
    from fapilog.runtime.runtime import Runtime
    from fapilog.runtime.shared_metrics import Cells, Series, SharedMetrics

#: The shortest time between two writes, in seconds.
_PAUSE: Final = 0.05
#: The longest time between two writes, in seconds, so that gauges of a process without
#: records, such as ``fapilog_spool_bytes``, are up to date.
_TICK: Final = 1.0


class Publisher:
    """Writes the ledger of one runtime of this process, on its own thread.

    Thread-safe.  The thread starts at the first record.  It writes after the
    pipeline's worker has processed records, at most every 50 ms, so if the process is killed, at
    most the counts of this time are lost.

    Args:
        runtime: the runtime.
        shared: the metrics to which the runtime's ledger is added.
    """

    def __init__(self, runtime: Runtime, shared: SharedMetrics) -> None:
        # Loaded here, so that a missing prometheus_client is found at start-up.
        from fapilog.runtime.metrics import measurements  # noqa: PLC0415 - an extra

        self.shared = shared
        self._runtime = runtime
        self._measurements = measurements
        self._worker = Worker("fapilog-metrics", self._run)
        self._closed = self._is_due = False
        self._reset()

    def _reset(self) -> None:
        self._publishing = native.Lock()
        self._cells: dict[Series, Cells] = {}
        self._published: dict[Series, list[float]] = {}

    def after_fork(self) -> None:
        """Begin with an empty ledger in a forked child, as the pipeline does."""
        self._reset()
        self._worker.after_fork()

    def notice(self) -> None:
        """Note that records were processed.  Does not block; called on the pipeline's worker."""
        self._is_due = True
        if self._worker.idle:
            self._worker.wake()

    def publish(self) -> None:
        """Write the current ledger.  Never raises.

        Counters are written as differences, so the counts of a runtime that was replaced stay.
        """
        if not self._publishing.acquire(timeout=_TICK):
            return  # a shutdown in a signal handler has interrupted this method in the same thread
        try:
            for series, current in self._measurements(self._runtime):
                is_gone = self._closed and not series.is_kept
                values = [0.0] if is_gone else current
                before = self._published.get(series)
                if values != before:
                    self._write(series, values, before or [0.0] * len(values))
        except Exception as error:  # noqa: BLE001 - an error must not end the thread
            announce("publish metrics", f"fapilog's metrics are not up to date: {describe(error)}")
        finally:
            self._publishing.release()

    def _write(self, series: Series, values: list[float], before: list[float]) -> None:
        cells = self._cells.get(series)
        if cells is None:
            cells = self._cells[series] = self.shared.cells(series)
        self.shared.increase(cells, map(sub, values, before))
        self._published[series] = values

    def close(self) -> None:
        """Write the final ledger, without gauges, and end the thread.  Blocks briefly."""
        self._closed = True
        if self._worker.is_alive:
            self._worker.wake()
            self._worker.join(_TICK)
        self.publish()

    def _run(self) -> None:
        while not self._closed:
            if not self._is_due:
                self._worker.idle = True
                if not self._is_due and not self._closed:
                    self._worker.sleep(_TICK)
                self._worker.idle = False
            self._is_due = self._runtime.stats().pending > 0
            self.publish()
            native.sleep(_PAUSE)
