from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import pytest

import fapilog
from fapilog import bind
from fapilog.context import _COLLECTION as COLLECTION
from fapilog.context import BOUND, SUPPRESSED, suppressed
from fapilog.sinks import MemorySink
from tests.support.threads import run_at_once


@pytest.fixture
def sink():
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    return sink


def logged(sink):
    fapilog.flush(5)
    return {record.body: record.attributes for record in sink.records}


def test_inner_fields_win_and_leaving_restores_the_outer_ones(sink):
    log = fapilog.get_logger("t")
    with bind(a=1, b=1):
        with bind(b=2, c=2):
            log.info("inner", c=3)
        log.info("outer")
    log.info("none")
    assert logged(sink) == {
        "inner": {"a": 1, "b": 2, "c": 3},
        "outer": {"a": 1, "b": 1},
        "none": {},
    }


def test_bound_fields_are_restored_after_an_exception():
    with pytest.raises(KeyError), bind(a=1):
        raise KeyError
    assert dict(BOUND.get()) == {}


def test_tasks_and_copied_contexts_inherit_and_do_not_leak(sink):
    log = fapilog.get_logger("t")

    async def work(number):
        with bind(task=number):
            await asyncio.sleep(0.001)
            log.info(f"task {number}")  # noqa: G004 - each needs a name of its own

    async def main():
        with bind(request="r"):
            await asyncio.gather(*(work(n) for n in range(5)))
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(log.info, "thread"))
            thread.start()
            thread.join()
            await asyncio.to_thread(log.info, "to_thread")

    asyncio.run(main())
    plain = threading.Thread(target=log.info, args=("plain thread",))
    plain.start()
    plain.join()
    records = logged(sink)
    for number in range(5):
        assert records[f"task {number}"] == {"request": "r", "task": number}
    assert records["thread"] == records["to_thread"] == {"request": "r"}
    assert records["plain thread"] == {}


def test_it_decorates_functions_and_coroutines(sink):
    log = fapilog.get_logger("t")

    @bind(kind="sync")
    def plain(x):
        log.info("plain")
        return x

    @bind(kind="async")
    async def coroutine(x):
        log.info("coroutine")
        return x

    assert plain(1) == 1
    assert asyncio.run(coroutine(2)) == 2
    assert logged(sink) == {"plain": {"kind": "sync"}, "coroutine": {"kind": "async"}}


def test_a_generator_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="generator"):

        @bind(a=1)
        def numbers():
            yield 1


def test_values_are_taken_when_they_are_bound(sink):
    items = [1]
    with bind(items=items):
        items.append(2)
        fapilog.get_logger("t").info("x")
    assert logged(sink)["x"] == {"items": [1]}


def test_one_bind_object_can_be_entered_again_and_nested(sink):
    block = bind(a=1)
    with block, block:
        fapilog.get_logger("t").info("x")
    assert dict(BOUND.get()) == {}
    assert logged(sink)["x"] == {"a": 1}


def test_leaving_in_another_context_does_not_raise():
    block = bind(a=1)
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert dict(BOUND.get()) == {}


