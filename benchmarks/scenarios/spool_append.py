"""Measures the time to put a batch on disk with ``Spool.append`` and the usual syncs.

Batches are appended as fast as possible, as after a backend has gone down with a
full backlog.  In a real process the spool's thread calls ``sync`` every 50 ms,
which writes to the disk once per ``sync_interval``.  Here one thread does both, so
the figure includes the wait for the disk.  Bodies are random, because a disk may
compress data.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from child import report

COUNT, SIZE = 512, 300  # records per batch, bytes per record
LOOK = 0.05  # seconds, as in fapilog.delivery.spooling
INFO = 9


def measure(directory: Path, batches: int) -> dict[str, Any]:
    from fapilog.spool import Spool, SpoolOptions

    spool = Spool("bench", "bytes", SpoolOptions(directory, sync="interval"))
    spool.open()
    body, severities = os.urandom(COUNT * SIZE), [INFO] * COUNT
    items = list(range(COUNT))  # in place of the encoded records
    spool.append(body, severities, items)  # creates the directory
    cpu = cpu_seconds()
    start = look_at = time.perf_counter()
    for _ in range(batches):
        spool.append(body, severities, items)
        if time.perf_counter() >= look_at:
            look_at = time.perf_counter() + LOOK
            spool.sync()
    elapsed, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    records = batches * COUNT
    if spool.pending_records != records + COUNT:
        raise SystemExit(f"{spool.pending_records} of {records + COUNT} records are on disk")
    began = time.perf_counter()
    spool.close()
    return {
        "append_us": elapsed / records * 1e6,
        "cpu_us": cpu / records * 1e6,
        "close_ms": (time.perf_counter() - began) * 1e3,
    }


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    request = json.loads(sys.argv[2])
    report(**measure(Path(request["directory"], "spool"), request["options"]["batches"]))
