from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fapilog.delivery.backlog import Batch
from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.ledger import Drops, Stats
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import InvalidDataError, RetryableError
from fapilog.protocols import BatchLimits, Outcome
from fapilog.record import LogRecord
from fapilog.spool import Spool, SpoolFullError, SpoolOptions
from tests.support.ledger import balanced, wait_for
from tests.support.queues import close
from tests.support.sinks import ScriptedSink

QUICK = RetryPolicy(initial=0.01, maximum=0.02)


class DurableScripted(ScriptedSink):
    """A scripted sink whose items are bodies, which can wait on disk."""

    wire_format = "test-lines"

    def __init__(self, *answers: object, **options: Any) -> None:
        options.setdefault("limits", BatchLimits(count=50, delay=0.0))
        super().__init__(*answers, **options)
        self.is_up = threading.Event()
        self.is_up.set()

    def encode(self, record: LogRecord) -> str:
        return str(super().encode(record).body)

    def pack(self, items: Sequence[str]) -> bytes:
        return "\n".join(items).encode()

    def unpack(self, packed: bytes) -> list[str]:
        if packed.startswith(b"?"):
            message = "no lines of this sink"
            raise ValueError(message)
        return packed.decode().split("\n")

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        if not self.is_up.is_set():
            message = "refused"
            raise RetryableError(message)
        return super().send(batch, timeout)


def records(first: int, count: int, severity: int = 9) -> list[LogRecord]:
    made = [LogRecord(body=str(n), severity_number=severity) for n in range(first, first + count)]
    for record in made:
        record.size = 40
    return made


def numbers(first: int, count: int) -> list[str]:
    return [str(n) for n in range(first, first + count)]


Make = Callable[..., SendingQueue]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[SendingQueue] = []

    def make(sink: DurableScripted, mode: str = "overflow", **options: Any) -> SendingQueue:
        spool_options = {"min_free": 0, **options.pop("spool", {})}
        spool = Spool(sink.name, sink.wire_format, SpoolOptions(tmp_path, **spool_options))
        spool.open()
        given = {"retry": QUICK, "overflow": "spill", **options}
        queue = SendingQueue(
            sink,
            options=DeliveryOptions(spool=spool, spool_mode=mode, **given),  # type: ignore[arg-type]
        )
        made.append(queue)
        return queue

    yield make
    for queue in made:
        close(queue, 0.0)
    for queue in made:
        assert queue.worker.join(20)
        assert queue.spooling is None or queue.spooling.worker.join(20)


def stats(queue: SendingQueue) -> Stats:
    state = queue.state
    return state.stats(lambda: state.backlog.entered + state.ledger.overflow.total, Drops())


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*.seg") if path.is_file()]


def test_while_the_backend_is_down_records_move_to_disk_and_come_back_in_order(
    make: Make, tmp_path: Path
):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink)
    for first in range(0, 500, 25):
        queue.offer(records(first, 25))
    wait_for(lambda: stats(queue).spooled == 500)
    assert stats(queue).pending == 0
    assert queue.state.backlog.pending_bytes < 50 * 512  # only the batch that is being tried
    sink.is_up.set()
    for first in range(500, 700, 25):
        queue.offer(records(first, 25))
    wait_for(lambda: stats(queue).delivered == 700)
    assert sink.records == numbers(0, 700)
    close(queue)
    assert stats(queue).spooled == 0
    assert files_in(tmp_path) == []


def test_the_number_of_records_on_disk_is_readable_while_another_thread_takes_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    spooling = make(DurableScripted()).spooling
    assert spooling is not None
    seen = iter([Batch(["a", "b"], [9, 9], 2), None, None])
    monkeypatch.setattr(type(spooling), "_next", property(lambda _self: next(seen)), raising=False)
    assert len(spooling) == 2


def test_a_sink_sends_from_memory_if_the_thread_of_its_spool_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    sink = DurableScripted()
    queue = make(sink, mode="always")
    assert queue.spooling is not None
    monkeypatch.setattr(queue.spooling.worker, "has_thread", lambda: False)
    queue.offer(records(0, 10))
    close(queue, 100)
    assert sink.records == numbers(0, 10)
    assert balanced(stats(queue))


