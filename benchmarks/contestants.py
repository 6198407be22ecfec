"""The libraries that are compared, each set up as its own documentation recommends.

A scenario picks a library by name and uses it through three functions, so every
library is measured by the same loop.  Imports are inside the functions, because
the peers are in other environments than fapilog.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Names of the attributes in every call.
ATTRIBUTES = {"order_id", "total", "sku", "customer"}


@dataclass(frozen=True)
class Target:
    """The destination of the records.

    Attributes:
        endpoint: the URL of the receiver, without a path; empty without a receiver.
        path: the file that file contestants write; it does not exist yet.
        queue: the capacity of the queue, or 0 for the library's default.
        spool: the mode of fapilog's spool, which is beside ``path``; empty for no spool.
    """

    endpoint: str
    path: Path
    queue: int = 0
    spool: str = ""


@dataclass(frozen=True)
class Contestant:
    """One library, ready to log.

    Attributes:
        call: a function that takes the order's number and logs one record with
            four attributes.
        flush: a function that delivers every accepted record.  It is called
            once, after the last call.
        flush_waits: whether ``flush`` blocks until all records are delivered.  If
            not, the scenario checks whether the last record has arrived.
    """

    call: Callable[[int], None]
    flush: Callable[[], object]
    flush_waits: bool = True


def base_name(contestant: str) -> str:
    """Return the name in :data:`CONTESTANTS`, without the turn's options after a comma."""
    return contestant.partition(",")[0]


def nothing(_target: Target) -> Contestant:
    """Log nothing, to measure the loop's own cost."""

    def call(i: int) -> None:
        return None

    return Contestant(call, lambda: None)


def _fapilog(sink: Any, target: Target, **options: Any) -> Contestant:
    import fapilog

    if target.queue:
        options["queue_size"] = target.queue
    if target.spool:
        options["spool"] = {"directory": target.path.parent / "spool", "mode": target.spool}
    fapilog.configure(sinks=[sink], **options)
    log = fapilog.get_logger("bench")

    def call(i: int) -> None:
        log.info("order placed", order_id=i, total=9.99, sku="A-1", customer="c-7")

    return Contestant(call, lambda: fapilog.flush(60))


def fapilog_otlp(target: Target) -> Contestant:
    from fapilog.sinks import OTLPSink

    endpoint = f"{target.endpoint}/v1/logs"
    return _fapilog(OTLPSink(endpoint=endpoint, protocol="http/protobuf"), target)


def fapilog_loki(target: Target) -> Contestant:
    from fapilog.sinks import LokiSink

    return _fapilog(LokiSink(target.endpoint), target)


def fapilog_file(target: Target) -> Contestant:
    from fapilog.sinks import FileSink

    return _fapilog(FileSink(target.path), target)


def fapilog_file_metrics(target: Target) -> Contestant:
    """Like fapilog-file, with all metrics of OpenTelemetry, which are exported every 0.1 s."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )

    from fapilog.sinks import FileSink

    class Nowhere(MetricExporter):
        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, *_: Any, **__: Any) -> None:
            return

    reader = PeriodicExportingMetricReader(Nowhere(), export_interval_millis=100)
    metrics.set_meter_provider(MeterProvider([reader]))
    return _fapilog(FileSink(target.path), target, otel_metrics_by_logger=True)


def otel_otlp(target: Target) -> Contestant:
    """The logging module, OpenTelemetry's handler and SDK, batches to OTLP/HTTP."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    exporter = OTLPLogExporter(endpoint=f"{target.endpoint}/v1/logs")
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporter, max_queue_size=target.queue or None)
    )
    root = logging.getLogger()
    root.addHandler(LoggingHandler(logger_provider=provider))
    root.setLevel(logging.INFO)
    log = logging.getLogger("bench")

    def call(i: int) -> None:
        log.info(
            "order placed",
            extra={"order_id": i, "total": 9.99, "sku": "A-1", "customer": "c-7"},
        )

    return Contestant(call, lambda: provider.force_flush(60_000))


def loki_logger_handler(target: Target) -> Contestant:
    """loki-logger-handler with structured metadata, its documented place for a trace id.

    Its other options are the defaults, which were the fastest of those tried: its
    thread waits for 10 seconds, or until it is woken, and pushes all records in one request.
    """
    from loki_logger_handler.loki_logger_handler import LokiLoggerHandler

    handler = LokiLoggerHandler(
        url=f"{target.endpoint}/loki/api/v1/push",
        labels={"service_name": "bench"},
        enable_structured_loki_metadata=True,
        loki_metadata_keys=["trace_id", "span_id"],
    )
    log = _logger_with_span_ids(handler)

    def call(i: int) -> None:
        log.info(
            "order placed",
            extra={"order_id": i, "total": 9.99, "sku": "A-1", "customer": "c-7"},
        )

    return Contestant(call, handler.flush_event.set, flush_waits=False)


