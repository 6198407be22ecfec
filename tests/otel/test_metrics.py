"""The ledger as OpenTelemetry metrics: names, sums, changes of the runtime, and forks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.semconv._incubating.attributes.otel_attributes import OtelComponentTypeValues
from opentelemetry.semconv._incubating.metrics import otel_metrics

import fapilog
from fapilog import LogRecord, Runtime, hold
from fapilog.delivery.ledger import MAX_LOGGERS, OTHER_LOGGERS, LoggerCounts
from fapilog.errors import AccessDeniedError, InvalidDataError, PermanentError, RetryableError
from fapilog.otel.metrics import METRICS, LedgerMetrics
from fapilog.processors import RedactProcessor
from fapilog.protocols import Outcome
from fapilog.runtime import default
from fapilog.sinks import MemorySink, OTLPSink
from tests.support.ledger import wait_for
from tests.support.metrics import Collected
from tests.support.processes import run
from tests.support.sinks import ONE_BATCH, Gate, ScriptedSink

CREATED = "otel.sdk.log.created"
PROCESSED = "otel.sdk.processor.log.processed"
QUEUED = "otel.sdk.processor.log.queue.size"
EXPORTED = "otel.sdk.exporter.log.exported"
INFLIGHT = "otel.sdk.exporter.log.inflight"
DURATION = "otel.sdk.exporter.operation.duration"


class Durable(ScriptedSink):
    """A sink whose records can be spooled."""

    wire_format = "test"

    def encode(self, record: LogRecord) -> Any:
        return str(record.body)

    def pack(self, items: Sequence[Any]) -> bytes:
        return " ".join(items).encode()

    def unpack(self, packed: bytes) -> list[Any]:
        return packed.decode().split(" ")


# ---- names


STANDARD = [metric for metric in METRICS if metric.name.startswith("otel.")]


@pytest.mark.parametrize("metric", STANDARD, ids=lambda metric: metric.name)
def test_a_standard_name_has_the_instrument_and_the_unit_of_the_conventions(metric):
    constants = vars(otel_metrics)
    (constant,) = [name for name in constants if constants[name] == metric.name]
    meter = mock.Mock()
    constants[f"create_{constant.lower()}"](meter)
    ((method, _, created),) = meter.method_calls
    if metric.kind == "histogram":
        assert method == "create_histogram"
    else:
        assert method == {"counter": "create_counter"}.get(metric.kind, "create_up_down_counter")
    assert created["unit"] == metric.unit


def test_all_other_names_are_fapilogs_own_and_no_two_are_equal():
    others = {metric.name for metric in METRICS if metric not in STANDARD}
    assert len(STANDARD) == 9
    assert all(name.startswith("fapilog.") for name in others)
    assert len(others) + len(STANDARD) == len(METRICS)


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        ("http/protobuf", OtelComponentTypeValues.OTLP_HTTP_LOG_EXPORTER),
        ("http/json", OtelComponentTypeValues.OTLP_HTTP_JSON_LOG_EXPORTER),
        ("grpc", OtelComponentTypeValues.OTLP_GRPC_LOG_EXPORTER),
    ],
)
def test_a_sink_for_otlp_has_the_component_type_of_the_conventions(protocol, kind):
    with Runtime(sinks=[OTLPSink("http://localhost:1", protocol), MemorySink()]) as runtime:
        collected = Collected(runtime)()
    (point,) = collected.points(EXPORTED, "otlp")
    assert point.attributes["otel.component.type"] == kind.value
    (point,) = collected.points(EXPORTED, "memory")
    assert point.attributes["otel.component.type"] == "fapilog.sinks.memory.MemorySink"


def test_a_sink_of_spans_has_the_names_for_spans():
    class Spans(Durable):
        wire_format = "otlp-traces-protobuf"

    with Runtime(sinks=[Spans(name="traces"), MemorySink()]) as runtime:
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        collected = Collected(runtime)()
    assert collected.value("otel.sdk.exporter.span.exported", "traces") == 1
    assert collected.value("otel.sdk.exporter.span.inflight", "traces") == 0
    assert collected.points(EXPORTED, "traces") == []
    assert collected.value(EXPORTED, "memory") == 1


# ---- sums


def test_the_metrics_add_up_to_the_ledger():
    good = ScriptedSink(RetryableError("later", retry_after=0.001), name="good", limits=ONE_BATCH)
    bad = ScriptedSink(PermanentError("no"), name="bad", limits=ONE_BATCH)
    half = ScriptedSink(Outcome(rejected=1), name="half", limits=ONE_BATCH)

    def process(record: LogRecord) -> LogRecord | None:
        if record.body == "raise":
            raise ValueError
        return None if record.body == "drop" else record

    with Runtime(sinks=[good, bad, half], processors=[process]) as runtime:
        collect = Collected(runtime)
        log = runtime.get_logger("t")
        for body in ("a", "b", "drop", "raise"):
            log.warning(body, password="p")
        with hold("debug"):
            log.debug("not released")
        assert runtime.flush(20)
        found, stats = collect(), runtime.stats()
    assert stats.accepted == found.value(CREATED) == 5
    assert found.value(PROCESSED, error=None) == 5
    assert found.value(QUEUED) == 0
    assert found.value("otel.sdk.processor.log.queue.capacity") == 32_768
    dropped = found.sum("fapilog.dropped")
    assert (dropped, stats.dropped) == (2, 2)
    assert found.value("fapilog.dropped", reason="filtered", severity="WARN") == 1
    assert found.value("fapilog.dropped", reason="not_released", severity="DEBUG") == 1
    for sink, rejected in (("good", 0), ("bad", 3), ("half", 1)):
        assert (
            found.value(EXPORTED, sink, error=None) == stats.sinks[sink].delivered == 3 - rejected
        )
        assert found.value(EXPORTED, sink, error="rejected") == stats.sinks[sink].rejected
        assert found.sum(EXPORTED, sink) + found.value(INFLIGHT, sink) == 5 - dropped
        assert found.value("fapilog.backlog.size", sink) == 0
        assert found.value("fapilog.lag", sink) == 0
    assert found.value("fapilog.retries", "good") == 1
    assert found.value("fapilog.processor.failures") == stats.processor_errors == 1
    assert found.sum("fapilog.redactions") == stats.redacted > 0
    assert found.value("fapilog.redactions", rule="field") == stats.redacted


def test_the_duration_is_measured_once_per_batch_and_names_the_failure():
    good = ScriptedSink(RetryableError("later", retry_after=0.001), name="good", limits=ONE_BATCH)
    bad = ScriptedSink(PermanentError("no"), name="bad", limits=ONE_BATCH)
    half = ScriptedSink(Outcome(rejected=1), name="half", limits=ONE_BATCH)
    cut = ScriptedSink(
        InvalidDataError("one of them"), InvalidDataError("this one"), name="cut", limits=ONE_BATCH
    )
    with Runtime(sinks=[good, bad, half, cut]) as runtime:
        collect = Collected(runtime)
        for body in "ab":
            runtime.get_logger("t").info(body)
        assert runtime.flush(20)
        found = collect()
    assert len(cut.timeouts) == 3
    for sink, failure in {
        "good": None,
        "bad": "PermanentError",
        "half": "rejected",
        "cut": "InvalidDataError",
    }.items():
        (point,) = found.points(DURATION, sink)
        assert (point.count, point.attributes.get("error.type")) == (1, failure)
        assert point.explicit_bounds[0] == 0.001
        assert 0 < point.sum < 100


def test_records_in_the_queue_and_in_flight_are_shown_where_they_are():
    gate = Gate()
    sink = ScriptedSink(name="slow", on_send=gate)
    with Runtime(sinks=[sink]) as runtime:
        collect = Collected(runtime)
        runtime.get_logger("t").info("a")
        assert gate.entered.wait(20)
        found = collect()
        assert found.value(CREATED) == found.value(PROCESSED) == 1
        assert (found.value(INFLIGHT, "slow"), found.value(EXPORTED, "slow")) == (1, 0)
        assert found.value("fapilog.backlog.size", "slow") > 0
        assert found.value("fapilog.lag", "slow") > 0
        gate.opened.set()
        assert runtime.flush(20)
        found = collect()
        assert (found.value(INFLIGHT, "slow"), found.value(EXPORTED, "slow")) == (0, 1)
        assert found.value("fapilog.lag", "slow") == 0


def test_drops_before_the_sinks_are_failures_of_the_processor():
    gate = Gate()

    def process(record: LogRecord) -> LogRecord:
        gate()
        return record

    with Runtime(
        sinks=[MemorySink()], processors=[process], queue_size=1, overflow="drop_newest"
    ) as runtime:
        collect = Collected(runtime)
        log = runtime.get_logger("t")
        log.info("processed")
        assert gate.entered.wait(20)
        log.info("queued")
        log.error("lost")
        found = collect()
        assert (found.value(CREATED), found.value(QUEUED)) == (3, 1)
        gate.opened.set()
        assert runtime.flush(20)
    log.info("after the end")
    found = collect()
    assert found.value(PROCESSED, error=None) == 2
    assert found.value(PROCESSED, error="queue_full") == 1
    assert found.value(PROCESSED, error="already_shutdown") == 1
    assert found.sum(PROCESSED) == found.value(CREATED) == runtime.stats().accepted == 4
    assert found.value("fapilog.dropped", reason="queue_full", severity="ERROR") == 1
    assert found.value("fapilog.dropped", reason="closed", severity="INFO") == 1
    assert found.points(QUEUED) == []


def test_a_full_backlog_is_a_failure_of_the_exporter():
    def fail(record: LogRecord) -> None:
        if record.body == "bad":
            raise ValueError

    with Runtime(sinks=[ScriptedSink(name="s", on_encode=fail)]) as runtime:
        collect = Collected(runtime)
        for body in ("good", "bad"):
            runtime.get_logger("t").info(body)
        assert runtime.flush(20)
        found = collect()
    assert found.value(EXPORTED, "s", error=None) == 1
    assert found.value(EXPORTED, "s", error="encode_error") == 1
    assert found.value("fapilog.dropped", "s", reason="encode_error", severity="INFO") == 1
    assert found.value(PROCESSED, error=None) == 2


def test_an_outage_shows_in_the_spool_and_its_age(tmp_path: Path):
    away = Durable(AccessDeniedError("401", retry_after=3600), name="away")
    spool: Any = {"directory": tmp_path, "min_free": 0}
    with Runtime(sinks=[away], spool=spool, retry_maximum=3600) as runtime:
        collect = Collected(runtime)
        found = collect()
        for name in ("spool.items", "spool.size", "spool.age", "backend.down", "backend.denied"):
            assert found.value(f"fapilog.{name}", "away") == 0
        for body in "abc":
            runtime.get_logger("t").info(body)
        wait_for(lambda: runtime.stats().spooled == 3)
        found = collect()
        assert found.value("fapilog.spool.items", "away") == 3
        assert found.value("fapilog.spool.size", "away") > 3
        age = found.value("fapilog.spool.age", "away")
        assert 0 < age <= found.value("fapilog.lag", "away") < 100
        assert found.value("fapilog.backend.down", "away") == 1
        assert found.value("fapilog.backend.denied", "away") == 1
        assert found.value(INFLIGHT, "away") == 3
    back = Durable(name="away")
    with Runtime(sinks=[back], spool=spool) as runtime:
        collect = Collected(runtime)
        runtime.get_logger("t").info("d")
        wait_for(lambda: runtime.stats().delivered == 4)
        found = collect()
    assert found.value("fapilog.adopted", "away") == 3
    assert found.value(CREATED) == 1
    assert found.value(EXPORTED, "away") == 4
    assert found.value(INFLIGHT, "away") == found.value("fapilog.spool.items", "away") == 0
    assert found.value("fapilog.spool.age", "away") == found.value("fapilog.lag", "away") == 0


def test_a_batch_in_quarantine_is_an_export_that_failed(tmp_path: Path):
    picky = Durable(InvalidDataError("400"), name="picky")
    with Runtime(sinks=[picky], spool={"directory": tmp_path, "min_free": 0}) as runtime:
        collect = Collected(runtime)
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        found = collect()
    assert found.value(EXPORTED, "picky", error="quarantined") == 1
    assert found.sum(EXPORTED, "picky") == 1


def test_records_are_counted_by_logger_and_severity_if_the_option_is_set():
    with Runtime(sinks=[MemorySink()], otel_metrics_by_logger=True) as runtime:
        collect = Collected(runtime)
        for name in ("a", "b", "b"):
            runtime.get_logger(name).info("x")
        runtime.get_logger("b").log("error2", "x")
        runtime.get_logger("login?password=hunter2").error("x")
        assert runtime.flush(20)
        found = collect()
    counted = {
        tuple(sorted(p.attributes.values())): p.value for p in found.points("fapilog.records")
    }
    assert counted == {
        ("INFO", "a"): 1,
        ("INFO", "b"): 2,
        ("ERROR", "b"): 1,
        ("ERROR", "login?password=[REDACTED]"): 1,
    }
    with Runtime(sinks=[MemorySink()]) as runtime:
        runtime.get_logger("a").info("x")
        assert runtime.flush(20)
        assert Collected(runtime)().points("fapilog.records") == []


def test_the_number_of_loggers_that_are_counted_is_bounded():
    counts = LoggerCounts()
    for number in range(MAX_LOGGERS + 3):
        counts.add(f"logger.{number}", 9)
    counts.add("logger.0", 10)
    found = counts.snapshot()
    assert len(found) == MAX_LOGGERS + 1
    assert found[OTHER_LOGGERS, "INFO"] == 3
    assert found["logger.0", "INFO"] == 2


# ---- changes of the runtime


@pytest.mark.parametrize("delta", [False, True])
def test_counters_go_on_when_the_default_runtime_is_replaced(delta: bool):
    collect = Collected(delta=delta)
    total: dict[str, int] = dict.fromkeys((CREATED, PROCESSED, EXPORTED), 0)
    with mock.patch.object(default.state, "metrics", collect.metrics):
        for number in range(4):
            fapilog.configure(sinks=[MemorySink()], schedule_delay=0.01 * number)
            for _ in range(number):
                fapilog.get_logger("t").info("x", password="p")
            assert fapilog.flush(20)
            found = collect()
            for name, before in total.items():
                total[name] = before * delta + found.sum(name)
            assert set(total.values()) == {number * (number + 1) // 2}
        fapilog.shutdown()
        assert collect().sum(CREATED) == (0 if delta else 6)
        fapilog.configure(sinks=[MemorySink()])
        fapilog.get_logger("t").info("x")
        assert fapilog.flush(20)
        found = collect()
    assert found.sum(CREATED) == (1 if delta else 7)
    assert found.sum("fapilog.redactions") == (0 if delta else 6)
    assert found.value("fapilog.backlog.capacity") > 0
    assert found.points(INFLIGHT) == found.points(INFLIGHT, "memory")


def test_records_that_an_old_runtime_delivers_while_it_shuts_down_are_counted():
    gate = Gate()
    old = Runtime(sinks=[ScriptedSink(name="s", on_send=gate)])
    collect = Collected(old)
    old.get_logger("t").info("old")
    assert gate.entered.wait(20)
    with Runtime(sinks=[ScriptedSink(name="s")]) as new:
        collect.metrics.follow(new)
        new.get_logger("t").info("new")
        assert new.flush(20)
        found = collect()
        assert (found.value(CREATED), found.value(EXPORTED), found.value(INFLIGHT)) == (2, 1, 1)
        gate.opened.set()
        old.shutdown()
        found = collect()
        assert (found.value(CREATED), found.value(EXPORTED), found.value(INFLIGHT)) == (2, 2, 0)


def test_a_redactor_that_two_runtimes_share_is_counted_once():
    redactor = RedactProcessor()
    collect = Collected()
    for number in range(3):
        with Runtime(sinks=[MemorySink()], processors=[redactor]) as runtime:
            collect.metrics.follow(runtime)
            runtime.get_logger("t").info("x", password="p")
            assert runtime.flush(20)
            assert collect().sum("fapilog.redactions") == number + 1
    assert redactor.redacted == 3


def test_a_counter_never_decreases(tmp_path: Path):
    picky = Durable(InvalidDataError("400"), name="picky")
    with Runtime(sinks=[picky], spool={"directory": tmp_path, "min_free": 0}) as runtime:
        collect = Collected(runtime)
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        assert collect().value(EXPORTED, error="quarantined") == 1
        (queue,) = runtime.pipeline.sending_queues()
        queue.state.ledger.quarantined -= 1  # as if somebody had deleted the quarantine
        assert collect().value(EXPORTED, error="quarantined") == 1


def test_no_record_is_missed_or_counted_twice_while_threads_log_and_the_runtime_changes():
    collect = Collected()
    ended = threading.Event()

    def log_records() -> None:
        for _ in range(2000):
            fapilog.get_logger("t").info("x", password="p")

    def read() -> None:
        before: dict[str, float] = {}
        while not ended.is_set():
            found = collect()
            for name in (CREATED, PROCESSED, EXPORTED, "fapilog.redactions"):
                value = found.sum(name)
                if not before.get(name, 0) <= value <= 8000:
                    wrong.append((name, value))
                before[name] = value

    wrong: list[object] = []
    with mock.patch.object(default.state, "metrics", collect.metrics):
        fapilog.configure(sinks=[MemorySink()], shutdown_timeout=60)
        reader = threading.Thread(target=read)
        threads = [threading.Thread(target=log_records) for _ in range(4)]
        for thread in (reader, *threads):
            thread.start()
        for number in range(5):
            fapilog.configure(sinks=[MemorySink()], schedule_delay=0.01 * (number + 1))
        for thread in threads:
            thread.join()
        assert fapilog.flush(60)
        ended.set()
        reader.join()
        found = collect()
    assert wrong == []
    for name in (CREATED, PROCESSED, EXPORTED, "fapilog.redactions"):
        assert found.sum(name) == 8000
    assert found.sum(INFLIGHT) == found.sum(QUEUED) == 0


def test_following_a_runtime_twice_counts_it_once():
    with Runtime(sinks=[MemorySink()]) as runtime:
        collect = Collected(runtime, runtime)
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        found = collect()
    assert (found.value(CREATED), found.value(EXPORTED), found.value(DURATION)) == (1, 1, 1)


def test_two_providers_have_the_same_values():
    with Runtime(sinks=[MemorySink()]) as runtime:
        first, second = Collected(runtime), Collected(runtime)
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        for collect in (first, second, first):
            found = collect()
            assert (found.value(CREATED), found.value(EXPORTED), found.value(DURATION)) == (1, 1, 1)


# ---- the global provider, in child processes

#: Defines ``created()``, the value of otel.sdk.log.created, and the attributes of its point.
READER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.support.metrics import DELTA
delta = "delta" in sys.argv
reader = InMemoryMetricReader(DELTA if delta else None)
def points():
    data = reader.get_metrics_data()
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    # In a child, the SDK repeats the histograms of the parent process.
    return {m.name: m.data.data_points[-1] for m in metrics}
def created():
    point = points().get("otel.sdk.log.created")
    return point and (point.value, sorted(point.attributes.items()))
def provide():
    metrics.set_meter_provider(MeterProvider([reader]))
"""
SCRIPT = (
    READER
    + """
if "before" in sys.argv: provide()
fapilog.configure(sinks="none" if "none" in sys.argv else "memory")
log.info("x")
if "after" in sys.argv: provide()
fapilog.flush(20)
print(created())
"""
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_global_provider_gets_the_metrics_whenever_it_is_set(when: str):
    done = run(SCRIPT, when, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("(1, [])\n", "")


@pytest.mark.parametrize(
    "variables", [{"FAPILOG_OTEL_METRICS": "false"}, {"OTEL_SDK_DISABLED": "true"}]
)
def test_the_metrics_can_be_disabled(variables: dict[str, str]):
    # The variable would also disable the SDK's own provider.
    script = SCRIPT.replace('if "after"', "os.environ.pop('OTEL_SDK_DISABLED', None)\nif \"after\"")
    done = run(script, "after", cwd=ROOT, env=variables)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("delta", ["cumulative", "delta"])
def test_a_forked_child_counts_from_zero_and_its_parent_goes_on(delta: str):
    script = (
        READER
        + """
provide()
fapilog.configure(sinks="memory")
for _ in range(5): log.info("x", password="p")
fapilog.flush(20)
assert created() == (5, [])
child = os.fork()
if child == 0:
    assert (created() or (0,))[0] == 0
    for _ in range(2): log.info("x", password="p")
    fapilog.flush(20)
    own = [("process.pid", os.getpid())]
    found = points()
    assert (found["otel.sdk.log.created"].value, found["fapilog.redactions"].value) == (2, 2)
    duration = found["otel.sdk.exporter.operation.duration"]
    assert 1 <= duration.count <= 2 and duration.attributes["process.pid"] == os.getpid()
    grandchild = os.fork()
    if grandchild == 0:
        log.info("x")
        fapilog.flush(20)
        assert created() == (1, [("process.pid", os.getpid())])
        os._exit(0)
    assert os.waitpid(grandchild, 0)[1] == 0
    fapilog.configure(sinks="memory", level="debug")
    log.info("x")
    fapilog.flush(20)
    assert created() == (1 if delta else 3, own)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
log.info("x")
fapilog.flush(20)
assert created() == (1 if delta else 6, [])
"""
    )
    done = run(script, delta, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


# ---- what goes wrong


class LoggingExporter(MetricExporter):
    """Logs as libraries for HTTP do while they send metrics, and fails."""

    calls = 0

    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        self.calls += 1
        for number in range(100):
            logging.getLogger("urllib3").warning("retry %d", number)
        raise OSError

    def shutdown(self, *_: Any, **__: Any) -> None:
        return

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True


def test_the_export_of_the_metrics_is_not_logged():
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    fapilog.install_stdlib()
    runtime = fapilog.get_runtime()
    assert runtime is not None
    exporter = LoggingExporter()
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, float("inf"))])
    LedgerMetrics(provider).follow(runtime)
    for _ in range(3):
        provider.force_flush()
    assert fapilog.flush(20)
    assert exporter.calls == 3
    assert [record.scope.name for record in sink.records if record.scope.name == "urllib3"] == []
    assert fapilog.stats().accepted <= 3  # the SDK logs each failure once


