"""Measures the share of a burst that arrives with default options, from one fast loop."""

from __future__ import annotations

from child import report, run

if __name__ == "__main__":
    with run() as current:
        current.warm_up()
        records = current.options["records"]
        before = current.seen()["records"]
        for i in range(records):
            current.contestant.call(i)
        current.contestant.flush()
        arrived = current.seen()["records"] - before
        report(arrived_percent=100 * arrived / records, lost=records - arrived)
