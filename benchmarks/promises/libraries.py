"""The libraries, each set up as its own documentation recommends, with its default limits.

Imports are inside the functions, because each library is in its own environment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Library:
    """One library, ready to log.

    Attributes:
        log: a function that takes a message and named values, and logs them at INFO.
        fail: a function that takes a message and logs the active exception with it.
        flush: what the library offers to deliver everything; called once, at the end.
    """

    log: Callable[..., object]
    fail: Callable[[str], object]
    flush: Callable[[], object]


def _fapilog(sinks: str, directory: Path, *, spool: str = "") -> Library:
    import fapilog

    options: dict[str, Any] = {}
    if spool:
        options["spool"] = {"directory": directory / "spool", "mode": spool}
    fapilog.configure(sinks=sinks, **options)
    log = fapilog.get_logger("shop")
    return Library(log.info, log.exception, lambda: fapilog.flush(60))


def fapilog_otlp(endpoint: str, directory: Path) -> Library:
    return _fapilog(f"otlp:{endpoint}", directory)


def fapilog_spool(endpoint: str, directory: Path) -> Library:
    return _fapilog(f"otlp:{endpoint}", directory, spool="overflow")


def fapilog_spool_always(endpoint: str, directory: Path) -> Library:
    return _fapilog(f"otlp:{endpoint}", directory, spool="always")


def fapilog_file(_endpoint: str, directory: Path) -> Library:
    return _fapilog(f"file:{directory / 'app.jsonl'}", directory)


def opentelemetry(endpoint: str, _directory: Path) -> Library:
    """The logging module, OpenTelemetry's handler and SDK, batches to OTLP/HTTP."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    exporter = OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    root = logging.getLogger()
    root.addHandler(LoggingHandler(logger_provider=provider))
    log = logging.getLogger("shop")
    log.setLevel(logging.INFO)  # the SDK's own messages stay above the root logger's level

    def info(message: str, **fields: Any) -> None:
        log.info(message, extra=fields)

    return Library(info, log.exception, lambda: provider.force_flush(60_000))


def logfire(endpoint: str, _directory: Path) -> Library:
    """logfire's own path to its backend, which keeps failed requests on disk; logs are spans."""
    import logfire as library

    library.configure(
        token="pylf_v1_local_0123456789",
        service_name="shop",
        console=False,
        metrics=False,
        inspect_arguments=False,
        advanced=library.AdvancedOptions(base_url=endpoint),
    )

    def template(message: str) -> str:
        return message.replace("{", "{{").replace("}", "}}")

    def info(message: str, **fields: Any) -> None:
        library.info(template(message), **fields)

    def fail(message: str) -> None:
        library.exception(template(message))

    return Library(info, fail, lambda: library.force_flush(60_000))


def structlog(_endpoint: str, directory: Path) -> Library:
    """structlog as its page on performance recommends, to a file in place of standard output."""
    import orjson
    import structlog as library

    library.configure(
        cache_logger_on_first_use=True,
        wrapper_class=library.make_filtering_bound_logger(logging.INFO),
        processors=[
            library.contextvars.merge_contextvars,
            library.processors.add_log_level,
            library.processors.format_exc_info,
            library.processors.TimeStamper(fmt="iso", utc=True),
            library.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=library.BytesLoggerFactory(file=(directory / "app.jsonl").open("wb")),
    )
    log = library.get_logger().bind()
    return Library(log.info, log.exception, lambda: None)


def loguru(_endpoint: str, directory: Path) -> Library:
    """loguru with its own JSON to a file."""
    from loguru import logger

    logger.remove()
    logger.add(directory / "app.jsonl", serialize=True, level="INFO")

    def info(message: str, **fields: Any) -> None:
        logger.bind(**fields).info(message)

    return Library(info, logger.exception, logger.complete)


LIBRARIES: dict[str, Callable[[str, Path], Library]] = {
    "fapilog": fapilog_otlp,
    "fapilog, spool": fapilog_spool,
    "fapilog, spool always": fapilog_spool_always,
    "OpenTelemetry": opentelemetry,
    "logfire": logfire,
    "fapilog, file": fapilog_file,
    "structlog": structlog,
    "loguru": loguru,
}
