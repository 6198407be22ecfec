"""Measures a call below the level against an empty method with the same arguments.

timeit times both statements in one process, in turns.
"""

from __future__ import annotations

import statistics
import timeit

from child import report, run

ARGUMENTS = '("order placed", order_id=42, total=9.99, sku="A-1", customer="c-7")'
NUMBER = 20_000


class Empty:
    def debug(self, message: str, /, **attributes: object) -> None:
        """Return at once."""


def main() -> None:
    with run() as current:
        import fapilog

        names = {"log": fapilog.get_logger("bench"), "empty": Empty()}
        timers = {
            name: timeit.Timer(f"{name}.debug{ARGUMENTS}", globals=dict(names)) for name in names
        }
        samples: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(current.options["rounds"]):
            for name, timer in timers.items():
                samples[name].append(timer.timeit(NUMBER) / NUMBER * 1e9)
        current.contestant.flush()
        report(
            disabled_ns=statistics.median(samples["log"]),
            empty_ns=statistics.median(samples["empty"]),
        )


if __name__ == "__main__":
    main()
