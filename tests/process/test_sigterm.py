"""SIGTERM: the interrupted code continues, and blocked children of multiprocessing notice it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog.process.sigterm import Sigterm, Watch
from tests.support.ledger import wait_for
from tests.support.processes import otlp, receiving, run, run_file

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to one thread")

# The signal goes to another thread, so the blocked main thread, which alone may run
# handlers, does not notice it: as if the signal had arrived just before it blocked.
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


# The main thread holds a lock that the sink needs when the signal interrupts it.
BUSY = """
    from fapilog.sinks import MemorySink
    class Sink(MemorySink):
        def send(self, batch, timeout):
            with held:
                print(*[record.body for record in batch], flush=True)
    held = threading.Lock()
    fapilog.configure(sinks=[Sink()], shutdown_timeout=60)
    with held:
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        log.info("two")
    while True:
        time.sleep(0.01)
"""


def test_code_that_sigterm_interrupts_may_hold_a_lock_that_a_delivery_needs():
    done = run(BUSY)
    assert done.stdout.split() == ["one", "two"], done.stderr
    assert done.returncode == -signal.SIGTERM


def test_a_main_thread_inside_a_foreign_call_does_not_keep_the_process_alive():
    done = run(
        """
        import ctypes
        from fapilog.process import exit as process_exit
        fapilog.configure(sinks="console")
        log.info("one")
        threading.Timer(0.2, process_exit.sigterm.begin).start()  # as the watch does
        mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        for _ in range(2): libc.pthread_mutex_lock(mutex)  # no signal ends the second wait
        """
    )
    assert done.returncode == 128 + signal.SIGTERM


def test_a_second_sigterm_changes_nothing():
    done = run(
        """
        import fapilog.sinks
        class Slow(fapilog.sinks.ConsoleSink):
            def send(self, batch, timeout):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1.5)
                os.kill(os.getpid(), signal.SIGTERM)
                return super().send(batch, timeout)
        fapilog.configure(sinks=[Slow()], shutdown_timeout=60)
        log.info("one")
        time.sleep(90)
        """
    )
    assert '"one"' in done.stdout, done.stderr
    assert done.returncode == -signal.SIGTERM


def test_a_handler_of_the_applications_own_may_call_ours_and_decide_how_to_end():
    done = run(
        """
        fapilog.configure(sinks="console")
        ours = signal.getsignal(signal.SIGTERM)
        def handle(number, frame):
            print("stopping", flush=True)
            ours(number, frame)
        signal.signal(signal.SIGTERM, handle)
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(90)
        """
    )
    assert '"one"' in done.stdout, done.stderr
    assert done.returncode == -signal.SIGTERM


def test_without_threads_the_handler_itself_delivers():
    done = run(
        """
        def refuse(thread):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        fapilog.configure(sinks="console")
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(90)
        """
    )
    assert '"one"' in done.stdout, done.stderr
    assert done.returncode == -signal.SIGTERM


# ---- the watch


class Handler(Sigterm):
    """A handler that only notes that it should start a delivery."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.begun = threading.Event()

    def begin(self) -> None:
        self.begun.set()

    def handle(self, *_: Any) -> None:
        """Do nothing with the signal."""


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler()
    before = signal.signal(signal.SIGTERM, made.handle)
    yield made
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def watch(handler: Handler) -> Iterator[Watch]:
    made = Watch(handler)
    yield made
    if (writer := wakeup_descriptor()) != -1:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), writer)  # ends the thread
        wait_for(lambda: not any(t.name == "fapilog-signals" for t in threading.enumerate()))
    made.after_fork()


def send_soon(*numbers: signal.Signals) -> None:
    """Send signals to a thread that is not the main thread."""

    def send() -> None:
        time.sleep(0.05)
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)

    threading.Thread(target=send).start()


def wakeup_descriptor() -> int:
    found = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    return found


def test_sigterm_begins_a_delivery_while_the_main_thread_blocks(watch: Watch, handler: Handler):
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        watch.start()
        watch.start()
        send_soon(signal.SIGUSR2)
        assert not handler.begun.wait(0.2)
        send_soon(signal.SIGTERM)
        assert handler.begun.wait(60)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_the_application_handles_begins_nothing(watch: Watch, handler: Handler):
    seen: list[int] = []
    watch.start()
    signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    send_soon(signal.SIGTERM)
    wait_for(lambda: bool(seen))
    assert not handler.begun.wait(0.2)


def test_the_descriptor_of_an_event_loop_is_left_alone(watch: Watch):
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


def test_a_descriptor_that_others_have_closed_is_not_given_back(watch: Watch):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    os.close(reader)
    os.close(writer)
    watch.start()
    assert wakeup_descriptor() == -1


def test_a_process_that_is_no_child_of_multiprocessing_is_not_watched(watch: Watch):
    watch.install()
    assert wakeup_descriptor() == -1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_descriptor_to_the_parent_and_the_childs_files_alone(
    watch: Watch,
):
    watch.start()
    mine = wakeup_descriptor()
    with open(os.devnull, "rb") as file:
        child = os.fork()
        if child == 0:
            os.dup2(file.fileno(), mine)  # the number has a new file
            watch.after_fork()
            os.fstat(mine)
            os._exit(wakeup_descriptor() != -1)
        assert os.waitpid(child, 0)[1] == 0
    assert wakeup_descriptor() == mine


def test_where_threads_are_greenlets_nothing_is_watched(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
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
    watch: Watch, monkeypatch: pytest.MonkeyPatch, capsys: Any, place: str, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        watch.start()
    assert f"SIGTERM may be handled late: cannot watch for it: {error}" in capsys.readouterr().err
    assert wakeup_descriptor() == -1
    watch.start()
    assert wakeup_descriptor() != -1
