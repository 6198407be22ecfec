"""Worker processes with the option ``metrics_directory`` show the sums of all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import fapilog
from fapilog import ConfigurationError, Runtime
from fapilog.core.observability import (
    Exemplar,
    ObservabilitySettings,
    Series,
    SharedMetrics,
    create_metrics_collector_from_settings,
    shared_families,
    shared_metrics,
)
from fapilog.runtime import mapped_file
from fapilog.runtime.metrics import SharedCollector
from tests.support.ledger import wait_for
from tests.support.ports import free_port
from tests.support.processes import environment, kill, run
from tests.support.sinks import ScriptedSink

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs advisory locks")

ENABLED = ObservabilitySettings(metrics={"enabled": True})
COUNTER = Series("shop", "counter", "orders", "Orders.", (("kind", "book"),))
LIVING = Series("shop", "sum", "carts", "Open carts.")
LARGEST = Series("shop", "max", "down", "1 if the shop is down.")
SECONDS = Series("shop", "histogram", "seconds", "Time.", (), (1.0, 2.0), has_exemplars=True)


def in_child(function: Callable[[], object], ending: int = signal.SIGKILL) -> None:
    """Run ``function`` in a forked process, which then ends by a signal."""
    pid = os.fork()
    if not pid:
        try:
            function()
            os.kill(os.getpid(), ending)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == ending


def samples(registry: Any) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def shown(shared: SharedMetrics) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(SharedCollector(shared))
    return samples(registry)


def files(directory: Path) -> list[str]:
    return sorted(path.suffix or path.name for path in directory.iterdir())


def test_the_counts_of_killed_processes_stay_and_their_gauges_go(tmp_path: Path):
    shared = SharedMetrics(tmp_path)

    def trade() -> None:
        shared.cells(COUNTER).values[0] += 3
        shared.cells(LIVING).values[0] = 5
        cells = shared.cells(SECONDS)
        cells.values[1] += 1
        cells.values[-1] += 1.5
        cells.set_exemplar(1, Exemplar(1.5, "ab" * 16, "cd" * 8, 1000.0))

    shared.cells(LIVING).values[0] = 2
    for _ in range(3):
        in_child(trade)
        found = shown(shared)
    assert found["orders_total", "book"] == 9
    assert found["carts",] == 2
    assert found["seconds_bucket", "1.0"] == 0
    assert found["seconds_bucket", "2.0"] == 3
    assert found["seconds_bucket", "+Inf"] == found["seconds_count",] == 3
    assert found["seconds_sum",] == 4.5
    assert files(tmp_path) == [mapped_file.SUFFIX, "lock", "totals"]
    (family,) = [f for f in shared_families(shared, "shop") if f.name == "seconds"]
    (exemplar,) = [sample.exemplar for sample in family.samples if sample.exemplar]
    assert exemplar.labels == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
    assert (exemplar.value, exemplar.timestamp) == (1.5, 1000.0)


def test_gauges_of_living_processes_are_added_or_compared_by_their_kind(tmp_path: Path):
    one, two = SharedMetrics(tmp_path), SharedMetrics(tmp_path)
    for shared, carts, down in ((one, 2, 1), (two, 3, 0)):
        shared.cells(LIVING).values[0] = carts
        shared.cells(LARGEST).values[0] = down
        shared.cells(COUNTER).values[0] = carts
    for shared in (one, two):
        found = shown(shared)
        assert found["carts",] == 5
        assert found["down",] == 1
        assert found["orders_total", "book"] == 5


def test_the_latest_exemplar_of_all_processes_is_shown(tmp_path: Path):
    one, two = SharedMetrics(tmp_path), SharedMetrics(tmp_path)
    for shared, value, at in ((one, 0.5, 2000.0), (two, 0.7, 1000.0)):
        cells = shared.cells(SECONDS)
        cells.values[0] += 1
        cells.set_exemplar(0, Exemplar(value, "ab" * 16, "cd" * 8, at))
    for shared in (one, two):
        (family,) = shared_families(shared, "shop")
        found = [sample.exemplar.value for sample in family.samples if sample.exemplar]
        assert found == [0.5]


def test_a_process_that_was_killed_while_it_added_up_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shared = SharedMetrics(tmp_path)
    in_child(lambda: shared.cells(COUNTER).values.__setitem__(0, 3.0))

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def scrape() -> None:
        monkeypatch.setattr(Path, "unlink", die)
        shared.collect()

    in_child(scrape)  # it has written the totals, and left the file that they include
    assert files(tmp_path) == [mapped_file.SUFFIX, "lock", "totals"]
    assert shown(shared)["orders_total", "book"] == 3
    assert files(tmp_path) == ["lock", "totals"]
    monkeypatch.undo()

    def scrape_early() -> None:
        monkeypatch.setattr(Path, "replace", die)
        shared.collect()

    in_child(lambda: shared.cells(COUNTER).values.__setitem__(0, 4.0))
    in_child(scrape_early)
    assert shown(shared)["orders_total", "book"] == 7
    assert files(tmp_path) == ["lock", "totals"]


def test_a_new_process_removes_the_files_of_ended_ones_though_nobody_scrapes(tmp_path: Path):
    shared = SharedMetrics(tmp_path)
    for _ in range(20):
        in_child(lambda: shared.cells(COUNTER).values.__setitem__(0, 1.0))
    shared.cells(LIVING)
    wait_for(lambda: files(tmp_path) == [mapped_file.SUFFIX, "lock", "totals"])
    assert shown(shared)["orders_total", "book"] == 20


def test_a_file_grows_by_chunks_and_every_series_is_read(tmp_path: Path):
    one, two = SharedMetrics(tmp_path), SharedMetrics(tmp_path)
    wanted = {}
    for number in range(2000):
        kind = str(number)
        one.cells(COUNTER._replace(labels=(("kind", kind),))).values[0] = number
        wanted["orders_total", kind] = float(number)
    assert shown(two) == wanted
    (path,) = [path for path in tmp_path.iterdir() if path.suffix == mapped_file.SUFFIX]
    assert path.stat().st_size % mapped_file.CHUNK == 0
    assert path.stat().st_size > mapped_file.CHUNK


def test_scrapes_while_others_count_and_end_never_go_back(tmp_path: Path):
    shared = SharedMetrics(tmp_path)
    shared.cells(COUNTER)
    script = """
    from pathlib import Path
    from fapilog.core.observability import Series, SharedMetrics
    series = Series("shop", "counter", "orders", "Orders.", (("kind", "book"),))
    for _ in range(40):
        pid = os.fork()
        if not pid:
            cells = SharedMetrics(Path(sys.argv[1])).cells(series)
            for _ in range(100):
                cells.values[0] += 1
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
    """
    done = threading.Event()

    def trade() -> None:
        try:
            assert run(script, tmp_path).returncode == 0
        finally:
            done.set()

    thread = threading.Thread(target=trade)
    thread.start()
    seen = [0.0]
    while not done.is_set():
        seen.append(shown(shared)["orders_total", "book"])
    thread.join()
    assert seen == sorted(seen)
    assert shown(shared)["orders_total", "book"] == 4000


def test_a_directory_that_is_gone_omits_the_sums_and_says_so(tmp_path: Path, capsys):
    shared = SharedMetrics(tmp_path / "metrics")
    shared.cells(COUNTER)
    for path in (tmp_path / "metrics").iterdir():
        path.unlink()
    (tmp_path / "metrics").rmdir()
    assert shared_families(shared, "shop") == []
    assert "the metrics of all processes are omitted: " in capsys.readouterr().err


def test_a_file_that_cannot_be_created_leaves_the_process_with_its_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fapilog.process.files.write_whole", full)
    shared = SharedMetrics(tmp_path)
    shared.cells(COUNTER).values[0] = 3
    assert shown(shared)["orders_total", "book"] == 3
    assert "some metrics of this process are not shared: " in capsys.readouterr().err


# ---- the ledger


def test_the_ledgers_of_all_processes_are_added_up(tmp_path: Path):
    def log() -> None:
        fapilog.configure(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path)
        for _ in range(5):
            fapilog.get_logger("t").info("x", password="p")
        assert fapilog.flush(20)
        samples(create_metrics_collector_from_settings(ENABLED).registry)

    for _ in range(2):
        in_child(log)
    fapilog.configure(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path)
    registry = create_metrics_collector_from_settings(ENABLED).registry
    assert samples(registry)["fapilog_records_accepted_total",] == 10
    fapilog.get_logger("t").info("x")
    assert fapilog.flush(20)
    found = samples(registry)
    assert found["fapilog_records_accepted_total",] == 11
    assert found["fapilog_records_delivered_total", "s"] == 11
    assert found["fapilog_values_redacted_total",] == 10
    assert found["fapilog_records_pending", "s"] == 0
    assert found["fapilog_queue_capacity",] == 32_768
    sends = found["fapilog_send_duration_seconds_count", "s"]
    assert sends >= 3
    assert found["fapilog_send_duration_seconds_bucket", "+Inf", "s"] == sends


def test_the_shared_metrics_of_one_process_are_those_that_it_shows_alone(tmp_path: Path):
    with (
        Runtime(sinks=[ScriptedSink(name="s")]) as alone,
        Runtime(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path) as shared,
    ):
        shows = []
        for runtime in (alone, shared):
            runtime.get_logger("t").info("x")
            assert runtime.flush(20)
            registry = create_metrics_collector_from_settings(ENABLED, runtime).registry
            shows.append(samples(registry))
    one, two = ({key for key in show if "_bucket" not in key[0]} for show in shows)
    assert one == two
    same = [key for key in one if "duration" not in key[0]]
    assert {key: shows[0][key] for key in same} == {key: shows[1][key] for key in same}


def test_the_publisher_writes_without_a_scrape(tmp_path: Path):
    other = SharedMetrics(tmp_path)
    with Runtime(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path) as runtime:
        runtime.get_logger("t").info("x")
        wait_for(lambda: shown(other).get(("fapilog_records_delivered_total", "s")) == 1)
        assert shown(other)["fapilog_queue_capacity",] == 32_768
    found = shown(other)
    assert found["fapilog_records_delivered_total", "s"] == 1
    assert found["fapilog_queue_capacity",] == 0


def test_counters_never_go_back_if_the_runtime_is_replaced(tmp_path: Path):
    registry = create_metrics_collector_from_settings(ENABLED).registry
    for number in range(1, 4):
        fapilog.configure(
            sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path, queue_size=1000 * number
        )
        fapilog.get_logger("t").info("x")
        assert fapilog.flush(20)
        found = samples(registry)
        assert found["fapilog_records_delivered_total", "s"] == number
        assert found["fapilog_queue_capacity",] == 1000 * number


def test_a_forked_child_adds_its_own_counts_only(tmp_path: Path):
    fapilog.configure(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path)
    registry = create_metrics_collector_from_settings(ENABLED).registry
    fapilog.get_logger("t").info("in the parent")
    assert fapilog.flush(20)
    assert samples(registry)["fapilog_records_accepted_total",] == 1

    def log() -> None:
        fapilog.get_logger("t").info("in the child")
        assert fapilog.flush(20)
        assert samples(registry)["fapilog_records_accepted_total",] == 2

    in_child(log)
    assert samples(registry)["fapilog_records_accepted_total",] == 2


def test_a_scrape_before_the_first_record_shows_the_counts_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def log() -> None:
        fapilog.configure(sinks=[ScriptedSink(name="s")], metrics_directory=tmp_path)
        fapilog.get_logger("t").info("x")
        fapilog.shutdown()

    in_child(log)
    assert shared_metrics() is None
    monkeypatch.setenv("FAPILOG_METRICS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("FAPILOG_SINKS", "none")
    registry = create_metrics_collector_from_settings(ENABLED).registry
    assert samples(registry)["fapilog_records_accepted_total",] == 1
    assert shared_metrics() is not None


# ---- wrong options


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"'metrics_directory': .*chmod 700"):
        Runtime(sinks="none", metrics_directory=tmp_path)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"'metrics_directory': .*not a directory"):
        Runtime(sinks="none", metrics_directory=tmp_path / "file")


def test_a_missing_prometheus_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "fapilog.runtime.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fapilog\[prometheus\]'"):
        Runtime(sinks="none", metrics_directory=tmp_path)


# ---- the command


def test_fapilog_metrics_serves_the_sums_of_processes_without_http(tmp_path: Path):
    shared = SharedMetrics(tmp_path)
    in_child(lambda: shared.cells(COUNTER).values.__setitem__(0, 3.0))
    port = free_port()
    command = [sys.executable, "-m", "fapilog", "metrics", "--port", str(port)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(FAPILOG_METRICS_DIRECTORY=str(tmp_path), PYTHONUNBUFFERED="1"),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == f"serving {tmp_path} at http://127.0.0.1:{port}/metrics\n"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                assert 'orders_total{kind="book"} 3.0' in answer.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            kill(process)


def test_fapilog_metrics_needs_a_directory(tmp_path: Path):
    command = [sys.executable, "-m", "fapilog", "metrics"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "needs --directory or FAPILOG_METRICS_DIRECTORY" in done.stderr
