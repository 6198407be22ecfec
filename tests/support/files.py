"""The file sink in the hands of a test."""

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
    """A function that opens file sinks, at ``path`` where nothing else is said; all are closed."""
    with contextlib.ExitStack() as stack:

        def make(where: Path = path, **options: Any) -> FileSink:
            sink = FileSink(where, **options)
            stack.callback(sink.close)
            sink.open()
            return sink

        yield make


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
