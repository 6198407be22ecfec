"""Real child processes: every way a process can end, and forks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.processes import receiving

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and forks")

HEAD = """
import os, sys, signal, threading, time
import fapilog
log = fapilog.get_logger("script")
"""


def run(
    script: str,
    *arguments: str,
    env: dict[str, str] | None = None,
    timeout: float = 110,
):
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("FAPILOG_", "OTEL_"))}
    return subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**variables, "FAPILOG_SINKS": "console", **(env or {})},
        check=False,
    )


def bodies(text: str) -> list[str]:
    return [json.loads(line)["body"] for line in text.splitlines() if line.startswith("{")]


FIVE = "for n in range(5): log.info(f'line {n}')\n"
LINES = [f"line {n}" for n in range(5)]

ENDINGS = {
    "normally": "",
    "sys.exit": "sys.exit(3)",
    "uncaught exception": "raise RuntimeError('end')",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
    "in a thread": """
def late():
    time.sleep(0.05)
    log.info("from a thread that outlives main")
threading.Thread(target=late).start()
""",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
}


@pytest.mark.measured
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_line_arrives_however_a_script_ends(ending):
    done = run(FIVE + ENDINGS[ending])
    expected = LINES + (["from a thread that outlives main"] if ending == "in a thread" else [])
    assert bodies(done.stdout) == expected
    assert done.returncode == {
        "normally": 0, "sys.exit": 3, "uncaught exception": 1, "SIGTERM": -signal.SIGTERM,
        "in a thread": 0, "KeyboardInterrupt": -signal.SIGINT,
    }[ending]  # fmt: skip


# All scripts are forked from one process that has imported their modules, because the
# imports take most of the time of a short script.
A_HUNDRED_SCRIPTS = """
import fapilog.otel.provider, fapilog.otel.resource, fapilog.runtime.runtime, fapilog.settings
import fapilog.sinks.console, fapilog.runtime.wiring

directory, *scripts = sys.argv[1:]
running = []
for number, script in enumerate(scripts):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(f"{directory}/{number}", os.O_CREAT | os.O_WRONLY, 0o600), 1)
        break
    running.append(child)
    if len(running) == 4:
        os.waitpid(running.pop(0), 0)
else:
    for child in running: os.waitpid(child, 0)
    script = ""
exec(script)
"""


@pytest.mark.slow
def test_a_hundred_short_scripts_lose_no_line(tmp_path: Path):
    kinds = ["normally", "sys.exit", "uncaught exception", "SIGTERM"] * 25
    scripts = [FIVE + ENDINGS[kind] for kind in kinds]
    done = run(A_HUNDRED_SCRIPTS, str(tmp_path), *scripts)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / str(number)).read_text() for number in range(100)]
    assert [(kinds[n], text) for n, text in enumerate(said) if bodies(text) != LINES] == []


def test_an_applications_own_sigterm_handler_is_left_alone():
    done = run("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """)
    assert done.returncode == 7
    assert bodies(done.stdout) == ["one"]


def test_sigterm_handling_can_be_switched_off_and_shutdown_gives_it_back():
    done = run(
        """
        log.info("one")
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, file=sys.stderr)
        fapilog.configure(handle_sigterm=True)
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, file=sys.stderr)
        fapilog.shutdown()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, file=sys.stderr)
        """,
        env={"FAPILOG_HANDLE_SIGTERM": "false"},
    )
    assert done.stderr.split() == ["True", "False", "True"]


def test_a_dead_backend_holds_the_exit_no_longer_than_the_deadline():
    done = run(
        """
        fapilog.configure(sinks="otlp:http://127.0.0.1:9/v1/logs", shutdown_timeout=0.5)
        log.info("one")
        began = time.monotonic()
        import atexit
        atexit.register(lambda: None)
        """,
        timeout=30,
    )
    assert done.returncode == 0
    fix = "the option spool.directory keeps such records on disk"
    assert f"1 records were not delivered before the deadline; {fix}" in done.stderr


