"""A shell for the commands of ``fapilog spool``, and records on disk for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fapilog.cli import main
from fapilog.cli.spool.command import configured_sinks
from fapilog.protocols import as_durable, destination_of
from fapilog.record import LogRecord
from fapilog.settings import Settings
from fapilog.sinks.factory import sink_of
from fapilog.spool import Quarantine, Spool, SpoolOptions
from fapilog.spool.scan import Scan
from fapilog.spool.survey import survey
from tests.support.spool import crash

Shell = Callable[..., tuple[object, str, str]]


def make_shell(capsys: Any, monkeypatch: Any, directory: Path) -> Shell:
    """Return a function that runs ``fapilog spool`` and returns exit code, output, errors."""
    (directory / "cwd").mkdir()
    monkeypatch.chdir(directory / "cwd")
    monkeypatch.setenv("FAPILOG_SPOOL__DIRECTORY", str(directory / "spool"))
    monkeypatch.setenv("FAPILOG_RETRY_INITIAL", "0.01")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(("spool", *arguments))
        return ended.value.code, *capsys.readouterr()

    return run


def packed(*bodies: str) -> tuple[bytes, list[int]]:
    """Return records as the sink ``otlp`` spools them."""
    otlp: Any = sink_of("otlp:http://localhost:4318", Settings())
    sink = as_durable(otlp)
    assert sink is not None
    items = [sink.encode(LogRecord(body=body, severity_number=9)) for body in bodies]
    return sink.pack(items), [9] * len(bodies)


def configured(name: str) -> str:
    """Return the destination of the configured sink of this name; "" if there is none."""
    sinks = configured_sinks(Settings())
    durable = as_durable(sinks[name]) if name in sinks else None
    return destination_of(durable) if durable is not None else ""


def make_spool(
    directory: Path, name: str = "otlp", wire_format: str = "otlp-protobuf", **more: Any
) -> Spool:
    """Return a spool in the shell's directory, for the configured sink of this name."""
    options = SpoolOptions(directory / "spool", min_free=0, segment_bytes=4096)
    more.setdefault("destination", configured(name))
    spool = Spool(name, wire_format, options, **more)
    spool.open()
    return spool


def leave(directory: Path, *batches: tuple[str, ...], **more: Any) -> Path:
    """Return the directory of a process that spooled these batches and died."""
    spool = make_spool(directory, **more)
    for batch in batches:
        spool.append(*packed(*batch))
    path = spool.directory
    assert path is not None
    crash(spool)
    return path


def refuse(directory: Path, *bodies: str, reason: str = "HTTP 400", credentials: str = "") -> None:
    """Put a batch in quarantine."""
    options = SpoolOptions(directory / "spool", min_free=0)
    quarantine = Quarantine(
        "otlp",
        "otlp-protobuf",
        options,
        destination=configured("otlp"),
        credentials=credentials,
    )
    assert quarantine.add(*packed(*bodies), reason)


def held(directory: Path) -> list[Scan]:
    """Return the scans of the quarantine's files."""
    return [found for one in survey(directory / "spool") for found in one.quarantine]
