"""Connects fapilog with the Logs API and the SDK of OpenTelemetry.

OpenTelemetry records enter fapilog through ``provider``, which implements the Logs API, or through
``processor``, a log record processor for the SDK.  ``convert`` converts these records into
fapilog's records.  ``exporters`` makes fapilog's sinks usable as exporters of the SDK, and
``spans`` is an exporter of spans that sends them through a runtime.  ``resource`` detects the
resource attributes of the process.  ``metrics`` reports the ledger as metrics.  ``zero_code`` is
loaded by the command ``opentelemetry-instrument``.  In processes that this command has started,
``signals`` flushes the SDK at SIGTERM.  The encoders for OTLP are in ``fapilog.otlp``.  Read
``provider`` first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fapilog.otel.spans import SpanExporter

__all__ = ["SpanExporter"]


if not TYPE_CHECKING:  # hidden from type checkers, so that they report misspelled names

    def __getattr__(name: str) -> Any:
        """Import the exporter at its first use, because it loads the SDK's traces (PEP 562)."""
        if name != "SpanExporter":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from fapilog.otel.spans import SpanExporter  # noqa: PLC0415

        return SpanExporter
