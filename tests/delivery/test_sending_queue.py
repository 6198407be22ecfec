from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from fapilog.delivery.backlog import Backlog, Batch
from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import ConfigurationError, PermanentError, RetryableError
from fapilog.protocols import BatchLimits, Outcome
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


def test_a_record_waits_for_company_no_longer_than_the_delay():
    sink = ScriptedSink(limits=BatchLimits(count=1000, delay=0.01))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    until = time.monotonic() + 10
    while not sink.batches and time.monotonic() < until:
        time.sleep(0.001)
    assert bodies(sink) == ["0", "1"]
    close(queue)


def test_a_full_batch_and_a_flush_do_not_wait_for_the_delay():
    sink = ScriptedSink(limits=BatchLimits(count=2, delay=3600))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    until = time.monotonic() + 10
    while not sink.batches and time.monotonic() < until:
        time.sleep(0.001)
    assert len(sink.records) == 2
    queue.offer(records(1))
    wait_settled(queue)
    assert len(sink.records) == 3
    close(queue)


def test_a_retryable_failure_is_tried_again_until_it_succeeds_and_nothing_is_doubled():
    sink = ScriptedSink(*(RetryableError("503") for _ in range(20)))
    queue = SendingQueue(sink, options=DeliveryOptions(retry=QUICK))
    queue.offer(records(3))
    wait_settled(queue)
    close(queue)
    assert bodies(sink) == ["0", "1", "2"]
    assert (queue.state.ledger.delivered, queue.state.ledger.retries, queue.state.ledger.sends) == (
        3,
        20,
        21,
    )


def test_a_backends_wish_to_wait_is_obeyed_up_to_the_maximum():
    policy = RetryPolicy(maximum=30)
    assert policy.delay(1, retry_after=7.5) == 7.5
    assert policy.delay(1, retry_after=3.15e8) == 30
    for asked in (0, -5):  # but for a busy loop
        assert policy.delay(1, retry_after=asked) == 0.05
        assert policy.delay(6, retry_after=asked) == 1.5


def test_backoff_grows_with_full_jitter_and_has_a_ceiling():
    policy = RetryPolicy(initial=1, maximum=8)
    for attempt, bound in ((1, 1), (2, 2), (3, 4), (4, 8), (50, 8), (10_000, 8)):
        delays = [policy.delay(attempt) for _ in range(200)]
        assert bound / 20 <= min(delays) <= max(delays) <= bound
        assert max(delays) - min(delays) > bound / 4


def test_a_permanent_failure_counts_as_rejected_and_the_next_batch_goes_on():
    sink = ScriptedSink(PermanentError("400 bad"))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    wait_settled(queue)
    queue.offer(records(1))
    wait_settled(queue)
    close(queue)
    assert (queue.state.ledger.rejected, queue.state.ledger.delivered) == (2, 1)


def test_a_partial_success_is_counted_and_not_retried(capsys):
    sink = ScriptedSink(Outcome(rejected=99, message="all too old"), Outcome(message="a warning"))
    queue = SendingQueue(sink)
    queue.offer(records(2))
    wait_settled(queue)
    queue.offer(records(1))
    wait_settled(queue)
    close(queue)
    assert (
        queue.state.ledger.rejected,
        queue.state.ledger.delivered,
        queue.state.ledger.sends,
    ) == (2, 1, 2)
    err = capsys.readouterr().err
    assert "all too old" in err
    assert "a warning" in err


def test_an_error_nobody_classified_is_tried_a_bounded_number_of_times_then_dropped():
    sink = ScriptedSink(*(SystemExit(3) for _ in range(5)))
    queue = SendingQueue(sink, options=DeliveryOptions(retry=QUICK))
    queue.offer(records(2))
    wait_settled(queue)
    queue.offer(records(1))
    wait_settled(queue)
    close(queue)
    assert queue.state.ledger.drops.snapshot() == {("sink_error", "INFO"): 2}
    assert queue.state.ledger.delivered == 1


def test_the_backlog_is_bounded_in_bytes_and_what_comes_on_top_is_counted(capsys):
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


def test_a_dead_backend_cannot_stretch_the_deadline_and_the_rest_is_counted(capsys):
    sink = ScriptedSink(*(RetryableError("refused") for _ in range(10_000)))
    queue = SendingQueue(sink)
    queue.offer(records(7))
    began = time.monotonic()
    close(queue, 0.3)
    assert time.monotonic() - began < 3
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 7}
    assert queue.state.ledger.settled == queue.state.ledger.taken
    assert "7 records were not delivered" in capsys.readouterr().err


