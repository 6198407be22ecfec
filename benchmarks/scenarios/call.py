"""How long the application waits for a log call, at a rate nobody drops at.

Chunks of calls are timed back to back, so the clock costs each call next to
nothing; between chunks the thread sleeps, so that background threads catch
up.  A chunk they interrupt is counted as it is.  Nothing is subtracted.
"""

from __future__ import annotations

import statistics
import time

from child import report, run

CHUNK = 100
PAUSE = 0.012  # seconds: about 8,000 calls/s, under half of what the slowest path sustains


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
