"""Sinks whose answers a test scripts."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from fapilog.protocols import BatchLimits, Outcome, Sink
from fapilog.record import LogRecord

#: All records until the next flush are one batch.
ONE_BATCH = BatchLimits(count=512, delay=3600)


class ScriptedSink(Sink[Any]):
    """Collects records.  Each ``send`` raises or returns the next of ``answers``."""

    def __init__(
        self,
        *answers: object,
        name: str = "scripted",
        limits: BatchLimits = BatchLimits(count=512, delay=0.0),  # noqa: B008
        on_send: Callable[[], object] | None = None,
        on_encode: Callable[[LogRecord], object] | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self.answers = list(answers)
        self.batches: list[list[Any]] = []
        self.timeouts: list[float] = []
        self.threads: set[str] = set()
        self.opened = self.closed = self.forked = 0
        self._on_send = on_send
        self._on_encode = on_encode

    @property
    def records(self) -> list[Any]:
        return [record for batch in self.batches for record in batch]

    def open(self) -> None:
        self.opened += 1

    def encode(self, record: LogRecord) -> Any:
        if self._on_encode is not None:
            self._on_encode(record)
        return record

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        self.threads.add(threading.current_thread().name)
        self.timeouts.append(timeout)
        if self._on_send is not None:
            self._on_send()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        self.batches.append(list(batch))
        return answer if isinstance(answer, Outcome) else None

    def close(self) -> None:
        self.closed += 1

    def after_fork(self) -> None:
        self.forked += 1
        self.batches = []


class Gate:
    """Blocks a sink's ``send`` until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(20)


def send_around_a_fork(make: str, *arguments: object) -> None:
    """Send one record before a fork, one in the child, and one in the parent, in a new process.

    Args:
        make: an expression that makes the sink from ``sys.argv``.
        arguments: the arguments of the process.
    """
    code = f"""
import os, sys
from fapilog.record import LogRecord
from fapilog.sinks import LokiSink, OTLPSink
sink = {make}
sink.open()
def send(body):
    sink.send([sink.encode(LogRecord(1, 2, body=body))], 10)
send("before")
child = os.fork()
if child == 0:
    sink.after_fork()
    send("child")
    sink.close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
send("parent")
sink.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    command += map(str, arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
