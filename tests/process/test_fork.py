"""Forks at any moment: each record of each process arrives exactly once."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.otlp_servers import SocketServer, read_request
from tests.support.ports import free_port
from tests.support.processes import numbered, otlp, receiving, run, run_file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

# Each thread is logging when the process forks, and rests after a fixed number of
# records, so the work is the same on a slow machine.
FORK_WHILE_LOGGING = """
    fapilog.configure(queue_size=4096)
    forks, stop, counts, share = int(sys.argv[1]), False, [0] * 4, 0
    def log_shares(number):
        while not stop:
            if counts[number] < share:
                log.info(f"parent/{number}/{counts[number]}")
                counts[number] += 1
            else:
                time.sleep(0.0005)
    threads = [threading.Thread(target=log_shares, args=(n,)) for n in range(4)]
    for thread in threads: thread.start()
    children, failed = set(), []
    def reap(most):
        while len(children) > most:
            pid, status = os.waitpid(-1, 0)
            children.discard(pid)
            if status: failed.append(status)
    for n in range(forks):
        share += 50
        time.sleep(random.random() * 0.002)
        child = os.fork()
        if child == 0:
            for k in range(5): log.info(f"child/{n}/{k}")
            if n % 2:
                os._exit(0 if fapilog.flush(60) else 1)
            sys.exit()
        children.add(child)
        reap(3)
    stop = True
    for thread in threads: thread.join()
    reap(0)
    fapilog.shutdown(60)
    print(json.dumps([counts, failed, os.getpid()]))
"""


def assert_forks_lose_nothing(forks: int, protocol: str) -> None:
    with receiving() as ids:
        url = ids.receiver.grpc_endpoint if protocol == "grpc" else ids.url
        env = otlp(ids, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, FAPILOG_SINKS=f"otlp:{url}")
        done = run(FORK_WHILE_LOGGING, forks, env=env)
        assert done.returncode == 0, done.stderr
        counts, failed, parent = json.loads(done.stdout)
        assert failed == [], done.stderr
        from_parent = [f"parent/{t}/{n}" for t, count in enumerate(counts) for n in range(count)]
        from_children = [f"child/{n}/{k}" for n in range(forks) for k in range(5)]
        ids.assert_each_once(from_parent + from_children)
        assert {ids.pids[one] for one in from_parent} == {parent}
        assert len({ids.pids[one] for one in from_children} - {parent}) == forks


@pytest.mark.slow
def test_a_hundred_forks_while_four_threads_log_lose_and_double_nothing():
    assert_forks_lose_nothing(100, "http/protobuf")


def test_a_few_forks_while_four_threads_log_lose_and_double_nothing():
    assert_forks_lose_nothing(10, "http/protobuf")


def test_forks_while_four_threads_log_by_grpc_lose_and_double_nothing():
    pytest.importorskip("grpc")
    assert_forks_lose_nothing(20, "grpc")


# A module that a delivery thread is importing when another thread forks is locked
# for ever in the child, or is there by half.
WATCH_IMPORTS = """
    from fapilog.sinks import ConsoleSink, FileSink, LokiSink, OTLPSink
    base, refusing, grpc, directory = sys.argv[1:]
    url = base + "/v1/logs"
    sinks = [OTLPSink(url), OTLPSink(url, protocol="http/json", compression="gzip"),
             OTLPSink(refusing), LokiSink(base), LokiSink("http://localhost:9", format="json"),
             ConsoleSink(open(os.devnull, "w")), FileSink(directory + "/a.log"),
             FileSink(directory + "/b.log", format="otlp", compress="gzip", max_bytes=1000)]
    if grpc: sinks.append(OTLPSink(grpc, protocol="grpc"))
    fapilog.configure(sinks=sinks, retry_initial=0.001, retry_maximum=0.001, shutdown_timeout=2,
                      spool={"directory": directory + "/spool", "min_free": 0})
    imported = set()
    class Watch:
        def find_spec(name, path=None, target=None):
            if threading.current_thread() is not threading.main_thread(): imported.add(name)
    sys.meta_path.insert(0, Watch)
    for n in range(10):
        log.info("x", n=n, nested={"a": [1.5, None]}, password="p", url="http://u:p@localhost/")
    try: raise ValueError("bad")
    except ValueError: log.exception("caught")
    fapilog.flush(1)
    fapilog.shutdown()
    print(sorted(imported))
