from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import fapilog
from fapilog import ConfigurationError, Runtime
from fapilog.engine import hold_buffer, holding
from fapilog.sinks import MemorySink
from tests.support.ledger import balanced


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


def test_what_is_held_comes_in_order_once_it_is_released_and_more_passes_at_once(runtime, sink):
    log = runtime.get_logger("t")
    with fapilog.hold() as held:
        log.debug("one")
        log.info("two")
        log.debug("three", n=3)
        assert bodies(runtime, sink) == ["two"]
        assert len(held) == 2
        held.release()
        assert held.released
        assert len(held) == 0
        log.debug("four")
    log.debug("five")
    assert bodies(runtime, sink) == ["two", "one", "three", "four"]
    by_body = {record.body: record for record in sink.records}
    assert by_body["one"].timestamp <= by_body["two"].timestamp <= by_body["three"].timestamp
    assert by_body["three"].attributes == {"n": 3}
    assert by_body["three"].severity_text == "DEBUG"
    assert runtime.stats().accepted == 4


def test_what_is_not_released_is_dropped_counted_by_severity_and_not_announced(
    runtime, sink, capsys
):
    log = runtime.get_logger("t")
    with fapilog.hold("trace"):
        for _ in range(3):
            log.debug("x")
        log.trace("y")
    assert bodies(runtime, sink) == []
    stats = runtime.stats()
    assert stats.drops == {"not_released": {"DEBUG": 3, "TRACE": 1}}
    assert (stats.accepted, stats.dropped, stats.pending) == (4, 4, 0)
    assert capsys.readouterr().err == ""


def test_an_exception_that_leaves_the_block_drops_too(runtime, sink):
    with pytest.raises(KeyError), fapilog.hold():  # noqa: PT012
        runtime.get_logger("t").debug("x")
        raise KeyError
    assert runtime.stats().drops == {"not_released": {"DEBUG": 1}}


def test_only_what_is_at_its_level_or_above_is_held(runtime, sink):
    log = runtime.get_logger("t")
    with fapilog.hold("debug3") as held:
        log.trace("trace")
        log.debug("debug")
        log.log("debug3", "debug3")
        held.release()
        log.debug("debug")
    assert bodies(runtime, sink) == ["debug3"]


def test_infos_of_a_logger_with_a_higher_level_are_held_too(runtime, sink):
    runtime.set_level("error", "quiet")
    log = runtime.get_logger("quiet")
    with fapilog.hold() as held:
        log.info("info")
        log.warning("warning")
        log.error("error")
        held.release()
    assert bodies(runtime, sink) == ["error", "info", "warning"]


def test_a_logger_that_is_off_stays_off(runtime, sink):
    runtime.set_level("off", "mute")
    with fapilog.hold() as held:
        assert not runtime.get_logger("mute").is_enabled("error")
        runtime.get_logger("mute").error("x")
        assert not runtime.is_enabled("mute", 17)
        held.release()
    assert bodies(runtime, sink) == []
    assert runtime.stats().accepted == 0


def test_a_logger_says_that_it_is_enabled_while_it_would_be_held(runtime):
    log = runtime.get_logger("t")
    assert not log.is_enabled("debug")
    with fapilog.hold():
        assert log.is_enabled("debug")
        assert not log.is_enabled("trace")
        assert log.is_enabled("info")
    assert not log.is_enabled("debug")


def test_no_threshold_is_lowered_before_the_first_hold(runtime):
    core = runtime.get_logger("t")._core
    assert core.threshold == 9
    assert runtime.lowest_severity() == 9
    fapilog.hold()
    assert (core.threshold, core.level) == (5, 9)
    assert runtime.lowest_severity() == 5
    runtime.set_level("warn")
    assert (core.threshold, core.level) == (5, 13)
    with Runtime(sinks="none") as later:
        assert later.get_logger("t")._core.threshold == 5


def test_values_bound_context_call_site_and_ids_are_those_of_the_call(sink):
    def work(log: Any) -> None:
        log.debug("x", items=items)

    items = [1]
    with Runtime(sinks=[sink], code_attributes=True) as runtime:
        with fapilog.hold() as held:
            with fapilog.bind(request="r"):
                work(runtime.get_logger("t", own=1))
            items.append(2)
            held.release()
    (record,) = sink.records
    assert record.attributes["items"] == [1]
    assert (record.attributes["request"], record.attributes["own"]) == ("r", 1)
    assert record.attributes["code.function.name"].endswith("work")


