"""The signatures that users rely on: changing one changes the public interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import fapilog
from fapilog import AsyncLogger, Handler, Logger, Runtime, protocols, sinks, testing
from fapilog.bridges import loguru, structlog
from fapilog.otel import SpanExporter

RUNTIME = "(settings=None, *, sinks=None, processors=None, level=None, resource=None, **options)"
CONFIGURE = RUNTIME.replace("*, ", "*, reset=False, ", 1)
CONSOLE = (
    "(stream=None, *, format='auto', color='auto', tracebacks='short', names=None, "
    "resource=True, name='console')"
)
FILE = (
    "(path, *, format='json', max_bytes=None, rotate_every=None, compress=None, keep_count=None, "
    "keep_age=None, keep_bytes=None, mode=384, fsync=False, name='file', "
    "clock=<built-in function time>)"
)
OTLP = (
    "(endpoint=None, protocol=None, *, headers=None, timeout=None, compression=None, "
    "certificate=None, client_key=None, client_certificate=None, insecure=None, limits=None, "
    "concurrency=1, name='otlp', transport=None)"
)
LOKI = (
    "(url, *, tenant=None, username=None, password=None, token=None, headers=None, "
    "format='json', line='message', labels=('service.name', 'service.namespace', "
    "'deployment.environment.name', 'deployment.environment', 'severity'), metadata='auto', "
    "timeout=10.0, certificate=None, client_key=None, client_certificate=None, limits=None, "
    "concurrency=1, name='loki', transport=None)"
)
FIND = (
    "(self, body=Ellipsis, /, *, severity=None, logger=Ellipsis, event_name=Ellipsis, "
    "trace_id=Ellipsis, span_id=Ellipsis, **attributes)"
)
MESSAGE = "(self, message, /, *args, **attributes)"

SIGNATURES: list[tuple[Callable[..., Any], str]] = [
    (fapilog.bind_context, "(**fields)"),
    (fapilog.clear_context, "()"),
    (fapilog.collect, "()"),
    (fapilog.configure, CONFIGURE),
    (fapilog.flush, "(timeout=None)"),
    (fapilog.get_async_logger, "(name='', /, **bound)"),
    (fapilog.get_logger, "(name='', /, **bound)"),
    (fapilog.get_runtime, "()"),
    (fapilog.hold, "(level='DEBUG', *, records=1000, size=1048576, seconds=60.0)"),
    (fapilog.hold.release, "(self)"),
    (fapilog.install_celery, "()"),
    (
        fapilog.install_hooks,
        "(*, warnings=True, uncaught=True, threads=True, asyncio=True, loop=None)",
    ),
    (fapilog.install_stdlib, "(level=None, logger=None)"),
    (fapilog.set_level, "(level, logger='')"),
    (fapilog.shutdown, "(timeout=None)"),
    (fapilog.stats, "()"),
    (fapilog.unbind_context, "(*names)"),
    (fapilog.uninstall_hooks, "()"),
    (fapilog.uninstall_stdlib, "()"),
    (loguru.LoguruSink, "(runtime=None, *, code_attributes=False)"),
    (loguru.install, "(level=0, *, code_attributes=False)"),
    (loguru.uninstall, "()"),
    (structlog.StructlogProcessor, "(runtime=None)"),
    (structlog.install, "(processors=(), *, cache_logger_on_first_use=False)"),
    (structlog.uninstall, "()"),
    (SpanExporter, "(runtime=None)"),
    (SpanExporter.force_flush, "(self, timeout_millis=30000)"),
    (
        Handler,
        "(level=0, runtime=None, *, code_attributes=False, thread_attributes=False, **other)",
    ),
    (Runtime, RUNTIME),
    (Runtime.flush, "(self, timeout=None)"),
    (Runtime.get_async_logger, "(self, name='', /, **bound)"),
    (Runtime.get_logger, "(self, name='', /, **bound)"),
    (Runtime.set_level, "(self, level, logger='')"),
    (Runtime.shutdown, "(self, timeout=None)"),
    (Runtime.stats, "(self)"),
    *(
        (getattr(logger, method), MESSAGE)
        for logger in (Logger, AsyncLogger)
        for method in (
            *("trace", "debug", "info", "warning", "warn"),
            *("error", "exception", "critical", "fatal"),
        )
    ),
    (Logger.event, "(self, name, /, **attributes)"),
    (Logger.is_enabled, "(self, severity)"),
    (Logger.log, "(self, severity, message, /, *args, **attributes)"),
    (Logger.of, "(logger)"),
    (Logger.unbind, "(self, *names)"),
    (testing.CapturedLogs.at, "(self, severity)"),
    (
        testing.CapturedLogs.find,
        FIND,
    ),
    (testing.CapturedLogs.one, "(self, body=Ellipsis, /, **patterns)"),
    (testing.capture_logs, "(level=None)"),
    (protocols.BatchLimits, "(count=1024, size=1048576, delay=1.0)"),
    (protocols.Outcome, "(rejected=0, message='')"),
    (protocols.Sink.encode, "(self, record)"),
    (protocols.Sink.send, "(self, batch, timeout)"),
    (
        sinks.ConsoleSink,
        CONSOLE,
    ),
    (sinks.ExporterSink, "(exporter, *, name=None, limits=None, attempts=3, timeout=5.0)"),
    (sinks.FileSink, FILE),
    (sinks.LokiSink, LOKI),
    (sinks.MemorySink, "(*, capacity=10000, name='memory')"),
    (sinks.OTLPSink, OTLP),
]


def signature(function: Callable[..., Any]) -> str:
    """Return the signature without annotations, which mypy checks, and without private parameters."""
    whole = inspect.signature(function)
    public = [
        parameter.replace(annotation=parameter.empty)
        for parameter in whole.parameters.values()
        if not parameter.name.startswith("_")
    ]
    return str(whole.replace(parameters=public, return_annotation=whole.empty))


@pytest.mark.parametrize(
    ("function", "expected"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_public_signatures_do_not_change(function: Callable[..., Any], expected: str) -> None:
    assert signature(function) == expected


@pytest.mark.parametrize("bind", [Logger.bind, AsyncLogger.bind, vars(fapilog.bind)["__init__"]])
def test_any_name_can_be_bound(bind: Callable[..., Any]) -> None:
    by_name = [
        p for p in inspect.signature(bind).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    assert {p.kind for p in by_name} <= {inspect.Parameter.POSITIONAL_ONLY}


def test_the_names_of_sinks_do_not_change() -> None:
    assert sorted(sinks.__all__) == [
        "BatchLimits", "ConsoleSink", "ExporterSink", "FileSink", "LokiSink", "MemorySink",
        "OTLPSink", "Outcome", "Route", "Sink",
    ]  # fmt: skip
    assert all(getattr(sinks, name) for name in sinks.__all__)
