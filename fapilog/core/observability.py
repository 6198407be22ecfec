"""The ledger as Prometheus metrics.

The view is made at scrape time from counters that exist anyway, so metrics
cost nothing per record.  Any registry can be scraped: the one made here, or
an application's own through ``metrics.register(registry)``.
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
    """Options of the metrics view.

    Attributes:
        enabled: whether there is one.
        exporter: ``prometheus``, or ``none``, which is as good as disabled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=False)
    exporter: Literal["prometheus", "none"] = Field(default="prometheus")


class ObservabilitySettings(BaseModel):
    """What fapilog shows of itself; ``metrics`` takes a mapping or its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: MetricsSettings = Field(default_factory=MetricsSettings)


class MetricsCollector:
    """A registry that shows a runtime's pipeline whenever it is scraped.

    Attributes:
        registry: a ``prometheus_client.CollectorRegistry`` of its own, or
            None when disabled.
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
        """Whether there is a registry."""
        return self.registry is not None

    def register(self, registry: CollectorRegistry) -> None:
        """Show the same metrics in another registry as well.  Thread-safe.

        Raises:
            ValueError: the metrics are in that registry already.
        """
        from fapilog.runtime.metrics import PipelineMetrics  # noqa: PLC0415 - loads prometheus_client

        registry.register(PipelineMetrics(lambda: self._runtime or default.current()))


def create_metrics_collector_from_settings(
    settings: ObservabilitySettings, runtime: Runtime | None = None
) -> MetricsCollector:
    """Return the metrics view that ``settings`` describe.  Does not block.

    Args:
        settings: whether and how.
        runtime: whose pipeline it shows; None shows the default runtime's,
            whichever that is when the metrics are read.

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
