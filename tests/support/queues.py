"""Helpers for tests of a sending queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fapilog.delivery.backlog import Batch
from fapilog.delivery.circuit import Circuit, RetryPolicy
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sender import send_until_settled
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.delivery.state import DeliveryState
from fapilog.record import LogRecord
from tests.support.sinks import ScriptedSink

QUICK = RetryPolicy(initial=0.001, maximum=0.01)


def records(count: int, size: int = 100) -> list[LogRecord]:
    made = [LogRecord(body=str(n), severity_number=9) for n in range(count)]
    for record in made:
        record.size = size
    return made


def close(queue: SendingQueue, seconds: float = 10.0) -> None:
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


def state_of(circuit: Circuit) -> str:
    if circuit.opened_at is None:
        return "closed"
    return "open" if circuit._prober is None else "half_open"


class Quarantine:
    """Keeps refused batches in memory, up to a number of batches."""

    def __init__(self, room: int) -> None:
        self.kept: list[tuple[list[Any], str]] = []
        self._room = room

    def add(self, body: list[Any], severities: Sequence[int], reason: str) -> bool:
        if len(self.kept) == self._room:
            return False
        self.kept.append((body, reason))
        return True

    def take_lost(self) -> list[int]:
        return []


class Sending:
    """The sending loop around one sink, and the ledger of the batches that the loop gets."""

    def __init__(self, sink: Any, *, retry: RetryPolicy = QUICK, quarantine: int = 0) -> None:
        self.sink = sink
        sink.pack = list
        self.quarantine = Quarantine(quarantine)
        options = DeliveryOptions(retry=retry, quarantine=self.quarantine)  # type: ignore[arg-type]
        self.state = DeliveryState(sink, "backend", options)
        self.circuit, self.ledger = self.state.circuit, self.state.ledger

    def deliver(self, count: int, severity: int = 9) -> Batch:
        batch = Batch(list(range(count)), [severity] * count, 100 * count)
        self.state.put_in_flight(batch)
        send_until_settled(batch, self.state)
        return batch

    def is_denied(self) -> bool:
        return self.circuit.access_denied

    @property
    def in_flight(self) -> list[Batch]:
        return self.state.in_flight

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The numbers of delivered, rejected, quarantined and dropped records."""
        ledger = self.ledger
        return ledger.delivered, ledger.rejected, ledger.quarantined, ledger.drops.total
