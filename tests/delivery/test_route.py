from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog import LogRecord, Runtime
from fapilog.delivery.ledger import Stats
from fapilog.errors import ConfigurationError, RetryableError
from fapilog.protocols import BatchLimits
from fapilog.record import Scope
from fapilog.severity import SHORT_NAMES, Severity
from fapilog.sinks import MemorySink, Route
from tests.support.ledger import balanced, wait_for
from tests.support.sinks import Gate, ScriptedSink

DOWN = RetryableError("connection refused", retry_after=3600)


def record(
    severity: int = 9, logger: str = "app", body: Any = None, /, **attributes: Any
) -> LogRecord:
    return LogRecord(
        severity_number=severity, scope=Scope(logger), body=body, attributes=attributes
    )


def bodies(sink: MemorySink | ScriptedSink) -> list[Any]:
    return [one.body for one in sink.records]


# ---- which records


@pytest.mark.parametrize(
    ("options", "meant", "others"),
    [
        ({}, [record(1), record(24), record(0)], []),
        ({"level": "warn"}, [record(13), record(24), record(0)], [record(12), record(1)]),
        ({"level": 20, "max_level": "info4"}, [record(9), record(12)], [record(8), record(13)]),
        ({"level": "off"}, [], [record(24), record(0)]),
        ({"loggers": "app.db"}, [record(9, "app.db"), record(9, "app.db.pool")],
         [record(9, "app"), record(9, "app.dbx"), record(9, "")]),
        ({"loggers": ["a", "b"]}, [record(9, "a"), record(9, "b.c")], [record(9, "c")]),
        ({"loggers": [""]}, [record(9, "anything"), record(9, "")], []),
        ({"where": {"tenant": "acme"}}, [record(tenant="acme", more=1)],
         [record(tenant="other"), record(tenant="ACME"), record(), record(tenant=None)]),
        ({"where": {"tenant": ["acme", "emca"]}}, [record(tenant="emca")], [record(tenant="x")]),
        ({"where": {"n": "5", "ok": "true"}}, [record(n=5, ok=True), record(n="5", ok="true")],
         [record(n=6, ok=True), record(n=5, ok=False), record(n=5)]),
        ({"where": {"n": 5}}, [record(n=5)], [record(n="5")]),
        ({"where": {"none": None}}, [record(none=None)], [record()]),
        ({"where": lambda one: one.body == "yes"}, [record(9, "app", "yes")], [record()]),
        ({"level": "error", "loggers": "app", "where": {"a": 1}}, [record(17, "app", a=1)],
         [record(9, "app", a=1), record(17, "lib", a=1), record(17, "app", a=2)]),
    ],
)  # fmt: skip
def test_a_sink_gets_the_records_that_meet_all_conditions(
    options: dict[str, Any], meant: list[LogRecord], others: list[LogRecord]
) -> None:
    route = Route(MemorySink(), **options)
    assert [route.takes(one) for one in meant] == [True] * len(meant)
    assert [route.takes(one) for one in others] == [False] * len(others)


@given(level=st.integers(1, 24), max_level=st.integers(1, 24), severity=st.integers(1, 24))
def test_names_and_members_of_severities_mean_the_same(level, max_level, severity):
    if level > max_level:
        level, max_level = max_level, level
    for options in (
        {"level": Severity(level), "max_level": Severity(max_level)},
        {"level": SHORT_NAMES[level].lower(), "max_level": SHORT_NAMES[max_level]},
    ):
        route = Route("otlp", **options)
        assert route.takes(record(severity)) is (level <= severity <= max_level)


def test_a_route_without_conditions_takes_all_and_one_with_any_does_not():
    assert Route("otlp").takes_all
    assert Route("otlp", level="trace", max_level="fatal4", loggers=(), where={}).takes_all
    for options in ({"level": "trace2"}, {"max_level": "fatal3"}, {"loggers": "a"}, {"where": {"a": 1}},
                    {"where": bool}, {"level": "off"}):  # fmt: skip
        assert not Route("otlp", **options).takes_all


