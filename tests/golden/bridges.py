"""Every bridge into fapilog, as its users write it, for the golden cases."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import loguru
import structlog
from opentelemetry import _logs as api
from opentelemetry.instrumentation.logging.handler import LoggingHandler

import fapilog
from fapilog.bridges.loguru import LoguruSink
from fapilog.bridges.structlog import NamedLogger, StructlogProcessor
from fapilog.otel.provider import LoggerProvider
from tests.golden.cases import LEVELS, NAME, STDLIB, Case

Log = Callable[[Case], None]


@dataclass(frozen=True)
class Bridge:
    """One bridge.

    Attributes:
        title: the head of the column.
        open: a context manager that yields the function that logs a case.
        cannot: the function that returns the reason why users of the bridge
            cannot write a case, or an empty text.
    """

    title: str
    open: Callable[[], contextlib.AbstractContextManager[Log]]
    cannot: Callable[[Case], str]


@contextlib.contextmanager
def own_logger() -> Iterator[Log]:
    logger = fapilog.get_logger(NAME)

    def log(case: Case) -> None:
        more: dict[str, Any] = {"exc_info": case.exception} if case.exception else {}
        if case.event_name:
            more["event_name"] = case.event_name
        logger.log(LEVELS[case.severity], case.text, **case.attributes, **more)

    yield log


def _apart() -> logging.Logger:
    """Return a logger without other handlers: pytest's handlers fail on some of the cases."""
    fapilog.install_stdlib(1)  # a number, because uvicorn changes the level "trace"
    logger = logging.getLogger(NAME)
    logger.setLevel(1)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


@contextlib.contextmanager
def stdlib() -> Iterator[Log]:
    logger = _apart()
    try:
        yield lambda case: logger.log(
            STDLIB[case.severity],
            case.message,
            *case.arguments,
            exc_info=case.exception,
            extra=case.extra,
        )
    finally:
        fapilog.uninstall_stdlib()


@contextlib.contextmanager
def otel_handler() -> Iterator[Log]:
    logger = logging.Logger(NAME, 1)  # noqa: LOG001 - not a child of root
    logger.addHandler(LoggingHandler(logger_provider=LoggerProvider()))
    yield lambda case: logger.log(
        STDLIB[case.severity],
        case.message,
        *case.arguments,
        exc_info=case.exception,
        extra=case.extra,
    )


@contextlib.contextmanager
def logs_api() -> Iterator[Log]:
    logger = LoggerProvider().get_logger(NAME)

    def log(case: Case) -> None:
        logger.emit(
            severity_number=api.SeverityNumber(LEVELS[case.severity]),
            body=case.text,
            attributes=dict(case.attributes),
            event_name=case.event_name or None,
            exception=case.exception,
        )

    yield log


@contextlib.contextmanager
def structlog_processor() -> Iterator[Log]:
    structlog.reset_defaults()
    logger = structlog.wrap_logger(
        NamedLogger(NAME),
        processors=[structlog.contextvars.merge_contextvars, StructlogProcessor()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    yield lambda case: _structlog(logger, case)


@contextlib.contextmanager
def structlog_formatter() -> Iterator[Log]:
    structlog.reset_defaults()
    logger = structlog.wrap_logger(
        _apart(),
        processors=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        yield lambda case: _structlog(logger, case)
    finally:
        fapilog.uninstall_stdlib()


def _structlog(logger: Any, case: Case) -> None:
    more = {"exc_info": case.exception} if case.exception else {}
    method = getattr(logger, case.severity)
    method(case.message, *case.arguments, **case.extra, **more)


@contextlib.contextmanager
def loguru_sink() -> Iterator[Log]:
    yield from _loguru(enqueue=False)


@contextlib.contextmanager
def loguru_enqueued() -> Iterator[Log]:
    yield from _loguru(enqueue=True)


def _rename(record: loguru.Record) -> None:
    record["name"] = NAME


def _loguru(*, enqueue: bool) -> Iterator[Log]:
    loguru.logger.remove()
    sink = LoguruSink()
    number = loguru.logger.add(
        sink, level=0, format=sink.format, enqueue=enqueue, backtrace=False, diagnose=False
    )

    def log(case: Case) -> None:
        logger = loguru.logger.bind(**case.extra).patch(_rename)
        # Without arguments loguru does not format, so braces stay.
        logger.opt(exception=case.exception).log(case.severity.upper(), case.text)

    try:
        yield log
    finally:
        loguru.logger.remove(number)


NO_METHOD = "structlog's loggers have no method below debug"
TEXT_ONLY = "loguru's message is always a text: the mapping becomes a text"
PICKLED = "loguru pickles records for its queue; it reports and drops this one"
NO_TRACE = "OpenTelemetry's handler has no severity below DEBUG"
FORMATTED = "OpenTelemetry's handler formats the message: the mapping becomes a text"


def any_case(_: Case) -> str:
    return ""


def structlog_cannot(case: Case) -> str:
    return NO_METHOD if case.severity == "trace" else ""


def loguru_cannot(case: Case) -> str:
    return "" if isinstance(case.message, str) else TEXT_ONLY


def enqueued_cannot(case: Case) -> str:
    return PICKLED if "pickled" in case.name else loguru_cannot(case)


def otel_handler_cannot(case: Case) -> str:
    if case.severity == "trace":
        return NO_TRACE
    return "" if isinstance(case.message, str) else FORMATTED


BRIDGES: tuple[Bridge, ...] = (
    Bridge("fapilog", own_logger, any_case),
    Bridge("logging", stdlib, any_case),
    Bridge("structlog", structlog_processor, structlog_cannot),
    Bridge("ProcessorFormatter", structlog_formatter, structlog_cannot),
    Bridge("loguru", loguru_sink, loguru_cannot),
    Bridge("loguru, enqueue", loguru_enqueued, enqueued_cannot),
    Bridge("Logs API", logs_api, any_case),
    Bridge("OTel handler", otel_handler, otel_handler_cannot),
)
