"""A signal that comes to a child of multiprocessing just before a blocking call is handled."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog.process.signal_watch import SignalWatch
from tests.support.ledger import wait_for
from tests.support.processes import otlp, receiving, run_file

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to one thread")

# To a thread that does not block: the main thread, which alone may run handlers,
# is as deaf to it as to one that came a moment before it began to block.
LATE = """
    import multiprocessing, signal, sys, threading, time, fapilog
    if "early" in sys.argv:
        fapilog.configure()
    log = fapilog.get_logger("script")

    def signal_this_thread():
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def work(lock):
        log.info("child")
        threading.Thread(target=signal_this_thread, daemon=True).start()
        lock.acquire()

    if __name__ == "__main__":
        if "early" not in sys.argv:
            fapilog.configure()
        log.info("parent")
        context = multiprocessing.get_context(sys.argv[1])
        lock = context.Lock()
        with lock:
            child = context.Process(target=work, args=(lock,), daemon=True)
            child.start()
            child.join(60)
            print(child.exitcode)
"""


@pytest.mark.parametrize("configured", ["early", "late"])
@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_a_child_that_blocks_as_sigterm_comes_delivers_and_ends(
    method: str, configured: str, tmp_path: Path
):
    with receiving() as ids:
        done = run_file(LATE, tmp_path, method, configured, env=otlp(ids))
        assert done.stdout.split() == [str(-signal.SIGTERM)], done.stderr
        ids.assert_each_once(["child", "parent"])


CLOSING = """
    import multiprocessing, os, signal, time, fapilog

    def work():
        os.closerange(3, 256)
        files = [os.open("/dev/zero", os.O_RDONLY) for _ in range(8)]
        grandchild = os.fork()
        if grandchild == 0:
            for file in files: os.fstat(file)
            time.sleep(60)
            os._exit(9)
        time.sleep(0.2)
        os.kill(grandchild, signal.SIGTERM)
        os._exit(100 + os.waitpid(grandchild, 0)[1])

    if __name__ == "__main__":
        fapilog.configure(sinks="none")
        children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(10)]
        for child in children: child.start()
        for child in children: child.join()
        print({child.exitcode for child in children})
"""


def test_a_child_may_close_all_descriptors_and_use_their_numbers(tmp_path: Path):
    done = run_file(CLOSING, tmp_path)
    assert done.stdout == f"{{{100 + signal.SIGTERM}}}\n", done.stderr
    assert done.stderr == ""


class HandledError(Exception):
    """Ends the call that blocks."""


@pytest.fixture
def watch() -> Iterator[SignalWatch]:
    def handle(*_: Any) -> None:
        made.begun()
        raise HandledError

    made = SignalWatch(signal.SIGUSR1, handle)
    before = signal.signal(signal.SIGUSR1, handle)
    yield made
    if (writer := wakeup_descriptor()) != -1:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), writer)  # so that the thread reads the end
        wait_for(lambda: not any(t.name == "fapilog-signals" for t in threading.enumerate()))
    made.after_fork()
    signal.signal(signal.SIGUSR1, before)


def send_soon(*numbers: signal.Signals) -> None:
    """Send signals to a thread of their own."""

    def send() -> None:
        time.sleep(0.05)
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)

    threading.Thread(target=send).start()


def wakeup_descriptor() -> int:
    found = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    return found


def test_a_signal_is_repeated_until_its_handler_runs_and_no_other_is(watch: SignalWatch):
    others: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: others.append(number))
    try:
        watch.start()
        watch.start()
        lock = multiprocessing.Lock()
        lock.acquire()
        send_soon(signal.SIGUSR2, signal.SIGUSR1)
        with pytest.raises(HandledError):
            lock.acquire(timeout=60)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert others == [signal.SIGUSR2]


def test_where_another_handler_took_its_place_nothing_is_repeated(watch: SignalWatch):
    seen: list[int] = []
    watch.start()
    signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    send_soon(signal.SIGUSR1)
    wait_for(lambda: bool(seen))
    time.sleep(0.2)
    assert seen == [signal.SIGUSR1]


def test_the_descriptor_of_an_event_loop_is_left_alone(watch: SignalWatch):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    try:
        watch.start()
        assert wakeup_descriptor() == writer
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)
    watch.start()
    assert wakeup_descriptor() != -1


def test_a_descriptor_that_others_have_closed_is_not_given_back(watch: SignalWatch):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    os.close(reader)
    os.close(writer)
    watch.start()
    assert wakeup_descriptor() == -1


def test_a_process_that_is_no_child_of_multiprocessing_is_not_watched(watch: SignalWatch):
    watch.install()
    assert wakeup_descriptor() == -1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_descriptor_to_the_parent_and_the_childs_files_alone(
    watch: SignalWatch,
):
    watch.start()
    mine = wakeup_descriptor()
    with open(os.devnull, "rb") as file:
        child = os.fork()
        if child == 0:
            os.dup2(file.fileno(), mine)  # as where all descriptors are closed, and used again
            watch.after_fork()
            os.fstat(mine)
            os._exit(wakeup_descriptor() != -1)
        assert os.waitpid(child, 0)[1] == 0
    assert wakeup_descriptor() == mine


def test_where_threads_are_greenlets_nothing_is_watched(
    watch: SignalWatch, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: None)
    watch.start()
    assert wakeup_descriptor() == -1


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("os.pipe", OSError(24, "Too many open files")),
        ("threading.Thread.start", RuntimeError("!")),
    ],
)
def test_want_of_descriptors_or_threads_is_announced(
    watch: SignalWatch, monkeypatch: pytest.MonkeyPatch, capsys: Any, place: str, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        watch.start()
    assert f"SIGUSR1 may be handled late: {error}" in capsys.readouterr().err
    assert wakeup_descriptor() == -1
    watch.start()
    assert wakeup_descriptor() != -1
