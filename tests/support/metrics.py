"""Meter providers of the SDK whose metrics a test reads."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from fapilog import Runtime
from fapilog.otel.metrics import LedgerMetrics

DELTA: dict[type, AggregationTemporality] = dict.fromkeys(
    (Counter, UpDownCounter, Histogram, ObservableCounter), AggregationTemporality.DELTA
)


class Collected:
    """The metrics of some runtimes, as a reader of the SDK collects them.

    Args:
        runtimes: the runtimes to report.
        delta: whether the reader asks for the changes since the previous collection.
    """

    def __init__(self, *runtimes: Runtime, delta: bool = False) -> None:
        self.reader = InMemoryMetricReader(DELTA if delta else None)
        self.provider = MeterProvider([self.reader])
        self.metrics = LedgerMetrics(self.provider)
        for runtime in runtimes:
            self.metrics.follow(runtime)

    def __call__(self) -> Points:
        data = self.reader.get_metrics_data()
        found: Points = Points()
        if data is None:
            return found
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        key = (metric.name, frozenset((point.attributes or {}).items()))
                        assert key not in found
                        found[key] = point
        return found


class Points(dict[tuple[str, frozenset[tuple[str, Any]]], Any]):
    """Data points by the name of the metric and the attributes."""

    def value(self, metric: str, sink: str | None = None, **attributes: object) -> Any:
        """Return the value of the only point with these attributes, among others.

        ``error=None`` means that the point has no ``error.type``.  The value of a histogram is
        its count.  A point that does not exist has the value 0.
        """
        found = self.points(metric, sink, **attributes)
        assert len(found) <= 1, found
        return sum(getattr(point, "value", getattr(point, "count", None)) for point in found)

    def sum(self, metric: str, sink: str | None = None, **attributes: object) -> Any:
        """Return the sum of the values of all points with these attributes, among others."""
        return sum(point.value for point in self.points(metric, sink, **attributes))

    def points(self, metric: str, sink: str | None = None, **attributes: object) -> list[Any]:
        names = {"error": "error.type"}
        wanted = {names.get(key, f"fapilog.{key}"): value for key, value in attributes.items()}
        if sink is not None:
            wanted["otel.component.name"] = sink
        return [
            point
            for (name, own), point in self.items()
            if name == metric and all(dict(own).get(key) == wanted[key] for key in wanted)
        ]
