from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import RetryableError
from fapilog.protocols import BatchLimits, Outcome
from tests.support.ledger import wait_for
from tests.support.queues import QUICK, bodies, close, records, state_of, wait_settled
from tests.support.sinks import Gate, ScriptedSink

# ---- several sends at once


class Crowd(ScriptedSink):
    """A sink with several threads; each send waits until the test lets it go."""

    def __init__(self, concurrency: int, *answers: object, **options: Any) -> None:
        super().__init__(*answers, **{"limits": BatchLimits(count=2, delay=0), **options})
        self.concurrency = concurrency
        self.may_go = threading.Event()
        self.now = self.most = 0
        self._counting = threading.Lock()

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        with self._counting:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            assert self.may_go.wait(30)
            return super().send(batch, timeout)
        finally:
            with self._counting:
                self.now -= 1

    def after_fork(self) -> None:
        super().after_fork()
        self.now = 0
        self._counting = threading.Lock()
        self.may_go = threading.Event()
        self.may_go.set()


def crowded(concurrency: int, *answers: object, **options: Any) -> tuple[Crowd, SendingQueue]:
    """A queue of 100 records with as many sends running as the sink allows."""
    sink = Crowd(concurrency, *answers)
    queue = SendingQueue(sink, options=DeliveryOptions(retry=QUICK, **options))
    queue.offer(records(100))
    wait_for(lambda: sink.now == concurrency)
    return sink, queue


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_as_many_sends_as_allowed_run_at_once_and_no_more_and_all_is_delivered(concurrency):
    sink, queue = crowded(concurrency)
    time.sleep(0.05)  # time for one send too many
    assert sink.now == concurrency
    sink.may_go.set()
    wait_settled(queue)
    assert sorted(map(int, bodies(sink))) == list(range(100))
    assert sink.most == concurrency
    assert queue.state.ledger.delivered == 100
    assert queue.state.backlog.pending_bytes == 0
    close(queue)
    assert sink.closed == 1


def test_a_backlog_of_less_than_a_batch_starts_no_further_thread():
    sink = Crowd(8, limits=BatchLimits(count=1000, delay=0))
    sink.may_go.set()
    queue = SendingQueue(sink)
    for _ in range(20):
        queue.offer(records(3))
        wait_settled(queue)
    assert sum(t.name == "fapilog-scripted" for t in threading.enumerate()) == 1
    close(queue)


def test_a_failing_backend_is_probed_by_one_of_many_threads():
    sink, queue = crowded(5, *[RetryableError("503")] * 30)
    sink.may_go.set()
    wait_settled(queue)
    close(queue)
    assert sorted(map(int, bodies(sink))) == list(range(100))
    assert queue.state.ledger.retries == 30
    assert state_of(queue.state.circuit) == "closed"


def test_closing_waits_for_all_sends_and_for_the_batches_after_them():
    sink, queue = crowded(4)
    threading.Timer(0.05, sink.may_go.set).start()
    close(queue, 30)
    assert len(sink.records) == 100
    assert sink.closed == 1
    assert queue.state.ledger.drops.total == 0


def test_sends_that_hang_are_abandoned_at_the_deadline_and_all_is_counted_once():
    sink, queue = crowded(4)
    close(queue, 0.05)
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 100}
    sink.may_go.set()
    wait_for(lambda: sink.closed)
    assert queue.state.ledger.settled == queue.state.backlog.entered == 100
    assert queue.state.backlog.pending_bytes == 0


def test_one_hanging_send_delays_neither_the_others_nor_the_close():
    gate = Gate()
    sink = Crowd(3)
    queue = SendingQueue(sink)
    sink._on_send = lambda: gate() if not gate.entered.is_set() else None
    sink.may_go.set()
    queue.offer(records(100))
    wait_for(lambda: queue.state.ledger.delivered == 98)
    close(queue, 0.05)
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 2}
    gate.opened.set()
    wait_for(lambda: sink.closed)


@pytest.mark.parametrize("state", ["open", "half_open"])
def test_closing_while_the_circuit_is_open_keeps_to_the_deadline_and_counts_the_rest(state):
    gate = Gate()
    sink = Crowd(3, *[RetryableError("503", retry_after=60)] * 3)
    sink._on_send = lambda: None if sink.answers else gate()  # a probe hangs
    sink.may_go.set()
    policy = RetryPolicy(maximum=60 if state == "open" else 0.001)
    queue = SendingQueue(sink, options=DeliveryOptions(retry=policy))
    queue.offer(records(50))
    wait_for(
        lambda: (
            state_of(queue.state.circuit) == state and (state == "open" or gate.entered.is_set())
        )
    )
    began = time.monotonic()
    close(queue, 0.3)
    assert time.monotonic() - began < 10
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 50}
    gate.opened.set()
    wait_for(lambda: sink.closed)
    assert queue.state.ledger.settled == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_a_fork_during_sends_the_parent_finishes_them_and_the_child_starts_empty():
    sink, queue = crowded(4)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            queue.after_fork()
            queue.offer(records(10))
            close(queue, 20)
            told: list[object] = [
                queue.state.ledger.delivered,
                queue.state.backlog.entered,
                len(sink.records),
                sink.closed,
            ]
        except BaseException as error:
            told = [repr(error)]
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    sink.may_go.set()
    wait_settled(queue)
    close(queue)
    with open(reading, "rb") as answer:
        assert json.loads(answer.read()) == [10, 10, 10, 1]
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(map(int, bodies(sink))) == list(range(100))