def test_logger_names_may_come_from_any_iterable_and_are_read_once():
    route = Route("otlp", loggers=iter(["a", "b"]))
    assert route.takes(record(9, "b"))
    assert not route.takes(record(9, "c"))


class Secretive(MemorySink):
    def __repr__(self) -> str:
        return "Secretive(token='hunter2')"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "lod"}, r"level of the route to 'memory'.*'lod' is not a severity"),
        ({"level": None}, r"level of the route to 'memory'"),
        ({"max_level": 77}, r"max_level of the route"),
        ({"level": "error", "max_level": "info"}, r"level='error'.*above max_level"),
        ({"loggers": 5}, r"loggers=5.*list of logger names"),
        ({"loggers": [b"a"]}, r"loggers=\(b'a',\) of the route.*list of logger names"),
        ({"where": "tenant=acme"}, r"where='tenant=acme'.*dict of attributes, or a plain function"),
        ({"where": None}, r"where=None of the route.*dict of attributes, or a plain function"),
        (
            {"overflow": "drop"},
            r"overflow='drop'.*'block', 'drop_newest', 'drop_lowest' or 'spill'",
        ),
        ({"fallback_after": -1}, r"fallback_after=-1.*0 or more"),
        ({"fallback_after": float("nan")}, r"fallback_after=nan"),
        ({"fallback_after": "5"}, r"fallback_after='5'"),
        ({"fallback_after": True}, r"fallback_after=True"),
    ],
)
def test_a_wrong_option_is_named_with_its_fix_and_shows_no_secret(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Route(Secretive(), **options)
    assert caught.value.option in options
    assert "hunter2" not in str(caught.value)


def test_a_coroutine_function_is_not_accepted_as_a_condition():
    async def where(_record: LogRecord) -> bool:
        return True

    with pytest.raises(ConfigurationError, match="plain function"):
        Route("otlp", where=where)  # type: ignore[arg-type]


# ---- in a pipeline


def test_each_sink_gets_its_own_records_in_order():
    everything, errors, database = (MemorySink(name=name) for name in ("all", "errors", "db"))
    with Runtime(
        sinks=[everything, Route(errors, level="error"), Route(database, loggers=["app.db"])]
    ) as runtime:
        runtime.get_logger("app.db").info("query")
        runtime.get_logger("app").error("failed")
        runtime.get_logger("app.db.pool").error("exhausted")
        runtime.get_logger("app").info("fine")
        assert runtime.flush(20)
        stats = runtime.stats()
    assert bodies(everything) == ["query", "failed", "exhausted", "fine"]
    assert bodies(errors) == ["failed", "exhausted"]
    assert bodies(database) == ["query", "exhausted"]
    assert {name: (one.accepted, one.skipped) for name, one in stats.sinks.items()} == {
        "all": (4, 0),
        "errors": (2, 2),
        "db": (2, 2),
    }
    assert (stats.accepted, stats.delivered, stats.dropped) == (4, 4, 0)
    assert balanced(stats)


def test_a_route_sees_a_record_after_the_processors():
    def classify(one: LogRecord) -> LogRecord:
        one.attributes["team"] = "billing" if "invoice" in str(one.body) else "shop"
        return one

    billing, secrets = MemorySink(name="billing"), MemorySink(name="secrets")
    with Runtime(
        sinks=[
            Route(billing, where={"team": "billing"}),
            Route(secrets, where={"password": "hunter2"}),
            MemorySink(),
        ],
        processors=[classify],
    ) as runtime:
        runtime.get_logger("t").info("invoice sent", password="hunter2")
        runtime.get_logger("t").info("order placed")
        assert runtime.flush(20)
    assert bodies(billing) == ["invoice sent"]
    assert bodies(secrets) == []


def test_a_record_that_no_sink_takes_is_counted_as_not_routed():
    errors = MemorySink(name="errors")
    with Runtime(sinks=[Route(errors, level="error")]) as runtime:
        log = runtime.get_logger("t")
        log.info("x")
        log.warning("x")
        log.error("kept")
        assert runtime.flush(20)
        stats = runtime.stats()
    assert bodies(errors) == ["kept"]
    assert stats.drops == {"not_routed": {"INFO": 1, "WARN": 1}}
    assert (stats.accepted, stats.delivered, stats.pending) == (3, 1, 0)
    assert balanced(stats)


@pytest.mark.parametrize("error", [ValueError("secret-in-error"), SystemExit(1), RecursionError()])
def test_if_a_function_raises_the_record_passes_and_the_worker_goes_on(error, capsys):
    def where(_record: LogRecord) -> bool:
        raise error

    sink = MemorySink()
    with Runtime(sinks=[Route(sink, where=where)]) as runtime:
        for body in ("a", "b"):
            runtime.get_logger("t").info(body)
            assert runtime.flush(20)
    assert bodies(sink) == ["a", "b"]
    announced = capsys.readouterr().err
    place = f"({__file__}:{where.__code__.co_firstlineno + 1})"
    assert f"memory: its route raised {type(error).__name__} {place}; the record is" in announced
    assert "secret-in-error" not in announced


def test_a_function_is_called_once_per_record_so_a_random_one_loses_none():
    asked = 0

    def now_and_then(_record: LogRecord) -> bool:
        nonlocal asked
        asked += 1
        return random.random() < 0.5

    sink = MemorySink()
    with Runtime(sinks=[Route(sink, where=now_and_then)]) as runtime:
        for _ in range(500):
            runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        stats = runtime.stats()
    assert asked == 500
    assert len(sink.records) == stats.delivered
    assert stats.delivered + stats.drops["not_routed"]["INFO"] == 500
    assert balanced(stats)


def test_a_slow_function_does_not_delay_a_shutdown_and_every_record_is_counted():
    gate = Gate()

    def slow(_record: LogRecord) -> bool:
        gate()
        return True

    runtime = Runtime(sinks=[Route(MemorySink(), where=slow)])
    log = runtime.get_logger("t")
    for _ in range(5):
        log.info("x")
    assert gate.entered.wait(20)
    began = time.monotonic()
    runtime.shutdown(0.2)
    assert time.monotonic() - began < 10
    gate.opened.set()
    runtime.pipeline.worker.join(20)
    stats = runtime.stats()
    assert (stats.accepted, stats.pending, stats.drops) == (5, 0, {"shutdown": {"INFO": 5}})
    assert balanced(stats)


# ---- fallbacks


def test_a_fallback_gets_nothing_while_its_sink_can_take_records():
    primary, spare = MemorySink(name="primary"), MemorySink(name="spare")
    with Runtime(sinks=[Route(primary, fallback=spare)]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        stats = runtime.stats()
    assert (bodies(primary), bodies(spare)) == (["x"], [])
    assert (stats.sinks["spare"].accepted, stats.sinks["spare"].skipped) == (0, 1)
    assert (stats.accepted, stats.delivered) == (1, 1)
    assert balanced(stats)


def test_a_fallback_gets_every_record_after_the_backend_has_been_away_long_enough():
    primary, spare = ScriptedSink(DOWN, name="primary"), MemorySink(name="spare")
    with Runtime(
        sinks=[Route(primary, fallback=spare, fallback_after=0.02)],
        retry_maximum=3600,
        shutdown_timeout=0.2,
    ) as runtime:
        log = runtime.get_logger("t")
        log.info("waits for the primary")
        (queue, _) = runtime.pipeline.sending_queues()
        circuit = queue.state.circuit
        wait_for(lambda: circuit.opened_at and time.monotonic() > circuit.opened_at + 0.02)
        log.info("goes to the fallback")
        wait_for(lambda: bodies(spare))
        stats = runtime.stats()
        assert bodies(spare) == ["goes to the fallback"]
        assert (stats.sinks["primary"].pending, stats.sinks["primary"].skipped) == (1, 1)
        assert (stats.accepted, stats.delivered, stats.pending) == (2, 1, 1)
        assert balanced(stats)
        queue.state.circuit.succeed()
        assert runtime.flush(20)
        log.info("the primary is back")
        assert runtime.flush(20)
        assert bodies(primary) == ["waits for the primary", "the primary is back"]
        stats = runtime.stats()
        assert (stats.accepted, stats.delivered, stats.pending) == (3, 3, 0)
        assert balanced(stats)


def test_a_fallback_gets_the_records_that_a_full_backlog_refuses_each_exactly_once():
    gate = Gate()
    primary = ScriptedSink(name="primary", on_send=gate, limits=BatchLimits(count=1, delay=0))
    spare = MemorySink(name="spare", capacity=5000)
    with Runtime(
        sinks=[Route(primary, overflow="drop_newest", fallback=spare)],
        backlog_bytes=65_536,
        sink_overflow="block",  # the fallback loses nothing on a busy machine
        block_timeout=60,
    ) as runtime:
        log = runtime.get_logger("t")
        for n in range(1000):
            log.info("x", n=n)
        wait_for(lambda: runtime.stats().sinks["spare"].delivered > 500)
        gate.opened.set()
        assert runtime.flush(30)
        stats = runtime.stats()
    both = [one.attributes["n"] for sink in (primary, spare) for one in sink.records]
    assert sorted(both) == list(range(1000))
    assert stats.sinks["primary"].delivered == len(primary.records) > 0
    assert (stats.accepted, stats.delivered, stats.dropped) == (1000, 1000, 0)
    assert balanced(stats)


def down_and_full(**options: Any) -> tuple[Runtime, list[ScriptedSink]]:
    """A runtime whose primary and fallback are both down and have little room."""
    single = BatchLimits(count=1, delay=0)
    sinks = [ScriptedSink(DOWN, name=name, limits=single) for name in ("primary", "spare")]
    runtime = Runtime(
        sinks=[Route(sinks[0], fallback=sinks[1], **options)],
        backlog_bytes=65_536,
        retry_maximum=3600,
    )
    return runtime, sinks


def test_a_fallback_that_is_down_and_full_drops_and_counts_records_but_keeps_warnings():
    runtime, _ = down_and_full(fallback_after=3600.0)
    log = runtime.get_logger("t")
    for _ in range(2000):
        log.info("x")
    wait_for(lambda: runtime.stats().dropped > 1000)
    for _ in range(20):
        log.error("kept")
    wait_for(lambda: not runtime.pipeline.queue)
    stats = runtime.stats()
    assert set(stats.sinks["spare"].drops) == {"backlog_full"}
    assert set(stats.drops["backlog_full"]) == {"INFO"}
    assert stats.sinks["primary"].dropped == 0
    assert stats.accepted == 2020
    assert balanced(stats)
    runtime.shutdown(0.2)
    stats = runtime.stats()
    assert stats.pending == 0
    assert sum(one.dropped for one in stats.sinks.values()) == 2020
    assert balanced(stats)


def test_the_totals_show_the_drops_of_a_fallback():
    runtime, _ = down_and_full(fallback_after=0.0)
    (queue, _) = runtime.pipeline.sending_queues()
    runtime.get_logger("t").info("first")
    wait_for(lambda: queue.state.circuit.opened_at is not None)
    for _ in range(10):
        runtime.get_logger("t").info("x")
    runtime.shutdown(0.2)
    stats = runtime.stats()
    assert stats.sinks["primary"].drops == {"shutdown": {"INFO": 1}}
    assert stats.sinks["spare"].drops == {"shutdown": {"INFO": 10}}
    assert (stats.accepted, stats.delivered, stats.dropped) == (11, 1, 10)
    assert balanced(stats)


def test_a_fallback_of_two_sinks_gets_each_record_once():
    first, second = (ScriptedSink(DOWN, name=name) for name in ("first", "second"))
    spare = ScriptedSink(name="spare")
    with Runtime(
        sinks=[Route(sink, fallback=spare, fallback_after=0.0) for sink in (first, second)],
        retry_maximum=3600,
        shutdown_timeout=0.2,
    ) as runtime:
        runtime.get_logger("t").info("first")
        queues = runtime.pipeline.sending_queues()
        assert [queue.name for queue in queues] == ["first", "second", "spare"]
        wait_for(lambda: all(queue.state.circuit.opened_at is not None for queue in queues[:2]))
        for n in range(50):
            runtime.get_logger("t").info(str(n))
        wait_for(lambda: len(spare.records) >= 50)
        stats = runtime.stats()
        assert bodies(spare) == [str(n) for n in range(50)]
        assert stats.sinks["spare"].accepted == 50
        assert (stats.accepted, stats.delivered, stats.pending) == (51, 50, 1)
        assert balanced(stats)
    assert spare.opened == spare.closed == 1
    assert spare.threads == {"fapilog-spare"}


def test_a_fallback_of_two_sinks_gets_the_records_of_the_one_that_is_down():
    down, fine, spare = ScriptedSink(DOWN, name="down"), MemorySink(name="fine"), MemorySink()
    with Runtime(
        sinks=[
            Route(down, level="error", fallback=spare, fallback_after=0.0),
            Route(fine, fallback=spare),
        ],
        retry_maximum=3600,
        shutdown_timeout=0.2,
    ) as runtime:
        log = runtime.get_logger("t")
        log.error("first")
        queue = runtime.pipeline.sending_queues()[0]
        wait_for(lambda: queue.state.circuit.opened_at is not None)
        log.info("a")
        log.error("b")
        wait_for(lambda: bodies(spare) and len(fine.records) == 3)
        assert bodies(spare) == ["b"]
        assert bodies(fine) == ["first", "a", "b"]
        assert balanced(runtime.stats())


def test_the_ledger_balances_at_every_moment_with_routes_and_unsteady_fallbacks():
    gates = threading.Event()

    def flaky() -> None:
        if random.random() < 0.3:
            raise RetryableError("now and then", retry_after=0.001)

    sinks = [
        ScriptedSink(name=name, on_send=flaky, limits=BatchLimits(count=16, delay=0))
        for name in ("a", "b", "spare")
    ]
    seen: list[Stats] = []

    def watch() -> None:
        while not gates.is_set():
            seen.append(runtime.stats())
            time.sleep(0.0005)

    with Runtime(
        sinks=[
            Route(sinks[0], fallback=sinks[2], fallback_after=0.0),
            Route(sinks[1], level="warn", fallback=sinks[2], fallback_after=0.001),
        ],
        retry_initial=0.005,
        backlog_bytes=65_536,
    ) as runtime:
        watcher = threading.Thread(target=watch)
        watcher.start()
        log = runtime.get_logger("t")
        for n in range(3000):
            log.info("x", n=n)
            log.error("x", n=n)
        assert runtime.flush(60)
        gates.set()
        watcher.join()
        stats = runtime.stats()
    assert len(seen) > 10
    assert all(map(balanced, seen))
    accepted = [one.accepted for one in seen]
    assert accepted == sorted(accepted)
    assert (stats.accepted, stats.pending) == (6000, 0)
    for sink in sinks:
        assert len(sink.records) == stats.sinks[sink.name].delivered
    delivered = {one.attributes["n"] for sink in sinks for one in sink.records}
    lost = sum(one.dropped for one in stats.sinks.values())
    assert len(delivered) >= 3000 - lost