def test_threads_may_share_one_block_and_none_keeps_the_fields_of_another() -> None:
    block = bind(shared=1)
    both = threading.Barrier(2)
    left = []

    def work() -> None:
        both.wait(5)
        with block:
            both.wait(5)
        both.wait(5)
        left.append(dict(BOUND.get()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [{}, {}]


def test_threads_that_enter_and_leave_one_block_all_the_time_never_meet_an_error() -> None:
    block = bind(shared=1)

    def work() -> None:
        for _ in range(2_000):
            with block:
                assert BOUND.get()["shared"] == 1
            assert not BOUND.get()

    run_at_once(work)
    assert not block._tokens


# ---- collect()


def test_fields_bound_in_the_block_are_still_there_after_the_inner_blocks_ended():
    with fapilog.collect() as fields:
        with bind(user="u", n=1):
            assert fields == {"user": "u", "n": 1}
            with bind(n=2):
                pass
        assert fields == {"user": "u", "n": 2}
    with bind(late=1):
        pass
    assert fields == {"user": "u", "n": 2}


def test_what_tasks_and_threads_that_copied_the_context_bind_is_collected_too():
    async def task():
        with bind(task=1):
            await asyncio.sleep(0)

    @bind(decorated=1)
    def thread():
        with bind(thread=1):
            pass

    async def main():
        with fapilog.collect() as fields:
            await asyncio.gather(task(), asyncio.to_thread(thread))
        return fields

    assert asyncio.run(main()) == {"task": 1, "decorated": 1, "thread": 1}


def test_the_innermost_collection_collects_and_the_outer_one_goes_on_after_it():
    with fapilog.collect() as outer:
        with fapilog.collect() as inner, bind(a=1):
            pass
        with bind(b=1):
            pass
    assert (inner, outer) == ({"a": 1}, {"b": 1})


def test_a_collection_is_bounded_and_holds_values_as_they_were():
    items = [1]
    with fapilog.collect() as fields:
        with bind(items=items):
            items.append(2)
        for n in range(200):
            with bind(**{f"name{n}": n}):
                pass
        with bind(items=3):
            pass
    assert len(fields) == 128
    assert fields["items"] == 3
    assert fields["name126"] == 126
    assert "name127" not in fields


def test_a_collection_left_in_another_context_does_not_raise():
    block = fapilog.collect()
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)


def test_a_collection_is_for_one_block():
    block = fapilog.collect()
    with block as fields:
        with pytest.raises(RuntimeError, match="for one block"), block:
            pass
        with bind(a=1):
            pass
    with pytest.raises(RuntimeError, match="for one block"), block:
        pass
    with bind(late=1):
        pass
    assert fields == {"a": 1}


def test_a_context_that_outlives_the_block_does_not_keep_what_was_collected():
    with fapilog.collect() as fields, bind(a=1):
        context = contextvars.copy_context()
    collection = context[COLLECTION]
    assert collection is not None
    assert collection._fields is None
    assert fields == {"a": 1}


def test_what_was_bound_before_is_not_collected():
    with bind(before=1), fapilog.collect() as fields, bind(within=1):
        assert dict(BOUND.get()) == {"before": 1, "within": 1}
    assert fields == {"within": 1}


def test_context_fields_stay_until_they_are_unbound(sink):
    log = fapilog.get_logger("t")

    def run():
        fapilog.bind_context(a=1, b={"c": [2]})
        fapilog.bind_context(a=2)
        log.info("both", d=3)
        fapilog.unbind_context("a", "unknown")
        log.info("one")
        fapilog.clear_context()
        log.info("none")
        fapilog.bind_context(left=1)

    contextvars.copy_context().run(run)
    log.info("other context")
    assert logged(sink) == {
        "both": {"a": 2, "b": {"c": [2]}, "d": 3},
        "one": {"b": {"c": [2]}},
        "none": {},
        "other context": {},
    }


def test_the_end_of_a_block_restores_the_fields_from_before_it(sink):
    log = fapilog.get_logger("t")

    def run():
        fapilog.bind_context(outer=1)
        with fapilog.collect() as fields, bind(block=1):
            fapilog.bind_context(inner=1)
            log.info("inside")
            fapilog.clear_context()
            log.info("cleared")
        log.info("after")
        assert fields == {"block": 1, "inner": 1}

    contextvars.copy_context().run(run)
    assert logged(sink) == {
        "inside": {"outer": 1, "block": 1, "inner": 1},
        "cleared": {},
        "after": {"outer": 1},
    }


def test_tasks_inherit_context_fields_and_keep_their_own(sink):
    log = fapilog.get_logger("t")

    async def task(name):
        fapilog.bind_context(task=name)
        await asyncio.sleep(0)
        log.info(name)

    async def main():
        fapilog.bind_context(request="r1")
        await asyncio.gather(task("first"), task("second"))
        log.info("main")

    asyncio.run(main())
    assert logged(sink) == {
        "first": {"request": "r1", "task": "first"},
        "second": {"request": "r1", "task": "second"},
        "main": {"request": "r1"},
    }


def test_a_delivery_cannot_bind_fields_that_would_make_its_records_enter_a_pipeline():
    with suppressed():
        fapilog.bind_context(a=1)
        fapilog.unbind_context("a")
        fapilog.clear_context()
        assert BOUND.get() is SUPPRESSED


@pytest.mark.parametrize("make", [lambda: bind(request_id="r1"), fapilog.collect, fapilog.hold])
def test_an_object_that_is_never_entered_is_announced_once(make, capsys):
    for _ in range(3):
        make()
    gc.collect()
    err = capsys.readouterr().err
    assert err.count("was never entered, so it did nothing") == 1
    assert f"near {__file__}:" in err
    assert "r1" not in err


def test_an_object_that_was_used_is_not_announced(sink, capsys):
    with bind(a=1), fapilog.collect(), fapilog.hold():
        pass
    bind(b=1)(print)
    for make in (lambda: bind(*["positional"]), lambda: fapilog.hold("loud")):
        with pytest.raises((TypeError, fapilog.ConfigurationError)):
            make()
    gc.collect()
    assert "never entered" not in capsys.readouterr().err
