from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fapilog
from fapilog import LogRecord, Runtime
from fapilog.delivery.ledger import BUCKETS, Drops, SinkLedger, Stats
from fapilog.errors import InvalidDataError, PermanentError, RetryableError, TooLargeError
from fapilog.protocols import BatchLimits, Outcome
from fapilog.sinks import MemorySink, Route
from tests.support.ledger import balanced, wait_for
from tests.support.sinks import ONE_BATCH, ScriptedSink


def test_it_balances_with_every_outcome():
    good = ScriptedSink(name="good")
    partial = ScriptedSink(
        Outcome(rejected=2, message="two were too old"),
        name="partial",
        limits=ONE_BATCH,
    )
    refusing = ScriptedSink(PermanentError("400"), name="refusing", limits=ONE_BATCH)

    def only_even(record: LogRecord) -> LogRecord | None:
        return record if record.attributes["n"] % 2 == 0 else None

    with Runtime(sinks=[good, partial, refusing], processors=[only_even], level="debug") as runtime:
        log = runtime.get_logger("t")
        for n in range(10):
            log.info("x", n=n)
        log.warning("last", n=11)
        assert runtime.flush(5)
        stats = runtime.stats()
    assert stats.sinks["good"].delivered == 5
    assert (stats.sinks["partial"].delivered, stats.sinks["partial"].rejected) == (3, 2)
    assert stats.sinks["refusing"].rejected == 5
    for one in (stats, *stats.sinks.values()):
        assert one.accepted == 11
        assert one.drops == {"filtered": {"INFO": 5, "WARN": 1}}
        assert one.pending == 0
        assert balanced(one)


def test_the_totals_are_those_of_the_sink_that_has_delivered_least():
    with Runtime(sinks=[ScriptedSink(name="a"), ScriptedSink(PermanentError("no"), name="b")]) as r:
        r.get_logger("t").info("x")
        r.flush(5)
        total = r.stats()
    assert (total.delivered, total.rejected) == (0, 1)


def test_it_is_readable_as_text():
    stats = Stats(10, 7, 1, 2, 0, {"filtered": {"INFO": 2}})
    assert str(stats) == (
        "accepted 10 = delivered 7 + rejected 1 + dropped 2 + pending 0 (filtered 2)"
    )


def test_a_notebook_shows_a_line_for_all_sinks_and_one_for_each_sink() -> None:
    shown: list[str] = []
    stats = Stats(2, 2, sinks={"console": Stats(2, 2), "otlp": Stats(2, 0, pending=2)})
    stats._repr_pretty_(SimpleNamespace(text=shown.append), False)
    assert "".join(shown).splitlines() == [
        "accepted 2 = delivered 2 + rejected 0 + dropped 0 + pending 0",
        "console: accepted 2 = delivered 2 + rejected 0 + dropped 0 + pending 0",
        "otlp: accepted 2 = delivered 0 + rejected 0 + dropped 0 + pending 2",
    ]


def test_drops_are_counted_by_reason_and_severity_range():
    drops = Drops()
    drops.add("queue_full", 9)
    drops.add_all("queue_full", [10, 13])
    other = Drops()
    other.merge(drops)
    assert other.snapshot() == {("queue_full", "INFO"): 2, ("queue_full", "WARN"): 1}
    assert other.total == 3


def test_sends_are_counted_by_duration():
    ledger = SinkLedger()
    for seconds in (0.0005, 0.02, 99.0):
        ledger.observe_send(seconds)
    assert ledger.sends == 3
    assert ledger.durations[0] == 1
    assert ledger.durations[BUCKETS.index(0.05)] == 1
    assert ledger.durations[-1] == 1
    assert ledger.duration_sum == pytest.approx(99.0205)


def test_a_pipeline_without_sinks_drops_records_as_not_routed():
    with Runtime(sinks="none") as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(5)
        stats = runtime.stats()
        assert balanced(stats)
        assert (stats.accepted, stats.pending) == (1, 0)
        assert stats.drops == {"not_routed": {"INFO": 1}}


def test_without_a_runtime_the_module_functions_report_an_empty_ledger():
    assert fapilog.stats() == Stats()
    assert fapilog.flush() is True


