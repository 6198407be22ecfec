"""What it costs to put a batch on disk: ``Spool.append``, with the syncs the product does.

Batches are appended as fast as it goes, as when a backend has just gone down
with a full backlog.  The spool's thread looks at the spool every 50 ms and
calls ``sync``, which reaches for the disk once per ``sync_interval``; the same
thread does both here, so the wait for the disk is in the number.  Bodies are
random, as a disk may compress.
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

COUNT, SIZE = 512, 300  # records of a batch, bytes of a record
LOOK = 0.05  # seconds, as in fapilog.delivery.spooling
INFO = 9


def measure(directory: Path, batches: int) -> dict[str, Any]:
    from fapilog.spool import Spool, SpoolOptions

    spool = Spool("bench", "bytes", SpoolOptions(directory, sync="interval"))
    spool.open()
    body, severities = os.urandom(COUNT * SIZE), [INFO] * COUNT
    items = list(range(COUNT))  # what the sink had encoded, kept beside for a reader
    spool.append(body, severities, items)  # makes the directory
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