def test_a_provider_that_raises_does_not_stop_the_configuration(capsys):
    with mock.patch.object(default.state, "metrics", None):
        with mock.patch("fapilog.otel.metrics.LedgerMetrics", side_effect=OSError("no meter")):
            runtime = fapilog.configure(sinks=[MemorySink()])
    assert not runtime.pipeline.closed
    text = capsys.readouterr().err
    assert "fapilog's ledger is not reported as metrics: OSError: no meter" in text


def test_an_error_while_the_metrics_are_read_is_announced_and_not_raised(capsys):
    with Runtime(sinks=[MemorySink()]) as runtime:
        collect = Collected(runtime)
        with mock.patch.object(runtime.pipeline, "progress", side_effect=OSError("gone")):
            assert collect() == {}
        assert collect().value(CREATED) == 0
        assert collect().points(CREATED)
    assert (
        "a metric is not reported: otel.sdk.log.created: OSError: gone" in capsys.readouterr().err
    )


def test_an_error_of_the_histogram_costs_no_record(capsys):
    sink = MemorySink()
    with Runtime(sinks=[sink]) as runtime:
        collect = Collected(runtime)
        collect.metrics._duration = mock.Mock(record=mock.Mock(side_effect=OSError("full")))
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
    assert len(sink.records) == 1
    text = capsys.readouterr().err
    assert "a metric is not reported: otel.sdk.exporter.operation.duration: OSError: full" in text


def test_values_masked_before_the_metrics_followed_the_runtime_are_counted():
    with Runtime(sinks=[MemorySink()]) as runtime:
        runtime.get_logger("t").info("x", password="p")
        assert runtime.flush(20)
        found = Collected(runtime)()
    assert found.sum("fapilog.redactions") == found.sum(CREATED) == 1
