"""Wrong options: mypy and pyright must find an error in every line with an ``ignore``.

An ``ignore`` without an error is itself an error.
"""

from __future__ import annotations

import fapilog
from fapilog import Runtime, Settings

fapilog.configure(levl="debug")  # type: ignore[call-arg]
fapilog.configure(level=1.5)  # type: ignore[arg-type]
fapilog.configure(queue_size="many")  # type: ignore[arg-type]
fapilog.configure(overflow="explode")  # type: ignore[arg-type]
fapilog.configure(reset="yes")  # type: ignore[arg-type]
fapilog.configure(service_name=7)  # type: ignore[arg-type]
fapilog.configure(redact_fields=7)  # type: ignore[arg-type]
fapilog.configure(console="json")  # type: ignore[arg-type]
fapilog.configure(console={"formt": "json"})  # type: ignore[typeddict-unknown-key]
fapilog.configure(console={"format": "jsn"})  # type: ignore[typeddict-item]
fapilog.configure(routes={"otlp": {"levl": "warn"}})  # type: ignore[typeddict-unknown-key]
Runtime(levl="debug")  # type: ignore[call-arg]
Runtime(reset=True)  # type: ignore[call-arg]
Runtime(file={"max_bytes": 1.5})  # type: ignore[typeddict-item]
Settings(levl="debug")  # type: ignore[call-arg]
Settings(processors=[])  # type: ignore[call-arg]
Settings(loki={"tocken": "x"})  # type: ignore[typeddict-unknown-key]
