from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fapilog import LogRecord, Runtime
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import ConfigurationError
from fapilog.protocols import BatchLimits
from fapilog.runtime.wiring import make_queues
from fapilog.settings import Settings
from fapilog.sinks import MemorySink, Route
from tests.support.sinks import ScriptedSink


class Durable(ScriptedSink):
    """A sink whose records can be spooled."""

    wire_format = "test"

    def pack(self, items: Sequence[Any]) -> bytes:
        return b"".join(items)

    def unpack(self, packed: bytes) -> list[Any]:
        return [packed]


class Plain:
    """A sink that does not inherit from Sink and has no concurrency."""

    name = "plain"
    limits = BatchLimits(count=10, delay=0)

    def __init__(self) -> None:
        self.got: list[object] = []

    def open(self) -> None: ...

    def encode(self, record: LogRecord) -> object:
        return record.body

    def send(self, batch: Sequence[object], timeout: float) -> None:
        self.got += batch

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


@pytest.fixture
def queues():
    made: list[SendingQueue] = []

    def make(given: object = None, **options: Any) -> list[SendingQueue]:
        found = make_queues(Settings(**options), given)
        made.extend(found)
        return found

    yield make
    for queue in made:
        queue.start_close(0)
        queue.finish_close()


def options_of(queue: SendingQueue) -> DeliveryOptions:
    return queue.options


def names(queues: list[SendingQueue]) -> list[str]:
    return [queue.name for queue in queues]


def test_the_options_of_delivery_reach_every_sink(queues):
    (queue,) = queues(
        MemorySink(),
        backlog_bytes="1MiB",
        export_timeout=7,
        retry_initial=0.5,
        retry_maximum=9,
        sink_overflow="block",
        block_timeout=3,
        protect_level="error",
    )
    options = options_of(queue)
    assert (options.capacity, options.export_timeout) == (1 << 20, 7)
    assert (options.retry.initial, options.retry.maximum) == (0.5, 9)
    assert (options.overflow, options.block_timeout, options.protect) == ("block", 3, 17)
    assert (options.spool, options.quarantine) == (None, None)


def test_without_a_word_about_it_a_full_backlog_drops_the_lowest_or_spills(queues, tmp_path):
    plain, durable = queues([MemorySink(), Durable()], spool={"directory": tmp_path})
    assert options_of(plain).overflow == "drop_lowest"
    assert options_of(durable).overflow == "spill"
    assert (options_of(plain).spool, options_of(plain).quarantine) == (None, None)
    assert options_of(durable).spool is not None
    assert options_of(durable).quarantine is not None


def test_with_spool_mode_never_there_is_a_quarantine_and_no_spool(queues, tmp_path):
    (queue,) = queues(Durable(), spool={"directory": tmp_path, "mode": "never"})
    assert options_of(queue).spool is None
    assert options_of(queue).quarantine is not None
    assert options_of(queue).overflow == "drop_lowest"


@pytest.mark.parametrize(
    ("route", "options"),
    [
        ({"overflow": "spill"}, {}),
        ({}, {"sink_overflow": "spill"}),
        ({"overflow": "spill"}, {"spool": {"directory": "{tmp}", "mode": "never"}}),
        ({}, {"sink_overflow": "spill", "spool": {"directory": "{tmp}", "mode": "never"}}),
    ],
)
def test_spill_without_a_spool_is_refused_before_a_sink_is_opened(route, options, tmp_path):
    if "spool" in options:
        options = {**options, "spool": {**options["spool"], "directory": tmp_path}}
    sink = Durable()
    with pytest.raises(ConfigurationError, match=r"'spill' of the sink 'scripted'.*directory"):
        make_queues(Settings(**options), Route(sink, **route))
    assert sink.opened == 0


@pytest.mark.parametrize("mode", [None, "never", "overflow"])
def test_a_queue_that_is_to_spill_needs_a_sink_with_a_spool(queues, tmp_path, mode):
    spool = {"directory": tmp_path, "mode": mode} if mode else {}
    with pytest.raises(ConfigurationError, match=r"'overflow': 'spill' needs .*spool\.directory"):
        queues(MemorySink() if mode == "overflow" else Durable(), overflow="spill", spool=spool)


