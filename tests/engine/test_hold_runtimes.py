"""Holds with runtimes, bridges and threads."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import _logs as api

import fapilog
from fapilog import Runtime
from fapilog.engine import hold_buffer
from fapilog.otel.provider import LoggerProvider
from fapilog.sinks import MemorySink
from tests.support.ledger import balanced, wait_for
from tests.support.threads import run_at_once


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def runtime(sink: MemorySink) -> Iterator[Runtime]:
    with Runtime(sinks=[sink], otel_provider=False) as runtime:
        yield runtime


def bodies(runtime: Runtime, sink: MemorySink) -> list[Any]:
    assert runtime.flush(10)
    assert balanced(runtime.stats())
    return [record.body for record in sink.records]


# ---- runtimes


def test_each_record_is_released_to_the_runtime_of_its_logger():
    sinks = [MemorySink(), MemorySink()]
    with Runtime(sinks=[sinks[0]]) as one, Runtime(sinks=[sinks[1]]) as two:
        with fapilog.hold() as block:
            for n in range(3):
                one.get_logger("t").debug(f"one {n}")
                two.get_logger("t").debug(f"two {n}")
            block.release()
        with fapilog.hold():
            two.get_logger("t").debug("dropped")
        assert bodies(one, sinks[0]) == ["one 0", "one 1", "one 2"]
        assert bodies(two, sinks[1]) == ["two 0", "two 1", "two 2"]
    assert (one.stats().dropped, two.stats().dropped) == (0, 1)


def test_a_configure_in_the_block_takes_what_is_held_along():
    first, second = MemorySink(), MemorySink(name="second")
    before = fapilog.configure(sinks=[first], otel_provider=False)
    log = fapilog.get_logger("t")
    with fapilog.hold() as block:
        log.debug("before")
        fapilog.configure(sinks=[second], otel_provider=False)
        log.debug("after")
        block.release()
    assert fapilog.flush(10)
    assert [record.body for record in second.records] == ["before", "after"]
    assert before.stats().accepted == 0
    assert fapilog.stats().accepted == 2


def test_the_first_call_of_all_is_held_although_it_configures(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "memory")
    with fapilog.hold() as block:
        fapilog.get_logger("t").debug("x")
        assert len(block) == 1
    assert fapilog.stats().drops == {"not_released": {"DEBUG": 1}}


def test_a_shutdown_drops_what_is_held_and_counts_what_comes_later(sink, capsys):
    runtime = Runtime(sinks=[sink])
    log = runtime.get_logger("t")
    with fapilog.hold() as block:
        log.debug("held")
        runtime.shutdown()
        assert runtime.stats().drops == {"not_released": {"DEBUG": 1}}
        assert hold_buffer.budget.used == 0
        log.debug("late")
        block.release()
    stats = runtime.stats()
    assert stats.drops == {"not_released": {"DEBUG": 1}, "closed": {"DEBUG": 1}}
    assert (stats.accepted, stats.pending) == (2, 0)
    assert "after shutdown" in capsys.readouterr().err


def test_a_shutdown_leaves_alone_what_is_held_for_another_runtime(runtime, sink):
    with Runtime(sinks="none") as other, fapilog.hold() as block:
        runtime.get_logger("t").debug("mine")
        other.get_logger("t").debug("others")
        other.shutdown()
        assert len(block) == 1
        block.release()
    assert bodies(runtime, sink) == ["mine"]


def test_what_finds_no_room_in_the_queue_is_counted_and_waited_for_once(sink):
    entered, go = threading.Event(), threading.Event()

    def stuck(record: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return record

    options: dict[str, Any] = {"queue_size": 20, "overflow": "block", "block_timeout": 0.05}
    with Runtime(sinks=[sink], processors=[stuck], **options) as runtime:
        log = runtime.get_logger("t")
        log.info("stuck")
        assert entered.wait(20)
        with fapilog.hold() as block:
            for n in range(100):
                log.debug(str(n))
            block.release()
        go.set()
        assert runtime.flush(10)
    stats = runtime.stats()
    assert stats.drops == {"queue_full": {"DEBUG": 100 - (len(sink.records) - 1)}}
    assert [r.body for r in sink.records][1:] == [str(n) for n in range(len(sink.records) - 1)]
    assert balanced(stats)


def test_a_coroutine_does_not_wait_for_room_that_its_disabled_record_does_not_need(sink):
    entered, go = threading.Event(), threading.Event()

    def stuck(record: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return record

    with Runtime(sinks=[sink], processors=[stuck], queue_size=20, block_timeout=1000) as runtime:
        log, alog = runtime.get_logger("t"), runtime.get_async_logger("t")

        async def main() -> None:
            log.info("stuck")
            assert entered.wait(20)
            while runtime.pipeline.has_room(9):
                log.info("x")
            with fapilog.hold() as block:
                await asyncio.wait_for(alog.debug("held"), 10)
                assert len(block) == 1
            await asyncio.wait_for(alog.debug("disabled"), 10)
            with fapilog.hold() as block:
                block.release()
                waiting = asyncio.create_task(alog.debug("passes"))
                await asyncio.sleep(0)
                go.set()
                await waiting

        asyncio.run(main())
    assert sink.records[-1].body == "passes"
    assert runtime.stats().drops == {"not_released": {"DEBUG": 1}}


# ---- bridges


def test_records_of_logging_are_held(sink):
    runtime = fapilog.configure(sinks=[sink], otel_provider=False)
    fapilog.install_stdlib()
    log = logging.getLogger("app.db")
    root = logging.getLogger()
    level = root.level
    with fapilog.hold() as block:
        log.debug("query %d", 1, extra={"rows": 3})
        log.info("info")
        try:
            raise KeyError("k")
        except KeyError:
            log.debug("failed", exc_info=True)
        assert len(block) == 2
        assert bodies(runtime, sink) == ["info"]
        block.release()
        log.debug("query 2")
    log.debug("query 3")
    assert bodies(runtime, sink) == ["info", "query 1", "failed", "query 2"]
    assert sink.records[1].attributes == {"rows": 3}
    assert sink.records[2].attributes["exception.type"] == "KeyError"
    fapilog.uninstall_stdlib()
    assert root.level != logging.DEBUG or level == logging.DEBUG


def test_records_of_the_logs_api_are_held(runtime, sink):
    logger = LoggerProvider(lambda: runtime).get_logger("lib")
    debug = api.SeverityNumber.DEBUG
    assert not logger.enabled(severity_number=debug)
    with fapilog.hold() as block:
        assert logger.enabled(severity_number=debug)
        logger.emit(severity_number=debug, body="held")
        logger.emit(body="unspecified")
        assert len(block) == 1
        assert bodies(runtime, sink) == ["unspecified"]
        block.release()
        logger.emit(severity_number=debug, body="passes")
    assert bodies(runtime, sink) == ["unspecified", "held", "passes"]


def test_nothing_is_held_in_a_delivery(runtime):
    from fapilog.context import suppressed

    with fapilog.hold() as block, suppressed():
        runtime.get_logger("t").debug("x")
        assert len(block) == 0


# ---- threads


def test_records_logged_while_another_thread_releases_arrive_in_order_and_once(runtime, sink):
    log = runtime.get_logger("t")
    for round_ in range(20):
        sink.clear()
        counts = [0] * 3
        over = threading.Event()

        def work(number: int, over: threading.Event = over, counts: list[int] = counts) -> None:
            while not over.is_set() and counts[number] < 300:
                log.debug("x", thread=number, n=counts[number])
                counts[number] += 1

        with fapilog.hold(records=10_000, size=1 << 30) as block:
            context = [contextvars.copy_context() for _ in counts]
            threads = [
                threading.Thread(target=context[n].run, args=(work, n)) for n in range(len(counts))
            ]
            for thread in threads:
                thread.start()
            wait_for(lambda: sum(counts) > round_ * 20)  # noqa: B023
            block.release()
            over.set()
            for thread in threads:
                thread.join()
        assert runtime.flush(10)
        for number, count in enumerate(counts):
            seen = [r.attributes["n"] for r in sink.records if r.attributes["thread"] == number]
            assert seen == list(range(count))
    assert balanced(runtime.stats())
    assert runtime.stats().dropped == 0
    assert hold_buffer.budget.used == 0


def test_threads_that_enter_and_leave_one_hold_all_the_time_lose_nothing(runtime, sink):
    # Each block is left after its release: the end of one block must not end the next.
    log = runtime.get_logger("t")
    block = fapilog.hold()

    def work() -> None:
        for _ in range(1_000):
            with block:
                log.debug("x")
                block.release()

    run_at_once(work)
    assert block._depth == 0
    assert block._buffer is not None
    assert not block._buffer.is_open
    assert not block._tokens
    stats = runtime.stats()
    assert (stats.accepted, stats.dropped) == (4_000, 0)


def test_records_logged_while_the_block_is_left_are_counted_once(runtime, sink):
    log = runtime.get_logger("t")
    logged = [0]
    for _ in range(20):
        over = threading.Event()

        def work(over: threading.Event = over) -> None:
            while not over.is_set():
                log.debug("x")
                logged[0] += 1

        with fapilog.hold() as block:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            wait_for(lambda: len(block) > 3)
        over.set()
        thread.join()
    stats = runtime.stats()
    assert stats.accepted == stats.dropped <= logged[0]
    assert balanced(stats)
    assert hold_buffer.budget.used == 0


def test_a_release_catches_up_with_a_thread_that_never_pauses(runtime, sink, monkeypatch):
    log = runtime.get_logger("t")
    with fapilog.hold() as block:
        buffer = block._buffer
        send = hold_buffer.Buffer._send

        def and_one_more(self: Any, left: Any) -> None:
            if not self._passing:
                log.debug("meanwhile")
            send(self, left)

        monkeypatch.setattr(hold_buffer.Buffer, "_send", and_one_more)
        log.debug("first")
        block.release()
        assert buffer is not None
        assert buffer._passing
        log.debug("last")
    found = bodies(runtime, sink)
    assert (found[0], found[-1]) == ("first", "last")
    assert set(found[1:-1]) == {"meanwhile"}
    assert runtime.stats().dropped == 0
