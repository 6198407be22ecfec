from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog import Runtime
from fapilog.delivery.admission import Admission, OverflowPolicy
from fapilog.delivery.backlog import ITEM_OVERHEAD
from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.ledger import Drops
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.route import Route
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import RetryableError
from fapilog.protocols import BatchLimits
from fapilog.record import LogRecord
from fapilog.severity import DEBUG, ERROR, FATAL, INFO, OFF, TRACE, WARN
from fapilog.sinks import MemorySink
from tests.support.ledger import wait_for
from tests.support.queues import close
from tests.support.sinks import Gate, ScriptedSink

POLICIES: tuple[OverflowPolicy, ...] = get_args(OverflowPolicy)
#: The bytes that a test record takes in a backlog, and how many records fit.
SIZE = 500
ROOM = 100
SINGLY = BatchLimits(count=1, delay=0)


def records(count: int, severity: int = INFO) -> list[LogRecord]:
    made = [LogRecord(body=f"{severity}-{n}", severity_number=severity) for n in range(count)]
    for record in made:
        record.size = SIZE - ITEM_OVERHEAD
    return made


class Full:
    """A sending queue whose sink holds the first record back, with room for 99 more."""

    def __init__(self, **options: object) -> None:
        self.gate = Gate()
        self.sink = ScriptedSink(on_send=self.gate, limits=SINGLY)
        self.queue = SendingQueue(
            self.sink,
            options=DeliveryOptions(capacity=ROOM * SIZE, **options),  # type: ignore[arg-type]
        )
        self.queue.offer(records(1))
        assert self.gate.entered.wait(20)

    @property
    def waiting(self) -> int:
        return self.queue.state.backlog.pending_bytes // SIZE

    @property
    def lost(self) -> dict[tuple[str, str], int]:
        return self.queue.state.ledger.overflow.snapshot()

    def close(self) -> None:
        self.gate.opened.set()
        close(self.queue, 20)


@pytest.fixture
def full(request):
    made = Full(**getattr(request, "param", {}))
    yield made
    made.close()


# ---- how full a store may be


@pytest.mark.parametrize("policy", ["block", "drop_newest"])
@pytest.mark.parametrize(
    ("severity", "limit"), [(0, 900), (TRACE, 900), (INFO, 900), (WARN - 1, 900), (WARN, 1000)]
)
def test_the_last_tenth_is_kept_for_warnings_and_above(policy, severity, limit):
    assert Admission(1000, policy).limit(severity) == limit


@pytest.mark.parametrize("policy", ["drop_lowest", "spill"])
@pytest.mark.parametrize(
    ("severity", "limit"),
    [(0, 700), (TRACE, 700), (DEBUG + 3, 700), (INFO, 850), (INFO + 3, 850), (WARN, 1000),
     (FATAL, 1000)],
)  # fmt: skip
def test_less_severe_records_find_the_store_full_earlier(policy, severity, limit):
    assert Admission(1000, policy).limit(severity) == limit


def test_the_protected_severity_can_be_chosen():
    assert Admission(1000, "drop_lowest", protect=ERROR).limit(WARN) == 850
    assert Admission(1000, "drop_lowest", protect=DEBUG).limit(DEBUG) == 1000
    assert Admission(1000, "drop_newest", protect=OFF).limit(FATAL) == 900


@given(
    capacity=st.integers(1, 1 << 40),
    policy=st.sampled_from(POLICIES),
    protect=st.integers(TRACE, OFF),
    severities=st.lists(st.integers(0, 24), min_size=2, max_size=2).map(sorted),
)
def test_a_more_severe_record_never_has_less_room_and_every_record_has_some(
    capacity, policy, protect, severities
):
    admission = Admission(capacity, policy, protect)
    less, more = map(admission.limit, severities)
    assert 0 < admission.lowest <= less <= more <= capacity


# ---- a sink's backlog


@pytest.mark.parametrize("full", [{"overflow": "drop_newest"}], indirect=True)
def test_drop_newest_refuses_records_while_full_but_warnings_have_a_reserve(full, capsys):
    full.queue.offer(records(200))
    assert full.waiting == 90
    full.queue.offer(records(4, WARN))
    full.queue.offer(records(1, DEBUG))
    full.queue.offer(records(4, FATAL))
    assert full.waiting == 98
    full.queue.offer(records(10, ERROR))
    assert full.waiting == 100
    assert full.lost == {
        ("backlog_full", "INFO"): 111,
        ("backlog_full", "DEBUG"): 1,
        ("backlog_full", "ERROR"): 8,
    }
    assert "scripted: backlog is full; records dropped" in capsys.readouterr().err