def test_spill_asked_for_in_general_leaves_out_sinks_that_cannot(queues, tmp_path):
    found = queues([MemorySink(), Durable()], sink_overflow="spill", spool={"directory": tmp_path})
    assert [options_of(queue).overflow for queue in found] == ["drop_lowest", "spill"]
    with pytest.raises(ConfigurationError, match="records can be spooled"):
        queues(Route(MemorySink(), overflow="spill"), spool={"directory": tmp_path})


def test_a_route_has_an_overflow_policy_of_its_own(queues):
    found = queues(
        [Route(MemorySink(), overflow="drop_newest"), MemorySink()], sink_overflow="block"
    )
    assert [options_of(queue).overflow for queue in found] == ["drop_newest", "block"]


def test_a_directory_that_cannot_be_used_is_refused_before_a_sink_is_opened(tmp_path):
    (tmp_path / "file").write_text("")
    sink = Durable()
    with pytest.raises(ConfigurationError, match=r"spool\.directory"):
        make_queues(Settings(spool={"directory": tmp_path / "file" / "spool"}), sink)
    assert sink.opened == 0


# ---- sinks


def test_a_sink_need_not_inherit_from_sink():
    plain = Plain()
    with Runtime(sinks=plain) as runtime:  # type: ignore[arg-type]
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        assert runtime.stats().sinks["plain"].delivered == 1
    assert plain.got == ["x"]


@pytest.mark.parametrize("concurrency", ["4", 2.0, True, None, 0, -1])
def test_a_concurrency_that_is_no_integer_from_one_up_is_refused_at_the_start(concurrency):
    sink = ScriptedSink()
    sink.concurrency = concurrency
    for given in (sink, Route(MemorySink(), fallback=sink)):
        with pytest.raises(
            ConfigurationError, match=r"concurrency=.* of the sink 'scripted': give an integer"
        ):
            make_queues(Settings(), given)
    assert sink.opened == 0


@pytest.mark.parametrize("limits", [None, {"count": 5}, 512])
def test_limits_that_are_no_batch_limits_are_refused_at_the_start(limits):
    sink = ScriptedSink()
    sink.limits = limits
    with pytest.raises(ConfigurationError, match="limits of the sink 'scripted'"):
        make_queues(Settings(), sink)
    assert sink.opened == 0


def test_where_one_sink_cannot_be_opened_those_before_it_are_closed():
    class Broken(ScriptedSink):
        def open(self) -> None:
            raise ConfigurationError("no such place")

    first, last = ScriptedSink(), ScriptedSink()
    with pytest.raises(ConfigurationError, match="no such place"):
        make_queues(Settings(), [Route(first, fallback=Broken()), last])
    assert (first.opened, first.closed) == (last.opened, last.closed) == (1, 1)


def test_none_is_no_sink_and_names_get_nothing(queues):
    assert queues("none") == []
    assert queues(["none", Route("none", level="error")]) == []


# ---- routes


def test_names_sinks_and_routes_may_be_mixed(queues):
    memory = MemorySink(name="mine")
    found = queues(["memory", memory, Route("memory", level="error")])
    assert names(found) == ["memory", "mine", "memory-2"]
    assert [queue.intake.takes_all for queue in found] == [True, True, False]
    assert found[1].sink is memory


def meant(queue: SendingQueue, severity: int, **attributes: Any) -> bool:
    record = LogRecord(severity_number=severity, attributes=attributes)
    return list(queue.intake.meant([record])) == [record]


def test_the_settings_have_routes_by_the_names_of_the_sinks(queues):
    found = queues(
        ["memory", "memory", "memory"],
        routes={
            "memory": {"level": "warn", "where": "tenant=acme"},
            "memory-3": {"max_level": "info", "overflow": "block"},
        },
    )
    first, second, third = found
    assert meant(first, 13, tenant="acme")
    assert not meant(first, 9, tenant="acme")
    assert not meant(first, 13)
    assert second.intake.takes_all
    assert meant(third, 9)
    assert not meant(third, 17)
    assert options_of(third).overflow == "block"


def test_a_route_in_the_code_wins_over_the_settings(queues):
    (queue,) = queues(Route("memory", level="debug"), routes={"memory": {"level": "error"}})
    assert meant(queue, 5)
    assert not meant(queue, 1)


def test_a_route_to_a_sink_that_is_not_there_is_refused_with_those_that_are(queues):
    with pytest.raises(ConfigurationError, match=r"no sink is named otlpp; the sinks are memory"):
        queues("memory", routes={"otlpp": {"level": "error"}})