def test_if_no_further_thread_can_be_started_the_first_one_delivers_all(monkeypatch, capsys):
    sink = Crowd(4)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    wait_for(lambda: sink.now == 1)

    def refuse(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue.offer(records(99))
    sink.may_go.set()
    wait_settled(queue)
    monkeypatch.undo()
    close(queue)
    assert (len(sink.records), sink.most) == (100, 1)
    err = capsys.readouterr().err
    assert "a thread for fapilog-scripted: can't start new thread; another thread works" in err


# ---- shutdown


def test_a_signal_handler_that_closes_during_a_close_counts_nothing_twice():
    """The handler runs on the thread that closes, and interrupts the close."""
    sink = ScriptedSink(*[RetryableError("refused")] * 10_000)
    queue = SendingQueue(sink, options=DeliveryOptions(retry=QUICK))
    interrupted = 0

    def handler(*_: object) -> None:
        nonlocal interrupted
        interrupted += 1
        if interrupted < 4:
            signal.setitimer(signal.ITIMER_REAL, 0.02)  # another handler will interrupt this one
        close(queue, 0.3)

    queue.offer(records(20))
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        close(queue, 0.5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted == 4
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 20}
    assert sink.closed == 1


def test_a_signal_handler_may_close_during_an_inline_delivery(monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    sink = ScriptedSink(limits=BatchLimits(count=1, delay=0))
    queue = SendingQueue(sink)
    sink._on_send = lambda: close(queue, 0.01) if len(sink.timeouts) == 3 else None
    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue.offer(records(5))
    close(queue, 5)
    monkeypatch.undo()
    counted = queue.state.ledger.delivered + queue.state.ledger.drops.total
    assert counted == queue.state.backlog.entered == 5
    assert queue.state.ledger.delivered >= 2
    assert sink.closed == 1


def test_records_that_are_encoded_while_the_sink_closes_are_counted_once():
    queue = SendingQueue(ScriptedSink(on_encode=lambda _: close(queue)))
    queue.offer(records(3))
    assert queue.state.ledger.drops.snapshot() == {("shutdown", "INFO"): 3}
    assert queue.state.backlog.entered == 0
    assert queue.state.backlog.pending_bytes == 0


def test_records_that_come_after_the_sink_has_closed_are_counted():
    queue = SendingQueue(ScriptedSink())
    close(queue)
    queue.offer(records(3))
    assert queue.state.ledger.overflow.snapshot() == {("shutdown", "INFO"): 3}
    assert queue.state.backlog.pending_bytes == 0


def test_a_thread_can_be_closed_while_it_is_being_started(monkeypatch):
    """A signal handler may run between the thread's creation and its start."""
    queue = SendingQueue(ScriptedSink())
    start = threading.Thread.start

    def interrupted(thread):
        monkeypatch.undo()
        close(queue, 0.05)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    queue.offer(records(2))
    queue.worker.join(20)
    assert queue.state.ledger.drops.total + queue.state.ledger.delivered == 2
    assert queue.sink.closed == 1  # type: ignore[attr-defined]


# ---- the age of a batch


def test_a_record_that_waited_for_a_slow_send_does_not_wait_for_the_delay_again():
    gate = Gate()
    sink = ScriptedSink(limits=BatchLimits(count=1000, delay=3600), on_send=gate)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    queue.start_flush()
    assert gate.entered.wait(20)
    queue.offer(records(1))
    queue.state.backlog._portions[0].born -= 3600  # an hour passes
    gate.opened.set()
    wait_for(lambda: len(sink.batches) == 2)
    close(queue)


@pytest.mark.parametrize("due", ["by age", "by count", "flush", "close"])
def test_a_due_batch_does_not_wait_for_a_hanging_send_if_another_thread_may_start(due):
    gate = Gate()
    limits = BatchLimits(
        count=2 if due == "by count" else 1000, delay=0 if due == "by age" else 3600
    )
    sink = ScriptedSink(limits=limits)
    sink.concurrency = 2
    sink._on_send = lambda: gate() if not gate.entered.is_set() else None
    queue = SendingQueue(sink)
    queue.offer(records(1))
    queue.start_flush()
    assert gate.entered.wait(20)
    queue.offer(records(1))
    queue.offer(records(1))
    if due == "flush":
        queue.start_flush()
    elif due == "close":
        queue.start_close(time.monotonic() + 30)
    wait_for(lambda: len(sink.records) == 2)
    gate.opened.set()
    close(queue)
    assert len(sink.records) == 3


def test_a_backlog_smaller_than_a_batch_is_sent_before_it_overflows():
    sink = ScriptedSink(limits=BatchLimits(count=1000, delay=3600))
    queue = SendingQueue(sink, options=DeliveryOptions(capacity=20_000, overflow="block"))
    for _ in range(40):
        queue.offer(records(10))
    assert queue.state.ledger.overflow.total == 0
    close(queue)
    assert len(sink.records) == 400
