from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import fapilog
from fapilog import ConfigurationError, LogRecord, Runtime
from fapilog.core.observability import (
    ObservabilitySettings,
    create_metrics_collector_from_settings,
)
from fapilog.errors import AccessDeniedError, InvalidDataError, PermanentError, RetryableError
from tests.support.ledger import wait_for
from tests.support.sinks import ONE_BATCH, ScriptedSink

ENABLED = ObservabilitySettings(metrics={"enabled": True, "exporter": "prometheus"})


def samples(registry):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_the_documented_lines_show_the_pipelines_real_activity():
    good = ScriptedSink(RetryableError("later", retry_after=0.001), name="good", limits=ONE_BATCH)
    bad = ScriptedSink(PermanentError("no"), name="bad", limits=ONE_BATCH)
    fapilog.configure(sinks=[good, bad], processors=[lambda r: None if r.body == "drop" else r])
    metrics = create_metrics_collector_from_settings(ENABLED)
    assert samples(metrics.registry)["fapilog_records_accepted_total",] == 0
    log = fapilog.get_logger("t")
    for body in ("a", "b", "drop"):
        log.warning(body, password="p")
    fapilog.flush(5)
    assert metrics.registry is not None
    data = generate_latest(metrics.registry)
    assert "text/plain" in CONTENT_TYPE_LATEST
    assert b"fapilog_records_delivered_total" in data
    found = samples(metrics.registry)
    assert found["fapilog_records_accepted_total",] == 3
    assert found["fapilog_records_delivered_total", "good"] == 2
    assert found["fapilog_records_delivered_total", "bad"] == 0
    assert found["fapilog_records_rejected_total", "bad"] == 2
    assert found["fapilog_records_dropped_total", "WARN", "filtered", "good"] == 1
    assert found["fapilog_records_pending", "good"] == 0
    assert found["fapilog_values_redacted_total",] == 2
    assert found["fapilog_processor_errors_total",] == 0
    assert found["fapilog_queue_capacity",] == 32_768
    assert found["fapilog_queue_size",] == 0
    assert found["fapilog_backlog_bytes", "good"] == 0
    assert found["fapilog_send_retries_total", "good"] == 1
    assert found["fapilog_send_duration_seconds_count", "good"] == 2
    assert found["fapilog_send_duration_seconds_bucket", "+Inf", "good"] == 2


class Durable(ScriptedSink):
    """A sink whose records can be spooled."""

    wire_format = "test"

    def encode(self, record: LogRecord) -> Any:
        return str(record.body)

    def pack(self, items: Sequence[Any]) -> bytes:
        return " ".join(items).encode()

    def unpack(self, packed: bytes) -> list[Any]:
        return packed.decode().split(" ")


def test_an_outage_shows_in_the_circuit_the_alarm_and_the_spool(tmp_path: Path):
    denied = [AccessDeniedError("401", retry_after=3600)]
    away = Durable(*denied, name="away")
    spool: Any = {"directory": tmp_path, "min_free": 0}
    with Runtime(sinks=[away], spool=spool, retry_maximum=3600) as runtime:
        registry = create_metrics_collector_from_settings(ENABLED, runtime).registry
        found = samples(registry)
        assert found["fapilog_circuit_open", "away"] == 0
        assert found["fapilog_access_denied", "away"] == 0
        assert found["fapilog_spool_bytes", "away"] == 0
        for body in "abc":
            runtime.get_logger("t").info(body)
        wait_for(lambda: runtime.stats().spooled == 3)
        found = samples(registry)
        assert found["fapilog_circuit_open", "away"] == 1
        assert found["fapilog_access_denied", "away"] == 1
        assert found["fapilog_records_spooled", "away"] == 3
        assert found["fapilog_spool_bytes", "away"] > 3
        assert found["fapilog_records_pending", "away"] == 0
    back = Durable(name="away")
    with Runtime(sinks=[back], spool=spool) as runtime:
        registry = create_metrics_collector_from_settings(ENABLED, runtime).registry
        runtime.get_logger("t").info("d")
        wait_for(lambda: len(back.records) == 4)
        wait_for(lambda: runtime.stats().delivered == 4)
        found = samples(registry)
        assert found["fapilog_records_spooled", "away"] == 0
        assert found["fapilog_records_adopted_total", "away"] == 3
        assert found["fapilog_records_accepted_total",] == 4
        assert found["fapilog_records_delivered_total", "away"] == 4
        assert found["fapilog_circuit_open", "away"] == 0
        assert found["fapilog_access_denied", "away"] == 0


def test_a_batch_in_quarantine_counts_as_quarantined_and_not_as_rejected(tmp_path: Path):
    picky = Durable(InvalidDataError("400"), name="picky")
    with Runtime(sinks=[picky], spool={"directory": tmp_path, "min_free": 0}) as runtime:
        registry = create_metrics_collector_from_settings(ENABLED, runtime).registry
        runtime.get_logger("t").info("x")
        assert runtime.flush(20)
        found = samples(registry)
    assert found["fapilog_records_quarantined_total", "picky"] == 1
    assert found["fapilog_records_rejected_total", "picky"] == 0


@pytest.mark.parametrize("metrics", [{}, {"enabled": False}, {"enabled": True, "exporter": "none"}])
def test_disabled_metrics_have_no_registry(metrics):
    collector = create_metrics_collector_from_settings(ObservabilitySettings(metrics=metrics))
    assert collector.registry is None
    assert not collector.is_enabled


def test_an_applications_own_registry_and_runtime_can_be_used():
    with Runtime(sinks=[ScriptedSink(name="mine")]) as runtime:
        metrics = create_metrics_collector_from_settings(ENABLED, runtime)
        registry = CollectorRegistry()
        metrics.register(registry)
        runtime.get_logger("t").info("x")
        runtime.flush(5)
        assert samples(registry)["fapilog_records_delivered_total", "mine"] == 1
        with pytest.raises(ValueError, match="Duplicated"):
            metrics.register(registry)


def test_without_a_runtime_there_is_nothing_to_count():
    metrics = create_metrics_collector_from_settings(ENABLED)
    assert samples(metrics.registry)["fapilog_records_accepted_total",] == 0


def test_a_missing_prometheus_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fapilog\[prometheus\]'"):
        create_metrics_collector_from_settings(ENABLED)


def test_a_misspelt_option_is_refused():
    with pytest.raises(ValueError, match="enable"):
        ObservabilitySettings(metrics={"enable": True})
