"""When a log file rotates, and which rotated files are compressed, kept and deleted.

The file sink renames its file to a name from here.  Compression and retention run on a
separate thread.  The directory holds all their state, so the next start finishes work
that a crash interrupted.
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
_CLOSE_WAIT: Final = 5.0  # seconds for which close() waits for the compression
_STOP_WAIT: Final = 0.1  # seconds that an abandoned compression takes to stop


@dataclass
class Rotation:
    """When a log file must rotate.

    Args:
        max_bytes: the size that the file must not exceed after a write, or None.
        every: the length of a period in seconds, or None.  Periods are counted from the
            Unix epoch, so hours and days are those of UTC.
    """

    max_bytes: int | None = None
    every: float | None = None
    _period: float = 0  # of this process's last write

    def is_due(self, file: os.stat_result, incoming: int, now: float) -> bool:
        """Whether ``file`` must rotate before ``incoming`` bytes are written to it.

        The file's modification time is the time of its last write, which other processes
        and the next start see too.
        """
        if file.st_size == 0:
            return False
        if self.max_bytes is not None and file.st_size + incoming > self.max_bytes:
            return True
        # The clock of a file server may be slow, so this process's own write counts too.
        return self.every is not None and now // self.every > max(
            file.st_mtime // self.every, self._period
        )

    def note_write(self, now: float) -> None:
        """Note that this process wrote to the file at ``now``."""
        if self.every is not None:
            self._period = now // self.every


@dataclass(frozen=True)
class Retention:
    """Which rotated files are kept; None sets no limit.

    Args:
        count: the number of files, the newest.
        age: the seconds since a file's rotation.
        size: the bytes of all files together.
    """

    count: int | None = None
    age: float | None = None
    size: int | None = None


class RotatedFile(NamedTuple):
    """A rotated file: its time (UTC, sortable), its path and its size in bytes."""

    stamp: str
    path: Path
    size: int


class Archive:
    """The rotated files of one log file: ``app-20261123T101500.123456Z.jsonl[.gz]``.

    Only regular files with exactly such a name count; the archive never touches other
    files in the directory.

    Args:
        path: the absolute path of the log file.
        compress: whether rotated files are compressed with gzip.
        retention: which rotated files are kept.
        clock: returns the seconds since the Unix epoch.

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
        # Requests to the thread, False for the last one; None if there is no thread.
        self._requests: native.SimpleQueue[bool] | None = None
        self._ended: native.SimpleQueue[None] = native.SimpleQueue()
        self._is_abandoned = False

    def new_path(self) -> Path:
        """Return an unused path for a file that is rotated now."""
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
        """Ask the thread to tidy, and start it if necessary.  Does not block or raise."""
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
                    "the next start does it",
                )
                return
            self._requests = requests
        self._requests.put(True)

    def close(self) -> None:
        """Tidy once more and stop; blocks up to 5 s, or a moment longer on a slow disk.

        The next start finishes a compression that takes longer.
        """
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
        """Wait until the thread has ended; False at the time limit."""
        try:
            self._ended.get(timeout=seconds)
        except native.Empty:
            return False
        return True

    def after_fork(self) -> None:
        """Forget the thread, which exists in the parent only."""
        self._requests = None

    def tidy(self) -> None:
        """Compress the files that are not compressed, then delete those not to be kept.

        Blocks for as long as compression takes.  Never raises: failures are announced,
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
                while goes_on and not requests.empty():  # one tidy() for all of them
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
        """Delete partial compressions whose source is gone: a crash left them."""
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
            # Only one of the processes that share the log file compresses it.  If another
            # one has finished, the path no longer names the open file.
            if not try_lock_if_possible(fd) or not is_at(path, os.fstat(fd)):
                return
            unfinished = _with(path, ".gz.tmp")
            try:
                if self._write_gzip(source, unfinished):
                    unfinished.replace(_with(path, ".gz"))
                    if sys.platform == "win32":
                        source.close()  # Windows removes no open file
                    path.unlink(missing_ok=True)
            finally:
                unfinished.unlink(missing_ok=True)

    def _write_gzip(self, source: BinaryIO, path: Path) -> bool:
        """Compress ``source`` to ``path``; False if close() abandoned it."""
        path.unlink(missing_ok=True)  # a crash left it, as this process has the source's lock
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