def test_routes_come_from_variables(queues, monkeypatch, tmp_path):
    monkeypatch.setenv("FAPILOG_SINKS", "console:stderr, memory")
    monkeypatch.setenv("FAPILOG_ROUTES__CONSOLE__LEVEL", "error")
    monkeypatch.setenv("FAPILOG_ROUTES__MEMORY__LOGGERS", "app, lib")
    monkeypatch.setenv("FAPILOG_ROUTES__MEMORY__WHERE", "paid=true")
    monkeypatch.setenv("FAPILOG_ROUTES__MEMORY__FALLBACK", "file:spare.jsonl")
    monkeypatch.setenv("FAPILOG_ROUTES__MEMORY__FALLBACK_AFTER", "5")
    monkeypatch.chdir(tmp_path)
    console, memory, spare = queues()
    assert names([console, memory, spare]) == ["console", "memory", "file"]
    assert (console._route.level, memory._route.loggers) == (17, ("app", "lib"))
    assert memory._route.where == {"paid": "true"}
    assert memory._route.fallback_after == 5
    assert memory.fallback is spare


def test_routes_come_from_a_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAPILOG_CONFIG", "fapilog.toml")
    Path("fapilog.toml").write_text(
        """
        sinks = ["memory", "file:errors.jsonl"]
        [routes.memory]
        fallback = "file:spare.jsonl"
        [routes.file]
        level = "error"
        where = { tier = ["gold", "silver"], "http.status" = 500 }
        """
    )
    with Runtime() as runtime:
        log = runtime.get_logger("t")
        log.error("a", tier="gold", **{"http.status": 500})
        log.error("b", tier="bronze", **{"http.status": 500})
        log.info("c", tier="gold", **{"http.status": 500})
    (line,) = Path("errors.jsonl").read_text().splitlines()
    assert json.loads(line)["body"] == "a"
    assert not Path("spare.jsonl").exists() or not Path("spare.jsonl").read_text()


# ---- fallbacks


def test_fallbacks_come_last_and_take_nothing_by_themselves(queues):
    spare = MemorySink(name="spare")
    first, second, last = queues([Route("memory", fallback=spare), MemorySink(name="other")])
    assert names([first, second, last]) == ["memory", "other", "spare"]
    assert first.fallback is last
    assert second.fallback is None
    assert not last.intake.takes_all
    assert not meant(last, 24)


@pytest.mark.parametrize("spare", ["memory", MemorySink(name="spare")])
def test_one_fallback_for_two_sinks_is_one_sink(queues, spare):
    first, second, last = queues(
        [Route(ScriptedSink(name=name), fallback=spare) for name in ("a", "b")]
    )
    assert first.fallback is second.fallback is last


def test_two_names_are_two_fallbacks(queues, tmp_path):
    found = queues(
        [
            Route(ScriptedSink(name="a"), fallback=f"file:{tmp_path}/a.jsonl"),
            Route(ScriptedSink(name="b"), fallback=f"file:{tmp_path}/b.jsonl"),
        ]
    )
    assert names(found) == ["a", "b", "file", "file-2"]
    assert [queue.fallback for queue in found] == [found[2], found[3], None, None]


def test_the_name_none_is_no_fallback(queues):
    (queue,) = queues(Route("memory", fallback="none"))
    assert queue.fallback is None


def test_a_fallback_that_gets_records_anyway_is_refused():
    sink = MemorySink(name="both")
    with pytest.raises(ConfigurationError, match="twice"):
        make_queues(Settings(), [Route("console", fallback="memory"), "memory"])
    with pytest.raises(ConfigurationError, match="twice"):
        make_queues(Settings(), [Route("console", fallback=sink), sink])
    with pytest.raises(ConfigurationError, match="twice"):
        make_queues(Settings(), Route(sink, fallback=sink))


@pytest.mark.parametrize("fallback", ["nowhere", 5, MemorySink, Route("memory")])
def test_what_is_no_sink_is_no_fallback(fallback):
    with pytest.raises(ConfigurationError, match=r"not a sink|not known"):
        make_queues(Settings(), Route("memory", fallback=fallback))


def test_a_fallback_has_a_spool_of_its_own(queues, tmp_path):
    first, spare = queues(
        Route(Durable(name="a"), fallback=Durable(name="b")), spool={"directory": tmp_path}
    )
    assert options_of(first).spool is not options_of(spare).spool
    assert options_of(spare).spool is not None
