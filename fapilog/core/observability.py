"""Settings and a collector for Prometheus metrics.

At each scrape, the values are read from the statistics that fapilog collects in any case, so
metrics do not slow down log calls.  An application exposes the registry of a
``MetricsCollector`` to Prometheus, or adds the metrics to another registry with the method
``register``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fapilog.errors import ConfigurationError
from fapilog.runtime import default
from fapilog.runtime.shared_metrics import Cells, Exemplar, Series, SharedMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    from fapilog.runtime.runtime import Runtime

__all__ = [
    "Cells",
    "Exemplar",
    "MetricsCollector",
    "MetricsSettings",
    "ObservabilitySettings",
    "Series",
    "SharedMetrics",
    "create_metrics_collector_from_settings",
    "shared_families",
    "shared_metrics",
]

_VARIABLE: Final = "FAPILOG_METRICS_DIRECTORY"


class MetricsSettings(BaseModel):
    """Options of the metrics.

    Attributes:
        enabled: whether metrics are collected.
        exporter: the name of the exporter, ``prometheus``, or ``none`` to disable metrics.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=False)
    exporter: Literal["prometheus", "none"] = Field(default="prometheus")


class ObservabilitySettings(BaseModel):
    """Options of fapilog's own telemetry.  The value of ``metrics`` may also be a mapping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: MetricsSettings = Field(default_factory=MetricsSettings)


class MetricsCollector:
    """Provides the metrics of a runtime in a Prometheus registry.

    With the option ``metrics_directory``, the metrics are the sums over all processes that share
    the directory.

    Args:
        enabled: whether to create the registry and the metrics.
        runtime: the runtime whose metrics are shown, or None for the default runtime at
            the time of each scrape.

    Attributes:
        registry: the ``prometheus_client.CollectorRegistry`` that contains only these metrics,
            or None if metrics are disabled.
    """

    def __init__(self, *, enabled: bool, runtime: Runtime | None = None) -> None:
        self._runtime = runtime
        self.registry: CollectorRegistry | None = None
        if enabled:
            from prometheus_client import CollectorRegistry as Registry  # noqa: PLC0415 - extra

            self.registry = Registry()
            self.register(self.registry)

    @property
    def is_enabled(self) -> bool:
        """Whether metrics are collected."""
        return self.registry is not None

    def register(self, registry: CollectorRegistry) -> None:
        """Add the metrics to another registry.  Thread-safe.

        Raises:
            ValueError: the registry already contains these metrics.
        """
        from fapilog.runtime.metrics import PipelineMetrics  # noqa: PLC0415 - loads prometheus_client

        registry.register(PipelineMetrics(lambda: self._runtime or _default_runtime()))


def _default_runtime() -> Runtime | None:
    """Return the default runtime, or None if fapilog is not configured yet.

    If the environment sets ``metrics_directory``, configures fapilog first, because a scrape of
    a new worker has to show the counts of the other workers.  Never raises.
    """
    return default.get_runtime() or (default.target() if os.environ.get(_VARIABLE) else None)


def shared_metrics() -> SharedMetrics | None:
    """Return the metrics that the worker processes share, to add others to them.

    For integrations of frameworks.  Thread-safe; does not block.

    Returns:
        None without the option ``metrics_directory``.
    """
    runtime = _default_runtime()
    return runtime.publisher.shared if runtime is not None and runtime.publisher else None


def shared_families(shared: SharedMetrics, group: str) -> list[Metric]:
    """Return the sums of the series in a group as metric families of ``prometheus_client``.

    For integrations of frameworks.  Thread-safe.  Waits at most 2 seconds for a scrape of another
    process.  Returns an empty list if the directory cannot be read.

    Args:
        shared: the metrics of the processes.
        group: the group of the series.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    from fapilog.runtime import metrics  # noqa: PLC0415 - loads prometheus_client

    return metrics.shared_families(shared, group)


def create_metrics_collector_from_settings(
    settings: ObservabilitySettings, runtime: Runtime | None = None
) -> MetricsCollector:
    """Create a ``MetricsCollector`` from ``settings``.  Does not block.

    Args:
        settings: the options of the metrics.
        runtime: the runtime whose metrics are shown, or None for the default runtime at
            the time of each scrape.

    Raises:
        ConfigurationError: metrics are enabled, but prometheus-client is not
            installed.
    """
    enabled = settings.metrics.enabled and settings.metrics.exporter == "prometheus"
    try:
        return MetricsCollector(enabled=enabled, runtime=runtime)
    except ImportError as error:
        msg = f"metrics.exporter 'prometheus' needs: pip install 'fapilog[prometheus]' ({error})"
        raise ConfigurationError(msg) from None
