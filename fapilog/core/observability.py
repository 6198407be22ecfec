"""Settings and a collector for Prometheus metrics.

Metrics are read from the ledger at each scrape, so they cost nothing per record.
Any registry can be scraped: the collector's own registry, or a registry of the
application through ``metrics.register(registry)``.
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
        exporter: ``prometheus``, or ``none``, which disables the metrics too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=False)
    exporter: Literal["prometheus", "none"] = Field(default="prometheus")


class ObservabilitySettings(BaseModel):
    """Options of fapilog's own telemetry; ``metrics`` takes a mapping or its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: MetricsSettings = Field(default_factory=MetricsSettings)


class MetricsCollector:
    """The metrics of a runtime's pipeline, in a registry that can be scraped.

    Attributes:
        registry: the collector's own ``prometheus_client.CollectorRegistry``, or
            None if metrics are disabled.
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
            ValueError: the registry has these metrics already.
        """
        from fapilog.runtime.metrics import PipelineMetrics  # noqa: PLC0415 - loads prometheus_client

        registry.register(PipelineMetrics(lambda: self._runtime or default.current()))


def create_metrics_collector_from_settings(
    settings: ObservabilitySettings, runtime: Runtime | None = None
) -> MetricsCollector:
    """Return the collector that ``settings`` describe.  Does not block.

    Args:
        settings: the options of the metrics.
        runtime: the runtime whose pipeline is shown; None shows the runtime
            that is the default at the time of a scrape.

    Raises:
        ConfigurationError: metrics are enabled and prometheus-client is not
            installed.
    """
    enabled = settings.metrics.enabled and settings.metrics.exporter == "prometheus"
    try:
        return MetricsCollector(enabled=enabled, runtime=runtime)
    except ImportError as error:
        msg = f"metrics.exporter 'prometheus' needs: pip install 'fapilog[prometheus]' ({error})"
        raise ConfigurationError(msg) from None
