"""What tests of a sending queue have in common."""

from __future__ import annotations

import time
from typing import Any

from fapilog.delivery.backlog import Batch
from fapilog.delivery.circuit import Circuit
from fapilog.delivery.ledger import SinkLedger
from fapilog.delivery.retry import RetryPolicy
from fapilog.delivery.sender import Sender
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.record import LogRecord
from tests.support.sinks import ScriptedSink

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


class Delivery:
    """A sender around one sink, and what becomes of the batches it is given."""

    def __init__(self, sink: Any, *, retry: RetryPolicy = QUICK, quarantine: int | None = None):
        self.sink = sink
        self.ledger = SinkLedger()
        self.circuit = Circuit(retry)
        self.settled: list[Batch] = []
        self.noted = 0
        self.kept: list[tuple[list[Any], str]] = []
        self._room = quarantine
        self.sender = Sender(
            sink,
            "backend",
            self.circuit,
            self.ledger,
            self._settled,
            export_timeout=30.0,
            unknown_attempts=retry.unknown_attempts,
            keep=None if quarantine is None else self._keep,
        )

    def _settled(self, batch: Batch, count: int) -> None:
        self.noted += count
        if not batch.parts:
            self.settled.append(batch)

    def _keep(self, part: Batch, reason: str) -> bool:
        if len(self.kept) == self._room:
            return False
        self.kept.append((part.items, reason))
        return True

    def deliver(self, count: int, severity: int = 9) -> Batch:
        batch = Batch(list(range(count)), [severity] * count, 100 * count)
        batch.parts = [batch]
        self.sender.deliver(batch)
        return batch

    def is_denied(self) -> bool:
        return self.sender.access_denied

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Delivered, rejected, quarantined, dropped."""
        ledger = self.ledger
        return ledger.delivered, ledger.rejected, ledger.quarantined, ledger.drops.total