@pytest.mark.parametrize("full", [{"overflow": "drop_lowest"}], indirect=True)
def test_drop_lowest_refuses_debug_first_then_info_and_warnings_last(full):
    for severity, waiting in ((DEBUG, 70), (INFO, 85), (WARN, 100), (FATAL, 100)):
        full.queue.offer(records(120, severity))
        assert full.waiting == waiting
    assert full.lost == {
        ("backlog_full", "DEBUG"): 51,
        ("backlog_full", "INFO"): 105,
        ("backlog_full", "WARN"): 105,
        ("backlog_full", "FATAL"): 120,
    }


def test_near_the_limit_each_record_of_a_portion_is_admitted_on_its_own():
    gate = Gate()
    sink = ScriptedSink(on_send=gate, limits=BatchLimits(count=512, delay=0))
    queue = SendingQueue(sink, options=DeliveryOptions(capacity=ROOM * SIZE))
    queue.offer([*records(80, DEBUG), *records(30, INFO), *records(20, ERROR)])
    gate.opened.set()
    queue.start_close(time.monotonic() + 20)
    queue.finish_close()
    assert [record.severity_number for record in sink.records] == [
        *[DEBUG] * 70,
        *[INFO] * 15,
        *[ERROR] * 15,
    ]


@pytest.mark.parametrize("full", [{"overflow": "block", "block_timeout": 30}], indirect=True)
def test_block_waits_until_there_is_room_and_loses_nothing(full):
    offering = threading.Thread(target=full.queue.offer, args=(records(300),))
    offering.start()
    wait_for(lambda: full.waiting == 90)
    offering.join(0.05)
    assert offering.is_alive()
    full.gate.opened.set()
    offering.join(30)
    full.close()
    assert full.lost == {}
    assert len(full.sink.records) == 301


@pytest.mark.parametrize("full", [{"overflow": "block", "block_timeout": 0.02}], indirect=True)
def test_block_waits_no_longer_than_its_limit_and_once_for_a_slice(full):
    began = time.monotonic()
    full.queue.offer(records(2000))
    assert time.monotonic() - began < 15  # 1,911 waits would be 38 seconds
    assert full.lost == {("backlog_full", "INFO"): 1911}


@pytest.mark.parametrize("full", [{"overflow": "block", "block_timeout": 3600}], indirect=True)
def test_block_does_not_wait_for_a_record_that_can_never_fit(full):
    (record,) = records(1)
    record.size = ROOM * SIZE
    full.queue.offer([record])
    assert full.lost == {("backlog_full", "INFO"): 1}


@pytest.mark.parametrize("full", [{"overflow": "block", "block_timeout": 3600}], indirect=True)
def test_closing_ends_every_wait_for_room(full):
    offering = threading.Thread(target=full.queue.offer, args=(records(300),))
    offering.start()
    wait_for(lambda: full.waiting == 90)
    full.queue.start_close(time.monotonic())
    full.queue.finish_close()
    offering.join(20)
    assert not offering.is_alive()
    stats = full.queue.state.stats(lambda: 301, Drops())
    assert (stats.dropped, stats.pending) == (301, 0)


def test_a_blocking_sink_that_is_down_leaves_the_other_sinks_their_time_to_shut_down():
    down = ScriptedSink(*[RetryableError("refused")] * 10_000, name="down", limits=SINGLY)
    good = MemorySink(name="good", capacity=5000)
    runtime = Runtime(
        sinks=[Route(down, overflow="block"), Route(good, overflow="block")],
        backlog_bytes=200_000,
        block_timeout=2,  # for each of 15 slices this would take half a minute
        queue_size=5000,
    )
    log = runtime.get_logger("t")
    for n in range(4000):
        log.info("x", n=n)
    runtime.shutdown(8)
    stats = runtime.stats()
    assert stats.sinks["good"].delivered == 4000
    assert stats.sinks["down"].dropped == 4000
    assert stats.sinks["down"].pending == 0


# ---- the queue


@pytest.fixture
def held():
    """Makes a runtime whose worker holds the first record back, with a queue for 20 more."""
    made: list[tuple[Runtime, Gate]] = []

    def make(overflow: Any, **options: Any) -> Runtime:
        gate = Gate()

        def hold(record: LogRecord) -> LogRecord:
            gate()
            return record

        given = {"queue_size": 20, "block_timeout": 0.01, "level": "trace", **options}
        runtime = Runtime(sinks=MemorySink(), processors=[hold], overflow=overflow, **given)
        runtime.get_logger("t").info("held")
        assert gate.entered.wait(20)
        made.append((runtime, gate))
        return runtime

    yield make
    for runtime, gate in made:
        gate.opened.set()
        runtime.shutdown(20)