# ---- totals


def test_records_that_a_route_leaves_out_do_not_lower_the_totals():
    errors = ScriptedSink(RetryableError("away", retry_after=3600), name="errors")
    with Runtime(
        sinks=[MemorySink(name="all"), Route(errors, level="error")],
        retry_maximum=3600,
        shutdown_timeout=0.2,
    ) as runtime:
        log = runtime.get_logger("t")
        for _ in range(7):
            log.info("x")
        log.error("x")
        wait_for(lambda: runtime.stats().sinks["all"].delivered == 8)
        wait_for(lambda: errors.timeouts)
        stats = runtime.stats()
        assert (stats.accepted, stats.delivered, stats.pending, stats.skipped) == (8, 7, 1, 0)
        assert stats.sinks["errors"].skipped == 7
        assert balanced(stats)
    assert runtime.stats().drops == {"shutdown": {"ERROR": 1}}


class Durable(ScriptedSink):
    """A sink of texts that can be spooled; raises every kind of error at random."""

    wire_format = "test-texts"
    chance = 0.0

    def __init__(self, *answers: object, **options: Any) -> None:
        super().__init__(*answers, **options)
        self.partly: list[int] = []

    def encode(self, record: LogRecord) -> Any:
        return str(record.attributes["n"])

    def pack(self, items: Sequence[Any]) -> bytes:
        return " ".join(items).encode()

    def unpack(self, packed: bytes) -> list[Any]:
        return packed.decode().split(" ")

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        if random.random() < self.chance:
            time.sleep(random.random() * 0.002)
            raise random.choice(
                [RetryableError("503"), TooLargeError("413"), InvalidDataError("400"),
                 PermanentError("404"), ValueError("?")]
            )  # fmt: skip
        super().send(batch, timeout)
        if random.random() < self.chance:
            self.partly.append(len(batch))
            return Outcome(rejected=1)
        return None


def test_records_of_an_earlier_process_count_as_accepted_and_as_adopted(tmp_path: Path):
    options: dict[str, Any] = {"spool": {"directory": tmp_path, "min_free": 0}}
    away = Durable(*[RetryableError("away", retry_after=3600)] * 100)
    with Runtime(sinks=[away], retry_maximum=3600, shutdown_timeout=5, **options) as runtime:
        for n in range(5):
            runtime.get_logger("t").info("x", n=n)
    stats = runtime.stats()
    assert (stats.accepted, stats.delivered, stats.spooled, stats.pending) == (5, 0, 5, 0)
    assert balanced(stats)
    back, other = Durable(), MemorySink(name="other")
    with Runtime(sinks=[back, other], **options) as runtime:
        runtime.get_logger("t").info("x", n=5)
        wait_for(lambda: len(back.records) == 6)
        wait_for(lambda: runtime.stats().pending == 0)
        stats = runtime.stats()
    assert (stats.accepted, stats.delivered, stats.adopted, stats.spooled) == (6, 6, 5, 0)
    assert {name: (one.accepted, one.adopted) for name, one in stats.sinks.items()} == {
        "scripted": (6, 5),
        "other": (1, 0),
    }
    assert balanced(stats)


def has_more(stats: Stats) -> bool:
    return stats.pending + stats.spooled > 0


