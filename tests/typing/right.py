"""Code of users that must pass type checks in strict mode."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from typing_extensions import assert_type

import fapilog
from fapilog import AsyncLogger, Handler, Logger, LogRecord, Runtime, Settings, Severity, bind
from fapilog.protocols import BatchLimits, Outcome, Processor, Sink
from fapilog.sinks import ConsoleSink, FileSink, MemorySink, OTLPSink
from fapilog.testing import CapturedLogs, capture_logs

log = fapilog.get_logger(__name__, component="shop")
assert_type(log, Logger)
log.info("order placed", order=7, items=[1, 2], total=9.5)
log.warning({"structured": "body"})
log.error("failed: %s", ValueError("x"), extra={"a": 1}, stack_info=True, stacklevel=2)
log.error("failed", exc_info=ValueError("x"))
log.log("INFO2", "a severity by name")
log.log(logging.DEBUG, "a level of logging", event_name="shop.order")
log.log(fapilog.Severity.INFO2, "a severity by member")
log.event("shop.order.placed", order=7)
log.info("any name", self=1, message="m", name="n")
assert_type(log.bind(user="ada"), Logger)
assert_type(log.unbind("user"), Logger)
assert_type(log.is_enabled("debug"), bool)
try:
    raise ValueError
except ValueError:
    log.exception("caught")

runtime = fapilog.configure(
    sinks=["console", "otlp:https://collector:4318"], level="debug", resource={"service.name": "s"}
)
assert_type(runtime, Runtime)
fapilog.configure(
    Settings(level=Severity.INFO), sinks=MemorySink(), queue_size=10, redact_fields=("iban",)
)
fapilog.install_stdlib("info")
fapilog.set_level(None, "shop")
assert_type(fapilog.flush(5), bool)
assert_type(fapilog.stats().delivered, int)
with fapilog.collect() as fields, fapilog.hold("debug", records=10, seconds=5) as held:
    assert_type(fields, dict[str, Any])
    assert_type(held, fapilog.hold)
    held.release()
with capture_logs() as logs:
    assert_type(logs, CapturedLogs)
    assert_type(logs.one("order placed", severity="INFO", order=7), LogRecord)
logging.getLogger().addHandler(Handler())
fapilog.shutdown(1.5)


def drop_health_checks(record: LogRecord) -> LogRecord | None:
    """Show that a processor may be any function of this form."""
    return None if record.attributes.get("url.path") == "/health" else record


class Shouting:
    """A processor may also be an object that can be called."""

    def __call__(self, record: LogRecord) -> LogRecord:
        """Change the record and return it."""
        record.body = str(record.body).upper()
        return record


class Lines(Sink[str]):
    """A sink needs only encode and send; it inherits the rest."""

    name = "lines"
    limits = BatchLimits(count=10)

    def encode(self, record: LogRecord) -> str:
        """Return the item for send."""
        return str(record.body)

    def send(self, batch: Sequence[str], timeout: float) -> Outcome | None:
        """Deliver the batch, or report how many records were refused."""
        return Outcome(rejected=len(batch))


processors: list[Processor] = [drop_health_checks, Shouting()]
sinks: list[Sink[Any]] = [ConsoleSink(), FileSink("app.jsonl"), OTLPSink(protocol="grpc"), Lines()]

with Runtime(sinks=sinks, processors=processors, level=logging.INFO) as own:
    assert_type(own.get_logger("tenant"), Logger)
    assert_type(own.get_async_logger("tenant", tenant=1), AsyncLogger)


@bind(job="nightly")
def work(count: int) -> str:
    """Show that a decorated function keeps its type."""
    return "x" * count


@bind(job="nightly")
async def work_async(count: int) -> str:
    """Show that a decorated coroutine function keeps its type."""
    await fapilog.get_async_logger().info("working", count=count)
    return work(count)


assert_type(work(2), str)
with bind(request_id="r1"):
    work(1)
