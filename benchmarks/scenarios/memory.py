"""Resident memory after many records, with the backend up and with it down.

Up: every thousandth record waits for a flush, so all of them are delivered.
Down: nothing listens at the endpoint and nothing waits, so whatever bounds
the queue and the backlog is reached; ``early`` is taken after that.
"""

from __future__ import annotations

import gc
from pathlib import Path

from child import Run, report, run


def resident_mib() -> float:
    """Resident set size of this process now, not its peak."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def log_until(current: Run, first: int, last: int, *, drained: bool) -> float:
    call, flush = current.contestant.call, current.contestant.flush
    for i in range(first, last):
        call(i)
        if drained and i % 1000 == 999:
            flush()
    return resident_mib()


if __name__ == "__main__":
    with run() as current_run:
        early, late = current_run.options["early"], current_run.options["late"]
        up = current_run.is_up
        report(
            start_mib=resident_mib(),
            early_mib=log_until(current_run, 0, early, drained=up),
            late_mib=log_until(current_run, early, late, drained=up),
        )