def inuits_loki(target: Target) -> Contestant:
    """inuits-python-logging-loki with its queue handler, which sends batches.

    Its documented place for a trace id is a label.  Attributes as labels would
    create one stream per order and be slower, so they are in the line, as JSON.
    """
    from queue import Queue

    import logging_loki
    import orjson

    class Line(logging.Formatter):
        def format(self, record: Any) -> str:
            fields = {name: getattr(record, name) for name in ATTRIBUTES}
            return orjson.dumps({"message": record.getMessage(), **fields}).decode()

    handler = logging_loki.LokiQueueHandler(
        Queue(-1),
        batch_interval=1,
        url=f"{target.endpoint}/loki/api/v1/push",
        tags={"service_name": "bench"},
        props_to_labels=["trace_id", "span_id"],
    )
    handler.handler.target.setFormatter(Line())
    log = _logger_with_span_ids(handler)

    def call(i: int) -> None:
        log.info(
            "order placed",
            extra={"order_id": i, "total": 9.99, "sku": "A-1", "customer": "c-7"},
        )

    return Contestant(call, handler.close)


def _logger_with_span_ids(handler: logging.Handler) -> logging.Logger:
    """Return a logger of ``logging`` whose records have the ids of the active span."""
    from opentelemetry import trace

    def add_span_ids(record: Any) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace_id = format(context.trace_id, "032x")
        record.span_id = format(context.span_id, "016x")
        return True

    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.addFilter(add_span_ids)
    log.addHandler(handler)
    return log


def structlog_file(target: Target) -> Contestant:
    """structlog as its page on performance recommends, with the ids of the active span."""
    import orjson
    import structlog
    from opentelemetry import trace

    def add_span_ids(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = format(context.trace_id, "032x")
            event["span_id"] = format(context.span_id, "016x")
        return event

    file = target.path.open("wb")
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_span_ids,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=file),
    )
    # Call bind() once, otherwise the lazy proxy looks up its logger in every call.
    log = structlog.get_logger().bind()

    def call(i: int) -> None:
        log.info("order placed", order_id=i, total=9.99, sku="A-1", customer="c-7")

    return Contestant(call, file.flush)


def loguru_file(target: Target) -> Contestant:
    """loguru with its own JSON to a file, and the ids of the active span from a patcher."""
    from loguru import logger
    from opentelemetry import trace

    def add_span_ids(record: Any) -> None:
        context = trace.get_current_span().get_span_context()
        record["extra"]["trace_id"] = format(context.trace_id, "032x")
        record["extra"]["span_id"] = format(context.span_id, "016x")

    logger.remove()
    logger.add(target.path, serialize=True, level="INFO")
    logger.configure(patcher=add_span_ids)

    def call(i: int) -> None:
        logger.info("order placed", order_id=i, total=9.99, sku="A-1", customer="c-7")

    return Contestant(call, logger.complete)


def _older(target: Target, core: dict[str, Any]) -> Contestant:
    import fapilog

    older: Any = fapilog  # in the contestant's environment this is fapilog 0.18.1
    settings = older.Settings(
        core={
            "log_level": "INFO",
            "sinks": ["rotating_file"],
            "max_queue_size": target.queue or 10_000,
            "drop_on_full": False,
            "shutdown_timeout_seconds": 120.0,
            **core,
        },
        sink_config={
            "rotating_file": {"directory": str(target.path.parent), "max_bytes": 1 << 30},
        },
    )
    log = older.get_logger("bench", settings=settings)

    def call(i: int) -> None:
        log.info("order placed", order_id=i, total=9.99, sku="A-1", customer="c-7")

    return Contestant(call, lambda: asyncio.run(log.stop_and_drain()))


def older_file(target: Target) -> Contestant:
    """The older fapilog's file sink with its default enrichers and redactors."""
    return _older(target, {})


def older_file_bare(target: Target) -> Contestant:
    """The older fapilog with its fastest settings, without enrichers and redactors.

    These settings were found by trying its documented options: thread and bound-loop mode,
    one and two workers, sink concurrency 1 and 8, batches of 256 and 1024,
    serialisation in the flush or in the sink.
    """
    return _older(
        target,
        {"enrichers": [], "redactors": [], "enable_redactors": False, "serialize_in_flush": True},
    )


CONTESTANTS: dict[str, Callable[[Target], Contestant]] = {
    "nothing": nothing,
    "fapilog-otlp": fapilog_otlp,
    "fapilog-file": fapilog_file,
    "fapilog-file-metrics": fapilog_file_metrics,
    "fapilog-loki": fapilog_loki,
    "otel-otlp": otel_otlp,
    "loki-logger-handler": loki_logger_handler,
    "inuits-loki": inuits_loki,
    "structlog-file": structlog_file,
    "loguru-file": loguru_file,
    "older-file": older_file,
    "older-file-bare": older_file_bare,
}
