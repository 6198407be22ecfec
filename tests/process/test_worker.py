from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fapilog.process.worker import Worker
from tests.support.ledger import wait_for


class Loop:
    """A loop that sleeps until it is woken, and ends when the event ``over`` is set."""

    def __init__(self, width: int = 1) -> None:
        self.rounds = self.running = self.finished = 0
        self.errors: list[BaseException] = []
        self.over = threading.Event()
        self._counting = threading.Lock()
        self.worker = Worker("fapilog-test", self.run, width=width, finish=self.finish)

    def run(self) -> None:
        with self._counting:
            self.running += 1
        try:
            while not self.over.is_set():
                with self._counting:
                    self.rounds += 1
                    error = self.errors.pop() if self.errors else None
                if error is not None:
                    raise error
                self.worker.sleep(0.01)
        finally:
            with self._counting:
                self.running -= 1

    def finish(self) -> None:
        self.finished += 1

    def end(self) -> None:
        self.over.set()
        self.worker.wake()
        assert self.worker.join(20)


@pytest.fixture
def make():
    made: list[Loop] = []

    def make(width: int = 1) -> Loop:
        made.append(Loop(width))
        return made[-1]

    yield make
    for loop in made:
        loop.end()


Make = Callable[..., Loop]


def test_the_first_wake_up_starts_a_thread_and_no_other_does(make: Make):
    loop = make(3)
    assert (loop.worker.is_alive, loop.worker.threads, loop.worker.idle) == (False, 0, True)
    for _ in range(10):
        assert loop.worker.wake()
    wait_for(lambda: loop.running == 1)
    assert loop.worker.threads == 1
    assert not loop.worker.is_current


def test_it_gets_as_wide_as_it_may_be_and_the_last_thread_finishes_once(make: Make):
    loop = make(3)
    loop.worker.wake()
    threads = [threading.Thread(target=loop.worker.widen) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: loop.running == 3)
    assert loop.worker.threads == 3
    assert loop.finished == 0
    loop.end()
    assert (loop.finished, loop.worker.ended) == (1, True)
    assert loop.worker.wake() is False
    loop.worker.widen()
    assert loop.worker.threads == 0


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("?"), SystemExit(1)])
def test_a_loop_that_fails_is_announced_and_run_again(make: Make, error, capsys):
    loop = make()
    loop.errors = [error]
    loop.worker.wake()
    wait_for(lambda: loop.rounds > 2)
    assert loop.finished == 0
    assert f"fapilog-test failed: {type(error).__name__}; it runs again" in capsys.readouterr().err


def test_where_a_wake_up_finds_no_memory_the_next_one_is_not_left_out(make: Make, monkeypatch):
    loop = make()
    loop.worker.wake()

    class NoBell:
        def put(self, _item: None) -> None:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop.worker, "_bell", NoBell())
        assert loop.worker.wake() is False
    assert loop.worker.idle
    assert loop.worker.wake()


@pytest.mark.parametrize(
    ("reason", "is_announced"),
    [("can't start new thread", True), ("can't create new thread at interpreter shutdown", False)],
)
def test_a_thread_that_is_refused_is_announced_unless_the_interpreter_ends(
    make: Make, monkeypatch, capsys, reason: str, is_announced: bool
):
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError(reason)

    loop = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert loop.worker.wake() is False
    assert loop.worker.idle
    assert ("a thread for fapilog-test" in capsys.readouterr().err) is is_announced
    assert loop.worker.wake()


def test_on_the_calling_thread_the_loop_is_not_nested():
    rounds = 0

    def loop() -> None:
        nonlocal rounds
        rounds += 1
        worker.run_inline()  # as a signal handler would
        assert worker.wake()
        assert (worker.threads, worker.is_current) == (1, True)

    worker = Worker("fapilog-test", loop)
    worker.run_inline()
    assert (rounds, worker.threads, worker.ended) == (1, 0, True)


def interrupted_at(worker: Worker, method: str, handler: Callable[[], object]) -> None:
    """Run ``handler`` once when ``worker`` calls its ``method``, as a signal might."""
    real = getattr(worker, method)

    def interrupted(*args: object, **more: object) -> object:
        setattr(worker, method, real)
        handler()
        return real(*args, **more)

    setattr(worker, method, interrupted)


@pytest.mark.parametrize("enter", ["run_inline", "wake", "widen"])
@pytest.mark.parametrize("moment", ["run_inline", "_start", "_enter"])
def test_a_signal_handler_that_ends_the_worker_ends_it_once(enter: str, moment: str):
    rounds, finished = [], []
    worker = Worker(
        "fapilog-test", lambda: rounds.append(1), finish=lambda: finished.append(worker.ended)
    )
    interrupted_at(worker, moment, worker.run_inline)
    getattr(worker, enter)()
    worker.run_inline()
    assert worker.join(20)
    wait_for(lambda: worker.ended)
    assert finished == [True]
    if enter == "run_inline":  # a thread may still be ending when the next loop begins
        assert rounds == [1]


def test_who_runs_the_loop_as_its_thread_ends_does_not_finish_again(make: Make):
    loop = make()
    loop.worker.wake()
    wait_for(lambda: loop.running == 1)
    interrupted_at(loop.worker, "_leave", loop.worker.run_inline)
    loop.end()
    assert (loop.finished, loop.worker.ended) == (1, True)


def test_no_loop_begins_once_the_last_one_has_ended(make: Make):
    loop = make(2)
    loop.worker.wake()
    wait_for(lambda: loop.running == 1)
    interrupted_at(loop.worker, "_enter", loop.end)
    loop.worker.widen()
    rounds = loop.rounds
    loop.worker.run_inline()
    assert (loop.finished, loop.rounds, loop.worker.threads) == (1, rounds, 0)


def test_a_worker_ends_though_its_last_loop_returned_while_another_thread_was_refused(
    make: Make, monkeypatch
):
    def refuse(_thread: threading.Thread) -> None:
        loop.over.set()
        loop.worker.wake()
        wait_for(lambda: loop.worker.threads == 1)
        assert loop.finished == 0  # this thread is still being started
        raise RuntimeError("can't start new thread")

    loop = make(2)
    loop.worker.wake()
    wait_for(lambda: loop.running == 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        loop.worker.widen()
    assert (loop.finished, loop.worker.ended) == (1, True)


def test_a_child_has_no_thread_and_may_start_its_own(make: Make):
    loop = make(2)
    loop.worker.wake()
    wait_for(lambda: loop.running == 1)
    loop.over.set()
    loop.worker.wake()
    wait_for(lambda: loop.finished == 1)
    loop.worker.after_fork()
    assert (loop.worker.threads, loop.worker.is_alive, loop.worker.idle) == (0, False, False)
    fresh = make()
    fresh.worker.after_fork()
    assert fresh.worker.idle
    assert fresh.worker.wake()