def test_what_is_logged_at_exit_by_hooks_registered_before_still_arrives():
    done = run("""
        import atexit
        fapilog.configure()
        atexit.register(lambda: log.info("from atexit"))
        """)
    assert bodies(done.stdout) == ["from atexit"]


def test_a_first_record_at_exit_arrives_although_no_thread_can_start():
    done = run("""
        import atexit
        atexit.register(lambda: log.info("first and last"))
        """)
    assert bodies(done.stdout) == ["first and last"]


def test_a_forked_child_logs_for_itself_and_repeats_nothing_of_its_parent():
    done = run("""
        for n in range(200): log.info("parent", n=n)
        child = os.fork()
        log.info("child" if child == 0 else "parent again")
        if child:
            assert os.waitpid(child, 0)[1] == 0
        """)
    found = bodies(done.stdout)
    assert sorted(set(found)) == ["child", "parent", "parent again"]
    assert found.count("parent") == 200
    assert found.count("child") == found.count("parent again") == 1


def test_forking_while_threads_log_leaves_every_child_able_to_log():
    done = run("""
        fapilog.configure()
        stop = False
        def spin():
            while not stop:
                log.info("spin")
                time.sleep(0.0002)
        threads = [threading.Thread(target=spin, daemon=True) for _ in range(4)]
        for thread in threads: thread.start()
        for n in range(15):
            child = os.fork()
            if child == 0:
                log.info("child", n=n)
                ok = fapilog.flush(10)
                os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        """)
    assert done.returncode == 0, done.stderr
    numbers = [
        json.loads(line)["attributes"]["n"]
        for line in done.stdout.splitlines()
        if '"child"' in line
    ]
    assert numbers == list(range(15))


def test_the_ledger_of_a_child_starts_at_zero():
    done = run("""
        log.info("parent")
        fapilog.flush()
        child = os.fork()
        if child == 0:
            assert fapilog.stats().accepted == 0, fapilog.stats()
            log.info("child")
            fapilog.flush()
            assert fapilog.stats().delivered == 1, fapilog.stats()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """)
    assert done.returncode == 0, done.stderr


NO_THREADS = """
start = threading.Thread.start
def refuse(thread):
    if thread.name.startswith("fapilog-"):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
"""


@pytest.mark.parametrize("refused", ["fapilog-console", "fapilog-"])
@pytest.mark.parametrize("ending", ["normally", "sys.exit", "in a thread"])
def test_an_exit_does_not_wait_for_a_thread_that_cannot_start(refused: str, ending: str) -> None:
    """Python 3.12.0 and 3.12.1 refuse new threads while the application's threads still run."""
    done = run(
        NO_THREADS.replace('"fapilog-"', repr(refused)).replace(
            "new thread", "create new thread at interpreter shutdown"
        )
        + FIVE
        + ENDINGS[ending],
        env={"FAPILOG_SHUTDOWN_TIMEOUT": "100"},
        timeout=60,
    )
    assert bodies(done.stdout)[:5] == LINES
    assert done.stderr == ""


@pytest.mark.parametrize("sink", ["console", "file", "otlp"])
def test_a_script_that_ends_with_its_first_records_waits_for_nothing(
    sink: str, tmp_path: Path
) -> None:
    path = tmp_path / "app.jsonl"
    with receiving() as ids:
        target = {"console": "console", "file": f"file:{path}", "otlp": f"otlp:{ids.url}"}[sink]
        for _ in range(3):
            env = {"FAPILOG_SINKS": target, "FAPILOG_SHUTDOWN_TIMEOUT": "100"}
            done = run(FIVE, env=env, timeout=60)
            written = path.read_text() if sink == "file" else done.stdout
            found = sorted(ids.counts) if sink == "otlp" else bodies(written)
            assert found == LINES
            assert done.stderr == ""
            path.unlink(missing_ok=True)