def test_redaction_sees_what_is_released(runtime, sink):
    with fapilog.hold() as held:
        runtime.get_logger("t").debug("x", password="hunter2")
        held.release()
    assert bodies(runtime, sink) == ["x"]
    assert "hunter2" not in repr(sink.records)


def test_the_floor_is_what_the_lowest_hold_asks_for():
    fapilog.hold("info")
    assert holding.floor == 9
    fapilog.hold("trace")
    fapilog.hold("debug")
    assert holding.floor == 1


# ---- bounds


def test_beyond_its_records_the_oldest_go_counted_and_announced(runtime, sink, capsys):
    log = runtime.get_logger("t")
    with fapilog.hold(records=3) as held:
        for n in range(5):
            log.debug(str(n))
        assert len(held) == 3
        held.release()
    assert bodies(runtime, sink) == ["2", "3", "4"]
    assert runtime.stats().drops == {"hold_full": {"DEBUG": 2}}
    assert "hold_full" in capsys.readouterr().err


def test_beyond_its_bytes_the_oldest_go(runtime, sink):
    log = runtime.get_logger("t")
    with fapilog.hold(size=10_000) as held:
        for n in range(30):
            log.debug(str(n), text="x" * 1000, nested={"a": ["y" * 100, b"z"]})
        assert 3 < len(held) < 8
        kept = len(held)
        log.debug("large", text="x" * 20_000)
        assert len(held) == kept
        held.release()
    assert bodies(runtime, sink) == [str(n) for n in range(30 - kept, 30)]
    assert runtime.stats().drops == {"hold_full": {"DEBUG": 31 - kept}}


def test_a_context_that_many_records_share_weighs_once(runtime, sink):
    log = runtime.get_logger("t")
    with fapilog.bind(big="x" * 5000), fapilog.hold(size=20_000) as held:
        for _ in range(20):
            log.debug("x")
        assert len(held) == 20
        held.release()
    with fapilog.hold(size=20_000) as held:
        for n in range(20):
            with fapilog.bind(big=f"{n}" * 5000):
                log.debug("x")
        assert len(held) < 4


def test_what_is_older_than_its_seconds_goes(runtime, sink, monkeypatch):
    log = runtime.get_logger("t")
    now = [1000.0]
    monkeypatch.setattr(hold_buffer, "monotonic", lambda: now[0])
    with fapilog.hold(seconds=10) as block:
        log.debug("old")
        now[0] += 6
        log.debug("young")
        now[0] += 6
        log.debug("new")
        assert len(block) == 2
        now[0] += 5
        block.release()
    assert bodies(runtime, sink) == ["new"]
    assert runtime.stats().drops == {"hold_full": {"DEBUG": 2}}


def test_all_holds_together_keep_to_the_budget_of_the_process(runtime, sink, monkeypatch):
    monkeypatch.setattr(hold_buffer, "BUDGET", 10_000)
    now = [1000.0]
    monkeypatch.setattr(hold_buffer, "monotonic", lambda: now[0])
    log = runtime.get_logger("t")
    with fapilog.hold(seconds=30) as outer:
        for _ in range(5):
            log.debug("outer", text="x" * 1000)
        assert len(outer) == 5
        with fapilog.hold() as inner:
            for n in range(5):
                log.debug("inner", text="y" * 1000, n=n)
            assert len(outer) == 5
            assert 1 <= len(inner) <= 3
            assert hold_buffer.budget.used <= 10_000
            now[0] += 31  # expired entries of the outer block make room
            log.debug("inner", text="y" * 1000)
            for n in range(6, 9):
                log.debug("inner", text="y" * 1000, n=n)
            assert len(outer) == 0
            assert len(inner) >= 4
    assert hold_buffer.budget.used == 0
    stats = runtime.stats()
    assert stats.accepted == stats.dropped == 14
    assert balanced(stats)


