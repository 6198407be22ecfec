"""Decides when a log file rotates; compresses rotated files and deletes old ones.

The file sink gets the names of its rotated files from this module.  Compression and
deletion run on a separate thread.  Their whole state is in the directory, so the next
start finishes work that a crash interrupted.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import stat
import sys
from dataclasses import dataclass
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

_CHUNK: Final = 1 << 18  # bytes compressed between two checks for close()
_CLOSE_WAIT: Final = 5.0  # maximum seconds that close() waits for the compression
_STOP_WAIT: Final = 0.1  # maximum seconds that an abandoned compression takes to stop


@dataclass
class Rotation:
    """Decides when a log file must rotate.

    Args:
        max_bytes: the maximum size of the file in bytes; None for no limit.
        every: the rotation period in seconds; None for no periodic rotation.  Periods are
            counted from the Unix epoch, so hours and days begin as in UTC.
    """

    max_bytes: int | None = None
    every: float | None = None
    _period: float = 0  # the period of this process's last write

    def is_due(self, file: os.stat_result, incoming: int, now: float) -> bool:
        """Return whether ``file`` must rotate before ``incoming`` bytes are written to it.

        The time of the last write is the file's modification time, which other processes
        and the next start can also read.
        """
        if file.st_size == 0:
            return False
        if self.max_bytes is not None and file.st_size + incoming > self.max_bytes:
            return True
        # A file server's clock may be slow, so the last write of this process also counts.
        return self.every is not None and now // self.every > max(
            file.st_mtime // self.every, self._period
        )

    def note_write(self, now: float) -> None:
        """Record that this process wrote to the file at ``now``."""
        if self.every is not None:
            self._period = now // self.every


@dataclass(frozen=True)
class Retention:
    """The limits on the rotated files that are kept; None means no limit.

    Args:
        count: the number of newest files to keep.
        age: the maximum time since a file's rotation, in seconds.
        size: the maximum total size of the files, in bytes.
    """

    count: int | None = None
    age: float | None = None
    size: int | None = None


class RotatedFile(NamedTuple):
    """A rotated file: its rotation time (UTC, sortable), its path and its size in bytes."""

    stamp: str
    path: Path
    size: int


class Archive:
    """The rotated files of one log file: ``app-20261123T101500.123456Z.jsonl[.gz]``.

    The archive contains only regular files whose names have exactly this form.  It never
    touches other files in the directory.

    Args:
        path: the absolute path of the log file.
        compress: whether rotated files are compressed with gzip.
        retention: the limits on the rotated files that are kept.
        clock: a function that returns the seconds since the Unix epoch.

    ``tidy`` runs on the thread that ``wake`` starts.  The sink's thread calls the other
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
            + r"(|\.gz|\.gz\.tmp)"
        )
        self._compress = compress
        self._retention = retention
        self._clock = clock
        # The requests to the thread, of which the last is False; None without a thread.
        self._requests: native.SimpleQueue[bool] | None = None
        self._ended: native.SimpleQueue[None] = native.SimpleQueue()
        self._is_abandoned = False

    def new_path(self) -> Path:
        """Return an unused path for the file that is about to be rotated."""
        moment = self._clock()
        while True:
            path = self._path.with_name(f"{self._path.stem}-{_stamp(moment)}{self._path.suffix}")
            if not os.path.lexists(path) and not os.path.lexists(_with(path, ".gz")):
                return path
            moment += 1e-6

    def files(self, *endings: str) -> list[RotatedFile]:
        """Return the rotated files with one of ``endings``, oldest first."""
        found = []
        for path in self._path.parent.iterdir():
            match = self._name.fullmatch(path.name)
            if match is None or match[2] not in endings:
                continue
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append(RotatedFile(match[1], path, status.st_size))
        return sorted(found)

    def wake(self) -> None:
        """Make the thread call :meth:`tidy`; start it if necessary.  Never blocks or raises."""
        if not self._compress and self._retention == Retention():
            return
        if self._requests is None:
            self._is_abandoned = False
            requests: native.SimpleQueue[bool] = native.SimpleQueue()
            ended = self._ended = native.SimpleQueue()
            try:
                native.start_thread(partial(self._run, requests, ended), "fapilog-archive")
            except (RuntimeError, MemoryError) as error:  # the interpreter may be ending
                announce(
                    f"archive {self._path}",
                    f"cannot tidy the rotated files of {self._path}: {error}; "
                    "the next start tries again",
                )
                return
            self._requests = requests
        self._requests.put(True)

    def close(self) -> None:
        """Tidy once more and stop the thread.  Blocks up to about 5 s for the compression."""
        requests, self._requests = self._requests, None
        if requests is None:
            return
        requests.put(False)
        if not self._has_ended(_CLOSE_WAIT):
            self._is_abandoned = True
            self._has_ended(_STOP_WAIT)
            announce(
                f"archive {self._path}",
                f"the compression of rotated files of {self._path} takes too long; "
                "the next start finishes it",
            )

    def _has_ended(self, seconds: float) -> bool:
        """Wait until the thread has ended; return False if it has not ended in time."""
        try:
            self._ended.get(timeout=seconds)
        except native.Empty:
            return False
        return True

    def after_fork(self) -> None:
        """Forget the thread, which exists in the parent only."""
        self._requests = None

    def tidy(self) -> None:
        """Compress uncompressed rotated files, then delete files beyond the retention limits.

        Blocks until the compression has finished.  Never raises: failures are announced,
        and the next call tries again.
        """
        self._attempt(self._remove_leftovers)
        if self._compress:
            self._attempt(self._compress_files)
        self._attempt(self._expire)

    def _run(self, requests: native.SimpleQueue[bool], ended: native.SimpleQueue[None]) -> None:
        goes_on = True
        try:
            while goes_on:
                goes_on = requests.get()
                while goes_on and not requests.empty():  # one tidy() serves all requests
                    goes_on = requests.get()
                self.tidy()
        finally:
            ended.put(None)

    def _attempt(self, action: Callable[..., None], *args: Path) -> None:
        try:
            action(*args)
        except OSError as error:
            announce(
                f"archive {self._path}", f"cannot tidy the rotated files of {self._path}: {error}"
            )

    def _remove_leftovers(self) -> None:
        """Delete partial compressions left by a crash, if their source no longer exists."""
        for file in self.files(".gz.tmp"):
            if not os.path.lexists(file.path.with_suffix("").with_suffix("")):
                file.path.unlink(missing_ok=True)

    def _compress_files(self) -> None:
        for file in self.files(""):
            self._attempt(self._compress_file, file.path)

    def _compress_file(self, path: Path) -> None:
        try:
            fd = open_unplanted(path)
        except FileNotFoundError:  # another process was faster
            return
        with os.fdopen(fd, "rb") as source:
            # Only one of the processes that share the log file compresses a rotated file.
            # If another process has finished, the path no longer names the open file.
            if not try_lock_if_possible(fd) or not is_at(path, os.fstat(fd)):
                return
            unfinished = _with(path, ".gz.tmp")
            try:
                if self._write_gzip(source, unfinished):
                    unfinished.replace(_with(path, ".gz"))
                    if sys.platform == "win32":
                        source.close()  # Windows cannot remove an open file
                    path.unlink(missing_ok=True)
            finally:
                unfinished.unlink(missing_ok=True)

    def _write_gzip(self, source: BinaryIO, path: Path) -> bool:
        """Compress ``source`` to ``path``; return False if close() abandoned it."""
        # This process has the source's lock, so an existing file was left by a crash.
        path.unlink(missing_ok=True)
        status = os.fstat(source.fileno())
        fd = create_file(path, APPEND, stat.S_IMODE(status.st_mode))
        with os.fdopen(fd, "wb") as target:
            with gzip.GzipFile("", "wb", fileobj=target, mtime=status.st_mtime) as compressed:
                while chunk := source.read(_CHUNK):
                    if self._is_abandoned:
                        return False
                    compressed.write(chunk)
            target.flush()
            os.fsync(fd)
        return True

    def _expire(self) -> None:
        keep = self._retention
        oldest = "" if keep.age is None else _stamp(max(self._clock() - keep.age, 0))
        total = 0
        for number, file in enumerate(reversed(self.files("", ".gz")), start=1):
            total += file.size
            if (
                file.stamp < oldest
                or (keep.count is not None and number > keep.count)
                or (keep.size is not None and total > keep.size)
            ):
                self._attempt(file.path.unlink)


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, tz=timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def _with(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
