"""Shows the metrics of requests and fapilog's counters as Prometheus text.

This is the only module of the package that imports prometheus_client.
"""

from __future__ import annotations

import contextlib
import weakref
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from fapilog import ConfigurationError
from fapilog.core.observability import (
    ObservabilitySettings,
    create_metrics_collector_from_settings,
    shared_families,
)
from fapilog_fastapi.request_table import (
    ACTIVE,
    ACTIVE_LABELS,
    GROUP,
    HISTOGRAMS,
    LABELS,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.core.observability import Exemplar as Example
    from fapilog_fastapi.request_labels import Labels
    from fapilog_fastapi.request_table import Distribution, RequestTable

# The registries in which a RequestCollector is registered: applications may share a registry.
_shown_in: Final[weakref.WeakSet[CollectorRegistry]] = weakref.WeakSet()


class RequestCollector(Collector):
    """Collects the metrics in a ``RequestTable`` at each scrape.  Thread-safe."""

    def __init__(self, table: RequestTable) -> None:
        self._table = table

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics; a registry compares their names to refuse a second collector."""
        return self._own()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this process, or of all processes that share a directory."""
        shared = self._table.shared()
        yield from self._own() if shared is None else shared_families(shared, GROUP)

    def _own(self) -> Iterator[Metric]:
        """Yield the metrics, with the names that OpenTelemetry specifies for Prometheus.

        Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
        """
        histograms = [HistogramMetricFamily(*named, labels=LABELS) for named in HISTOGRAMS]
        for labels, series in self._table.series():
            for family, distribution in zip(histograms, series, strict=True):
                _add(family, labels, distribution)
        active = GaugeMetricFamily(*ACTIVE, labels=ACTIVE_LABELS)
        for begun, count in self._table.active().items():
            active.add_metric(begun, count)
        yield from (*histograms, active)


def _add(family: HistogramMetricFamily, labels: Labels, distribution: Distribution) -> None:
    if not any(distribution.counts):
        return
    buckets = [
        (bound, count) if example is None else (bound, count, _exemplar(example))
        for bound, count, example in zip(
            [*map(str, distribution.bounds), "+Inf"],
            accumulate(distribution.counts),
            distribution.examples,
            strict=True,
        )
    ]
    family.add_metric(shown(labels), buckets, distribution.sum)


def _exemplar(example: Example) -> Exemplar:
    labels = {"trace_id": example.trace_id, "span_id": example.span_id}
    return Exemplar(labels, example.value, example.time)


class Exposition:
    """Renders the metrics of a registry in the format that the scraper accepts.  Thread-safe.

    Args:
        registry: the registry to which fapilog's metrics are added; None creates a registry.
        table: the table with the metrics of requests; None omits these metrics.

    Raises:
        ConfigurationError: the registry already has metrics with the same names.
    """

    def __init__(self, registry: CollectorRegistry | None, table: RequestTable | None) -> None:
        enabled = ObservabilitySettings.model_validate({"metrics": {"enabled": True}})
        ledger = create_metrics_collector_from_settings(enabled)
        if registry is None:
            registry = ledger.registry or CollectorRegistry()
        else:
            # A ValueError means that the registry already has fapilog's counters: only fapilog
            # uses these metric names.
            with contextlib.suppress(ValueError):
                ledger.register(registry)
        self._registry = registry
        if table is None:
            return
        table.is_served = True
        if registry in _shown_in:
            return
        try:
            registry.register(RequestCollector(table))
        except ValueError as error:
            msg = f"registry already has metrics of requests: pass requests=False ({error})"
            raise ConfigurationError(msg) from None
        _shown_in.add(registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as encoded text, and the content type of this text.

        Args:
            accept: the ``Accept`` header of the request, which selects the format; only the
                OpenMetrics format contains exemplars.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type
