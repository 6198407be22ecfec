"""Shared by the scenarios: sets up one contestant in this process, inside an active span."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import CONTESTANTS, Contestant, Target, base_name


@dataclass(frozen=True)
class Run:
    """The contestant of this process, and the options of the scenario."""

    contestant: Contestant
    target: Target
    options: dict[str, Any]

    @property
    def is_up(self) -> bool:
        """Whether records can arrive at the backend."""
        return bool(self.options.get("backend", "up") == "up")

    def seen(self) -> dict[str, Any]:
        """Return the receiver's counts; for a file, only the number of its lines."""
        if self.target.endpoint:
            with urllib.request.urlopen(self.target.endpoint, timeout=30) as answer:
                return dict(json.load(answer))
        files = (path for path in self.target.path.parent.iterdir() if path.is_file())
        return {"records": sum(path.read_bytes().count(b"\n") for path in files)}

    def warm_up(self, calls: int = 1000) -> None:
        """Log ``calls`` records and wait until all have arrived, or for an outage to be noticed."""
        for i in range(calls):
            self.contestant.call(i)
        if self.is_up:
            self.wait_for(calls, poll=0.05)
        else:
            time.sleep(2)

    def finish(self, records: int) -> None:
        """Wait until all ``records`` have left the process."""
        self.contestant.flush()
        if not self.contestant.flush_waits:
            self.wait_for(records, poll=0.005)

    def wait_for(self, records: int, poll: float) -> None:
        """Check every ``poll`` seconds until the backend has seen ``records`` records."""
        deadline = time.monotonic() + 60
        while (seen := self.seen()["records"]) < records:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {seen} of {records} records arrived")
            time.sleep(poll)


def active_span() -> contextlib.AbstractContextManager[object]:
    """Return a recording span of the SDK, or an empty context without the SDK."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        return contextlib.nullcontext()
    return TracerProvider().get_tracer("bench").start_as_current_span("request")


@contextlib.contextmanager
def run() -> Iterator[Run]:
    """Set up the contestant that the command line names, inside an active span."""
    contestant, request = sys.argv[1], json.loads(sys.argv[2])
    target = Target(
        endpoint=request["endpoint"],
        path=Path(request["directory"]) / "bench.log",
        queue=request["options"].get("queue", 0),
        spool=request["options"].get("spool", ""),
    )
    with active_span():
        yield Run(CONTESTANTS[base_name(contestant)](target), target, request["options"])


def report(**measured: Any) -> None:
    """Pass the measurements to the parent, on the last line of standard output."""
    print(json.dumps(measured), flush=True)
