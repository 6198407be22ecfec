"""Exports the statistics of a runtime as Prometheus metrics."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from fapilog.delivery.ledger import BUCKETS, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from fapilog.engine.pipeline import Pipeline
    from fapilog.runtime.runtime import Runtime


class PipelineMetrics(Collector):
    """A ``prometheus_client`` collector for one runtime.  Thread-safe; does not block.

    Args:
        runtime: a function that returns the runtime, or None if fapilog is not configured.
    """

    def __init__(self, runtime: Callable[[], Runtime | None]) -> None:
        self._runtime = runtime

    def describe(self) -> Iterator[Metric]:
        """Yield the metric families, which a registry uses to refuse duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families with their current values."""
        runtime = self._runtime()
        if runtime is None:
            yield from _ledger(Stats())
            return
        yield from _ledger(runtime.stats())
        yield from _queue(runtime.pipeline)
        yield from _sending(runtime.pipeline)


#: The counters with the label ``sink``.  A key is the name of an attribute of ``Stats`` and the
#: end of the metric's name; a value is the metric's help text.
_COUNTERS: Final = {
    "delivered": "Records that a backend accepted.",
    "rejected": "Records that a backend rejected.",
    "quarantined": "Records that a backend rejected and that are kept on disk.",
    "resent": "Records sent again after an attempt without an answer; may be duplicates.",
    "adopted": "Records adopted from an earlier process.",
}
_GAUGES: Final = {
    "spooled": "Records that wait on disk for a sink.",
    "pending": "Records in memory that are not settled.",
}
#: The counters without the label ``sink``: the end of the metric's name, its help text, and the
#: name of an attribute of ``Stats``.
_TOTALS: Final = (
    ("records_accepted", "Records logged at an enabled level, and adopted records.", "accepted"),
    ("processor_errors", "Exceptions of processors; the records were masked.", "processor_errors"),
    ("values_redacted", "Values masked by redaction.", "redacted"),
)


def _ledger(stats: Stats) -> Iterator[Metric]:
    for name, text, attribute in _TOTALS:
        yield CounterMetricFamily(f"fapilog_{name}", text, value=getattr(stats, attribute))
    for kind, texts in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
        for attribute, text in texts.items():
            family = kind(f"fapilog_records_{attribute}", text, labels=["sink"])
            for sink_name, sink in stats.sinks.items():
                family.add_metric([sink_name], getattr(sink, attribute))
            yield family
    dropped = CounterMetricFamily(
        "fapilog_records_dropped",
        "Dropped records; the reasons 'filtered', 'not_routed' and 'not_released' are intended.",
        labels=["sink", "reason", "severity"],
    )
    for sink_name, sink in stats.sinks.items():
        for reason, by_severity in sink.drops.items():
            for severity, count in by_severity.items():
                dropped.add_metric([sink_name, reason, severity], count)
    yield dropped


def _queue(pipeline: Pipeline) -> Iterator[Metric]:
    size, capacity = len(pipeline.queue), pipeline.admission.capacity
    yield GaugeMetricFamily("fapilog_queue_size", "Records that wait for the worker.", size)
    yield GaugeMetricFamily("fapilog_queue_capacity", "Records that fit in the queue.", capacity)


def _sending(pipeline: Pipeline) -> Iterator[Metric]:
    gauge = partial(GaugeMetricFamily, labels=["sink"])
    backlog = gauge("fapilog_backlog_bytes", "Encoded bytes that wait in memory for a sink.")
    spool = gauge("fapilog_spool_bytes", "Bytes that wait on disk for a sink.")
    circuit = gauge("fapilog_circuit_open", "1 while the backend accepts no records.")
    denied = gauge("fapilog_access_denied", "1 while the backend refuses the credentials.")
    retries = CounterMetricFamily(
        "fapilog_send_retries", "Sends that failed and are repeated.", labels=["sink"]
    )
    durations = HistogramMetricFamily(
        "fapilog_send_duration_seconds", "Duration of sends, in seconds.", labels=["sink"]
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for queue in pipeline.all_queues():
        state, ledger = queue.state, queue.state.ledger
        backlog.add_metric([queue.name], state.backlog.pending_bytes)
        spool.add_metric([queue.name], state.spool.pending_bytes if state.spool else 0)
        circuit.add_metric([queue.name], state.circuit.opened_at is not None)
        denied.add_metric([queue.name], state.circuit.access_denied)
        retries.add_metric([queue.name], ledger.retries)
        counts = list(zip(bounds, accumulate(ledger.durations), strict=True))
        durations.add_metric([queue.name], counts, ledger.duration_sum)
    yield from (backlog, spool, circuit, denied, retries, durations)
