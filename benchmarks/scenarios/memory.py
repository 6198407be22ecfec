"""Measures resident memory after many records, with the backend up or down.

With the backend up, every thousandth record waits for a flush, so all records are
delivered.  With the backend down, nothing waits, so the queue and the backlog
reach their bounds; ``early`` is measured after that.
"""

from __future__ import annotations

import gc
from pathlib import Path

from child import Run, report, run


def resident_mib() -> float:
    """Return the current resident set size of this process, not its peak."""
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
