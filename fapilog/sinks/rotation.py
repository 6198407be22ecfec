"""When a log file rotates, and what becomes of the rotated files.

The file sink renames its file to a name from here and forgets it; compression
and retention run on a thread of their own, off the record's way.  All their
state is the directory itself, so the next start finishes what a crash left.
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
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.native import monotonic
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

_CHUNK: Final = 1 << 18  # bytes compressed between two looks at close()
_CLOSE_WAIT: Final = 5.0  # seconds close() lets compression go on
_STOP_WAIT: Final = 0.1  # seconds it then takes to stop
_POLL: Final = 0.001


@dataclass
class Rotation:
    """When a file is due.

    Args:
        max_bytes: the size a write must not take the file past, or None.
        every: length of a period in seconds, or None.  Periods are counted
            from the Unix epoch, so hours and days are those of UTC.
    """

    max_bytes: int | None = None
    every: float | None = None
    _period: float = 0  # of this process's last write

    def is_due(self, file: os.stat_result, incoming: int, now: float) -> bool:
        """Whether ``file`` must rotate before ``incoming`` bytes are written to it.

        When it was last written its modification time says, which other
        processes and the next start know too.
        """
        if file.st_size == 0:
            return False
        if self.max_bytes is not None and file.st_size + incoming > self.max_bytes:
            return True
        # A file server's clock may be behind: what this process wrote counts too.
        return self.every is not None and now // self.every > max(
            file.st_mtime // self.every, self._period
        )

    def note_write(self, now: float) -> None:
        """Note that the file was written at ``now``."""
        if self.every is not None:
            self._period = now // self.every


@dataclass(frozen=True)
class Retention:
    """What is kept of rotated files; None keeps all.

    Args:
        count: how many files, the newest.
        age: seconds since a file's rotation.
        size: bytes of all files together.
    """

    count: int | None = None
    age: float | None = None
    size: int | None = None


class RotatedFile(NamedTuple):
    """A rotated file: when (UTC, sorts by time), where, and its bytes."""

    stamp: str
    path: Path
    size: int


class Archive:
    """The rotated files of one log file: ``app-20261123T101500.123456Z.jsonl[.gz]``.

    Only regular files of exactly such a name count; nothing else in the
    directory is ever touched.

    Args:
        path: the log file, absolute.
        compress: whether rotated files are compressed with gzip.
        retention: which rotated files are deleted.
        clock: seconds since the Unix epoch.

    ``tidy`` runs on the thread that ``wake`` starts; all else belongs to the
    sink's thread.
    """

    def __init__(
        self, path: Path, *, compress: bool, retention: Retention, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._has_thread = False
        self._name = re.compile(
            re.escape(path.stem)
            + r"-([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)"
            + re.escape(path.suffix)
            + r"(|\.gz|\.gz\.tmp)"
        )
        self._compress = compress
        self._retention = retention
        self._clock = clock
        self._start_afresh()

    def new_path(self) -> Path:
        """Return a path for a file rotated now, where no file is."""
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
            with contextlib.suppress(FileNotFoundError):  # another process tidies too
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append(RotatedFile(match[1], path, status.st_size))
        return sorted(found)

    def wake(self) -> None:
        """Have the rotated files tidied soon, or by the next start.  Does not block or raise."""
        if not self._compress and self._retention == Retention():
            return
        self._work.put(None)
        if self._has_thread:
            return
        self._has_ended = False
        try:
            native.start_thread(self._run, "fapilog-archive")
        except (RuntimeError, MemoryError) as error:  # an ending interpreter has none, from 3.12 on
            announce(f"archive {self._path}", f"rotated files of {self._path} wait: {error}")
            return
        self._has_thread = True

    def close(self) -> None:
        """Tidy once more and stop; blocks up to 5 s, or a moment longer on a slow disk.

        A compression that takes longer is left to the next start.
        """
        if not self._has_thread:
            return
        self._is_closing = True
        self._work.put(None)
        if not self._wait(_CLOSE_WAIT):
            self._is_abandoned = True
            self._wait(_STOP_WAIT)
            announce(
                f"archive {self._path}",
                f"compression of rotated files of {self._path} is left to the next start",
            )
        self._has_thread = False

    def _wait(self, seconds: float) -> bool:
        """Wait until the thread has ended; False at the time limit."""
        deadline = monotonic() + seconds
        while not self._has_ended and monotonic() < deadline:
            native.pause(_POLL)
        return self._has_ended

    def after_fork(self) -> None:
        """Forget the thread, which is the parent's."""
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._has_thread = False
        self._is_closing = False
        self._is_abandoned = False
        self._has_ended = False
        self._work: native.SimpleQueue[None] = native.SimpleQueue()

    def tidy(self) -> None:
        """Compress what is not compressed, then delete what is not to be kept.

        Blocks for as long as compression takes.  Never raises: failures are
        announced and tried again next time.
        """
        self._attempt(self._remove_leftovers)
        if self._compress:
            self._attempt(self._compress_files)
        self._attempt(self._expire)

    def _run(self) -> None:
        is_last = False
        try:
            while not is_last:
                self._work.get()
                while not self._work.empty():  # many calls of wake() are one
                    self._work.get()
                is_last = self._is_closing
                self.tidy()
        finally:
            self._has_ended = True

    def _attempt(self, action: Callable[..., None], *args: Path) -> None:
        try:
            action(*args)
        except OSError as error:
            announce(f"archive {self._path}", f"rotated files of {self._path}: {error}")

    def _remove_leftovers(self) -> None:
        """Delete compressions a crash cut short whose source is gone."""
        for file in self.files(".gz.tmp"):
            if not os.path.lexists(file.path.with_suffix("").with_suffix("")):
                file.path.unlink(missing_ok=True)

    def _compress_files(self) -> None:
        for file in self.files(""):
            self._attempt(self._compress_file, file.path)

    def _compress_file(self, path: Path) -> None:
        try:
            fd = open_unplanted(path)
        except FileNotFoundError:  # another process was quicker
            return
        with os.fdopen(fd, "rb") as source:
            # Of the processes that share the log file one compresses; the
            # name tells whether another is done with it already.
            if not try_lock_if_possible(fd) or not is_at(path, os.fstat(fd)):
                return
            partial = _with(path, ".gz.tmp")
            try:
                if self._write_gzip(source, partial):
                    partial.replace(_with(path, ".gz"))
                    if sys.platform == "win32":
                        source.close()  # Windows removes no open file
                    path.unlink(missing_ok=True)
            finally:
                partial.unlink(missing_ok=True)

    def _write_gzip(self, source: BinaryIO, path: Path) -> bool:
        """Compress ``source`` to ``path``; False if abandoned on the way."""
        path.unlink(missing_ok=True)  # a crash left it: we have the lock of its source
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
