"""Latency of a call at a fixed rate, however late the calls before it were.

Calls have intended start times on a fixed grid.  The thread sleeps until the
next one, as a service's thread waits for its next request; when it is late it
does not sleep, so a stall is charged to every call it delayed.  Two numbers:

``intended``: from the intended start to the call's return.  It holds all a
request suffers because of the library: the call, the wait for the interpreter
while a background thread of the library holds it, and the calls delayed by
that.  It also holds how late the operating system wakes a sleeping thread,
which no library can help; the contestant ``nothing`` shows how much that is.

``call``: the call alone.  A thread that has just been given the interpreter
keeps it for 5 ms, so this number hides most of what background work costs.
"""

from __future__ import annotations

import time
from array import array

from child import Run, report, run


def percentile(values: array[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)]


def check_nothing_dropped() -> None:
    """To refuse a record costs less than to take it, so these must all be taken."""
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