"""


def test_nothing_is_imported_on_a_delivery_thread_where_a_fork_would_cut_it_short(tmp_path: Path):
    def refuse(connection: socket.socket) -> None:
        read_request(connection)
        answers.append(b"HTTP/1.1 400 Bad\r\n" if len(answers) else b"HTTP/1.1 503 Away\r\n")
        words = "später".encode("latin-1")
        head = b"Content-Type: text/plain; charset=latin-1\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(answers[-1] + head % len(words) + words)

    answers: list[bytes] = []
    with receiving() as ids, SocketServer(refuse) as server:
        grpc = ids.receiver.grpc_endpoint or ""
        done = run(WATCH_IMPORTS, ids.receiver.http_endpoint, server.url, grpc, tmp_path)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert len(answers) > 1


def test_a_sigterm_that_comes_to_a_child_at_its_birth_ends_it():
    with receiving() as ids:
        done = run(
            """
            fapilog.configure()
            stop = False
            def spin():
                while not stop:
                    log.info("x")
                    time.sleep(0.0001)
            threads = [threading.Thread(target=spin) for _ in range(4)]
            for thread in threads: thread.start()
            ended = []
            for n in range(30):
                child = os.fork()
                if child == 0:
                    time.sleep(60)
                    os._exit(9)
                os.kill(child, signal.SIGTERM)
                ended.append(os.waitpid(child, 0)[1])
            stop = True
            for thread in threads: thread.join()
            print(set(ended))
            """,
            env=otlp(ids),
        )
    assert done.stdout.split() == [f"{{{int(signal.SIGTERM)}}}"], done.stderr


def test_the_resource_of_a_child_names_the_child_and_keeps_what_was_given():
    done = run(
        """
        parent = fapilog.configure(
            sinks="none", otel_provider=False, resource={"service.name": "shop", "team": "a"})
        before = dict(parent.resource.attributes)
        child = os.fork()
        if child == 0:
            now = parent.resource.attributes
            same = {k for k in before if before[k] == now[k]}
            ok = now["process.pid"] == os.getpid() and now["process.parent_pid"] == os.getppid()
            ok = ok and {"service.name", "team", "host.name"} <= same
            if "service.instance.id" in now: ok = ok and "service.instance.id" not in same
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert dict(parent.resource.attributes) == before
        """
    )
    assert done.returncode == 0, done.stderr


def test_an_instance_id_that_was_given_is_the_same_in_every_child():
    done = run(
        """
        runtime = fapilog.configure(sinks="none", otel_provider=False)
        child = os.fork()
        if child == 0:
            os._exit(runtime.resource.attributes["service.instance.id"] != "one")
        assert os.waitpid(child, 0)[1] == 0
        """,
        env={"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=one"},
    )
    assert done.returncode == 0, done.stderr


def test_a_level_that_was_changed_is_the_same_in_a_child():
    with receiving() as ids:
        done = run(
            """
            fapilog.configure()
            fapilog.set_level("debug", "script")
            child = os.fork()
            log.debug("parent" if child else "child")
            if child:
                assert os.waitpid(child, 0)[1] == 0
            """,
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once(["parent", "child"])


SPOOLING_CHILD = """
    import pathlib
    root = pathlib.Path(sys.argv[1])
    def directories():
        return {path.name for path in root.glob("*/*-*-*")}
    fapilog.configure(retry_initial=0.05, retry_maximum=0.1)
    for n in range(20): log.info(f"parent/{n}")
    fapilog.flush(30)  # to the disk, as the backend is down
    mine = directories()
    child = os.fork()
    if child == 0:
        for n in range(20): log.info(f"child/{n}")
        fapilog.flush(30)
        assert fapilog.stats().spooled == 20, fapilog.stats()
        assert len(directories() - mine) == 1, directories()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert fapilog.stats().spooled == 20, fapilog.stats()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_parent_and_child_had_spooled_when_they_were_killed_is_sent_once_by_a_later_process(
    tmp_path: Path,
):
    spool = {"FAPILOG_SPOOL__DIRECTORY": str(tmp_path), "FAPILOG_SPOOL__MIN_FREE": "0"}
    port = free_port()  # the waiting records are for this backend only
    down = {**spool, "FAPILOG_SINKS": f"otlp:http://127.0.0.1:{port}/v1/logs"}
    killed = run(SPOOLING_CHILD, tmp_path, env=down)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with receiving(http_port=port) as ids:
        done = run(
            """
            log.info("later")
            until = time.monotonic() + 60
            while fapilog.stats().delivered < 41 and time.monotonic() < until: time.sleep(0.02)
            """,
            env=otlp(ids, **spool),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once([*numbered("parent/", 20), *numbered("child/", 20), "later"])


WORKERS = """
    import multiprocessing, os, sys, fapilog
    from concurrent.futures import ProcessPoolExecutor
    log = fapilog.get_logger("script")

    def work(number):
        for n in range(5):
            log.info(f"{number}/{n}")
        return os.getpid()

    if __name__ == "__main__":
        kind, method = sys.argv[1:]
        context = multiprocessing.get_context(method)
        fapilog.configure()
        for n in range(50):
            log.info(f"parent/{n}")
        if kind == "executor":
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(work, range(6)))
        elif kind == "pool":
            with context.Pool(2) as pool:  # ends its processes by SIGTERM
                pool.map(work, range(6))
        else:
            started = [context.Process(target=work, args=(n,)) for n in range(6)]
            for child in started: child.start()
            for child in started: child.join()
            assert not any(child.exitcode for child in started)
"""


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(one, marks=pytest.mark.slow) for one in ("spawn", "forkserver"))],
)
@pytest.mark.parametrize("kind", ["process", "executor", "pool"])
def test_each_record_of_multiprocessing_arrives_once(kind: str, method: str, tmp_path: Path):
    with receiving() as ids:
        done = run_file(WORKERS, tmp_path, kind, method, env=otlp(ids))
        assert done.returncode == 0, done.stderr
        expected = [f"{number}/{n}" for number in range(6) for n in range(5)]
        ids.assert_each_once([*expected, *numbered("parent/", 50)])


