"""Measures records per second and CPU time per record, from first call to last delivery.

One thread logs as fast as possible; the clock stops when ``flush`` has returned.
No record is lost: fapilog waits for room in its queue by default, and the
others get a queue that holds everything.  The receiver or the file gives the
number of delivered records, not the library.  The CPU time is user and system
time of this whole process, after a warm-up.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from child import Run, report, run
from contestants import ATTRIBUTES


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def check_sample(seen: dict[str, Any]) -> None:
    """Check that the contestant delivers the whole event, otherwise it is not comparable."""
    sample = seen.get("sample")
    if sample and not (
        sample["traced"] and sample["timed"] and set(sample["attributes"]) >= ATTRIBUTES
    ):
        raise SystemExit(f"incomplete record: {sample}")
    if seen.get("incomplete"):
        raise SystemExit(f"{seen['incomplete']} incomplete records")


def measure(current: Run) -> dict[str, float]:
    current.warm_up()
    before = current.seen()
    call = current.contestant.call
    start, cpu = time.perf_counter(), cpu_seconds()
    for i in range(current.options["records"]):
        call(i)
    current.finish(before["records"] + current.options["records"])
    elapsed, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    after = current.seen()
    check_sample(after)
    delivered = after["records"] - before["records"]
    return {
        "delivered": delivered,
        "oversized": after.get("oversized", 0),
        "requests": after.get("requests", 0) - before.get("requests", 0),
        "records_per_s": delivered / elapsed,
        "cpu_us": cpu / delivered * 1e6,
        "receiver_busy": (after.get("cpu", 0) - before.get("cpu", 0)) / elapsed,
    }


if __name__ == "__main__":
    with run() as current_run:
        report(**measure(current_run))