def test_a_record_that_finds_no_room_in_the_budget_at_all_is_dropped(runtime, monkeypatch):
    monkeypatch.setattr(hold_buffer, "BUDGET", 100)
    with fapilog.hold() as block:
        runtime.get_logger("t").debug("x")
        assert len(block) == 0
    assert runtime.stats().drops == {"hold_full": {"DEBUG": 1}}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"level": "loud"}, "level"),
        ({"level": None}, "level"),
        ({"records": 0}, "records"),
        ({"records": True}, "records"),
        ({"size": 1.5}, "size"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"seconds": "60"}, "seconds"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(ConfigurationError, match=rf"{named}.* of hold\(\): ") as caught:
        fapilog.hold(**options)
    assert caught.value.option == named


# ---- nested blocks, and other contexts


def test_the_innermost_block_that_takes_a_record_has_it_and_neither_touches_the_other(
    runtime, sink
):
    log = runtime.get_logger("t")
    with fapilog.hold("trace") as outer:
        log.debug("outer")
        with fapilog.hold() as inner:
            log.debug("inner")
            log.trace("outer too")
            inner.release()
            assert bodies(runtime, sink) == ["inner"]
            assert len(outer) == 2
            log.debug("passes")
        with fapilog.hold():
            log.debug("dropped")
            outer.release()
            log.debug("dropped, too")
        log.debug("after")
    assert bodies(runtime, sink) == ["inner", "passes", "outer", "outer too", "after"]
    assert runtime.stats().drops == {"not_released": {"DEBUG": 2}}


def test_tasks_and_threads_that_copied_the_context_are_in_it_and_others_are_not(runtime, sink):
    log = runtime.get_logger("t")
    alog = runtime.get_async_logger("t")

    async def task(n: int) -> None:
        await alog.debug(f"task {n}")
        await asyncio.to_thread(log.debug, f"thread {n}")

    async def main() -> None:
        with fapilog.hold() as block:
            await asyncio.gather(*(task(n) for n in range(3)))
            other = threading.Thread(target=log.debug, args=("elsewhere",))
            if sys.version_info < (3, 14):  # if threads inherit the context
                other.start()
                other.join()
            block.release()

    asyncio.run(main())
    assert sorted(bodies(runtime, sink)) == [
        *(f"task {n}" for n in range(3)),
        *(f"thread {n}" for n in range(3)),
    ]


def test_a_task_that_outlives_the_block_is_back_in_the_one_around_it(runtime, sink):
    log = runtime.get_logger("t")
    with fapilog.hold() as outer:
        with fapilog.hold() as inner:
            context = contextvars.copy_context()
            inner.release()
        context.run(log.debug, "late")
        assert len(outer) == 1
    context.run(log.debug, "too late")
    assert bodies(runtime, sink) == []
    assert runtime.stats().accepted == 1


def test_one_hold_can_be_entered_again_and_begins_afresh(runtime, sink):
    log = runtime.get_logger("t")
    block = fapilog.hold()
    block.release()  # nothing to release
    with block:
        log.debug("first")
        block.release()
        block.release()
    with block:
        assert not block.released
        log.debug("second")
        with block:
            log.debug("third")
        assert len(block) == 2
        block.release()
    assert bodies(runtime, sink) == ["first", "second", "third"]


def test_leaving_in_another_context_ends_the_block_all_the_same(runtime, sink):
    block = fapilog.hold()
    context = contextvars.copy_context()
    context.run(block.__enter__)
    context.run(runtime.get_logger("t").debug, "x")
    block.__exit__(None, None, None)
    context.run(runtime.get_logger("t").debug, "y")
    assert runtime.stats().drops == {"not_released": {"DEBUG": 1}}


def test_a_block_that_is_never_left_is_counted_when_it_is_gone(runtime):
    def abandoned() -> None:
        fapilog.hold().__enter__()
        runtime.get_logger("t").debug("x")

    contextvars.copy_context().run(abandoned)
    gc.collect()
    assert runtime.stats().drops == {"not_released": {"DEBUG": 1}}
    assert hold_buffer._buffers() == []


def test_a_hold_is_true_while_it_is_empty():
    with fapilog.hold() as block:
        assert block
        assert len(block) == 0
    assert block
    assert len(fapilog.hold()) == 0
