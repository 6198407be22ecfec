"""Spools for tests, and disks that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog.spool import Frame, Spool, SpoolOptions

FORMAT = "test-lines"

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX system calls")
ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux, to mount and chown"
)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


def options(directory: Path, **more: Any) -> SpoolOptions:
    """Return options with small segments and without a limit for the free space."""
    return SpoolOptions(directory, **{"min_free": 0, "segment_bytes": 4096, **more})


def make_spool(
    directory: Path,
    *,
    name: str = "otlp",
    wire_format: str = FORMAT,
    cache_bytes: int = 0,
    clock: Any = None,
    **more: Any,
) -> Spool:
    """Return an open spool without a cache, so that every batch is read from the disk."""
    clocks = {} if clock is None else {"monotonic": clock}
    spool = Spool(name, wire_format, options(directory, **more), cache_bytes=cache_bytes, **clocks)
    spool.open()
    return spool


def crash(spool: Spool) -> None:
    """End a spool as SIGKILL does: descriptors and locks go, no file changes."""
    spool.after_fork()
    spool.close()


def put(spool: Spool, *bodies: Any, severity: int = 9) -> list[Frame]:
    """Append a batch of one record per body."""
    return [spool.append(str(body).encode(), [severity]) for body in bodies]


def read_all(spool: Spool) -> list[Frame]:
    """Return all frames that can be read now."""
    frames = []
    while frame := spool.read():
        frames.append(frame)
    return frames


def bodies(frames: list[Frame]) -> list[str]:
    """Return the batches as text."""
    return [frame.body.decode() for frame in frames]


def drain(spool: Spool) -> list[str]:
    """Read and settle all frames that can be read now; return them as text."""
    frames = read_all(spool)
    for frame in frames:
        spool.ack(frame)
    return bodies(frames)


def adopt(directory: Path, **more: Any) -> Spool:
    """Return a spool that has adopted the directories of dead processes."""
    spool = make_spool(directory, **more)
    spool.adopt()
    return spool


def files(directory: Path) -> list[str]:
    """Return the names of all files below a directory."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def segments(directory: Path) -> list[Path]:
    """Return all segments below a directory."""
    return sorted(directory.rglob("*.seg"))


@contextlib.contextmanager
def small_disk(path: Path, *options: str) -> Iterator[Path]:
    """Mount a file system of 1 MiB; skip the test if mounting is not permitted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=1m", *options)), "none", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def failing_once(monkeypatch: Any, name: str, error: OSError, *, before: Any = None) -> None:
    """Make one call of ``os.<name>`` fail, after ``before`` was called with its arguments."""
    real, left = getattr(os, name), [error]

    def call(*arguments: Any) -> Any:
        if left:
            if before is not None:
                before(real, *arguments)
            raise left.pop()
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


def failing(error: Exception) -> Any:
    """Return a function that always raises ``error``."""

    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise error

    return fail