@pytest.fixture(params=["get_logger", "get_async_logger"])
def log_some(request):
    """Logs a number of records at a severity, with a logger of each kind."""

    async def wait_for_all(calls: list[Awaitable[None]]) -> None:
        for call in calls:
            await call

    def log_some(runtime: Runtime, severity: str, count: int = 25) -> None:
        log = getattr(runtime, request.param)("t")
        calls = [getattr(log, severity)("x") for _ in range(count)]
        if request.param == "get_async_logger":
            asyncio.run(wait_for_all(calls))

    return log_some


def queued(runtime: Runtime) -> int:
    return len(runtime.pipeline.queue)


def lost(runtime: Runtime) -> dict[str, int]:
    return dict(runtime.stats().drops.get("queue_full", {}))


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_the_last_tenth_of_the_queue_is_kept_for_warnings_and_above(held, log_some, overflow):
    runtime = held(overflow)
    log_some(runtime, "info")
    assert queued(runtime) == 18
    log_some(runtime, "warning", 3)
    assert queued(runtime) == 20
    assert lost(runtime) == {"INFO": 7, "WARN": 1}


def test_a_full_queue_loses_the_least_severe_first_under_drop_lowest(held, log_some):
    runtime = held("drop_lowest")
    for severity, expected in (("trace", 14), ("debug", 14), ("info", 17), ("error", 20)):
        log_some(runtime, severity)
        assert queued(runtime) == expected
    assert lost(runtime) == {"TRACE": 11, "DEBUG": 25, "INFO": 22, "ERROR": 22}


def test_the_protected_severity_of_the_queue_can_be_chosen(held, log_some):
    runtime = held("drop_newest", protect_level="error")
    log_some(runtime, "warning")
    assert queued(runtime) == 18
    log_some(runtime, "error", 1)
    assert queued(runtime) == 19


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_lowest"])
def test_dropping_never_makes_a_caller_wait(held, log_some, overflow):
    runtime = held(overflow, block_timeout=3600)
    log_some(runtime, "info", 100)
    log_some(runtime, "error", 100)
    assert queued(runtime) == 20
    assert sum(lost(runtime).values()) == 180


def test_a_full_queue_that_spills_waits_for_the_disk_and_loses_nothing(log_some, tmp_path):
    runtime = Runtime(
        sinks="otlp:http://127.0.0.1:9",  # no server listens there
        spool={"directory": tmp_path},
        overflow="spill",
        queue_size=20,
        block_timeout=20,
        backlog_bytes=65_536,
    )
    threads = [
        threading.Thread(target=log_some, args=(runtime, "info", 200)),
        threading.Thread(target=log_some, args=(runtime, "error", 200)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runtime.shutdown(20)
    assert (runtime.stats().spooled, runtime.stats().dropped) == (400, 0)


def test_records_from_a_bridge_keep_to_the_same_limits(held):
    runtime = held("drop_lowest")
    for severity, expected in ((DEBUG, 14), (INFO, 17), (ERROR, 20)):
        for _ in range(25):
            runtime.offer(LogRecord(severity_number=severity))
        assert queued(runtime) == expected


def test_a_sink_that_is_down_keeps_warnings_and_drops_less_severe_records():
    down = ScriptedSink(name="down", limits=SINGLY)
    down.answers = [RetryableError("refused", retry_after=3600)]
    with Runtime(
        sinks=[down], backlog_bytes=65_536, retry_maximum=3600, shutdown_timeout=0.1, level="debug"
    ) as runtime:
        log = runtime.get_logger("t")
        for n in range(2000):
            log.debug("x", n=n)
            log.info("x", n=n)
        wait_for(lambda: runtime.stats().dropped > 3000)
        for _ in range(10):
            log.error("the one that matters")
        wait_for(lambda: not queued(runtime))
        drops = runtime.stats().drops["backlog_full"]
        assert drops["DEBUG"] > drops["INFO"] > 0
        assert "ERROR" not in drops


def test_a_batch_that_fails_keeps_its_room_until_it_is_settled():
    sink = ScriptedSink(*[RetryableError("503")] * 3)
    queue = SendingQueue(
        sink, options=DeliveryOptions(retry=RetryPolicy(initial=0.001, maximum=0.01))
    )
    sizes: list[int] = []
    sink._on_send = lambda: sizes.append(queue.state.backlog.pending_bytes)
    queue.offer(records(3))
    queue.start_close(time.monotonic() + 20)
    queue.finish_close()
    assert sizes == [3 * SIZE] * 4
    assert queue.state.backlog.pending_bytes == 0
