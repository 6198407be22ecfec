"""Child processes that log to a receiver of the test, which counts every record by its id.

A record's id is its body.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fapilog.cli.receiver import ReceivedLog, Receiver

HEAD = """
import os, sys, json, signal, threading, time, random
import fapilog
log = fapilog.get_logger("script")
"""
#: Long enough for a busy machine: a record that is still missing was lost.
PATIENT = {
    "FAPILOG_BLOCK_TIMEOUT": "60",
    "FAPILOG_SINK_OVERFLOW": "block",
    "FAPILOG_SHUTDOWN_TIMEOUT": "60",
}


class Ids:
    """Counts the records that arrive."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.counts: Counter[str] = Counter()
        self.pids: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, logs: list[ReceivedLog]) -> None:
        with self._lock:
            for log in logs:
                one = log.record.body.string_value
                self.counts[one] += 1
                self.pids[one] = log.resource.get("process.pid", 0)

    @property
    def url(self) -> str:
        return self.receiver.http_endpoint + "/v1/logs"

    def assert_each_once(self, expected: Iterable[str]) -> None:
        wanted = set(expected)
        lost = sorted(wanted - set(self.counts))
        twice = sorted(one for one, count in self.counts.items() if count > 1)
        assert not lost, (len(lost), lost[:10])
        assert not twice, (len(twice), twice[:10])
        foreign = set(self.counts) - wanted
        assert not foreign, sorted(foreign)[:10]


@contextlib.contextmanager
def receiving(**options: Any) -> Iterator[Ids]:
    receiver = Receiver(keep=0, **options)
    ids = Ids(receiver)
    receiver._on_logs = ids.take
    with receiver:
        yield ids


def environment(**more: str) -> dict[str, str]:
    """This process's environment, without options of any library and without proxies."""
    foreign = ("FAPILOG_", "OTEL_", "GRPC_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    return {**kept, **more}


def run(
    script: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 110,
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` after the usual imports; it is killed after ``timeout`` seconds."""
    command = [sys.executable, "-W", "ignore", "-c", HEAD + textwrap.dedent(script)]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**(env or {})),
        cwd=cwd,
        check=False,
    )


def run_file(
    script: str, directory: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` from a file, for children that import their parent's module."""
    path = directory / "script.py"
    path.write_text(textwrap.dedent(script))
    start = "os.execv(sys.executable, [sys.executable, '-W', 'ignore', *sys.argv[1:]])"
    return run(start, path, *arguments, env=env)


def otlp(ids: Ids, **more: str) -> dict[str, str]:
    """Return variables that send all records of a process to ``ids`` without loss."""
    return {"FAPILOG_SINKS": f"otlp:{ids.url}", **PATIENT, **more}


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


def kill(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.communicate()
