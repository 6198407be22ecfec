"""Measures the latency of a call at a fixed rate, including the delay by earlier calls.

Calls have intended start times on a fixed grid.  The thread sleeps until the
next start time, as a service's thread waits for its next request.  If it is late
it does not sleep, so a stall counts for every call that it delayed.

``intended`` is the time from the intended start to the call's return.  It
includes every delay that the library causes: the call, the wait for the
interpreter while a background thread of the library holds it, and the delay of
later calls.  It also includes how late the operating system wakes a sleeping
thread; the contestant ``nothing`` shows that delay.

``call`` is the time of the call alone.  A thread that has just got the
interpreter keeps it for 5 ms, so this number hides most of the background work.
"""

from __future__ import annotations

import time
from array import array

from child import Run, report, run


def percentile(values: array[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)]


def check_nothing_dropped() -> None:
    """Check that every record was accepted, because dropping costs less than accepting."""
    import fapilog

    if dropped := fapilog.stats().dropped:
        raise SystemExit(f"{dropped} records were dropped: make the run shorter")


def measure(current: Run) -> dict[str, float]:
    rate, seconds = current.options["rate"], current.options["seconds"]
    count = rate * seconds
    intended, alone = array("q", bytes(8 * count)), array("q", bytes(8 * count))
    call, clock, sleep = current.contestant.call, time.perf_counter_ns, time.sleep
    period = 1_000_000_000 // rate
    due = clock() + period
    for i in range(count):
        while (started := clock()) < due:
            sleep((due - started) / 1e9)
        call(i)
        ended = clock()
        intended[i] = ended - due
        alone[i] = ended - started
        due += period
    if current.is_up:
        current.contestant.flush()
    else:
        check_nothing_dropped()
    return {
        f"{name}_{label}_ns": percentile(values, share)
        for name, values in (("intended", intended), ("call", alone))
        for label, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }


if __name__ == "__main__":
    with run() as current_run:
        if current_run.target.endpoint:
            current_run.warm_up()
        report(**measure(current_run))
