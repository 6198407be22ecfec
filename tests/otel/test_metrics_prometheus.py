"""The ledger through the SDK's Prometheus reader, beside the series of ``fapilog.core``."""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fapilog import Runtime
from fapilog.core.observability import (
    ObservabilitySettings,
    create_metrics_collector_from_settings,
)
from fapilog.errors import PermanentError
from fapilog.otel.metrics import LedgerMetrics
from tests.support.sinks import ONE_BATCH, ScriptedSink


def test_the_prometheus_reader_shows_the_ledger_and_repeats_no_name_of_fapilogs_collector():
    provider = MeterProvider([PrometheusMetricReader()], shutdown_on_exit=False)
    try:
        bad = ScriptedSink(PermanentError("no"), name="bad", limits=ONE_BATCH)
        with Runtime(sinks=[bad], otel_metrics_by_logger=True) as runtime:
            LedgerMetrics(provider).follow(runtime)
            runtime.get_logger("shop").warning("x", password="p")
            assert runtime.flush(20)
            text = generate_latest(REGISTRY).decode()
            collector = create_metrics_collector_from_settings(
                ObservabilitySettings(metrics={"enabled": True}), runtime
            )
            assert isinstance(collector.registry, CollectorRegistry)
            others = generate_latest(collector.registry).decode()
    finally:
        provider.shutdown()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.name, sample.labels.get("error_type") or None): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name.startswith(("otel_sdk_", "fapilog_"))
    }
    assert samples["otel_sdk_log_created_total", None] == 1
    assert samples["otel_sdk_exporter_log_exported_total", None] == 0
    assert samples["otel_sdk_exporter_log_exported_total", "rejected"] == 1
    assert samples["otel_sdk_exporter_operation_duration_seconds_count", "PermanentError"] == 1
    assert samples["fapilog_redactions_total", None] == 1
    assert samples["fapilog_backend_down", None] == 0
    (record,) = [s for s in families["fapilog_records"].samples if s.value]
    assert (record.labels["fapilog_logger"], record.labels["fapilog_severity"]) == ("shop", "WARN")
    names = {family.name for family in text_string_to_metric_families(others)}
    assert len(names) > 10
    assert names & families.keys() == set()
