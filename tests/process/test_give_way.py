"""A thread gives way to other threads unless it has too much work."""

from __future__ import annotations

import threading

import pytest

from fapilog import native
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.process import give_way
from fapilog.protocols import BatchLimits
from tests.support.queues import close, records, wait_settled
from tests.support.sinks import Gate, ScriptedSink


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that have given way, by name."""
    found: list[str] = []
    monkeypatch.setattr(native, "sleep", lambda _: found.append(threading.current_thread().name))
    return found


def test_a_busy_thread_is_the_only_one_that_does_not_give_way(pauses):
    give_way.set_busy(True)
    try:
        give_way.give_way()
        thread = threading.Thread(target=give_way.give_way, name="other")
        thread.start()
        thread.join()
        assert pauses == ["other"]
    finally:
        give_way.set_busy(False)
    give_way.give_way()
    assert pauses == ["other", threading.current_thread().name]


@pytest.mark.parametrize(
    ("limits", "more", "sizes", "busy"),
    [
        ({"count": 10}, {"count": 20}, [1, 10, 10], [False, True, False]),
        ({"size": 2000}, {"count": 3, "size": 900}, [1, 1, 1, 1], [False, True, False, False]),
    ],
    ids=["by count", "by bytes"],
)
def test_a_sinks_thread_gives_way_unless_a_full_batch_waits_behind_its_own(
    limits, more, sizes, busy
):
    gate = Gate()
    was_busy: list[bool] = []

    def look() -> None:
        gate()
        was_busy.append(give_way._thread.is_busy)

    sink = ScriptedSink(limits=BatchLimits(**limits, delay=0), on_send=look)
    queue = SendingQueue(sink)
    queue.offer(records(1))
    assert gate.entered.wait(5)
    queue.offer(records(**more))
    gate.opened.set()
    wait_settled(queue)
    close(queue)
    assert [len(batch) for batch in sink.batches] == sizes
    assert was_busy == busy
