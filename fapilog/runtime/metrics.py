"""Exports the statistics of a runtime as Prometheus metrics.

With the option ``metrics_directory``, the metrics are the sums over all processes that share the
directory; see ``shared_metrics``.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar

from fapilog.delivery.ledger import BUCKETS, Stats
from fapilog.runtime.shared_metrics import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.engine.pipeline import Pipeline
    from fapilog.runtime.runtime import Runtime
    from fapilog.runtime.shared_metrics import Exemplar, SharedMetrics


class PipelineMetrics(Collector):
    """A ``prometheus_client`` collector for one runtime.  Thread-safe; does not block.

    Args:
        runtime: a function that returns the runtime, or None if fapilog is not configured.
    """

    def __init__(self, runtime: Callable[[], Runtime | None]) -> None:
        self._runtime = runtime

    def describe(self) -> Iterator[Metric]:
        """Yield the metric families, which a registry uses to refuse duplicates."""
        return families_of(self._runtime())

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families with their current values."""
        runtime = self._runtime()
        if runtime is None or runtime.publisher is None:
            yield from families_of(runtime)
            return
        runtime.publisher.publish()
        yield from shared_families(runtime.publisher.shared, GROUP)


class SharedCollector(Collector):
    """A ``prometheus_client`` collector for the sums over all processes that share a directory.

    Thread-safe.  A scrape waits at most 2 seconds for a scrape of another process.

    Args:
        shared: the metrics of the processes.
    """

    def __init__(self, shared: SharedMetrics) -> None:
        self._shared = shared

    def describe(self) -> Iterator[Metric]:
        """Yield the metric families, which a registry uses to refuse duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families with their current values."""
        yield from shared_families(self._shared)


def families_of(runtime: Runtime | None) -> Iterator[Metric]:
    """Yield the metric families of one runtime of this process; all 0 without a runtime."""
    if runtime is None:
        yield from _ledger(Stats())
        return
    yield from _ledger(runtime.stats())
    yield from _queue(runtime.pipeline)
    yield from _sending(runtime.pipeline)


def shared_families(shared: SharedMetrics, group: str | None = None) -> list[Metric]:
    """Return the metric families of one group or of all, with the sums over all processes.

    Returns an empty list if the directory cannot be read.
    """
    merged = shared.collect(group)
    families: dict[str, Metric] = {}
    if merged is None:
        return []
    for key, series in merged.series.items():
        kind = series.kind if series.is_kept else "gauge"
        family = families.get(series.name)
        if family is None:
            family = families[series.name] = Metric(series.name, series.text, kind)
        values, labels = merged.stored[key][: series.size], dict(series.labels)
        if kind == "histogram":
            _add_histogram(family, series, values, merged.exemplars(key))
        else:
            suffix = "_total" if kind == "counter" else ""
            family.add_sample(series.name + suffix, labels, values[0])
    return list(families.values())


def _add_histogram(
    family: Metric, series: Series, values: list[float], exemplars: list[Exemplar | None]
) -> None:
    labels, *counts = dict(series.labels), *accumulate(values[:-1])
    bounds = [*map(str, series.bounds), "+Inf"]
    for bound, count, exemplar in zip(bounds, counts, exemplars, strict=True):
        shown = None
        if exemplar is not None:
            ids = {"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}
            shown = PrometheusExemplar(ids, exemplar.value, exemplar.time)
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count, exemplar=shown)
    family.add_sample(f"{family.name}_count", labels, counts[-1])
    family.add_sample(f"{family.name}_sum", labels, values[-1])


def measurements(runtime: Runtime) -> Iterator[tuple[Series, list[float]]]:
    """Yield each series of a runtime of this process, with its values."""
    for family in families_of(runtime):
        if family.type == "histogram":
            yield from _histograms(family)
            continue
        kind = "counter" if family.type == "counter" else _RULES.get(family.name, "sum")
        for sample in family.samples:
            labels = tuple(sample.labels.items())
            series = Series(GROUP, kind, family.name, family.documentation, labels)
            yield series, [float(sample.value)]


def _histograms(family: Metric) -> Iterator[tuple[Series, list[float]]]:
    """Yield each series of a histogram, whose bounds are ``BUCKETS``."""
    values: list[float] = []
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            values.append(sample.value - sum(values))
        elif sample.name.endswith("_sum"):
            labels = tuple(sample.labels.items())
            text = family.documentation
            series = Series(GROUP, "histogram", family.name, text, labels, BUCKETS)
            yield series, [*values, sample.value]
            values = []


#: The group of the series of ``fapilog.runtime.shared_metrics`` that this module writes.
GROUP: Final = "pipeline"
#: The gauges whose value for all processes is not the sum of their values.
_RULES: Final = {"fapilog_circuit_open": "max", "fapilog_access_denied": "max"}


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
