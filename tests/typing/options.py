"""A right value of every option, which type checkers and ``Settings`` must accept."""

from __future__ import annotations

import logging
from pathlib import Path

import fapilog
from fapilog import Runtime, Settings, Severity


def settings() -> Settings:
    """Return settings in which each option is an argument."""
    return Settings(
        config=None,
        service_name="shop",
        level="debug",
        levels={"app.db": "debug", "uvicorn": Severity.WARN},
        severities={"notice": 10},
        sinks=["console", "otlp"],
        redact=True,
        redact_fields=["iban"],
        redact_allow=("session",),
        code_attributes=True,
        queue_size=1024,
        overflow="drop_lowest",
        protect_level="warn",
        sink_overflow=None,
        block_timeout=0.5,
        backlog_bytes="64MiB",
        batch_size=512,
        schedule_delay=1,
        export_timeout=30,
        retry_initial=1.5,
        retry_maximum=60,
        attribute_count_limit=64,
        attribute_value_length_limit=None,
        shutdown_timeout=3,
        handle_sigterm=False,
        otel_provider=False,
        otel_metrics=False,
        otel_metrics_by_logger=True,
        otel_disabled=False,
        metrics_directory=Path("metrics"),
        console={
            "stream": "stderr",
            "format": "lambda",
            "color": False,
            "tracebacks": "full",
            "names": {"message": "msg"},
            "resource": False,
        },
        file={
            "path": Path("app.jsonl"),
            "format": "otlp",
            "max_bytes": "100MB",
            "rotate_every": "day",
            "compress": "gzip",
            "keep_count": 7,
            "keep_age": 86_400,
            "keep_bytes": 1 << 30,
            "mode": 0o640,
            "fsync": True,
        },
        loki={
            "url": "http://localhost:3100",
            "tenant": "team-a",
            "username": "u",
            "password": "p",
            "token": None,
            "headers": {"x-a": "b"},
            "format": "protobuf",
            "line": "logfmt",
            "labels": ["service.name"],
            "metadata": "line",
            "timeout": 5,
            "certificate": "ca.pem",
            "client_key": Path("key.pem"),
            "client_certificate": None,
            "concurrency": 2,
        },
        spool={
            "directory": "/var/spool/app",
            "mode": "always",
            "max_bytes": "1GB",
            "min_free": 0,
            "segment_bytes": "8MiB",
            "sync": "always",
            "sync_interval": 0.5,
            "quarantine_bytes": 0,
        },
        routes={
            "console": {
                "level": "warn",
                "max_level": 20,
                "loggers": "app,worker",
                "where": {"tenant": "a"},
                "overflow": "block",
                "fallback": "memory",
                "fallback_after": 10,
            }
        },
    )


def use() -> None:
    """Show that ``configure`` and ``Runtime`` accept options as ``Settings`` does."""
    fapilog.configure(service_name="shop", console={"format": "pretty"}, queue_size=8)
    fapilog.configure(
        reset=True, file={"max_bytes": 10_000_000}, routes={"otlp": {"level": Severity.ERROR}}
    )
    with Runtime(service_name="tenant", level=logging.INFO, spool={"mode": "never"}):
        pass
