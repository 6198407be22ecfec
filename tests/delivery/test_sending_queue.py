from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from fapilog.delivery.backlog import Backlog, Batch
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import ConfigurationError, PermanentError, RetryableError
from fapilog.protocols import BatchLimits, Outcome
from tests.support.ledger import wait_for
from tests.support.queues import QUICK, bodies, close, records, wait_settled
from tests.support.sinks import Gate, ScriptedSink


def test_batches_are_cut_by_count_and_by_size_and_keep_their_order():
    gate = Gate()
    sink = ScriptedSink(limits=BatchLimits(count=4, size=2000, delay=0), on_send=gate)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    assert gate.entered.wait(5)
    queue.offer(records(9))
    queue.offer(records(3, size=900))
    gate.opened.set()
    wait_settled(queue)
    close(queue)
    assert [len(batch) for batch in sink.batches] == [1, 4, 4, 2, 1, 1]
    assert bodies(sink) == ["0", *map(str, range(9)), "0", "1", "2"]


def test_a_record_waits_for_others_no_longer_than_the_delay():
    sink = ScriptedSink(limits=BatchLimits(count=1000, delay=0.01))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    wait_for(lambda: sink.batches)
    assert bodies(sink) == ["0", "1"]
    close(queue)


def test_a_full_batch_and_a_flush_do_not_wait_for_the_delay():
    sink = ScriptedSink(limits=BatchLimits(count=2, delay=3600))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    wait_for(lambda: sink.batches)
    assert len(sink.records) == 2
    queue.offer(records(1))
    wait_settled(queue)
    assert len(sink.records) == 3
    close(queue)


def test_the_backlog_is_bounded_in_bytes_and_refused_records_are_counted(capsys):
    gate = Gate()
    sink = ScriptedSink(on_send=gate, limits=BatchLimits(count=1, delay=0))
    queue = SendingQueue(sink, options=DeliveryOptions(capacity=5_000, overflow="drop_newest"))
    queue.offer(records(1))
    assert gate.entered.wait(5)
    for _ in range(50):
        queue.offer(records(1, size=300))
    assert queue.state.backlog.pending_bytes <= 5_000
    lost = queue.state.ledger.overflow.total
    assert lost > 30
    gate.opened.set()
    wait_settled(queue)
    close(queue)
    assert len(sink.records) == 51 - lost
    assert queue.state.backlog.pending_bytes == 0
    assert "backlog" in capsys.readouterr().err


def test_a_record_that_cannot_be_encoded_is_dropped_alone():
    def fail_on_one(record):
        if record.body == "1":
            raise MemoryError

    sink = ScriptedSink(on_encode=fail_on_one)
    queue = SendingQueue(sink)
    queue.offer(records(3))
    wait_settled(queue)
    close(queue)
    assert bodies(sink) == ["0", "2"]
    assert queue.state.ledger.overflow.snapshot() == {("encode_error", "INFO"): 1}


def test_closing_drains_and_closes_the_sink_once():
    sink = ScriptedSink(limits=BatchLimits(count=2, delay=3600))
    queue = SendingQueue(sink)
    queue.offer(records(5))
    close(queue)
    assert len(sink.records) == 5
    assert sink.closed == 1


def test_an_unused_queue_closes_its_sink_without_a_thread():
    sink = ScriptedSink()
    close(SendingQueue(sink))
    assert sink.closed == 1
    assert sink.threads == set()


def test_a_dead_backend_does_not_extend_the_deadline_and_the_rest_is_counted(capsys):
    sink = ScriptedSink(*(RetryableError("refused") for _ in range(10_000)))
    queue = SendingQueue(sink)
    queue.offer(records(7))
    began = time.monotonic()
    close(queue, 0.3)
    assert time.monotonic() - began < 3
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 7}
    assert queue.state.ledger.settled == queue.state.backlog.entered
    assert "7 records were not delivered" in capsys.readouterr().err


def test_everything_is_sent_by_one_thread_of_the_sink():
    sink = ScriptedSink(name="mine")
    queue = SendingQueue(sink)
    for _ in range(5):
        queue.offer(records(3))
        wait_settled(queue)
    assert sink.threads == {"fapilog-mine"}
    close(queue)
    assert "fapilog-mine" not in [t.name for t in threading.enumerate()]


def test_a_close_that_fails_is_announced_and_does_not_raise(monkeypatch, capsys):
    sink = ScriptedSink()
    monkeypatch.setattr(sink, "close", lambda: 1 / 0)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    close(queue)
    assert "close failed" in capsys.readouterr().err


def test_if_no_thread_can_be_started_closing_delivers(monkeypatch, capsys):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    sink = ScriptedSink()
    queue = SendingQueue(sink)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue.offer(records(3))
    assert not sink.records
    close(queue)
    assert len(sink.records) == 3
    assert "can't start new thread" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [[], [RetryableError("later", retry_after=0.01)]])
