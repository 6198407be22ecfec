"""Whatever is stuck at the deadline of a shutdown, every record is counted, and once."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from fapilog import LogRecord, Runtime
from fapilog.delivery.route import Route
from fapilog.sinks import FileSink, MemorySink
from tests.support.ledger import balanced, wait_for
from tests.support.sinks import Gate, ScriptedSink


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


class SlowToClose(ScriptedSink):
    """Its ``close`` is slow, as one of the application's own may be."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def close(self) -> None:
        self.gate()
        super().close()


@pytest.mark.parametrize("is_used", [True, False])
def test_a_close_that_does_not_return_cannot_stretch_a_shutdown(
    is_used: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SlowToClose()
    runtime = Runtime(sinks=[sink])
    if is_used:
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
    began = time.monotonic()
    runtime.shutdown(0.2)
    assert time.monotonic() - began < 5  # the gate would stay closed for 20 s
    assert "scripted: close() has not returned at the deadline" in capsys.readouterr().err
    assert runtime.stats().pending == 0
    sink.gate.opened.set()
    wait_for(lambda: sink.closed)


def test_a_compression_at_the_deadline_leaves_the_whole_file_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b"line\n" * 1000
    raw = tmp_path / "app-20261123T101500.123456Z.log"
    raw.write_bytes(text)
    gate, write = Gate(), gzip.GzipFile.write

    def slow(self: gzip.GzipFile, data: bytes) -> int:
        gate()
        return write(self, data)

    monkeypatch.setattr(gzip.GzipFile, "write", slow)
    runtime = Runtime(sinks=[FileSink(tmp_path / "app.log", compress="gzip")])
    assert gate.entered.wait(20)
    began = time.monotonic()
    runtime.shutdown(0.2)
    assert time.monotonic() - began < 4  # close() lets compression go on for 5 s
    assert "file: close() has not returned" in capsys.readouterr().err
    assert raw.read_bytes() == text
    assert not raw.with_name(raw.name + ".gz").exists()
    gate.opened.set()
    packed = raw.with_name(raw.name + ".gz")
    wait_for(lambda: packed.exists() and not raw.exists())
    assert gzip.decompress(packed.read_bytes()) == text


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


def test_a_flush_that_has_just_timed_out_shortens_the_end_and_an_older_one_does_not(monkeypatch):
    now = time.monotonic() - 3600  # the real clock, which runs at the end, must not be earlier

    def stuck(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return False

    with Runtime(sinks=[MemorySink()], shutdown_timeout=5) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr("fapilog.runtime.runtime.monotonic", lambda: now)
            patched.setattr(runtime.pipeline, "flush", stuck)
            runtime.flush(3)
            assert runtime.exit_timeout == 2
            runtime.flush(30)
            assert runtime.exit_timeout == 1  # something may be delivered at last
            now += 10
            assert runtime.exit_timeout == 5
        assert runtime.flush(30)
        assert runtime.exit_timeout == 5
