"""The metric families of one pipeline, read from its ledger at each scrape."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fapilog.delivery.ledger import BUCKETS, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.pipeline import Pipeline
    from fapilog.runtime import Runtime


class PipelineMetrics(Collector):
    """A ``prometheus_client`` collector.  Thread-safe; does not block.

    Args:
        runtime: returns whose pipeline to show, or None for none.
    """

    def __init__(self, runtime: Callable[[], Runtime | None]) -> None:
        self._runtime = runtime

    def describe(self) -> Iterator[Metric]:
        """Yield the families, so that a registry refuses them twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield the families with the values of this moment."""
        runtime = self._runtime()
        if runtime is None:
            yield from _ledger(Stats())
            return
        yield from _ledger(runtime.stats())
        yield from _queue(runtime.pipeline)
        yield from _sending(runtime.pipeline)


def _ledger(stats: Stats) -> Iterator[Metric]:
    accepted = CounterMetricFamily(
        "fapilog_records_accepted", "Records logged at an enabled level, and adopted ones."
    )
    accepted.add_metric([], stats.accepted)
    delivered = CounterMetricFamily(
        "fapilog_records_delivered", "Records a sink's backend took.", labels=["sink"]
    )
    rejected = CounterMetricFamily(
        "fapilog_records_rejected", "Records a backend refused for good.", labels=["sink"]
    )
    dropped = CounterMetricFamily(
        "fapilog_records_dropped",
        "Records given up; the reasons 'filtered', 'not_routed' and 'not_released' are intended.",
        labels=["sink", "reason", "severity"],
    )
    quarantined = CounterMetricFamily(
        "fapilog_records_quarantined",
        "Records a backend refused for good, kept on disk.",
        labels=["sink"],
    )
    spooled = GaugeMetricFamily(
        "fapilog_records_spooled", "Records waiting on disk for a sink.", labels=["sink"]
    )
    pending = GaugeMetricFamily(
        "fapilog_records_pending", "Records on their way to a sink, in memory.", labels=["sink"]
    )
    adopted = CounterMetricFamily(
        "fapilog_records_adopted", "Records an earlier process left on disk.", labels=["sink"]
    )
    for name, sink in stats.sinks.items():
        delivered.add_metric([name], sink.delivered)
        rejected.add_metric([name], sink.rejected)
        quarantined.add_metric([name], sink.quarantined)
        spooled.add_metric([name], sink.spooled)
        pending.add_metric([name], sink.pending)
        adopted.add_metric([name], sink.adopted)
        for reason, by_severity in sink.drops.items():
            for severity, count in by_severity.items():
                dropped.add_metric([name, reason, severity], count)
    errors = CounterMetricFamily(
        "fapilog_processor_errors", "Processors that raised; their records were masked."
    )
    errors.add_metric([], stats.processor_errors)
    redacted = CounterMetricFamily("fapilog_values_redacted", "Values masked by redaction.")
    redacted.add_metric([], stats.redacted)
    yield from (accepted, delivered, rejected, dropped, quarantined, spooled, pending)
    yield from (adopted, errors, redacted)


def _queue(pipeline: Pipeline) -> Iterator[Metric]:
    size = GaugeMetricFamily("fapilog_queue_size", "Records waiting for the worker.")
    size.add_metric([], len(pipeline.queue))
    capacity = GaugeMetricFamily("fapilog_queue_capacity", "Records the queue holds.")
    capacity.add_metric([], pipeline.admission.capacity)
    yield from (size, capacity)


def _sending(pipeline: Pipeline) -> Iterator[Metric]:
    backlog = GaugeMetricFamily(
        "fapilog_backlog_bytes", "Encoded bytes waiting for a sink.", labels=["sink"]
    )
    spool = GaugeMetricFamily("fapilog_spool_bytes", "Bytes waiting on disk.", labels=["sink"])
    circuit = GaugeMetricFamily(
        "fapilog_circuit_open", "1 while the backend does not take records.", labels=["sink"]
    )
    denied = GaugeMetricFamily(
        "fapilog_access_denied", "1 while the backend refuses our credentials.", labels=["sink"]
    )
    retries = CounterMetricFamily(
        "fapilog_send_retries", "Sends that failed and are tried again.", labels=["sink"]
    )
    durations = HistogramMetricFamily(
        "fapilog_send_duration_seconds", "Duration of sends, in seconds.", labels=["sink"]
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for queue in pipeline.sending_queues():
        ledger = queue.ledger
        backlog.add_metric([queue.name], queue.pending_bytes)
        spool.add_metric([queue.name], queue.spooled_bytes)
        circuit.add_metric([queue.name], queue.circuit.opened_at is not None)
        denied.add_metric([queue.name], queue.access_denied)
        retries.add_metric([queue.name], ledger.retries)
        counts = list(zip(bounds, accumulate(ledger.durations), strict=True))
        durations.add_metric([queue.name], counts, ledger.duration_sum)
    yield from (backlog, spool, circuit, denied, retries, durations)
