"""Decides when a log file rotates, compresses rotated files, and deletes old ones.

Compression and deletion run on a separate thread.  If a crash interrupts them, the next start
finishes them, because the names of the files show which files must be compressed or deleted.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.process.files import (
    APPEND,
    create_file,
    is_at,
    open_unplanted,
    try_lock_if_possible,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

_CLOSE_WAIT: Final = 5.0  # the maximum time that close() waits for the compression, in seconds


@dataclass
class Rotation:
    """Decides when a log file must rotate.

    Args:
        max_bytes: the maximum size of the file in bytes, or None for no limit.
        every: the rotation period in seconds, or None for no periodic rotation.  Periods are
            counted from the Unix epoch, so hours and days begin as in UTC.
        last_write: the time of this process's last write, in seconds since the Unix epoch.
    """

    max_bytes: int | None = None
    every: float | None = None
    last_write: float = field(default=0.0, compare=False)

    def is_due(self, file: os.stat_result, incoming: int, now: float) -> bool:
        """Return whether ``file`` must rotate before ``incoming`` more bytes are written to it.

        ``file`` is the result of ``os.stat`` for the log file, and ``now`` is the time in
        seconds since the Unix epoch.
        """
        if file.st_size == 0:
            return False
        if self.max_bytes is not None and file.st_size + incoming > self.max_bytes:
            return True
        if self.every is None:
            return False
        # The file's modification time includes the writes of other processes, but it may be too
        # early if a file server with a slow clock has set it.  So the time of this process's last
        # write is also used.
        last_write = max(file.st_mtime, self.last_write)
        return now // self.every > last_write // self.every


@dataclass(frozen=True)
class Retention:
    """Limits the number, age and size of the rotated files that are kept.  None means no limit.

    Args:
        count: the number of newest files to keep.
        age: the maximum time since a file's rotation, in seconds.
        size: the maximum total size of the files, in bytes.
    """

    count: int | None = None
    age: float | None = None
    size: int | None = None


class RotatedFile(NamedTuple):
    """A rotated file: the UTC rotation time from its name, its path and its size in bytes."""

    stamp: str
    path: Path
    size: int


class Archive:
    """The rotated files of one log file, such as ``app-20261123T101500.123456Z.jsonl[.gz]``.

    Files whose names do not have exactly this form are never compressed or deleted.

    Args:
        path: the absolute path of the log file.
        compress: whether rotated files are compressed with gzip.
        retention: the limits on the rotated files that are kept.
        clock: a function that returns the seconds since the Unix epoch.

    The thread that ``wake`` starts calls ``tidy``.  The sink's thread calls the other
    methods.
    """

    def __init__(
        self, path: Path, *, compress: bool, retention: Retention, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._name = re.compile(
            re.escape(path.stem)
            + r"-([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)"
            + re.escape(path.suffix)
            + r"(?:\.gz)?"
        )
        self._compress = compress
        self._retention = retention
        self._clock = clock
        # The archive's thread calls tidy() for each True in this queue, and ends when it gets
        # False.  None means that the thread does not run.
        self._requests: native.SimpleQueue[bool] | None = None
        self._ended: native.SimpleQueue[None] = native.SimpleQueue()

    def new_path(self) -> Path:
        """Return an unused path for the file that is about to be rotated."""
        moment = self._clock()
        while True:
            path = self._path.with_name(f"{self._path.stem}-{_stamp(moment)}{self._path.suffix}")
            if not os.path.lexists(path) and not os.path.lexists(_with(path, ".gz")):
                return path
            moment += 1e-6

    def files(self) -> list[RotatedFile]:
        """Return the rotated files, oldest first."""
        found = []
        for path in self._path.parent.iterdir():
            match = self._name.fullmatch(path.name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # another process has removed the file
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append(RotatedFile(match[1], path, status.st_size))
        return sorted(found)

    def wake(self) -> None:
        """Ask the archive's thread to call :meth:`tidy`, and start the thread if necessary.

        Does nothing if no option requires compression or deletion.  Never blocks or raises.
        """
        if not self._compress and self._retention == Retention():
            return
        if self._requests is None:
            self._attempt(self._start_thread)
        if self._requests is not None:
            self._requests.put(True)

    def _start_thread(self) -> None:
        requests: native.SimpleQueue[bool] = native.SimpleQueue()
        ended = self._ended = native.SimpleQueue()
        native.start_thread(partial(self._run, requests, ended), "fapilog-archive")
        self._requests = requests

    def close(self) -> None:
        """End the archive's thread after the work that ``wake`` requested.

        Blocks up to 5 s.
        """
        requests, self._requests = self._requests, None
        if requests is None:
            return
        requests.put(False)
        try:
            self._ended.get(timeout=_CLOSE_WAIT)
        except native.Empty:
            announce(
                f"archive {self._path}",
                f"the compression of rotated files of {self._path} takes too long; "
                "the next start finishes it",
            )

    def after_fork(self) -> None:
        """In a forked child, forget the thread, which exists only in the parent process."""
        self._requests = None

    def tidy(self) -> None:
        """Compress uncompressed rotated files, then delete files beyond the retention limits.

        Blocks until the compression has finished.  Never raises: failures are reported as
        diagnostic messages, and the next call tries again.
        """
        if self._compress:
            self._attempt(self._compress_files)
        self._attempt(self._expire)

    def _run(self, requests: native.SimpleQueue[bool], ended: native.SimpleQueue[None]) -> None:
        try:
            while requests.get():
                self.tidy()
        finally:
            ended.put(None)

    def _attempt(self, action: Callable[..., None], *args: Path) -> None:
        try:
            action(*args)
        # Starting a thread may raise RuntimeError.
        except (OSError, RuntimeError, MemoryError) as error:
            announce(
                f"archive {self._path}",
                f"cannot tidy the rotated files of {self._path}: {error}; "
                "the next rotation or start tries again",
            )

    def _compress_files(self) -> None:
        for file in self.files():
            if file.path.suffix != ".gz":
                self._attempt(self._compress_file, file.path)

    def _compress_file(self, path: Path) -> None:
        try:
            fd = open_unplanted(path)
        except FileNotFoundError:  # another process has compressed or deleted the file
            return
        with os.fdopen(fd, "rb") as source:
            # Another process may be compressing this file, or may have just removed it after
            # compressing it.
            if not try_lock_if_possible(fd) or not is_at(path, os.fstat(fd)):
                return
            unfinished = _with(path, ".gz.tmp")
            try:
                _write_gzip(source, unfinished)
                unfinished.replace(_with(path, ".gz"))
                if sys.platform == "win32":
                    source.close()  # Windows cannot remove an open file
                path.unlink(missing_ok=True)
            finally:
                unfinished.unlink(missing_ok=True)

    def _expire(self) -> None:
        keep = self._retention
        oldest = "" if keep.age is None else _stamp(max(self._clock() - keep.age, 0))
        total = 0
        for number, file in enumerate(reversed(self.files()), start=1):
            total += file.size
            if (
                file.stamp < oldest
                or (keep.count is not None and number > keep.count)
                or (keep.size is not None and total > keep.size)
            ):
                self._attempt(file.path.unlink)


def _write_gzip(source: BinaryIO, path: Path) -> None:
    path.unlink(missing_ok=True)  # a crash may have left an unfinished file at this path
    status = os.fstat(source.fileno())
    fd = create_file(path, APPEND, stat.S_IMODE(status.st_mode))
    with os.fdopen(fd, "wb") as target:
        with gzip.GzipFile("", "wb", fileobj=target, mtime=status.st_mtime) as compressed:
            shutil.copyfileobj(source, compressed)
        target.flush()
        os.fsync(fd)


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, tz=timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def _with(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
