"""The file sink in the hands of a test."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from fapilog.record import LogRecord
from fapilog.sinks.file import FileSink


def encoded(sink: FileSink, *bodies: Any) -> list[Any]:
    """One encoded record a body."""
    return [sink.encode(LogRecord(body=body)) for body in bodies]


def emit(sink: FileSink, *bodies: Any) -> None:
    """Write one record a body."""
    sink.send(encoded(sink, *bodies), 5.0)


def bodies(*files: Path) -> list[Any]:
    """The bodies in the files, compressed or not; every line must be JSON."""
    found = []
    for file in files:
        data = file.read_bytes()
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        found += [json.loads(line)["body"] for line in data.splitlines() if line]
    return found


def rotated(path: Path) -> list[Path]:
    """The rotated files of a path, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-2*{path.suffix}*"))
