from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time

import pytest

import fapilog
from fapilog import LogRecord, Runtime
from fapilog.context import BOUND, SUPPRESSED
from fapilog.engine import emit, pipeline
from fapilog.process.worker import Worker
from fapilog.sinks import MemorySink
from tests.support.sinks import Gate, ScriptedSink


def hold_worker(gate):
    def hold(record):
        gate()
        return record

    return hold


def test_processors_run_in_order_on_one_thread_and_may_change_or_replace_or_drop():
    threads = set()

    def add(record):
        threads.add(threading.current_thread().name)
        record.attributes["steps"] = ["add"]
        return record

    def extend(record):
        record.attributes["steps"].append("extend")
        return None if record.body == "drop me" else record

    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[add, extend]) as runtime:
        log = runtime.get_logger("t")
        log.info("drop me")
        log.info("keep")
        runtime.flush(5)
        assert runtime.stats().drops == {"filtered": {"INFO": 1}}
    assert [record.attributes for record in sink.records] == [{"steps": ["add", "extend"]}]
    assert threads == {"fapilog-pipeline"}


def test_a_flush_does_not_wait_for_company(monkeypatch):
    monkeypatch.setattr(pipeline, "_LINGER", 3600.0)
    sink = MemorySink()
    with Runtime(sinks=[sink]) as runtime:
        log = runtime.get_logger("t")
        for number in range(3):
            log.info("one", number=number)
            assert runtime.flush(10)
            assert len(sink.records) == number + 1


def test_a_full_queue_does_not_wait_for_company(monkeypatch):
    monkeypatch.setattr(pipeline, "_LINGER", 3600.0)
    sink = MemorySink()

    async def main(log):
        for number in range(50):
            await log.info("one", number=number)

    with Runtime(sinks=[sink], queue_size=10, block_timeout=10) as runtime:
        log = runtime.get_logger("t")
        for number in range(50):
            log.info("one", number=number)
        asyncio.run(main(runtime.get_async_logger("t")))
        assert runtime.flush(10)
        assert runtime.stats().dropped == 0
    assert len(sink.records) == 100


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("tenant"), "KeyError: 'tenant'"),
        (ValueError("token=abcdef123456 is bad"), "ValueError: token=[REDACTED] is bad"),
        (SystemExit(1), "SystemExit: 1"),
        (RecursionError(), "RecursionError"),
    ],
)
def test_a_failing_processor_masks_the_record_is_counted_and_goes_no_further(error, told, capsys):
    def fail(record):
        raise error

    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[fail]) as runtime:
        for _ in range(3):
            runtime.get_logger("t").warning("card 4111", card="4111-1111")
        runtime.flush(5)
        assert runtime.stats().processor_errors == 3
        assert runtime.stats().delivered == 3
        assert runtime.stats().redacted == 0
    assert "4111" not in repr(sink.records)
    assert sink.records[0].severity_text == "WARN"
    place = f"({__file__}:{fail.__code__.co_firstlineno + 1})"
    assert capsys.readouterr().err == (
        f"fapilog: processor fail raised {told} {place}; its record is masked\n"
    )


def raise_popped(record):
    raise ValueError(record.attributes.pop("password"))


def raise_parsed(record):
    int(record.body.split("=")[1])


def raise_nested(record):
    [record.attributes.pop("user")["password"][1][key] for key in ("a", "b")]


@pytest.mark.parametrize("fail", [raise_popped, raise_parsed, raise_nested])
@pytest.mark.parametrize("redact", [True, False])
def test_the_message_of_a_failing_processor_shows_no_secret_of_its_record(fail, redact, capsys):
    secret = "hunter2's \\"
    with Runtime(sinks=[MemorySink()], processors=[fail], redact=redact) as runtime:
        user = {"password": ["x", {"a": 1}]}
        runtime.get_logger("t").info("password=hunter2", password=secret, user=user)
        runtime.flush(5)
    announced = capsys.readouterr().err
    assert f"processor {fail.__name__} raised " in announced
    assert f"({__file__}:{fail.__code__.co_firstlineno + 1}); its record is masked" in announced
    assert "hunter2" not in announced