def test_while_the_backend_answers_the_disk_is_not_used(make: Make, tmp_path: Path):
    sink = DurableScripted()
    queue = make(sink)
    for first in range(0, 200, 20):
        queue.offer(records(first, 20))
        wait_for(lambda: queue.state.ledger.settled == queue.state.backlog.entered)
    close(queue)
    assert sink.records == numbers(0, 200)
    assert queue.state.spool is not None
    assert not list(tmp_path.rglob("*-*-*"))


def test_in_mode_always_every_record_is_on_disk_before_it_is_sent(make: Make):
    sink = DurableScripted()
    queue = make(sink, "always")
    on_disk: list[int] = []
    sink._on_send = lambda: on_disk.append(stats(queue).spooled)
    for first in range(0, 300, 30):
        queue.offer(records(first, 30))
    target = queue.start_flush()
    wait_for(lambda: queue.flush_done(target))
    close(queue)
    assert sink.records == numbers(0, 300)
    assert all(spooled >= len(batch) for spooled, batch in zip(on_disk, sink.batches, strict=True))


def test_if_the_backend_is_down_at_the_end_all_records_are_on_disk_for_the_next_process(
    make: Make, capsys: pytest.CaptureFixture[str]
):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink)
    queue.offer(records(0, 120))
    wait_for(lambda: queue.state.ledger.retries)
    queue.offer(records(120, 30))
    close(queue, 60.0)  # does not wait for the deadline, because the circuit is open
    first = stats(queue)
    assert (first.spooled, first.dropped, first.pending) == (150, 0, 0)
    assert "150 records wait in the spool" in capsys.readouterr().err

    heir = DurableScripted()
    following = make(heir)
    following.offer(records(150, 10))
    wait_for(lambda: stats(following).delivered == 160)
    assert [n for n in heir.records if int(n) < 150] == numbers(0, 150)
    assert [n for n in heir.records if int(n) >= 150] == numbers(150, 10)
    assert stats(following).adopted == 150
    assert balanced(stats(following))


def test_records_that_wait_too_long_for_a_send_that_hangs_move_to_disk(make: Make):
    gate = threading.Event()
    sink = DurableScripted(on_send=lambda: gate.wait(60))
    queue = make(sink)
    queue.offer(records(0, 10))
    queue.offer(records(10, 10))
    wait_for(lambda: stats(queue).spooled == 20)
    gate.set()
    wait_for(lambda: stats(queue).delivered == 20)
    assert sink.records == numbers(0, 20)
    assert stats(queue).spooled == 0


def test_a_backlog_that_is_half_full_overflows_to_disk(make: Make):
    gate = threading.Event()
    sink = DurableScripted(on_send=lambda: gate.wait(60), limits=BatchLimits(count=10, delay=3600))
    queue = make(sink, capacity=40_000)
    for first in range(0, 1000, 10):
        queue.offer(records(first, 10))
        wait_for(lambda: queue.state.backlog.pending_bytes < 25_000)
    assert stats(queue).dropped == 0
    gate.set()
    wait_for(lambda: stats(queue).delivered == 1000)
    assert sink.records == numbers(0, 1000)


def test_when_the_spool_is_full_records_stay_in_memory_and_are_sent_from_there(
    make: Make, capsys: pytest.CaptureFixture[str]
):
    sink = DurableScripted(limits=BatchLimits(count=10, delay=0.0))
    sink.is_up.clear()
    queue = make(sink, spool={"max_bytes": 4096, "segment_bytes": 4096})
    for first in range(0, 1000, 10):
        queue.offer(records(first, 10))
    wait_for(lambda: "cannot spool" in capsys.readouterr().err)
    now = stats(queue)
    assert now.spooled
    assert now.pending
    sink.is_up.set()
    wait_for(lambda: stats(queue).delivered == 1000)
    assert sink.records == numbers(0, 1000)


