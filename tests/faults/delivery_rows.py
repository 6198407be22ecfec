"""Rows about unreadable answers, slow backends, limits, and code that never returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.faults.rows import (
    EXITS,
    GIVES_UP,
    GRPC_TOO,
    HTTP,
    QUARANTINES,
    Row,
    Run,
    always,
)
from tests.faults.script import Fault


def delivery_rows() -> list[Row]:
    return [*_unreadable(), *_slow(), *_larger(), *_hangs()]


def _unreadable() -> Iterator[Row]:
    """Successes with an unreadable rest: the status settles the batch, once."""
    faults: tuple[tuple[str, Fault], ...] = (
        ("2xx, body cut short", "body cut"),
        ("2xx, headers unreadable", "headers unreadable"),
        ("2xx, gzip transfer encoding", "body packed"),
    )
    for name, fault in faults:
        yield Row(name, ("otlp-http", "otlp-json", "loki-json"), lives=always(fault), copies=0)


def _slow() -> Iterator[Row]:
    yield Row(
        "always slower than the timeout",
        lives=always("late"),
        runs=(Run(end="shutdown", deadline=6.0),),
        good=("lost",),
        copies=3000,
    )
    yield Row(
        "slower than the timeout above 50 records", lives=always("many late", count=50), copies=3000
    )


def _larger() -> Iterator[Row]:
    larger: dict[str, Any] = {"bad_every": 400, "bad_padding": 20_000}
    yield Row(
        "record larger than the server's limit",
        HTTP,
        lives=always("too large", size=16 << 10),
        bad=("rejected",),
        **larger,
    )
    yield Row(
        "record larger than the server's limit, spool",
        lives=always("too large", size=16 << 10),
        bad=("quarantined",),
        spool=QUARANTINES,
        **larger,
    )
    yield Row(
        "record larger than the limit of a server in Rust, spool",
        ("otlp-grpc",),
        lives=always("too large, Rust", size=16 << 10),
        bad=("quarantined",),
        spool=QUARANTINES,
        **larger,
    )


def _hangs() -> Iterator[Row]:
    """Code of the application that never returns: the process still ends, with a balanced ledger."""
    yield Row(
        "processor hangs at the deadline",
        runs=GIVES_UP,
        good=("arrived", "lost"),
        hangs="processor",
    )
    yield Row(
        "processor hangs at the deadline, spool",
        GRPC_TOO,
        runs=EXITS,
        good=("arrived", "lost"),
        spool="always",
        hangs="processor",
    )
    yield Row(
        "encoder hangs at the deadline",
        runs=EXITS,
        good=("arrived", "lost"),
        hangs="encode",
    )
    yield Row("close() hangs at the deadline", runs=GIVES_UP, hangs="close")
    yield Row(
        "close() hangs at the deadline, spool", HTTP, runs=EXITS, spool="always", hangs="close"
    )
