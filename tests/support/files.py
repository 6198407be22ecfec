"""Opens file sinks for a test and reads their files."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog.record import LogRecord
from fapilog.sinks.file import FileSink

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files and locks")


@contextlib.contextmanager
def file_sinks(path: Path) -> Iterator[Callable[..., FileSink]]:
    """Yield a function that opens file sinks, by default at ``path``; closes them at the end."""
    with contextlib.ExitStack() as stack:

        def make(where: Path = path, **options: Any) -> FileSink:
            sink = FileSink(where, **options)
            stack.callback(sink.close)
            sink.open()
            return sink

        yield make


def encoded(sink: FileSink, *bodies: Any) -> list[Any]:
    """Return one encoded record per body."""
    return [sink.encode(LogRecord(body=body)) for body in bodies]


def emit(sink: FileSink, *bodies: Any) -> None:
    """Write one record per body."""
    sink.send(encoded(sink, *bodies), 5.0)


def bodies(*files: Path) -> list[Any]:
    """Return the bodies in the files, compressed or not; every line must be JSON."""
    found = []
    for file in files:
        data = file.read_bytes()
        data = gzip.decompress(data) if file.suffix == ".gz" else data
        found += [json.loads(line)["body"] for line in data.splitlines() if line]
    return found


def rotated(path: Path) -> list[Path]:
    """Return the rotated files of a path, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-2*{path.suffix}*"))
