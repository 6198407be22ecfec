"""Contains the sinks, which send log records to the console, files, OTLP, Loki and others.

A sink encodes records and sends them in batches.  The packages ``otlp`` and ``loki`` contain
the sinks that use the network, and the package ``http`` contains their HTTP client.  The
module ``factory`` makes sinks from names such as ``"console"``.  Each sink class is imported
when it is first used, so a program that writes only to the console does not load an HTTP
client, gRPC or the OpenTelemetry SDK.  To learn how a sink works, read ``console`` first.
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


# If type checkers saw __getattr__(), they would accept an import of any name from this package.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public class of this package when it is first used (PEP 562)."""
        if name not in _MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