def test_a_disk_that_fails_loses_nothing_while_the_backend_answers(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise SpoolFullError

    sink = DurableScripted()
    queue = make(sink, "always")
    monkeypatch.setattr(queue.state.spool, "append", fail)
    for first in range(0, 100, 20):  # slowly, so the senders fall asleep in between
        queue.offer(records(first, 20))
        wait_for(lambda: stats(queue).delivered == first + 20)  # noqa: B023 - waited for here
    assert sink.records == numbers(0, 100)


def test_records_that_a_failing_disk_refuses_are_sent_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    sink = DurableScripted()
    queue = make(sink, "always")
    writes: list[int] = []

    def fail(*_: object, **__: object) -> None:
        writes.append(len(queue.state.backlog))  # the records that a woken sender would see
        raise SpoolFullError

    monkeypatch.setattr(queue.state.spool, "append", fail)
    queue.offer(records(0, 5))
    wait_for(lambda: stats(queue).delivered == 5)
    assert writes == [5]  # no record waited for the next write, a second later


def test_records_that_the_disk_refuses_at_the_end_are_sent(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    sink = DurableScripted(limits=BatchLimits(count=50, delay=3600))
    queue = make(sink, "always")
    is_writing, may_fail = threading.Event(), threading.Event()

    def fail(*_: object, **__: object) -> None:
        is_writing.set()
        may_fail.wait(20)
        raise SpoolFullError

    monkeypatch.setattr(queue.state.spool, "append", fail)
    queue.offer(records(0, 5))
    assert is_writing.wait(20)
    looks: list[float | None] = []
    sleep = queue.worker.sleep

    def look(seconds: float | None) -> None:
        looks.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(queue.worker, "sleep", look)
    queue.start_close(time.monotonic() + 20)
    # The senders have noticed the end while the disk is still being tried.
    wait_for(lambda: len(looks) > 3 or not queue.worker.is_alive)
    may_fail.set()
    queue.finish_close()
    assert sink.records == numbers(0, 5)
    assert (stats(queue).delivered, stats(queue).dropped) == (5, 0)


def test_a_batch_that_the_sink_cannot_read_back_is_dropped_and_counted(make: Make):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink)
    queue.offer(records(0, 3))
    wait_for(lambda: stats(queue).spooled == 3)
    assert queue.state.spool is not None
    with queue.state.lock:
        queue.state.spool.append(b"?", [17, 17])
    sink.is_up.set()
    wait_for(lambda: stats(queue).delivered == 3)
    wait_for(lambda: queue.state.ledger.drops.snapshot() == {("spool_unreadable", "ERROR"): 2})


def test_a_flush_is_done_when_all_records_are_on_disk_while_the_backend_is_down(make: Make):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink)
    with queue.state.lock:  # nothing moves to disk meanwhile
        queue.offer(records(0, 40))
        target = queue.start_flush()
        assert not queue.flush_done(target)
    wait_for(lambda: queue.flush_done(target))
    assert stats(queue).spooled == 40


@pytest.mark.parametrize("mode", ["overflow", "always"])
def test_the_ledger_balances_at_every_moment_with_several_threads_and_an_unsteady_backend(
    make: Make, mode: str
):
    sink = DurableScripted(limits=BatchLimits(count=20, delay=0.0))
    sink.concurrency = 3
    queue = make(sink, mode)
    wrong: list[Stats] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            now = stats(queue)
            if not balanced(now):
                wrong.append(now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for round_ in range(20):
        if round_ % 4 == 1:
            sink.is_up.clear()
        elif round_ % 4 == 3:
            sink.is_up.set()
        for first in range(round_ * 100, round_ * 100 + 100, 10):
            queue.offer(records(first, 10))
        time.sleep(0.02)
    sink.is_up.set()
    wait_for(lambda: stats(queue).delivered == 2000)
    done.set()
    watcher.join()
    assert wrong == []
    assert sorted(map(int, sink.records)) == list(range(2000))


def test_only_the_unsettled_half_of_a_batch_is_on_disk_at_the_end(make: Make, tmp_path: Path):
    sink = DurableScripted(InvalidDataError("cut it in two"), None)

    def go_down_with_the_first_half() -> None:
        if sink.answers == [None]:
            sink.is_up.clear()

    sink._on_send = go_down_with_the_first_half
    queue = make(sink, "always")
    queue.offer(records(0, 40))
    wait_for(lambda: stats(queue).delivered == 20)
    assert balanced(stats(queue))
    assert stats(queue).spooled == 20
    close(queue)
    assert stats(queue).spooled == 20
    heir = DurableScripted()
    following = make(heir)
    following.offer(records(40, 1))
    wait_for(lambda: stats(following).delivered == 21)
    assert sorted(map(int, heir.records)) == [*range(20, 40), 40]


# ---- room in memory


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_burst_larger_than_memory_moves_to_disk_without_a_loss(make: Make, concurrency: int):
    sink = DurableScripted(limits=BatchLimits(count=500, delay=1.0))
    sink.concurrency = concurrency
    sink.is_up.clear()
    queue = make(sink, capacity=20_000, block_timeout=20.0)
    for first in range(0, 3000, 50):  # about 900 kB
        queue.offer(records(first, 50))
    assert queue.state.ledger.overflow.total == 0
    wait_for(lambda: stats(queue).spooled == 3000)
    sink.is_up.set()
    wait_for(lambda: stats(queue).delivered == 3000)
    assert sorted(map(int, sink.records)) == list(range(3000))


def test_the_worker_does_not_wait_for_a_disk_that_takes_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink, capacity=20_000, block_timeout=3600.0)
    assert queue.state.spool is not None

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queue.state.spool, "append", refuse)
    for first in range(0, 500, 50):
        queue.offer(records(first, 50))
    assert queue.state.ledger.overflow.snapshot()["backlog_full", "INFO"] > 400
    close(queue, 0.5)
    assert balanced(stats(queue))
    assert stats(queue).pending == 0


