"""Measures the duration of a log call, at a rate at which no contestant drops records.

Chunks of calls are timed as a whole, so the clock costs each call almost
nothing.  Between chunks the thread sleeps, so background threads catch up.
Chunks that they interrupt count too, and nothing is subtracted.
"""

from __future__ import annotations

import statistics
import time

from child import report, run

CHUNK = 100
PAUSE = 0.012  # seconds: about 8,000 calls/s, less than half the rate of the slowest path


def main() -> None:
    with run() as current:
        current.warm_up()
        call = current.contestant.call
        clock = time.perf_counter_ns
        samples: list[float] = []
        for _ in range(current.options["chunks"]):
            start = clock()
            for i in range(CHUNK):
                call(i)
            samples.append((clock() - start) / CHUNK)
            time.sleep(PAUSE)
        current.contestant.flush()
        report(call_ns=statistics.median(samples), best_ns=min(samples))


if __name__ == "__main__":
    main()
