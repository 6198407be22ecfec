"""Real Celery workers: each record of each process arrives exactly once, without extra code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.processes import (
    PATIENT,
    Ids,
    environment,
    kill,
    numbered,
    otlp,
    receiving,
)
from tests.support.zero_code import INSTRUMENT
from tests.support.zero_code import receiving as receiving_all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Celery's pool of processes")
pytest.importorskip("celery")

#: The application of a user who has read nothing about Celery.
APP = """
import logging, os, signal, sys, time
from celery import Celery
import fapilog

fapilog.configure()
log = fapilog.get_logger("app")
app = Celery("served", broker="filesystem://")
folder = os.path.join(os.getcwd(), "broker")
os.makedirs(folder, exist_ok=True)
app.conf.update(
    broker_transport_options={
        "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder},
    task_ignore_result=True, broker_connection_retry_on_startup=True)

@app.task
def work(number):
    for n in range(5):
        log.info(f"{number}/{n}")
"""


@contextlib.contextmanager
def worker(
    directory: Path,
    ids: Ids | None,
    *options: str,
    app: str = APP,
    env: dict[str, str] | None = None,
    run: Sequence[str] = (sys.executable, "-W", "ignore", "-m"),
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[str]]:
    """Run a worker of the module ``served``, and end it with the signal ``end``.

    The file ``output`` contains what it has printed.
    """
    (directory / "served.py").write_text(textwrap.dedent(app))
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [*run, "celery", "-A", "served", "worker", *quiet, *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=environment(
            **{
                **(otlp(ids) if ids else PATIENT),
                "PYTHONPATH": search_path(directory),
                **(env or {}),
            }
        ),
    ) as process:
        try:
            yield process
            process.send_signal(end)
            output, _ = process.communicate(timeout=90)
            assert "fapilog:" not in output, output
            (directory / "output").write_text(output)
        finally:
            kill(process)


def search_path(directory: Path) -> str:
    return os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])


def call(directory: Path, code: str) -> None:
    """Run ``code``, which sends tasks to the worker, in another process."""
    subprocess.run(
        [sys.executable, "-c", f"import served\n{code}"],
        cwd=directory,
        env=environment(PYTHONPATH=search_path(directory), FAPILOG_SINKS="none"),
        check=True,
        timeout=90,
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sent(directory: Path) -> int:
    """Return the number of messages that no worker has fetched."""
    return sum(1 for _ in (directory / "broker").glob("*.celery.msg"))


#: A record leaves the process only if the process delivers at its end.
LATE = {"OTEL_BLRP_SCHEDULE_DELAY": "60000"}
PREFORK = ["--pool", "prefork", "--concurrency", "2"]


def test_a_worker_that_is_terminated_delivers_the_records_of_its_processes(tmp_path: Path):
    with receiving() as ids:
        with worker(tmp_path, ids, *PREFORK, env=LATE):
            call(tmp_path, "for n in range(20): served.work.delay(n)")
            until(lambda: sent(tmp_path) == 0)
        ids.assert_each_once(f"{number}/{n}" for number in range(20) for n in range(5))
        assert len(set(ids.pids.values())) <= 2


@pytest.mark.slow
def test_a_cold_shutdown_that_ends_a_running_task_delivers_its_records(tmp_path: Path):
    app = f"{APP}    open('started', 'w').close()\n    time.sleep(90)\n"
    with receiving() as ids:
        with worker(tmp_path, ids, *PREFORK, app=app, env=LATE, end=signal.SIGQUIT):
            call(tmp_path, "served.work.delay(0)")
            until((tmp_path / "started").exists)
        ids.assert_each_once(numbered("0/", 5))


@pytest.mark.slow
def test_a_process_that_celery_recycles_after_one_task_delivers_its_records(tmp_path: Path):
    with receiving() as ids:
        with worker(tmp_path, ids, *PREFORK, "--max-tasks-per-child", "1", env=LATE):
            call(tmp_path, "for n in range(8): served.work.delay(n)")
            # Celery starts a new process for each task, and the last ones end with the worker.
            until(lambda: len(ids.counts) >= 30)
        ids.assert_each_once(f"{number}/{n}" for number in range(8) for n in range(5))
        assert len(set(ids.pids.values())) == 8


#: Configures fapilog with its first record, in the process of the task; another receiver logs.
LAZY = (
    APP.replace("fapilog.configure()", "")
    + """
from celery.signals import worker_process_init, worker_process_shutdown

def say_goodbye(**_):
    log.info(f"goodbye {os.getpid()}")

@worker_process_init.connect
def begin(**_):
    worker_process_shutdown.connect(say_goodbye, weak=False)
"""
)


@pytest.mark.slow
def test_a_record_that_another_receiver_logs_at_the_end_of_a_process_arrives(tmp_path: Path):
    with receiving() as ids:
        with worker(tmp_path, ids, "--pool", "prefork", "--concurrency", "1", app=LAZY, env=LATE):
            call(tmp_path, "served.work.delay(0)")
            until(lambda: sent(tmp_path) == 0)
        pids = set(ids.pids.values())
        ids.assert_each_once([*numbered("0/", 5), *(f"goodbye {pid}" for pid in pids)])
        assert len(pids) == 1


#: A task cannot start a process of multiprocessing, because its own process is daemonic.
STARTS_PROCESS = (
    APP
    + """
def child():
    log.info("from the child")

@app.task
def start():
    import billiard
    process = billiard.Process(target=child)
    process.start()
    process.join()
    log.info("from the task")
"""
)


@pytest.mark.slow
def test_a_process_that_a_task_starts_delivers_its_records(tmp_path: Path):
    with receiving() as ids:
        with worker(tmp_path, ids, *PREFORK, app=STARTS_PROCESS, env=LATE):
            call(tmp_path, "served.start.delay()")
            until(lambda: "from the child" in ids.counts)
        ids.assert_each_once(["from the child", "from the task"])


#: The application of a user who has not changed it for fapilog.
UNCHANGED = (
    APP.replace("fapilog.configure()", "from opentelemetry import trace")
    .replace("import fapilog\n", "")
    .replace("fapilog.get_logger", "logging.getLogger")
    .replace(
        "    for n",
        "    with trace.get_tracer('t').start_as_current_span(f'span {number}'):\n     for n",
    )
)


@pytest.mark.slow
def test_zero_code_delivers_the_records_and_spans_of_a_worker_once(tmp_path: Path):
    pytest.importorskip("opentelemetry.instrumentation")
    run = [str(Path(sys.executable).parent / INSTRUMENT), sys.executable, "-m"]
    with receiving_all() as telemetry:
        env = {
            "OTEL_PYTHON_DISTRO": "fapilog",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_ENDPOINT": telemetry.receiver.http_endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
            "FAPILOG_SINKS": "console,otlp",
            **LATE,
        }
        options = [*PREFORK, "--loglevel", "INFO"]
        with worker(tmp_path, None, *options, app=UNCHANGED, env=env, run=run):
            call(tmp_path, "for n in range(4): served.work.delay(n)")
            until(lambda: sent(tmp_path) == 0)
    expected = sorted(f"{number}/{n}" for number in range(4) for n in range(5))
    assert sorted(one.record.body.string_value for one in telemetry.of_logger("app")) == expected
    assert sorted(span.name for span in telemetry.spans) == numbered("span ", 4)
    ids = {span.span_id for span in telemetry.spans}
    assert {one.span_id for one in telemetry.of_logger("app")} == ids
    lines = (tmp_path / "output").read_text().splitlines()
    assert not [line for line in lines if "0/0" in line and not line.startswith("{")]


INSTALLED = (
    APP.replace("fapilog.configure()", "fapilog.configure(); fapilog.install_celery()")
    + """
@app.task(bind=True, max_retries=1, default_retry_delay=0)
def flaky(self):
    print("printed", self.request.retries, end="")
    logging.getLogger("library").info("at work")
    if not self.request.retries:
        raise self.retry(exc=ValueError("no"))
    raise RuntimeError("failed")
"""
)


@pytest.mark.slow
# Another test runs the pool "threads", without a retry: with a retry, this test timed out twice.
@pytest.mark.parametrize("pool", ["prefork", "solo", "gevent"])
def test_a_worker_with_the_bridge_prints_each_record_once(pool: str, tmp_path: Path):
    if pool == "gevent":
        pytest.importorskip("gevent")
    with receiving() as ids:
        env = {"FAPILOG_SINKS": f"console,otlp:{ids.url}"}
        options = ["--pool", pool, "--concurrency", "1", "--loglevel", "INFO"]
        with worker(tmp_path, ids, *options, app=INSTALLED, env=env):
            call(tmp_path, "served.flaky.apply_async(task_id='a1')")
            until(lambda: any("raised unexpected" in one for one in ids.counts))
    lines = (tmp_path / "output").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    of_task = [one for one in records if one["attributes"].get("messaging.destination.name")]
    work = ["at work", "printed 0", "at work", "printed 1"]
    ends = [one for one in of_task if one["scope"]["name"] == "celery.app.trace"]
    assert [
        one["body"] for one in of_task if one["scope"]["name"] in {"celery.redirected", "library"}
    ] == work
    assert [one["attributes"]["celery.state"] for one in ends] == ["RETRY", "FAILURE"]
    assert [one["attributes"].get("celery.retries", 0) for one in ends] == [0, 1]
    assert {one["attributes"]["messaging.message.id"] for one in of_task} == {"a1"}
    assert ["exception.type" in one["attributes"] for one in ends] == [False, True]
    printed = [line for line in lines if not line.startswith("{")]
    assert not any("at work" in line or "raised unexpected" in line for line in printed)


@pytest.mark.slow
def test_the_records_of_tasks_in_a_pool_of_threads_have_the_ids_of_their_tasks(tmp_path: Path):
    with receiving() as ids:
        env = {"FAPILOG_SINKS": f"console,otlp:{ids.url}"}
        options = ["--pool", "threads", "--concurrency", "2", "--loglevel", "INFO"]
        with worker(tmp_path, ids, *options, app=INSTALLED, env=env):
            call(tmp_path, "for n in range(4): served.work.apply_async([n], task_id=f't{n}')")
            bodies = {f"{n}/{k}" for n in range(4) for k in range(5)}
            until(lambda: bodies <= set(ids.counts))
    lines = (tmp_path / "output").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    found = sorted(
        (one["body"], one["attributes"]["messaging.message.id"])
        for one in records
        if one["body"] in bodies
    )
    assert found == sorted((body, f"t{body[0]}") for body in bodies)
