"""Stores the metrics of requests in this process, which the route ``/metrics`` shows.

The table does not use OpenTelemetry's metrics, so ``/metrics`` works without a
``MeterProvider``.  This module does not import prometheus_client either, which is an optional
dependency.

With fapilog's option ``metrics_directory``, every change is also written to a file in memory that
the worker processes share.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.core.observability import Series as SharedSeries
from fapilog.core.observability import shared_metrics
from fapilog_fastapi.request_labels import OTHER, Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog.core.observability import Cells, Exemplar, SharedMetrics

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


#: The group of these metrics in ``SharedMetrics``.
GROUP: Final = "requests"
ACTIVE_LABELS: Final = ("http_request_method", "url_scheme")
LABELS: Final = (
    *ACTIVE_LABELS,
    "http_route",
    "http_response_status_code",
    "error_type",
    "network_protocol_version",
)
#: The name and description of the gauge, and of each histogram, in the order of the fields of the
#: class ``Series``.
ACTIVE: Final = ("http_server_active_requests", "Number of active HTTP server requests.")
HISTOGRAMS: Final = (
    ("http_server_request_duration_seconds", "Duration of HTTP server requests."),
    ("http_server_request_body_size_bytes", "Size of HTTP server request bodies."),
    ("http_server_response_body_size_bytes", "Size of HTTP server response bodies."),
)


class Distribution:
    """A histogram: the count and the last exemplar of each bucket, and the sum of all values."""

    __slots__ = ("bounds", "cells", "counts", "examples", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.examples: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self.sum = 0.0
        self.cells: Cells | None = None

    def add(self, value: float, example: Exemplar | None = None) -> None:
        """Add a value; a value equal to a bound belongs to the bucket that ends at this bound."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if example is not None:
            self.examples[bucket] = example
        cells = self.cells
        if cells is not None:
            cells.values[bucket] = self.counts[bucket]
            cells.values[-1] = self.sum
            if example is not None:
                cells.set_exemplar(bucket, example)

    def share(self, cells: Cells) -> None:
        """Write the current values, and all later ones, to ``cells``."""
        for bucket, count in enumerate(self.counts):
            cells.values[bucket] = count
        for bucket, example in enumerate(self.examples):
            if example is not None:
                cells.set_exemplar(bucket, example)
        cells.values[-1] = self.sum
        self.cells = cells

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

    Args:
        shared: a function that returns the metrics to which the table is also written, or None.

    Attributes:
        is_served: whether ``/metrics`` shows the table; if not, no requests are added to it.
    """

    def __init__(self, shared: Callable[[], SharedMetrics | None] = lambda: None) -> None:
        self.is_served = False
        self._find_shared = shared
        self.reset()

    def reset(self) -> None:
        """Forget all requests, in a forked child."""
        self._lock = threading.Lock()
        self._active: dict[tuple[str, str], int] = {}
        self._series: dict[Labels, Series] = {}
        self._shared: SharedMetrics | None = None
        self._active_cells: dict[tuple[str, str], Cells] = {}

    def shared(self) -> SharedMetrics | None:
        """Return the metrics to which the table is written; write it if this has not been done."""
        shared = self._find_shared()
        with self._lock:
            self._share(shared)
        return shared

    def _share(self, shared: SharedMetrics | None) -> None:
        if shared is self._shared:
            return
        self._shared = shared
        self._active_cells = {}
        for begun in self._active:
            self._write_active(begun)
        for labels, series in self._series.items():
            self._share_series(labels, series)

    def _share_series(self, labels: Labels, series: Series) -> None:
        if self._shared is None:
            for distribution in series:
                distribution.cells = None
            return
        pairs = tuple(zip(LABELS, shown(labels), strict=True))
        for (name, text), distribution in zip(HISTOGRAMS, series, strict=True):
            has_exemplars = distribution is series.duration
            bounds = tuple(distribution.bounds)
            distribution.share(
                self._shared.cells(
                    SharedSeries(GROUP, "histogram", name, text, pairs, bounds, has_exemplars)
                )
            )

    def _write_active(self, begun: tuple[str, str]) -> None:
        if self._shared is None:
            return
        cells = self._active_cells.get(begun)
        if cells is None:
            pairs = tuple(zip(ACTIVE_LABELS, begun, strict=True))
            cells = self._shared.cells(SharedSeries(GROUP, "sum", *ACTIVE, pairs))
            self._active_cells[begun] = cells
        cells.values[0] = self._active[begun]

    def count_active(self, begun: tuple[str, str], change: int) -> None:
        """Add ``change`` (1 or -1) to the number of active requests.

        ``begun`` is the pair of the request's method and scheme.
        """
        shared = self._find_shared()
        with self._lock:
            self._share(shared)
            self._active[begun] = self._active.get(begun, 0) + change
            self._write_active(begun)

    def add(
        self,
        labels: Labels,
        duration: float,
        sizes: tuple[int | None, int | None],
        example: Exemplar | None = None,
    ) -> None:
        """Add a request that has ended.

        Args:
            labels: the labels of the request.
            duration: the duration of the request in seconds.
            sizes: the sizes in bytes of the request's body and of the response's body, or
                None if unknown.
            example: the exemplar for the histogram of durations, if any.
        """
        shared = self._find_shared()
        with self._lock:
            self._share(shared)
            series = self._series.get(labels)
            if series is None:
                if len(self._series) >= _MAX_SERIES:
                    labels = _OVERFLOW
                made = Series(Distribution(SECONDS), Distribution(BYTES), Distribution(BYTES))
                series = self._series.setdefault(labels, made)
                if series is made:
                    self._share_series(labels, made)
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


def shown(labels: Labels) -> list[str]:
    """Return the values of Prometheus labels; an absent label has the value ""."""
    return [str(label) if label else "" for label in labels]


#: The table for the requests of this process, which ``/metrics`` shows.
PROCESS_TABLE: Final = RequestTable(shared_metrics)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS_TABLE.reset)
