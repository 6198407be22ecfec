"""What tests of a sending queue have in common."""

from __future__ import annotations

import time

from fapilog.delivery.retry import RetryPolicy
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.record import LogRecord
from tests.sinks_for_tests import ScriptedSink

QUICK = RetryPolicy(initial=0.001, maximum=0.01)


def records(count: int, size: int = 100) -> list[LogRecord]:
    made = [LogRecord(body=str(n), severity_number=9) for n in range(count)]
    for record in made:
        record.size = size
    return made


def close(queue: SendingQueue, seconds: float = 5.0) -> None:
    queue.start_close(time.monotonic() + seconds)
    queue.finish_close()


def wait_settled(queue: SendingQueue) -> None:
    target = queue.start_flush()
    until = time.monotonic() + 30
    while not queue.flush_done(target):
        assert time.monotonic() < until
        time.sleep(0.001)


def bodies(sink: ScriptedSink) -> list[str]:
    return [record.body for record in sink.records]