# ---- what goes wrong on disk


def test_adopted_batches_that_cannot_be_read_are_dropped_and_do_not_count_for_a_flush(make: Make):
    sink = DurableScripted()
    sink.is_up.clear()
    queue = make(sink)
    sink.pack = lambda _items: b"?"  # type: ignore[method-assign, assignment]
    queue.offer(records(0, 3))
    wait_for(lambda: stats(queue).spooled == 3)
    close(queue)
    gate = threading.Event()
    # Its own record waits for the delay, while the adopted records are read.
    patient = BatchLimits(count=50, delay=0.5)
    heir = DurableScripted(on_send=lambda: gate.wait(20), limits=patient)
    following = make(heir)
    following.offer(records(3, 1))
    wait_for(lambda: stats(following).dropped == 3)
    target = following.start_flush()
    assert not following.flush_done(target)
    gate.set()
    wait_for(lambda: following.flush_done(target))
    now = stats(following)
    assert (now.adopted, now.delivered, now.spooled) == (3, 1, 0)
    assert now.drops == {"spool_unreadable": {"INFO": 3}}
    assert balanced(now)


def test_records_lost_with_a_damaged_frame_are_counted_and_a_flush_does_not_wait_for_them(
    make: Make,
):
    queue = make(DurableScripted())
    assert queue.state.spool is not None
    queue.state.backlog.entered += 2
    queue.state.spool.corrupt.records = 2
    assert queue.flush_done(queue.start_flush())
    now = stats(queue)
    assert now.drops == {"spool_damaged": {"UNKNOWN": 2}}
    assert (now.dropped, now.pending) == (2, 0)
    assert balanced(now)


def test_a_batch_that_was_read_too_early_is_written_again_if_its_file_is_deleted(
    make: Make, tmp_path: Path
):
    sink = DurableScripted(limits=BatchLimits(count=50, delay=3600))
    sink.is_up.clear()
    queue = make(sink, "always")
    for first in (0, 30, 60):
        queue.offer(records(first, 30))
        wait_for(lambda: stats(queue).spooled == first + 30)  # noqa: B023 - waited for here
    wait_for(lambda: len(queue.state.in_flight) == 2)  # the second batch has no room in the first
    for path in files_in(tmp_path):
        path.unlink()
    wait_for(lambda: files_in(tmp_path))
    wait_for(lambda: stats(queue).spooled == 90)
    sink.is_up.set()
    queue.start_flush()
    wait_for(lambda: stats(queue).delivered == 90)
    assert sorted(map(int, sink.records)) == list(range(90))
    assert (stats(queue).spooled, stats(queue).pending) == (0, 0)


def test_a_forked_child_has_its_own_spool(make: Make):
    sink = DurableScripted()
    queue = make(sink, "always")
    queue.after_fork()
    assert sink.forked == 1
    queue.offer(records(0, 3))
    wait_for(lambda: stats(queue).delivered == 3)
    assert stats(queue).spooled == 0
