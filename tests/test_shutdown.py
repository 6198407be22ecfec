"""Whatever is stuck at the deadline of a shutdown, every record is counted, and once."""

from __future__ import annotations

import pytest

from fapilog import LogRecord, Runtime
from fapilog.routes import Route
from fapilog.sinks import MemorySink
from tests.ledger_for_tests import balanced
from tests.sinks_for_tests import Gate, ScriptedSink


@pytest.mark.parametrize("end", ["passes", "drops", "raises"])
def test_a_processor_that_returns_after_the_deadline_is_not_heard(end: str) -> None:
    gate, sink = Gate(), ScriptedSink()

    def processor(record: LogRecord) -> LogRecord | None:
        if record.body == "held":
            gate()
        if end == "raises":
            raise ValueError
        return record if end == "passes" else None

    runtime = Runtime(sinks=[sink], processors=[processor])
    log = runtime.get_logger("t")
    for body in ("before", "held", "after"):
        log.info(body)
    assert gate.entered.wait(5)
    runtime.shutdown(0.2)
    stats = runtime.stats()
    assert balanced(stats)
    assert stats.pending == 0
    gate.opened.set()
    runtime.pipeline.worker.join(5)
    later = runtime.stats()
    assert (later.delivered, later.drops) == (stats.delivered, stats.drops)
    assert len(sink.records) == stats.delivered


def test_an_encoder_that_returns_after_the_deadline_is_not_heard() -> None:
    gate = Gate()
    slow = ScriptedSink(name="slow", on_encode=lambda r: gate() if r.body == "held" else None)
    first, last = ScriptedSink(name="first"), ScriptedSink(name="last")
    runtime = Runtime(sinks=[first, slow, last])
    log = runtime.get_logger("t")
    for body in ("before", "held", "after"):
        log.info(body)
    assert gate.entered.wait(5)
    runtime.shutdown(0.2)
    stats = runtime.stats()
    assert balanced(stats)
    assert [one.pending for one in (stats, *stats.sinks.values())] == [0, 0, 0, 0]
    gate.opened.set()
    runtime.pipeline.worker.join(5)
    assert runtime.stats() == stats
    for sink in (first, slow, last):
        assert len(sink.records) == stats.sinks[sink.name].delivered
    assert stats.sinks["slow"].drops["shutdown"]["INFO"] >= 1


def test_a_fallback_of_a_sink_that_is_stuck_at_the_deadline_balances() -> None:
    gate, spare = Gate(), ScriptedSink(name="spare")
    full = ScriptedSink(name="full", on_encode=lambda r: gate() if r.body == "held" else None)
    runtime = Runtime(sinks=[Route(full, fallback=spare)], backlog_bytes=65_536, overflow="block")
    log = runtime.get_logger("t")
    for _ in range(3):
        log.info("x" * 60_000)
    log.info("held")
    assert gate.entered.wait(5)
    runtime.shutdown(0.2)
    stats = runtime.stats()
    assert balanced(stats)
    assert [one.pending for one in stats.sinks.values()] == [0, 0]
    gate.opened.set()
    runtime.pipeline.worker.join(5)
    assert balanced(runtime.stats())
    assert [one.pending for one in runtime.stats().sinks.values()] == [0, 0]


def test_flush_after_an_abandoned_worker_returns_at_once() -> None:
    gate = Gate()
    runtime = Runtime(sinks=[MemorySink()], processors=[lambda _: gate()])
    runtime.get_logger("t").info("held")
    assert gate.entered.wait(5)
    runtime.shutdown(0.1)
    assert runtime.flush(20)
    assert runtime.stats().dropped == 1
    gate.opened.set()
    runtime.pipeline.worker.join(5)