@pytest.mark.parametrize("spool", ["never", "overflow", "always"])
def test_it_balances_at_every_moment_while_threads_meet_every_fault(tmp_path: Path, spool: Any):
    sinks = [Durable(name=name, limits=BatchLimits(count=20, delay=0)) for name in "abc"]
    for sink in sinks:
        sink.concurrency = 4
        sink.chance = 0.2
    over = threading.Event()
    seen: list[Stats] = []

    def watch() -> None:
        while not over.is_set():
            seen.append(runtime.stats())
            time.sleep(0.0002)

    def work(first: int) -> None:
        for n in range(first, first + 1000):
            log.info("x", n=n)

    with Runtime(
        sinks=[sinks[0], Route(sinks[1], where=lambda one: one.attributes["n"] % 3),
               Route(sinks[2], fallback=MemorySink(name="spare"), fallback_after=0)],
        retry_initial=0.001, retry_maximum=0.01, backlog_bytes=65_536, sink_overflow="drop_lowest",
        spool={"directory": tmp_path, "min_free": 0, "mode": spool, "quarantine_bytes": 4096},
        shutdown_timeout=30,
    ) as runtime:  # fmt: skip
        log = runtime.get_logger("t")
        watchers = [threading.Thread(target=watch) for _ in range(2)]
        workers = [threading.Thread(target=work, args=(first,)) for first in range(0, 3000, 1000)]
        for thread in (*watchers, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        for sink in sinks:
            sink.chance = 0.0  # otherwise a shutdown would leave records on disk
        names = runtime.stats().sinks
        wait_for(lambda: not any(has_more(runtime.stats().sinks[name]) for name in names))
    over.set()
    for thread in watchers:
        thread.join()
    assert len(seen) > 20
    assert [one for one in seen if not balanced(one)] == []
    stats = runtime.stats()
    assert balanced(stats)
    assert (stats.accepted, stats.pending, stats.spooled) == (3000, 0, 0)
    for sink in sinks:
        assert len(sink.records) == len(set(sink.records))
        assert len(sink.records) == stats.sinks[sink.name].delivered + len(sink.partly)


# ---- shutdown


def unsteady(tmp_path: Path, spool: Any) -> tuple[Runtime, list[Durable]]:
    """A runtime with two sinks of several threads each; one has a fallback."""
    sinks = [Durable(name=name, limits=BatchLimits(count=5, delay=0.01)) for name in "ab"]
    for sink in sinks:
        sink.concurrency = 3
        sink.chance = random.choice([0.0, 0.5, 1.0])
    runtime = Runtime(
        sinks=[sinks[0], Route(sinks[1], fallback=MemorySink(name="spare"), fallback_after=0)],
        retry_initial=0.001,
        retry_maximum=random.choice([0.002, 3600]),
        spool={"directory": tmp_path, "min_free": 0, "mode": spool},
    )
    return runtime, sinks


def check_the_end(runtime: Runtime, sinks: list[Durable]) -> None:
    """Check that every record is counted, every sink is closed, and every thread has ended."""
    wait_for(lambda: not any(t.name.startswith("fapilog-") for t in threading.enumerate()))
    stats = runtime.stats()
    assert balanced(stats)
    assert stats.pending == 0
    assert [one.pending for one in stats.sinks.values()] == [0, 0, 0]
    assert [sink.closed for sink in sinks] == [1, 1]


def shut_down_at_some_moment(runtime: Runtime) -> None:
    log = runtime.get_logger("t")
    over = threading.Event()

    def work() -> None:
        n = 0
        while not over.is_set():
            log.info("x", n=n)
            n += 1
            time.sleep(0.0001)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(random.random() * 0.1)
    runtime.shutdown(random.choice([0.0, 0.01, 0.3]))
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("spool", ["never", "overflow"])
def test_after_a_shutdown_at_any_moment_every_record_is_counted_once(tmp_path: Path, spool: Any):
    for round_ in range(15):
        runtime, sinks = unsteady(tmp_path / str(round_), spool)
        shut_down_at_some_moment(runtime)
        check_the_end(runtime, sinks)


def interrupt_a_shutdown(runtime: Runtime) -> None:
    """Shut down, and again in signal handlers that interrupt the shutdown and each other."""
    calls = 0

    def handler(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls < 5:
            signal.setitimer(signal.ITIMER_REAL, random.random() * 0.02 + 0.001)
        runtime.shutdown(0.2)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.random() * 0.02 + 0.001)
        for n in range(300):
            runtime.get_logger("t").info("x", n=n)
        runtime.shutdown(0.5)
        wait_for(lambda: calls == 5)
    finally:
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_a_signal_handler_may_shut_down_during_a_shutdown(tmp_path: Path):
    for round_ in range(15):
        runtime, sinks = unsteady(tmp_path / str(round_), "never")
        interrupt_a_shutdown(runtime)
        check_the_end(runtime, sinks)
        assert runtime.stats().accepted == 300
