"""Wrong code of users: strict mode must find an error in every line with an ``ignore``.

An ``ignore`` without an error is itself an error.
"""

from __future__ import annotations

import fapilog
import fapilog.sinks
from fapilog import LogRecord, Runtime
from fapilog.protocols import Processor, Sink
from fapilog.sinks import OTLPSink

log = fapilog.get_logger(__name__)
log.info()  # type: ignore[call-arg]
log.info(message="no name for it")  # type: ignore[call-arg]
log.event(7)  # type: ignore[arg-type]
log.log("a severity alone")  # type: ignore[call-arg]
log.log(None, "no severity")  # type: ignore[arg-type]
log.verbose("no such method")  # type: ignore[attr-defined]
log.unbind(7)  # type: ignore[arg-type]
log.bind("not by name")  # type: ignore[call-arg]
fapilog.configure("debug")  # type: ignore[arg-type]
fapilog.configure(level=1.5)  # type: ignore[arg-type]
fapilog.configure(sinks=7)  # type: ignore[arg-type]
fapilog.flush("soon")  # type: ignore[arg-type]
print(fapilog.stats().lost)  # type: ignore[attr-defined]
fapilog.Handler(sinks="console")  # type: ignore[arg-type]
fapilog.nothing()  # type: ignore[attr-defined]
fapilog.sinks.Nothing()  # type: ignore[attr-defined]
Runtime(processors=[len])  # type: ignore[list-item]
OTLPSink(protocol="udp")  # type: ignore[arg-type]
OTLPSink("http://localhost", "grpc", {"a": "b"})  # type: ignore[call-arg]


def returns_text(record: LogRecord) -> str:
    """Return the wrong type: a processor must return a record or None."""
    return str(record.body)


processor: Processor = returns_text  # type: ignore[assignment]


class Deaf(Sink[str]):
    """A sink without send, which is not a sink."""

    def encode(self, record: LogRecord) -> str:
        """Return the item."""
        return ""


Deaf()  # type: ignore[abstract]


async def work() -> None:
    """Forget to await a coroutine."""
    fapilog.get_async_logger().info("lost")  # type: ignore[unused-coroutine]


@fapilog.bind(job="nightly")
def typed(count: int) -> int:
    """Keep the type."""
    return count


typed("two")  # type: ignore[arg-type]
