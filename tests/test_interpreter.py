"""Sharing the interpreter: who gives way, and who has too much to do for that."""

from __future__ import annotations

import threading

import pytest

from fapilog import interpreter, native
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.protocols import BatchLimits
from tests.queues_for_tests import close, records, wait_settled
from tests.sinks_for_tests import Gate, ScriptedSink


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that have given way, by name."""
    found: list[str] = []
    monkeypatch.setattr(native, "sleep", lambda _: found.append(threading.current_thread().name))
    return found


def test_a_busy_thread_is_the_only_one_that_does_not_give_way(pauses):
    interpreter.set_busy(True)
    try:
        interpreter.give_way()
        thread = threading.Thread(target=interpreter.give_way, name="other")
        thread.start()
        thread.join()
        assert pauses == ["other"]
    finally:
        interpreter.set_busy(False)
    interpreter.give_way()
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
        was_busy.append(interpreter._thread.is_busy)

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
