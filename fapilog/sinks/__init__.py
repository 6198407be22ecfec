"""Sinks send records to their destinations: console, file, OTLP, Loki, memory, SDK exporters.

A sink encodes records and sends batches; it does not depend on processors, delivery or
the spool.  The packages ``otlp``, ``loki`` and ``http`` contain the sinks that use the
network; ``factory`` makes sinks from names.  Each sink class is imported at its first use,
so a program that writes to the console does not load an HTTP client, gRPC or the
OpenTelemetry SDK.  Read ``console`` first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from fapilog.protocols import BatchLimits, Outcome, Sink

if TYPE_CHECKING:
    from fapilog.delivery.route import Route
    from fapilog.sinks.console import ConsoleSink
    from fapilog.sinks.exporter import ExporterSink
    from fapilog.sinks.file import FileSink
    from fapilog.sinks.loki.sink import LokiSink
    from fapilog.sinks.memory import MemorySink
    from fapilog.sinks.otlp.sink import OTLPSink

__all__ = [
    "BatchLimits",
    "ConsoleSink",
    "ExporterSink",
    "FileSink",
    "LokiSink",
    "MemorySink",
    "OTLPSink",
    "Outcome",
    "Route",
    "Sink",
]

_MODULES: Final = {
    "ConsoleSink": "fapilog.sinks.console",
    "ExporterSink": "fapilog.sinks.exporter",
    "FileSink": "fapilog.sinks.file",
    "LokiSink": "fapilog.sinks.loki.sink",
    "MemorySink": "fapilog.sinks.memory",
    "OTLPSink": "fapilog.sinks.otlp.sink",
    "Route": "fapilog.delivery.route",
}


if not TYPE_CHECKING:  # hidden from type checkers, so that they report misspelled names

    def __getattr__(name: str) -> Any:
        """Import a public name on first use (PEP 562)."""
        if name not in _MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