def test_the_place_of_an_error_is_in_the_file_of_the_processor(capsys):
    def parse(record):
        json.loads(record.body)

    with Runtime(sinks=[MemorySink()], processors=[parse]) as runtime:
        runtime.get_logger("t").info("no JSON")
        runtime.flush(5)
    assert f"({__file__}:{parse.__code__.co_firstlineno + 1})" in capsys.readouterr().err


@pytest.mark.parametrize("record", [{"a": 1}, 7, "text"])
def test_a_processor_that_returns_no_record_is_announced_and_loses_only_its_record(record, capsys):
    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[lambda _: record]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(5)
        assert runtime.stats().accepted == 1
    assert capsys.readouterr().err


def test_a_processor_may_return_a_changed_copy():
    def shorten(record):
        return dataclasses.replace(record, body=record.body[:4], severity_text="SHORT")

    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[shorten]) as runtime:
        with fapilog.bind(request="r-1"):
            runtime.get_logger("t").warning("paid nothing", order=42, password="hunter2")
        runtime.flush(5)
    (record,) = sink.records
    assert (record.body, record.severity_text, record.severity_number) == ("paid", "SHORT", 13)
    assert record.attributes == {"request": "r-1", "order": 42, "password": "[REDACTED]"}
    assert record.scope.name == "t"
    assert record.size > 0


def test_what_a_processor_puts_into_a_record_is_made_safe_for_every_sink():
    class Odd:
        def __repr__(self):
            return "token=abcdef123456"

    def junk(record):
        record.attributes = {1: Odd(), "nan": float("nan"), "big": 1 << 80, "bad": "\ud800"}
        record.severity_number = 99
        record.timestamp = -1
        return record

    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[junk]) as runtime:
        runtime.get_logger("t").info("x")
        runtime.flush(5)
    (record,) = sink.records
    assert record.attributes["1"] != "token=abcdef123456"
    assert record.attributes["nan"] == "NaN"
    assert record.attributes["big"] == str(1 << 80)
    record.attributes["bad"].encode()
    assert record.severity_number == 24
    assert record.timestamp >= 0


def test_redaction_comes_last_and_before_every_sink():
    def leak(record):
        record.attributes["password"] = "hunter2"
        return record

    one, two = MemorySink(name="one"), ScriptedSink(name="two")
    with Runtime(sinks=[one, two], processors=[leak]) as runtime:
        runtime.get_logger("t").info("Authorization: Bearer abcdefghijklmnop")
        runtime.flush(5)
        assert runtime.stats().redacted == 2
    for records in (one.records, two.records):
        assert len(records) == 1
        assert "hunter2" not in repr(records)
        assert "abcdefghijklmnop" not in repr(records)


def test_redaction_can_be_tuned_and_switched_off():
    sink = MemorySink()
    with Runtime(sinks=[sink], redact_fields=["iban"], redact_allow=["token"]) as runtime:
        runtime.get_logger("t").info("x", iban="DE02", token="abc", password="p")
        runtime.flush(5)
    attributes = sink.records[0].attributes
    assert attributes["iban"] == attributes["password"] == "[REDACTED]"
    assert attributes["token"] == "abc"
    off = MemorySink()
    with Runtime(sinks=[off], redact=False) as runtime:
        runtime.get_logger("t").info("x", password="p")
        runtime.flush(5)
    assert off.records[0].attributes == {"password": "p"}


def test_a_full_queue_makes_a_thread_wait_and_loses_nothing():
    sink = MemorySink(capacity=10_000)
    with Runtime(sinks=[sink], queue_size=8) as runtime:
        log = runtime.get_logger("t")

        def work():
            for _ in range(200):
                log.info("x")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runtime.flush(10)
        assert runtime.stats().delivered == 800


