"""The metric families of one pipeline, read from its ledger at each scrape."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

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

    from fapilog.engine.pipeline import Pipeline
    from fapilog.runtime.runtime import Runtime


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


#: Of each sink: the family, its name, what it says, and the ledger's attribute.
_BY_SINK: Final = (
    (CounterMetricFamily, "records_delivered", "Records a sink's backend took.", "delivered"),
    (CounterMetricFamily, "records_rejected", "Records a backend refused for good.", "rejected"),
    (
        CounterMetricFamily,
        "records_quarantined",
        "Records a backend refused for good, kept on disk.",
        "quarantined",
    ),
    (GaugeMetricFamily, "records_spooled", "Records waiting on disk for a sink.", "spooled"),
    (GaugeMetricFamily, "records_pending", "Records on their way to a sink, in memory.", "pending"),
    (
        CounterMetricFamily,
        "records_resent",
        "Records sent again after an attempt without an answer: possible duplicates.",
        "resent",
    ),
    (CounterMetricFamily, "records_adopted", "Records an earlier process left on disk.", "adopted"),
)
#: Of all sinks together: the counter, what it says, and the ledger's attribute.
_TOTALS: Final = (
    ("records_accepted", "Records logged at an enabled level, and adopted ones.", "accepted"),
    ("processor_errors", "Processors that raised; their records were masked.", "processor_errors"),
    ("values_redacted", "Values masked by redaction.", "redacted"),
)


def _ledger(stats: Stats) -> Iterator[Metric]:
    for name, text, attribute in _TOTALS:
        yield CounterMetricFamily(f"fapilog_{name}", text, value=getattr(stats, attribute))
    for kind, name, text, attribute in _BY_SINK:
        family = kind(f"fapilog_{name}", text, labels=["sink"])
        for sink_name, sink in stats.sinks.items():
            family.add_metric([sink_name], getattr(sink, attribute))
        yield family
    dropped = CounterMetricFamily(
        "fapilog_records_dropped",
        "Records given up; the reasons 'filtered', 'not_routed' and 'not_released' are intended.",
        labels=["sink", "reason", "severity"],
    )
    for sink_name, sink in stats.sinks.items():
        for reason, by_severity in sink.drops.items():
            for severity, count in by_severity.items():
                dropped.add_metric([sink_name, reason, severity], count)
    yield dropped


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
        state, ledger = queue.state, queue.state.ledger
        backlog.add_metric([queue.name], state.backlog.pending_bytes)
        spool.add_metric([queue.name], state.spool.pending_bytes if state.spool else 0)
        circuit.add_metric([queue.name], state.circuit.opened_at is not None)
        denied.add_metric([queue.name], state.circuit.access_denied)
        retries.add_metric([queue.name], ledger.retries)
        counts = list(zip(bounds, accumulate(ledger.durations), strict=True))
        durations.add_metric([queue.name], counts, ledger.duration_sum)
    yield from (backlog, spool, circuit, denied, retries, durations)
