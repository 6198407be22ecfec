import os
import threading

import pytest

from fapilog.errors import ConfigurationError
from fapilog.record import LogRecord
from fapilog.sinks.memory import MemorySink


def emit(sink, *bodies):
    sink.send([sink.encode(LogRecord(body=body)) for body in bodies], 1.0)


def bodies(sink):
    return [record.body for record in sink.records]


def test_records_are_kept_as_they_are_in_order():
    sink = MemorySink()
    sink.open()
    record = LogRecord(body="one")
    sink.send([sink.encode(record)], 1.0)
    emit(sink, "two", "three")
    assert sink.records[0] is record
    assert bodies(sink) == ["one", "two", "three"]
    assert sink.dropped == 0


def test_beyond_the_capacity_the_oldest_go_and_are_counted():
    sink = MemorySink(capacity=3)
    emit(sink, 1, 2)
    emit(sink, 3, 4, 5)
    assert bodies(sink) == [3, 4, 5]
    assert sink.dropped == 2
    emit(sink, *range(10))
    assert bodies(sink) == [7, 8, 9]
    assert sink.dropped == 12


def test_the_list_is_a_snapshot():
    sink = MemorySink()
    emit(sink, 1)
    before = sink.records
    emit(sink, 2)
    before.clear()
    assert bodies(sink) == [1, 2]


def test_clear_forgets_the_records_and_the_count():
    sink = MemorySink(capacity=1)
    emit(sink, 1, 2)
    sink.clear()
    assert sink.records == []
    assert sink.dropped == 0
    emit(sink, 3)
    assert bodies(sink) == [3]


def test_records_wait_for_no_company():
    assert MemorySink.limits.delay == 0


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "10", None])
def test_a_wrong_capacity_is_named_when_the_sink_is_opened(capacity):
    with pytest.raises(ConfigurationError, match=r"capacity=.*use a whole number of records"):
        MemorySink(capacity=capacity).open()


def test_reading_while_records_arrive_never_fails_or_shows_gaps():
    sink = MemorySink(capacity=50)
    finished = threading.Event()
    failures = []

    def read():
        while not finished.is_set():
            numbers = bodies(sink)
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False:
                failures.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 5000, 20):
        emit(sink, *range(start, start + 20))
    finished.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert sink.dropped + len(sink.records) == 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_empty_even_if_the_lock_was_held():
    sink = MemorySink()
    emit(sink, "parent")
    sink._lock.acquire()  # as if another thread of the parent held it during the fork
    sink.after_fork()
    emit(sink, "child")
    assert bodies(sink) == ["child"]