def test_a_wait_for_room_ends_at_the_limit_and_the_record_is_counted(capsys):
    gate = Gate()
    with Runtime(
        sinks=[MemorySink()], processors=[hold_worker(gate)], queue_size=2, block_timeout=0.02
    ) as runtime:
        log = runtime.get_logger("t")
        log.info("held")
        assert gate.entered.wait(5)
        for _ in range(4):
            log.warning("x")
        stats = runtime.stats()
        assert stats.drops == {"queue_full": {"WARN": 2}}
        assert (stats.accepted, stats.pending) == (5, 3)
        gate.opened.set()
    assert "the queue of 2 records is full" in capsys.readouterr().err


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_an_event_loop_is_never_made_to_wait(overflow):
    gate = Gate()
    with Runtime(
        sinks=[MemorySink()], processors=[hold_worker(gate)], queue_size=1, overflow=overflow,
        block_timeout=60,
    ) as runtime:  # fmt: skip
        log = runtime.get_logger("t")
        log.info("held")
        assert gate.entered.wait(5)

        async def main():
            for _ in range(100):
                log.info("x")

        began = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - began < 30
        assert runtime.stats().drops == {"queue_full": {"INFO": 99}}
        gate.opened.set()


def test_flush_waits_for_what_was_accepted_and_tells_when_it_could_not():
    gate = Gate()
    sink = ScriptedSink(on_send=gate)
    with Runtime(sinks=[sink]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(0.05) is False
        gate.opened.set()
        assert runtime.flush(5) is True
        assert len(sink.records) == 1


def test_flush_from_a_delivery_thread_answers_at_once():
    answers = []
    sink = ScriptedSink(on_send=lambda: answers.append(runtime.flush(30)))
    with Runtime(sinks=[sink]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(5)
    assert answers == [False]


def test_a_flush_waits_for_no_sink_whose_thread_is_refused_but_for_the_others(monkeypatch, capsys):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "fapilog-refused":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    refused = ScriptedSink(name="refused")
    slow = ScriptedSink(name="slow", on_send=lambda: time.sleep(0.2))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Runtime(sinks=[refused, slow]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(100) is False
        assert (len(refused.records), len(slow.records)) == (0, 1)
    assert len(refused.records) == 1
    assert capsys.readouterr().err == ""


def test_a_slow_sink_delays_no_other():
    gate = Gate()
    slow, quick = ScriptedSink(name="slow", on_send=gate), ScriptedSink(name="quick")
    with Runtime(sinks=[slow, quick]) as runtime:
        log = runtime.get_logger("t")
        for _ in range(100):
            log.info("x")
        until = time.monotonic() + 10
        while len(quick.records) < 100 and time.monotonic() < until:
            time.sleep(0.001)
        assert len(quick.records) == 100
        assert runtime.stats().sinks["slow"].pending == 100
        gate.opened.set()


def test_a_stuck_processor_cannot_stretch_a_shutdown_and_what_is_left_is_counted():
    gate = Gate()
    runtime = Runtime(sinks=[MemorySink()], processors=[hold_worker(gate)])
    log = runtime.get_logger("t")
    log.info("held")
    assert gate.entered.wait(5)
    for _ in range(5):
        log.error("queued")
    began = time.monotonic()
    runtime.shutdown(0.2)
    assert time.monotonic() - began < 3
    stats = runtime.stats()
    assert stats.drops == {"shutdown": {"INFO": 1, "ERROR": 5}}
    assert (stats.accepted, stats.pending) == (6, 0)
    gate.opened.set()
    runtime.pipeline.worker.join(5)
    assert runtime.stats() == stats


def test_nothing_logged_on_a_delivery_thread_comes_back():
    sink = ScriptedSink(on_send=lambda: runtime.get_logger("loop").info("from the sink"))
    with Runtime(sinks=[sink]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(5)
        assert runtime.flush(5)
        assert runtime.stats().accepted == 1
    token = BOUND.set(SUPPRESSED)
    try:
        runtime.get_logger("t").info("x")
    finally:
        BOUND.reset(token)
    assert runtime.stats().accepted == 1


def test_what_is_logged_after_shutdown_is_counted_and_announced(capsys):
    runtime = Runtime(sinks=[MemorySink()])
    log = runtime.get_logger("t")
    runtime.shutdown()
    log.info("late")
    runtime.get_logger("new").error("late")
    assert runtime.stats().drops == {"closed": {"INFO": 1, "ERROR": 1}}
    assert "after shutdown()" in capsys.readouterr().err


def test_a_hundred_thousand_records_from_eight_threads_are_all_accounted_for():
    sink = MemorySink(capacity=200_000)
    with Runtime(sinks=[sink], block_timeout=60) as runtime:  # long, for a busy machine
        log = runtime.get_logger("t")

        def work(number):
            for n in range(12_500):
                log.info("x", thread=number, n=n)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            stats = runtime.stats()
            assert stats.accepted == stats.delivered + stats.dropped + stats.pending
            assert stats.pending >= 0
            time.sleep(0.01)
        assert runtime.flush(30)
        assert runtime.stats().delivered == 100_000
    by_thread: dict[int, list[int]] = {}
    for record in sink.records:
        by_thread.setdefault(record.attributes["thread"], []).append(record.attributes["n"])
    assert all(numbers == list(range(12_500)) for numbers in by_thread.values())


def test_a_second_shutdown_waits_for_what_the_first_one_delivers() -> None:
    gate = Gate()
    sink = ScriptedSink(on_send=gate)
    runtime = Runtime(sinks=[sink])
    runtime.get_logger("t").info("x")
    assert gate.entered.wait(5)
    first = threading.Thread(target=runtime.shutdown, args=(20,))
    first.start()
    while not runtime.pipeline.closed:
        time.sleep(0.001)
    opener = threading.Timer(0.05, gate.opened.set)
    opener.start()
    runtime.shutdown(20)
    assert len(sink.records) == 1
    first.join()
    opener.join()


def test_what_a_stuck_processor_gives_back_after_the_deadline_is_counted_too() -> None:
    gate = Gate()
    runtime = Runtime(sinks=[MemorySink()], processors=[hold_worker(gate)])
    runtime.get_logger("t").info("held")
    assert gate.entered.wait(5)
    runtime.shutdown(0.05)
    gate.opened.set()
    runtime.pipeline.worker.join(5)
    stats = runtime.stats()
    assert (stats.drops, stats.pending) == ({"shutdown": {"INFO": 1}}, 0)


@pytest.mark.parametrize("change", ["another runtime", "shutdown"])
def test_a_call_overtaken_by_a_change_of_runtimes_is_not_lost(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = [MemorySink(name="one"), MemorySink(name="two")]
    old = fapilog.configure(sinks=[sinks[0]])
    log = fapilog.get_logger("t")

    def in_between() -> int:
        monkeypatch.undo()
        if change == "shutdown":
            fapilog.shutdown()
        else:
            fapilog.configure(sinks=[sinks[1]])
        return time.time_ns()

    monkeypatch.setattr(emit, "time_ns", in_between)
    log.info("x")
    fapilog.flush(5)
    if change == "shutdown":
        assert old.stats().drops == {"closed": {"INFO": 1}}
    else:
        assert [len(sink.records) for sink in sinks] == [0, 1]
        assert old.stats().accepted == 0


def test_many_wake_ups_are_one() -> None:
    rounds = 0
    done = threading.Event()

    def loop() -> None:
        nonlocal rounds
        started.wait(5)
        while not done.is_set():
            rounds += 1
            worker.sleep(None)

    started = threading.Event()
    worker = Worker("fapilog-test", loop)
    for _ in range(100):
        worker.wake()
    started.set()
    while rounds < 2:
        time.sleep(0.001)
    done.set()
    worker.wake()
    assert worker.join(5)
    assert rounds <= 3
    assert worker.wake() is False


def test_a_processor_whose_error_has_no_name_masks_the_record_all_the_same() -> None:
    class Nameless(type):
        def __getattribute__(cls, name: str) -> object:
            if name == "__name__":
                raise RuntimeError
            return super().__getattribute__(name)

    class OddError(Exception, metaclass=Nameless):
        pass

    def fail(_record: LogRecord) -> LogRecord:
        raise OddError

    sink = MemorySink()
    with Runtime(sinks=[sink], processors=[fail]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(5)
        assert (runtime.stats().delivered, runtime.stats().processor_errors) == (1, 1)