def test_a_send_that_hangs_is_left_behind_and_cannot_count_twice():
    gate = Gate()
    sink = ScriptedSink(on_send=gate)
    queue = SendingQueue(sink)
    queue.offer(records(2))
    assert gate.entered.wait(5)
    close(queue, 0.05)
    assert queue.state.ledger.drops.total == 2
    gate.opened.set()
    until = time.monotonic() + 5
    while not sink.closed and time.monotonic() < until:
        time.sleep(0.001)
    assert queue.state.ledger.settled == 2
    assert queue.state.ledger.delivered == 0


def test_each_attempt_is_told_the_time_that_is_left():
    sink = ScriptedSink(RetryableError("x"))
    queue = SendingQueue(sink, options=DeliveryOptions(export_timeout=30, retry=QUICK))
    queue.offer(records(1))
    wait_settled(queue)
    assert sink.timeouts[0] == 30
    gate = Gate()
    sink._on_send = gate
    queue.offer(records(1))
    gate.opened.set()
    close(queue, 2)
    assert 0 < sink.timeouts[-1] <= 30


def test_everything_is_sent_by_one_thread_of_the_sink():
    sink = ScriptedSink(name="mine")
    queue = SendingQueue(sink)
    for _ in range(5):
        queue.offer(records(3))
        wait_settled(queue)
    assert sink.threads == {"fapilog-mine"}
    close(queue)
    assert "fapilog-mine" not in [t.name for t in threading.enumerate()]


def test_a_close_that_fails_is_announced_and_goes_no_further(monkeypatch, capsys):
    sink = ScriptedSink()
    monkeypatch.setattr(sink, "close", lambda: 1 / 0)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    close(queue)
    assert "close failed" in capsys.readouterr().err


def test_where_no_thread_is_to_be_had_closing_delivers(monkeypatch, capsys):
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
def test_a_wish_to_wait_holds_while_closing_within_the_deadline(answers):
    sink = ScriptedSink(*answers)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    close(queue, 5)
    assert len(sink.records) == 1


@pytest.mark.parametrize("answer", [200, object(), Outcome(rejected=-5), Outcome(rejected="3")])  # type: ignore[arg-type]
def test_a_sink_that_did_not_raise_took_the_batch_whatever_it_returned(answer: object) -> None:
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
def test_no_error_of_a_sink_ends_its_thread(error: Exception) -> None:
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


def test_what_is_closed_twice_is_counted_once() -> None:
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


def test_a_child_begins_with_nothing_and_a_sink_whose_after_fork_fails_is_announced(
    monkeypatch, capsys
):
    def refuse(_thread):
        raise RuntimeError("a child has none of the threads")

    sink = ScriptedSink()
    queue = SendingQueue(sink)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        queue.offer(records(3))
    assert queue.state.ledger.taken == 3
    queue.after_fork()
    assert (sink.forked, queue.state.ledger.taken, queue.state.backlog.pending_bytes) == (1, 0, 0)
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
    """Stands for a quarantine on a disk that fails."""

    def add(self, packed: bytes, severities: Sequence[int], reason: str) -> bool:
        raise OSError(28, "No space left on device")


def test_where_the_quarantine_cannot_be_written_records_count_as_rejected(capsys):
    sink = ScriptedSink(PermanentError("404"))
    sink.pack = lambda _items: b""  # type: ignore[attr-defined]
    options = DeliveryOptions(quarantine=Quarantine())  # type: ignore[arg-type]
    queue = SendingQueue(sink, options=options)
    queue.offer(records(3))
    wait_settled(queue)
    close(queue)
    assert (queue.state.ledger.rejected, queue.state.ledger.quarantined) == (3, 0)
    assert "scripted: quarantine: OSError: [Errno 28] No space left" in capsys.readouterr().err


def test_a_portion_that_is_taken_while_it_is_put_leaves_the_counts_right():
    backlog = Backlog(BatchLimits())
    seen: list[tuple[int, int]] = []

    class Impatient(deque[Batch]):
        """Stands for a thread that comes between."""

        def append(self, portion: Batch) -> None:
            super().append(portion)
            batch = backlog.take()
            backlog.release(batch)
            seen.append((len(backlog), backlog.pending_bytes))

    backlog._portions = Impatient()
    for _ in range(3):
        backlog.put(Batch(["x"], [9], 100))
    assert seen == [(0, 0)] * 3
