"""The steps around a fork, and forks while threads are inside OpenSSL, the resolver or gRPC."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fapilog import Runtime
from fapilog.bridges.patching import SetupLock
from fapilog.errors import RetryableError
from fapilog.otel.exporters import SinkExporter
from fapilog.process import fork
from fapilog.sinks import MemorySink
from tests.support.processes import otlp, receiving, run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

ROOT = Path(__file__).parents[2]


def test_the_steps_run_down_the_list_before_a_fork_and_up_the_list_after_it(monkeypatch):
    played: list[str] = []
    monkeypatch.setattr(fork, "_functions", {})
    monkeypatch.setattr(fork, "_methods", {})
    for step in sorted(fork.STEPS):  # the order of registration does not matter
        play = partial(played.append, step)
        fork.register(step, before=play, in_parent=play, in_child=play)
    down, up = list(fork.STEPS), list(reversed(fork.STEPS))
    fork._run("before", fork.STEPS)
    assert played == down
    fork._run("in_child", reversed(fork.STEPS))
    assert played == down + up


def test_an_object_is_renewed_in_children_as_long_as_it_lives(monkeypatch):
    renewed: list[str] = []

    class Owner:
        def after_fork(self) -> None:
            renewed.append("owner")

    monkeypatch.setattr(fork, "_functions", {})
    monkeypatch.setattr(fork, "_methods", {})
    owner = Owner()
    fork.register("pipelines", in_child=owner.after_fork)
    fork._run("in_child", fork.STEPS)
    del owner
    fork._run("in_child", fork.STEPS)
    assert renewed == ["owner"]
    assert not fork._methods["in_child", "pipelines"]


def test_each_step_has_an_owner():
    exporter, lock = SinkExporter(MemorySink()), SetupLock()
    with Runtime(sinks=[MemorySink()], otel_provider=False):
        owned = (*fork._functions, *fork._methods)
        assert all(("in_child", step) in owned for step in fork.STEPS)
    del exporter, lock


@contextlib.contextmanager
def a_thread_inside(section: fork.Section) -> Iterator[threading.Event]:
    """Keep a thread inside ``section`` until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def call() -> None:
        with section:
            entered.set()
            assert leave.wait(20)

    calling = threading.Thread(target=call)
    calling.start()
    assert entered.wait(20)
    yield leave
    leave.set()
    calling.join()


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> fork.Section:
    """A section that replaces all others, so that threads of other tests do not matter."""
    section = fork.Section("a library", 30.0, "do not fork")
    monkeypatch.setattr(fork, "SECTIONS", (section,))
    return section


def test_a_fork_waits_for_calls_and_calls_wait_for_the_fork(section):
    forked, entered, done = threading.Event(), threading.Event(), threading.Event()

    def fork_once() -> None:
        fork.close_gate()
        forked.set()
        assert done.wait(20)
        fork.open_gate()

    def call() -> None:
        with section:
            entered.set()

    forking, calling = threading.Thread(target=fork_once), threading.Thread(target=call)
    with a_thread_inside(section) as leave:
        forking.start()
        assert not forked.wait(0.05)
        leave.set()
        assert forked.wait(20)
    calling.start()
    assert not entered.wait(0.05)
    done.set()
    assert entered.wait(20)
    for thread in (forking, calling):
        thread.join()


def test_a_child_forked_in_the_midst_of_a_call_leaves_the_library_alone(section):
    section.patience = 0.01
    with a_thread_inside(section):
        fork.close_gate()
        fork.open_gate_in_child()
    with pytest.raises(RetryableError, match=r"a library cannot be used .*; do not fork"):
        with section:
            pass


def test_a_signal_handler_may_fork_inside_a_call(section):
    with section:
        fork.close_gate()
        fork.open_gate_in_child()
    assert not section.cut_short


def forks_with_tls(*options: str) -> None:
    done = run(
        "from tests import forks_with_tls; forks_with_tls.main()", *options, cwd=ROOT, timeout=400
    )
    assert (done.returncode, " 0 children hung" in done.stdout) == (0, True), done


def test_no_child_hangs_that_is_forked_while_a_thread_is_in_openssl_or_the_resolver():
    forks_with_tls("--forks", "10", "--widen")


@pytest.mark.slow
def test_three_hundred_forks_while_threads_connect_by_tls_leave_no_child_hung():
    forks_with_tls("--forks", "300")


# The name server does not answer while the process forks: the fork goes on, and the
# child asks on a thread of its own first.  "free" is a thread that only waited,
# "locked" one that held a lock of the resolver.
SLOW_RESOLVER = """
    import socket
    from fapilog.process import fork
    from fapilog.sinks import OTLPSink
    fork.RESOLVER.patience = 0.05
    real, asked, waiting = socket.getaddrinfo, threading.Event(), threading.Lock()
    def slow(*arguments):
        asked.set()
        with waiting:
            return real(*arguments)
    waiting.acquire()
    socket.getaddrinfo = slow
    fapilog.configure(sinks=OTLPSink(sys.argv[1]), retry_initial=0.05, retry_maximum=0.05)
    log.info("parent")
    asked.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        log.info("child")
        if sys.argv[2] == "free":
            waiting = threading.Lock()
            os._exit(0 if fapilog.flush(30) and fapilog.stats().delivered == 1 else 1)
        assert not fapilog.flush(0.5)
        fapilog.shutdown(0.5)
        os._exit(0 if fapilog.stats().drops["shutdown"].total == 1 else 2)
    ended = os.waitpid(child, 0)[1]
    waiting.release()
    assert fapilog.flush(30)
    os._exit(ended)
"""


@pytest.mark.parametrize("lock", ["free", "locked"])
def test_a_child_forked_while_a_name_server_does_not_answer_never_waits_for_ever(lock: str):
    with receiving() as ids:
        done = run(SLOW_RESOLVER, ids.url, lock, env=otlp(ids))
        assert done.returncode == 0, done.stderr
        ids.assert_each_once(["parent", *(["child"] if lock == "free" else [])])
