"""Settings and a collector for Prometheus metrics.

At each scrape, the values are read from the statistics that fapilog collects in any case, so
metrics do not slow down log calls.  An application exposes the registry of a
``MetricsCollector`` to Prometheus, or adds the metrics to another registry with the method
``register``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from fapilog.errors import ConfigurationError
from fapilog.runtime import default

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from fapilog.runtime.runtime import Runtime


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

        registry.register(PipelineMetrics(lambda: self._runtime or default.get_runtime()))


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
