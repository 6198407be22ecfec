"""A queue that several threads fill: each record is counted and delivered once."""

from __future__ import annotations

import threading
from typing import Any

from fapilog.delivery.direct_queue import DirectQueue
from fapilog.delivery.options import DeliveryOptions
from fapilog.record import LogRecord
from tests.support.ledger import balanced
from tests.support.queues import bodies, close, records, wait_settled
from tests.support.sinks import Gate, ScriptedSink


def make(sink: ScriptedSink, **options: Any) -> DirectQueue:
    return DirectQueue(sink, name="direct", options=DeliveryOptions(**options))


def test_records_of_many_threads_are_delivered_once_and_in_the_order_of_each_thread():
    sink = ScriptedSink()
    queue = make(sink)

    def fill(name: int) -> None:
        for n, record in enumerate(records(200)):
            record.body = f"{name} {n}"
            queue.put([record])

    threads = [threading.Thread(target=fill, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_settled(queue)
    assert queue.accepted == 1600
    assert balanced(queue.stats())
    for name in range(8):
        own = [body for body in bodies(sink) if body.startswith(f"{name} ")]
        assert own == [f"{name} {n}" for n in range(200)]
    close(queue)


def test_a_record_that_arrives_inside_a_put_of_the_same_thread_is_delivered_too():
    (inner,) = records(1)
    inner.body = "inner"

    def interrupt(record: LogRecord) -> None:
        if record.body == "1":
            assert queue.put([inner])

    sink = ScriptedSink(on_encode=interrupt)
    queue = make(sink)
    assert queue.put(records(3))
    wait_settled(queue)
    assert bodies(sink) == ["0", "1", "2", "inner"]
    assert (queue.stats().accepted, queue.stats().delivered) == (4, 4)
    close(queue)


def test_a_closing_queue_refuses_records_and_does_not_count_them():
    gate = Gate()
    queue = make(ScriptedSink(on_send=gate))
    assert queue.put(records(1))
    assert gate.entered.wait(20)
    queue.start_close(10**9)
    assert not queue.put(records(1))
    assert queue.accepted == 1
    queue.refuse("closed", [9, 17])
    gate.opened.set()
    queue.finish_close()
    assert queue.stats().accepted == 3
    assert queue.stats().drops == {"closed": {"INFO": 1, "ERROR": 1}}
    assert balanced(queue.stats())


def test_a_full_backlog_drops_and_counts_what_has_no_room():
    gate = Gate()
    queue = make(ScriptedSink(on_send=gate), capacity=20_000, overflow="drop_newest")
    for _ in range(10):
        assert queue.put(records(10, size=1000))
    stats = queue.stats()
    assert stats.accepted == 100
    assert stats.drops["backlog_full"]["INFO"] == stats.dropped > 50
    assert balanced(stats)
    gate.opened.set()
    close(queue)
    assert queue.stats().delivered == 100 - stats.dropped