def test_a_fork_while_another_thread_configures_is_not_held_up_for_ever():
    done = run(
        """
        from fapilog.runtime import default
        default.state.fork_patience = 0.2
        held = threading.Event()
        def configure_for_long():
            with default.state.lock:
                held.set()
                time.sleep(60)
        threading.Thread(target=configure_for_long, daemon=True).start()
        held.wait()
        child = os.fork()
        if child == 0:
            fapilog.configure(sinks="none", otel_provider=False)
            log.info("x")
            os._exit(fapilog.stats().accepted != 1)
        os._exit(os.waitpid(child, 0)[1])
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_fork_during_the_first_log_call_of_another_thread_writes_no_error():
    done = run(
        """
        from fapilog.runtime import default
        threading.Thread(target=log.info, args=("x",)).start()
        for _ in range(5000):
            if default.state.is_configuring:
                break
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os._exit(os.waitpid(child, 0)[1])
        """,
        env={"FAPILOG_SINKS": "none"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_parent_holds_is_released_by_the_parent_alone():
    with receiving() as ids:
        done = run(
            """
            fapilog.configure(sinks=sys.argv[1], level="info")
            with fapilog.hold() as held:
                for n in range(5): log.debug(f"parent/{n}")
                child = os.fork()
                if child == 0:
                    assert len(held) == 0
                    for n in range(3): log.debug(f"child/{n}")
                    held.release()
                    log.debug("child/3")
                    assert fapilog.flush(30)
                    with fapilog.hold():
                        log.debug("dropped")
                    assert fapilog.stats().accepted == 5, fapilog.stats()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
                held.release()
            fapilog.shutdown(30)
            assert fapilog.stats().accepted == 5
            """,
            f"otlp:{ids.url}",
            env=otlp(ids),
        )
        assert done.returncode == 0, done.stderr
        ids.assert_each_once([f"parent/{n}" for n in range(5)] + [f"child/{n}" for n in range(4)])


def test_a_fork_while_another_thread_fills_and_releases_holds_works_in_the_child():
    done = run(
        """
        import contextvars
        fapilog.configure(sinks="memory", level="info")
        stop = False
        held = fapilog.hold(records=5)
        def spin():
            while not stop:
                with held: log.debug("x")
                with fapilog.hold() as own:
                    log.debug("x")
                    own.release()
        # Daemons, so that a failure ends the process instead of waiting for them.
        threads = [threading.Thread(target=spin, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        for n in range(100):
            time.sleep(random.uniform(0, 0.004))
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                with held:
                    log.debug("x")
                    held.release()
                with fapilog.hold(): log.debug("y")
                stats = fapilog.stats()
                if (stats.accepted, stats.dropped) == (2, 1): os._exit(0)
                os.write(2, repr(stats).encode())
                os._exit(7)
            status = os.waitpid(child, 0)[1]
            assert status == 0, status
            assert all(thread.is_alive() for thread in threads)
        stop = True
        for thread in threads: thread.join()
        fapilog.shutdown(30)
        """
    )
    assert done.returncode == 0, done.stderr
