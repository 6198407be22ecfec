"""Stores the metrics of requests in this process, which the route ``/metrics`` shows.

The table does not use OpenTelemetry's metrics, so ``/metrics`` works without a
``MeterProvider``.  This module does not import prometheus_client either, which is an optional
dependency.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog_fastapi.request_labels import OTHER, Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The upper bounds of the histogram buckets for durations, as OpenTelemetry's conventions
#: recommend.
#: Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
)  # fmt: skip
#: The upper bounds of the histogram buckets for sizes in bytes.  OpenTelemetry's conventions
#: recommend no bounds for sizes, and the default bounds of its SDK are meant for milliseconds.
BYTES: Final = (100.0, 1_000.0, 10_000.0, 100_000.0, 1e6, 1e7, 1e8)

#: The maximum number of combinations of label values; OpenTelemetry's SDK has the same limit.
_MAX_SERIES: Final = 2000
_OVERFLOW: Final = Labels(OTHER, OTHER, OTHER, 0, OTHER, "")


class Example(NamedTuple):
    """A Prometheus exemplar: one observed value, with the trace and the span of its request."""

    value: float
    trace_id: str
    span_id: str
    time: float


class Distribution:
    """A histogram: the count and the last exemplar of each bucket, and the sum of all values."""

    __slots__ = ("bounds", "counts", "examples", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.examples: list[Example | None] = [None] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, example: Example | None = None) -> None:
        """Add a value; a value equal to a bound belongs to the bucket that ends at this bound."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if example is not None:
            self.examples[bucket] = example

    def copy(self) -> Distribution:
        """Return a copy with the current values."""
        copied = Distribution(self.bounds)
        copied.counts = self.counts.copy()
        copied.examples = self.examples.copy()
        copied.sum = self.sum
        return copied


class Series(NamedTuple):
    """The histograms of all requests with the same labels."""

    duration: Distribution
    request_size: Distribution
    response_size: Distribution


class RequestTable:
    """Counts requests by their labels.  Thread-safe; blocks while another thread uses the table.

    Attributes:
        is_served: whether ``/metrics`` shows the table; if not, no requests are added to it.
    """

    def __init__(self) -> None:
        self.is_served = False
        self._lock = threading.Lock()
        self._active: dict[tuple[str, str], int] = {}
        self._series: dict[Labels, Series] = {}

    def count_active(self, begun: tuple[str, str], change: int) -> None:
        """Add ``change`` (1 or -1) to the number of active requests.

        ``begun`` is the pair of the request's method and scheme.
        """
        with self._lock:
            self._active[begun] = self._active.get(begun, 0) + change

    def add(
        self,
        labels: Labels,
        duration: float,
        sizes: tuple[int | None, int | None],
        example: Example | None = None,
    ) -> None:
        """Add a request that has ended.

        Args:
            labels: the labels of the request.
            duration: the duration of the request in seconds.
            sizes: the sizes in bytes of the request's body and of the response's body, or
                None if unknown.
            example: the exemplar for the histogram of durations, if any.
        """
        with self._lock:
            series = self._series.get(labels)
            if series is None:
                if len(self._series) >= _MAX_SERIES:
                    labels = _OVERFLOW
                made = Series(Distribution(SECONDS), Distribution(BYTES), Distribution(BYTES))
                series = self._series.setdefault(labels, made)
            series.duration.add(duration, example)
            for distribution, size in zip(series[1:], sizes, strict=True):
                if size is not None:
                    distribution.add(size)

    def active(self) -> dict[tuple[str, str], int]:
        """Return the number of active requests for each pair of method and scheme."""
        with self._lock:
            return self._active.copy()

    def series(self) -> list[tuple[Labels, Series]]:
        """Return a copy of all series.

        The lock is released after each series, so other threads wait only briefly.
        """
        with self._lock:
            listed = list(self._series.items())
        copied = []
        for labels, series in listed:
            with self._lock:
                copied.append((labels, Series(*map(Distribution.copy, series))))
        return copied


#: The table for the requests of this process, which ``/metrics`` shows.
PROCESS_TABLE: Final = RequestTable()
