"""Logging never harms a process, while it runs and when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog import Runtime
from fapilog.process.worker import Worker
from fapilog.sinks import MemorySink
from tests.support.otlp_servers import SocketServer, read_request
from tests.support.ports import free_port
from tests.support.processes import numbered, otlp, receiving, run
from tests.support.sinks import ScriptedSink

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@needs_posix
def test_what_signal_handlers_log_at_any_moment_arrives_once():
    with receiving() as ids:
        done = run(
            """
            import itertools
            fapilog.configure()
            ticks = itertools.count()
            def tick(*_):  # may be interrupted by itself
                log.info(f"handler/{next(ticks)}")
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            n, until = 0, time.monotonic() + 2
            while time.monotonic() < until:
                log.info(f"main/{n}", nested={"a": [n]})
                n += 1
                if n % 500 == 0: fapilog.flush(0.01)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps([n, next(ticks)]))
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        calls, ticks = json.loads(done.stdout)
        assert ticks > 10
        ids.assert_each_once([*numbered("main/", calls), *numbered("handler/", ticks)])


def test_what_finalisers_log_at_any_moment_arrives_once():
    with receiving() as ids:
        done = run(
            """
            import gc
            fapilog.configure()
            gc.set_threshold(20)
            ours = []  # on fapilog's own threads nothing is taken, once they have begun
            class Cycle:
                def __init__(self, n): self.n, self.me = n, self
                def __del__(self):
                    log.info(f"del/{self.n}")
                    if threading.current_thread().name.startswith("fapilog-"): ours.append(self.n)
            def work(first):
                for n in range(first, first + 500):
                    Cycle(n)
                    log.info(f"call/{n}", values=[[n] for _ in range(10)])
            threads = [threading.Thread(target=work, args=(n * 500,)) for n in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            gc.collect()
            print(json.dumps(ours))
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ours = {f"del/{n}" for n in json.loads(done.stdout)}
        missing = ours - set(ids.counts)
        ids.assert_each_once([*numbered("call/", 1500), *({*numbered("del/", 1500)} - missing)])


def test_daemon_threads_that_log_while_the_interpreter_ends_break_nothing():
    with receiving() as ids:
        done = run(
            """
            fapilog.configure()
            def spin():
                while True:
                    log.info("daemon")
                    time.sleep(0.0001)
            for _ in range(4): threading.Thread(target=spin, daemon=True).start()
            time.sleep(0.1)
            for n in range(100): log.info(f"main/{n}")
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        del ids.counts["daemon"]
        ids.assert_each_once(numbered("main/", 100))


def test_what_atexit_hooks_and_the_shutdown_itself_see_logged_is_delivered_or_counted():
    with receiving() as ids:
        done = run(
            """
            import atexit
            fapilog.configure()
            atexit.register(lambda: print(fapilog.stats()))
            atexit.register(log.info, "from atexit")
            log.info("main")
            fapilog.shutdown(30)
            log.info("after shutdown")
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once(["main"])
        assert "dropped 2" in done.stdout
        assert "a record was logged after shutdown()" in done.stderr


def test_a_closed_or_blocked_event_loop_changes_nothing():
    with receiving() as ids:
        done = run(
            """
            import asyncio
            alog = fapilog.get_async_logger("async")
            loop = asyncio.new_event_loop()
            loop.run_until_complete(alog.info("open"))
            loop.close()
            log.info("closed")
            try:
                alog.info("awaited by nobody").send(None)
            except StopIteration:
                pass
            async def block():
                thread = threading.Thread(target=lambda: log.info("from a thread"))
                thread.start()
                time.sleep(0.3)  # nothing else of the loop runs meanwhile
                log.info("blocked")
                thread.join()
            asyncio.run(block())
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once(["open", "closed", "awaited by nobody", "from a thread", "blocked"])


def test_where_the_system_refuses_threads_the_exit_delivers():
    pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a limit of the address space")
    with receiving() as ids:
        done = run(
            """
            import resource
            fapilog.configure()
            pages = int(open("/proc/self/statm").read().split()[0])
            threading.stack_size(1 << 30)  # more than there may be
            limit = pages * os.sysconf("SC_PAGE_SIZE") + (512 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            for n in range(50): log.info(f"{n}")
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        assert "cannot start a thread for" in done.stderr
        ids.assert_each_once(numbered("", 50))


def test_no_log_call_raises_where_memory_ends_in_its_midst():
    pytest.importorskip("_testcapi")
    with receiving() as ids:
        done = run(
            """
            import _testcapi, traceback
            runtime = fapilog.configure()
            log.info("first")
            fapilog.flush(60)
            def call(n):
                log.info("small", n=n)
            def nested(n):
                log.info("nested", data={"a": [n, {"b": n}]}, text="y" * 70_000)
            inside = []
            for function in (call, nested):
                for n in range(1, 150):
                    error = None
                    _testcapi.set_nomemory(n, n + 1)
                    try:
                        function(n)
                    except MemoryError as caught:
                        error = caught
                    finally:
                        _testcapi.remove_mem_hooks()
                    if error and "fapilog/" in traceback.format_exc() or (
                        error and len(traceback.extract_tb(error.__traceback__)) > 2
                    ):
                        inside.append(traceback.extract_tb(error.__traceback__)[-1])
            assert not inside, inside
            for n in range(20): log.info(f"{n}")
            assert fapilog.flush(60), fapilog.stats()
            stats = fapilog.stats()
            assert stats.pending == 0, stats
            assert stats.drops["no_memory"]["INFO"] > 0, stats
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        assert set(numbered("", 20)) <= set(ids.counts)


def test_a_loop_that_fails_for_want_of_memory_is_run_again(capsys):
    failures: list[BaseException] = [MemoryError(), SystemExit()]
    ended = threading.Event()

    def loop() -> None:
        if failures:
            raise failures.pop()

    worker = Worker("fapilog-test", loop, finish=ended.set)
    worker.wake()
    assert ended.wait(20)
    assert worker.join(20)
    assert worker.ended
    assert "fapilog-test failed: SystemExit; it runs again" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["meant", "_take"])
def test_a_slice_that_fails_for_want_of_memory_is_counted_and_the_next_goes_on(
    where: str, monkeypatch: pytest.MonkeyPatch
):
    sink = ScriptedSink()
    with Runtime(sinks=[sink], otel_provider=False) as runtime:
        log = runtime.get_logger("t")
        intake = runtime.pipeline.sending_queues()[0].intake
        real = getattr(intake, where)

        def fail(*_: Any) -> Any:
            monkeypatch.setattr(intake, where, real)
            raise MemoryError

        monkeypatch.setattr(intake, where, fail)
        log.info("lost")
        assert runtime.flush(20)
        log.info("next")
        assert runtime.flush(20)
        stats = runtime.stats()
    assert [record.body for record in sink.records] == ["next"]
    assert stats.drops == {"internal_error": {"INFO": 1}}
    assert (stats.accepted, stats.pending) == (2, 0)


def test_a_clock_set_back_loses_nothing_and_delays_nothing():
    with receiving() as ids:
        done = run(
            """
            import time as clock
            shift = [0]
            real, real_ns = clock.time, clock.time_ns
            clock.time = lambda: real() - shift[0]
            clock.time_ns = lambda: real_ns() - shift[0] * 10**9
            for name in [n for n in sys.modules if n.partition(".")[0] == "fapilog"]:
                del sys.modules[name]
            import fapilog
            log = fapilog.get_logger("script")
            for n in range(100):
                shift[0] = n * 3600
                log.info(f"{n}")
                if n % 10 == 0: assert fapilog.flush(60)
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once(numbered("", 100))


# ---- the end, with a backend in any state


def black_hole(connection: socket.socket) -> None:
    """Take a request and never answer."""
    read_request(connection)
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    """Send a byte from time to time, and never complete the answer."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def reset(connection: socket.socket) -> None:
    connection.recv(1)


def unavailable(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 503 no\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")


ENDING = """
    fapilog.configure(shutdown_timeout=1)
    for n in range(50): log.info(f"{n}")
    import atexit
    from fapilog.process import exit as process_exit
    # Runs after fapilog has ended.
    began = []
    def ended(): print(json.dumps({"spooled": fapilog.stats().spooled,
        "dropped": fapilog.stats().dropped, "pending": fapilog.stats().pending}))
    atexit.unregister(process_exit._finish)
    atexit.register(ended)
    atexit.register(process_exit._finish)
"""


def ends(url: str, env: dict[str, str]) -> tuple[dict[str, int], float]:
    """Run a process to its end; returns its last ledger and the seconds it took."""
    began = time.monotonic()
    done = run(ENDING, env={"FAPILOG_SINKS": f"otlp:{url}", **env}, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    ledger: dict[str, int] = json.loads(done.stdout)
    return ledger, time.monotonic() - began


@pytest.mark.parametrize("script", [black_hole, drip, reset, unavailable])
@pytest.mark.parametrize("spool", [False, True])
def test_no_state_of_a_backend_stretches_the_exit_and_what_is_left_is_counted_or_on_disk(
    script: Any, spool: bool, tmp_path: Path
):
    env = (
        {"FAPILOG_SPOOL__DIRECTORY": str(tmp_path), "FAPILOG_SPOOL__MIN_FREE": "0"} if spool else {}
    )
    with SocketServer(script) as server:
        ledger, seconds = ends(server.url, env)
    assert seconds < 60
    assert ledger["pending"] == 0
    assert ledger["spooled" if spool else "dropped"] == 50


def test_an_exit_while_the_backend_is_down_leaves_everything_in_the_spool_for_the_next_process(
    tmp_path: Path,
):
    spool = {"FAPILOG_SPOOL__DIRECTORY": str(tmp_path), "FAPILOG_SPOOL__MIN_FREE": "0"}
    # Fast: the long deadline is not waited for.
    port = free_port()  # the waiting records are for this backend only
    url = f"http://127.0.0.1:{port}/v1/logs"
    ledger, seconds = ends(url, {**spool, "FAPILOG_SHUTDOWN_TIMEOUT": "1"})
    assert ledger == {"spooled": 50, "dropped": 0, "pending": 0}
    assert seconds < 60
    with receiving(http_port=port) as ids:
        done = run(
            """
            log.info("later")
            until = time.monotonic() + 60
            while fapilog.stats().delivered < 51 and time.monotonic() < until: time.sleep(0.02)
            """,
            env=otlp(ids, **spool),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once([*numbered("", 50), "later"])


def test_grpc_that_never_answers_does_not_stretch_the_exit():
    pytest.importorskip("grpc")
    with SocketServer(black_hole) as server:
        ledger, seconds = ends(f"http://{server.address}", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert seconds < 60
    assert ledger["dropped"] == 50


@needs_posix
def test_a_sigterm_while_the_backend_never_answers_ends_the_process():
    with SocketServer(black_hole) as server:
        done = run(
            """
            fapilog.configure(shutdown_timeout=0.5)
            log.info("x")
            time.sleep(1.5)  # the request is under way
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(80)
            """,
            env={"FAPILOG_SINKS": f"otlp:{server.url}"},
        )
    assert done.returncode == -signal.SIGTERM
    assert "1 records were not delivered" in done.stderr


# ---- wrong time limits


@pytest.mark.parametrize("wrong", ["5", object(), [], True, float("nan"), b"5"])
def test_a_wrong_time_limit_is_announced_and_the_default_is_used(wrong: Any, capsys):
    sink = MemorySink()
    runtime = fapilog.configure(sinks=[sink])
    fapilog.get_logger("t").info("one")
    assert fapilog.flush(wrong)
    assert runtime.flush(wrong)
    fapilog.get_logger("t").info("two")
    fapilog.shutdown(wrong)
    runtime.shutdown(wrong)
    assert [record.body for record in sink.records] == ["one", "two"]
    announced = capsys.readouterr().err
    assert "flush(timeout) takes seconds" in announced
    assert "shutdown(timeout) takes seconds" in announced


@pytest.mark.parametrize("limit", [0, -1, 5, 1e300, float("inf"), 10**400])
def test_any_number_is_a_time_limit(limit: float, capsys):
    runtime = fapilog.configure(sinks=[MemorySink()])
    fapilog.get_logger("t").info("one")
    if limit >= 5:
        assert runtime.flush(limit)
    else:
        runtime.flush(limit)
    fapilog.shutdown(limit)
    assert "takes seconds" not in capsys.readouterr().err
    assert fapilog.stats().pending == 0