SLOW = """
from fapilog.sinks import ConsoleSink
class Slow(ConsoleSink):
    def send(self, batch, timeout):
        sending.set()
        time.sleep(0.3)
        return super().send(batch, timeout)
sending = threading.Event()
fapilog.configure(sinks=[Slow()])
log.info("slow")
def interrupt(number):
    sending.wait(10)
    time.sleep(0.1)  # by now the main thread waits in shutdown(); it must hold without, too
    os.kill(os.getpid(), number)
"""


def test_sigterm_in_the_midst_of_a_shutdown_loses_nothing() -> None:
    done = run(
        SLOW
        + """
threading.Thread(target=interrupt, args=(signal.SIGTERM,)).start()
fapilog.shutdown()
time.sleep(30)
"""
    )
    assert bodies(done.stdout) == ["slow"]
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize("first", ["SIGTERM", "the end of the script"])
def test_sigterm_in_the_midst_of_an_exit_that_has_no_threads_loses_nothing(first: str) -> None:
    end = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)" if first == "SIGTERM" else ""
    done = run(
        NO_THREADS
        + SLOW
        + f"""
threading.Thread(target=interrupt, args=(signal.SIGTERM,)).start()
{end}
"""
    )
    assert bodies(done.stdout) == ["slow"]
    assert done.returncode == -signal.SIGTERM


def test_a_shutdown_that_was_interrupted_is_completed_at_exit() -> None:
    done = run(
        SLOW
        + """
threading.Thread(target=interrupt, args=(signal.SIGINT,)).start()
try:
    fapilog.shutdown()
except KeyboardInterrupt:
    pass
"""
    )
    assert bodies(done.stdout) == ["slow"]


def test_the_first_process_of_a_container_ends_at_sigterm_too() -> None:
    done = run("""
        signal.raise_signal = lambda number: None  # the kernel shields process 1
        log.info("one")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """)
    assert bodies(done.stdout) == ["one"]
    assert done.returncode == 128 + signal.SIGTERM


def test_a_runtime_of_which_only_a_logger_is_left_is_drained_at_exit() -> None:
    done = run("""
        import gc
        log = fapilog.Runtime(sinks="console").get_logger("t")
        gc.collect()
        log.info("one")
        """)
    assert bodies(done.stdout) == ["one"]


def test_a_first_record_from_a_finaliser_at_the_very_end_raises_nothing() -> None:
    done = run("""
        import builtins
        class Last:
            def __del__(self):
                log.info("too late")
        builtins.last = Last()
        """)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "records are dropped" in done.stderr


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_what_a_child_of_multiprocessing_logs_arrives(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, fapilog
        log = fapilog.get_logger("script")
        def work(number):
            log.info(f"child {{number}}")
        if __name__ == "__main__":
            log.info("parent")
            context = multiprocessing.get_context({method!r})
            children = [context.Process(target=work, args=(n,)) for n in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
        """)
    )
    done = run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") if (
        method == "fork"
    ) else run(f"os.execv(sys.executable, [sys.executable, {str(script)!r}])")  # fmt: skip
    assert sorted(bodies(done.stdout)) == ["child 0", "child 1", "child 2", "parent"], done.stderr


def test_a_second_interrupt_ends_the_drain_at_once_and_the_loss_is_told() -> None:
    done = run(
        """
        fapilog.configure(sinks="otlp:http://127.0.0.1:9/v1/logs", shutdown_timeout=20)
        log.info("one")
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        import atexit
        atexit.register(lambda: print("waited", time.monotonic() - began > 15, file=sys.stderr))
        """,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "waited False" in done.stderr
    assert "1 records were not delivered" in done.stderr


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"])
def test_a_process_that_ends_within_a_hold_ends_quietly_and_sends_what_was_not_held(ending):
    done = run(
        """
        def generator():
            with fapilog.hold() as held:
                log.debug("held")
                yield held
        abandoned = generator()
        next(abandoned)
        fapilog.hold().__enter__()
        log.debug("held")
        log.info("sent")
        """
        + ending,
    )
    assert bodies(done.stdout) == ["sent"]
    assert done.stderr == ""