def test_retry_after_holds_while_closing_within_the_deadline(answers):
    sink = ScriptedSink(*answers)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    close(queue, 5)
    assert len(sink.records) == 1


@pytest.mark.parametrize("answer", [200, object(), Outcome(rejected=-5), Outcome(rejected="3")])  # type: ignore[arg-type]
def test_a_sink_that_does_not_raise_took_the_batch_with_any_return_value(answer: object) -> None:
    sink = ScriptedSink()
    sink.send = lambda _batch, _timeout: answer  # type: ignore[method-assign, assignment, return-value]
    queue = SendingQueue(sink)
    for _ in range(2):
        queue.offer(records(1))
        wait_settled(queue)
    close(queue)
    assert queue.state.ledger.delivered == 2


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class UnspeakableRetryError(RetryableError):
    __str__ = __repr__ = __bool__ = UnspeakableError.__str__


@pytest.mark.parametrize(
    "error",
    [
        UnspeakableError(),
        UnspeakableRetryError("x"),
        RetryableError("x", retry_after="0.01"),  # type: ignore[arg-type]
        RetryableError("x", retry_after=float("nan")),
    ],
)
def test_an_error_of_a_sink_does_not_end_its_thread(error: Exception) -> None:
    sink = ScriptedSink(error)
    queue = SendingQueue(sink, options=DeliveryOptions(retry=QUICK))
    queue.offer(records(1))
    wait_settled(queue)
    close(queue)
    assert queue.state.ledger.delivered == 1


@pytest.mark.parametrize(
    "limits", [{"count": 0}, {"count": "5"}, {"size": 0}, {"delay": -1}, {"delay": float("nan")}]
)
def test_limits_that_no_batch_can_keep_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=" of BatchLimits: use") as caught:
        BatchLimits(**limits)
    assert caught.value.option in limits


def test_closing_twice_counts_once() -> None:
    gate = Gate()
    queue = SendingQueue(ScriptedSink(on_send=gate))
    queue.offer(records(2))
    assert gate.entered.wait(5)
    close(queue, 0.05)
    close(queue, 0.05)
    queue.offer(records(1))
    gate.opened.set()
    queue.worker.join(5)
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 2}
    assert queue.state.ledger.overflow.snapshot() == {("shutdown", "INFO"): 1}


# ---- forks, and what sinks do wrong


def test_a_child_starts_with_an_empty_backlog_and_a_failing_after_fork_is_announced(
    monkeypatch, capsys
):
    def refuse(_thread):
        raise RuntimeError("a child has none of the threads")

    sink = ScriptedSink()
    queue = SendingQueue(sink)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        queue.offer(records(3))
    assert queue.state.backlog.entered == 3
    queue.after_fork()
    backlog = queue.state.backlog
    assert (sink.forked, backlog.entered, backlog.pending_bytes) == (1, 0, 0)
    monkeypatch.setattr(sink, "after_fork", lambda: 1 / 0)
    queue.after_fork()
    assert "scripted: after_fork failed: ZeroDivisionError" in capsys.readouterr().err
    queue.offer(records(2))
    close(queue)
    assert (queue.state.ledger.delivered, sink.closed) == (2, 1)


def test_a_child_of_a_process_that_has_shut_down_leaves_the_sink_alone():
    sink = ScriptedSink()
    queue = SendingQueue(sink)
    close(queue)
    queue.after_fork()
    assert (sink.forked, sink.closed) == (0, 1)


class Quarantine:
    """A quarantine on a disk that fails."""

    def add(self, packed: bytes, severities: Sequence[int], reason: str) -> bool:
        raise OSError(28, "No space left on device")

    def take_lost(self) -> list[int]:
        return []


def test_if_the_quarantine_cannot_be_written_records_count_as_rejected(capsys):
    sink = ScriptedSink(PermanentError("404"))
    sink.pack = lambda _items: b""  # type: ignore[attr-defined]
    options = DeliveryOptions(quarantine=Quarantine())  # type: ignore[arg-type]
    queue = SendingQueue(sink, options=options)
    queue.offer(records(3))
    wait_settled(queue)
    close(queue)
    assert (queue.state.ledger.rejected, queue.state.ledger.quarantined) == (3, 0)
    assert "scripted: quarantine: OSError: [Errno 28] No space left" in capsys.readouterr().err


def test_counts_stay_right_if_a_portion_is_taken_while_it_is_put():
    backlog = Backlog(BatchLimits())
    seen: list[tuple[int, int]] = []

    class Impatient(deque[Batch]):
        """Takes a portion at the moment when it is put."""

        def append(self, portion: Batch) -> None:
            super().append(portion)
            batch = backlog.take()
            backlog.release(batch)
            seen.append((len(backlog), backlog.pending_bytes))

    backlog._portions = Impatient()
    for _ in range(3):
        backlog.put(Batch(["x"], [9], 100))
    assert seen == [(0, 0)] * 3
