"""The FastAPI applications that are compared, with one route and one log call per request.

Every library is set up as its own documentation recommends.  Imports are inside
the functions, because the peers are in other environments than fapilog.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The attributes of every call, in addition to the order's number.
FIELDS = {"total": 9.99, "sku": "A-1", "customer": "c-7"}


@dataclass(frozen=True)
class Target:
    """The destination: the receiver's URL without a path, and a file that does not exist yet."""

    endpoint: str
    path: Path


def shop(log: Callable[[int], object], lifespan: Any = None) -> Any:
    """Return an application with one route, which logs an order with ``log``."""
    from fastapi import FastAPI

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders/{number}")
    async def read_order(number: int) -> dict[str, int]:
        log(number)
        return {"order": number}

    return app


def bare(_target: Target) -> Any:
    """The application without any logging, which is the floor of all others."""
    return shop(lambda _number: None)


def _trace(app: Any) -> Any:
    """Add OpenTelemetry's instrumentation with the SDK; spans are created and not exported."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())
    FastAPIInstrumentor.instrument_app(app)
    return app


def spans(target: Target) -> Any:
    """The application with OpenTelemetry's instrumentation and no logging."""
    return _trace(bare(target))


def otel(target: Target) -> Any:
    """``spans`` with the logging module, OpenTelemetry's handler, and batches to OTLP/HTTP."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    exporter = OTLPLogExporter(endpoint=f"{target.endpoint}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=200_000))
    log = logging.getLogger("shop")
    log.addHandler(LoggingHandler(logger_provider=provider))
    log.setLevel(logging.INFO)
    return _trace(
        shop(lambda number: log.info("order read", extra={"order_id": number, **FIELDS})),
    )


def fapilog(target: Target) -> Any:
    """fapilog's middleware with its defaults: a completion record and the route's record."""
    import fapilog_fastapi

    import fapilog
    from fapilog.sinks import OTLPSink

    fapilog.configure(sinks=[OTLPSink(f"{target.endpoint}/v1/logs", protocol="http/protobuf")])
    log = fapilog.get_logger("shop")
    app = shop(lambda number: log.info("order read", order_id=number, **FIELDS))
    fapilog_fastapi.install(app)
    return app


def fapilog_spans(target: Target) -> Any:
    """``fapilog`` under OpenTelemetry's instrumentation."""
    return _trace(fapilog(target))


def structlog(target: Target) -> Any:
    """structlog to a file with asgi-correlation-id; one record per request, without a trace."""
    import orjson
    import structlog
    from asgi_correlation_id import CorrelationIdMiddleware, correlation_id

    def add_correlation_id(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["request_id"] = correlation_id.get()
        return event

    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            add_correlation_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=target.path.open("wb")),
    )
    log = structlog.get_logger().bind()
    app = shop(lambda number: log.info("order read", order_id=number, **FIELDS))
    app.add_middleware(CorrelationIdMiddleware)
    return app


def older(target: Target) -> Any:
    """fapilog 0.18.1: its middleware and its logger to a rotating file, set up by its builder."""
    from fastapi import Depends, FastAPI

    from fapilog import fastapi

    module: Any = fastapi
    builder = module.FastAPIBuilder().add_file(str(target.path.parent), max_bytes=1 << 30)
    # With the default, most records would be dropped.
    builder.with_backpressure(wait_ms=1000, drop_on_full=False)
    app = FastAPI(lifespan=builder.build())
    logger = Depends(module.get_request_logger)

    @app.get("/orders/{number}")
    async def read_order(number: int, log: Any = logger) -> dict[str, int]:
        await log.info("order read", order_id=number, **FIELDS)
        return {"order": number}

    return app


APPS: dict[str, Callable[[Target], Any]] = {
    "bare": bare,
    "spans": spans,
    "fapilog": fapilog,
    "fapilog, spans": fapilog_spans,
    "otel": otel,
    "structlog": structlog,
    "older": older,
}
