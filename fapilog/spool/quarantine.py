"""Keeps batches on disk that a backend refuses permanently, so that users can inspect them.

A file ``<directory>/<sink>/quarantine/<time ns>-<pid>-<random>.seg`` has the format of a
segment.  Each frame also contains the backend's reason.  The file is open and locked
only while a batch is added, so the command line can show, replay or delete the file while the
service runs.  Several processes share the directory and its size limit; each process writes
its own files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import Self

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.native import monotonic
from fapilog.process.files import (
    APPEND,
    UPDATE,
    create_file,
    is_at,
    make_private_directory,
    open_file,
    size_of,
    sync_data,
    try_lock,
    write_whole,
)
from fapilog.severity import FATAL
from fapilog.spool.credentials import Credentials, mark_beside, write_mark
from fapilog.spool.directory import Owner, make_sink_directory
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    MAX_FRAME,
    SEGMENT_HEADER_SIZE,
    SegmentFile,
    format_id,
    pack_frame,
    pack_segment_header,
    severity_bytes,
)
from fapilog.spool.options import Space, SpoolFullError
from fapilog.spool.scan import Damage, Scan, scan, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from fapilog.spool.options import SpoolOptions

NAME: Final = "quarantine"
_FILE: Final = re.compile(r"\d{1,20}-\d{1,10}-[0-9a-f]{8}\.seg", re.ASCII)
_MAX_FILE: Final = 1 << 20
_MAX_REASON: Final = 1000
#: The directory's size is measured again after this many seconds, because other processes
#: also add and delete files.
_MEASURE_EVERY: Final = 1.0
#: The seconds to wait for a file's lock.  A process that adds a batch holds the lock briefly.
_LOCK_TIME: Final = 2.0
_PAUSE: Final = 0.01


# ---- adding batches


class Quarantine:
    """Adds batches to the quarantine of one sink.  Thread-safe.

    The directory is created for the first batch.  No file stays open between batches.

    Args:
        sink_name: the sink's name.
        wire_format: the name of the packed batches' format, 1 to 48 bytes.
        options: the user's options; ``quarantine_bytes`` limits the size of the quarantine.
        destination: a description without secrets of where the sink sends records.
        credentials: the secrets that the sink sends; only a salted digest of them is written
            to disk.
        label: the sink's name in announcements, by default ``sink_name``.
        now_ns: the clock, in nanoseconds since the Unix epoch; tests replace it.
        monotonic: the clock that measures intervals, in seconds; tests replace it.

    Attributes:
        path: the quarantine's directory.

    Raises:
        ConfigurationError: the sink's name cannot be used.
    """

    def __init__(
        self,
        sink_name: str,
        wire_format: str,
        options: SpoolOptions,
        *,
        destination: str = "",
        credentials: str = "",
        label: str | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._owner = Owner(sink_name, wire_format, destination)
        self._credentials = Credentials(credentials)
        self._label = label or sink_name
        self._identity = format_id(wire_format)
        self._options = options
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._sink_path = options.directory.absolute() / self._owner.directory
        self.path = self._sink_path / NAME
        cap = options.quarantine_bytes
        self._space = Space(self.path, cap, "quarantine_bytes", options.min_free)
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's files, so that a forked child writes its own files."""
        self._lock = native.Lock()
        self._file: Path | None = None
        self._sequence = 0
        # For each file of this process: the result of _directory_now() when the file was
        # created, and the number of records per severity.
        self._kept: dict[Path, tuple[object, Counter[int]]] = {}
        self._lost: Counter[int] = Counter()
        self._used = 0
        self._measured_at = self._synced_at = float("-inf")

    def add(self, body: bytes, severities: Sequence[int], reason: str) -> bool:
        """Write a batch, or announce why this is not possible.  Blocks on disk I/O; never raises.

        Args:
            body: the packed batch.
            severities: the severity number of each record.
            reason: the backend's reason for the refusal, cut to 1000 characters.

        Returns:
            Whether the batch was written.
        """
        try:
            with self._lock:
                marks, reason = severity_bytes(severities), reason[:_MAX_REASON]
                try:
                    self._add(body, marks, reason)
                except FileNotFoundError:  # another program removed the directory: recreate it
                    self._measured_at = float("-inf")
                    self._add(body, marks, reason)
        except (OSError, SpoolFullError) as error:
            why = getattr(error, "strerror", None) or error
            announce(f"quarantine {self._label}", f"{self._label}: no room in quarantine: {why}")
            return False
        return True

    def _add(self, body: bytes, severities: bytes, reason: str) -> None:
        now = self._now_ns()
        meta = len(severities) + len(reason.encode("utf-8", "replace"))
        size = FRAME_HEADER_SIZE + meta + len(body)
        if size > MAX_FRAME:
            msg = f"a batch of {size} bytes is larger than a frame may be ({MAX_FRAME} bytes)"
            raise SpoolFullError(msg)
        self._check_room(size + SEGMENT_HEADER_SIZE)
        fd = self._reopen(size)
        if fd is None:
            self._sequence = 0
            fd = self._begin(now)
        self._sequence += 1
        parts = pack_frame(self._identity, self._sequence, now, severities, body, reason=reason)
        try:
            before = os.fstat(fd).st_size
            try:
                write_whole(fd, parts)
            except OSError:
                self._file = None  # the next batch goes to a new file
                os.ftruncate(fd, before)
                raise
            self._used += size
            if self._file is not None:
                self._kept[self._file][1].update(severities)
            self._sync(fd, severities)
        finally:
            os.close(fd)  # this also releases the lock

    def take_lost(self) -> list[int]:
        """Return the severities of the records that were lost with the quarantine's directory.

        The list has one number per record, and each lost record is returned only once.  If
        only a file is missing, a user has replayed or deleted it, so its records do not count
        as lost.  Never raises.  Blocks while it reads the status of some files.
        """
        if not self._lock.acquire(timeout=_PAUSE):
            return []  # nothing is lost: another thread is adding a batch to the directory
        try:
            self._find_lost()
            lost, self._lost = self._lost, Counter()
        finally:
            self._lock.release()
        return list(lost.elements())

    def _find_lost(self) -> None:
        identity = self._directory_now()
        for path, (directory, severities) in list(self._kept.items()):
            if directory != identity and not os.path.lexists(path):
                self._lost.update(severities)
                del self._kept[path]

    def _directory_now(self) -> object:
        """Return the directory's device and inode numbers, or None if it is missing.

        If the directory is deleted and created again, the result changes.
        """
        with contextlib.suppress(OSError):
            status = self.path.stat()
            return status.st_dev, status.st_ino
        return None

    def _check_room(self, wanted: int) -> None:
        now = self._monotonic()
        if now - self._measured_at >= _MEASURE_EVERY:
            self._find_lost()
            make_sink_directory(self._sink_path, self._owner)
            make_private_directory(self.path)
            self._used = sum(map(size_of, list_files(self._sink_path)))
            self._measured_at = now
        self._space.check(self._used, wanted)

    def _reopen(self, size: int) -> int | None:
        """Open and lock this process's current file.  Return None if a new file is needed."""
        path = self._file
        if path is None:
            return None
        try:
            fd = open_file(path, APPEND)
        except FileNotFoundError:
            return None  # a user has replayed or deleted the file
        status = os.fstat(fd)
        with contextlib.suppress(OSError):
            if status.st_size + size <= _MAX_FILE and try_lock(fd) and is_at(path, status):
                return fd
        os.close(fd)
        return None

    def _begin(self, now: int) -> int:
        path = self.path / f"{now}-{os.getpid()}-{secrets.token_hex(4)}.seg"
        fd = create_file(path, APPEND)
        try:
            try_lock(fd)  # always succeeds, because no other process knows the file yet
            write_mark(mark_beside(path), self._credentials.mark)
            write_whole(fd, (pack_segment_header(1, now, self._owner.wire_format),))
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                mark_beside(path).unlink(missing_ok=True)
                path.unlink()
            raise
        self._file = path
        self._kept[path] = (self._directory_now(), Counter())
        self._used += SEGMENT_HEADER_SIZE
        return fd

    def _sync(self, fd: int, severities: bytes) -> None:
        now = self._monotonic()
        if (
            self._options.sync == "always"
            or max(severities, default=0) >= FATAL
            or now - self._synced_at >= self._options.sync_interval
        ):
            self._synced_at = now
            try:
                sync_data(fd)
            except OSError as error:
                self._file = None  # start a new file: what a failed sync wrote is unknown
                announce(
                    f"quarantine sync {self._label}",
                    f"{self._label}: {self.path} may not survive a power failure: {error}",
                )


# ---- reading and removing batches


@dataclass(frozen=True)
class Refused:
    """One batch in quarantine.

    Attributes:
        time_ns: the time when the batch was added, in nanoseconds since the Unix epoch.
        reason: the backend's reason for the refusal.
        severities: the severity number of each record.
        body: the packed batch.
        sequence: the number of the batch, which is unique in its file.
    """

    time_ns: int
    reason: str
    severities: bytes
    body: bytes
    sequence: int


def list_files(sink_directory: Path) -> list[Path]:
    """Return the files of a sink's quarantine, oldest first.

    Raises:
        OSError: the quarantine exists but cannot be read.
    """
    path = sink_directory / NAME
    try:
        names = os.listdir(path)  # noqa: PTH208 - only names are needed
    except FileNotFoundError:
        return []
    own = [name for name in names if _FILE.fullmatch(name)]
    return [path / name for name in sorted(own, key=lambda name: int(name.partition("-")[0]))]


class QuarantineFile:
    """A file of a quarantine.

    Iteration yields the batches.  As a context manager, the object locks the file, and on exit
    it removes the batches that were passed to :meth:`settle`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy = path.with_name(path.name + ".new")
        self._settled: set[int] = set()
        self._fd = -1

    def scan(self) -> Scan:
        """Read the file and check every payload.  Never raises; blocks on disk I/O."""
        return scan(self.path, load=True)

    def __iter__(self) -> Iterator[Refused]:
        """Yield the undamaged batches.

        Raises:
            OSError: the file cannot be read.
        """
        with contextlib.closing(SegmentFile(self.path)) as file:
            found = scan(self.path)
            if not found.is_readable:
                return
            for one in walk(file, found.start, found.size, load=True):
                if not isinstance(one, Damage) and one.payload is not None:
                    marks, reason, body = one.payload
                    yield Refused(one.header.time_ns, reason, marks, body, one.header.sequence)

    def __enter__(self) -> Self:
        """Lock the file.  Blocks for up to two seconds while another process holds the lock.

        Raises:
            BlockingIOError: another process still holds the lock.
            OSError: the file was removed or cannot be opened.
        """
        self._fd = open_file(self.path, UPDATE)
        try:
            until = monotonic() + _LOCK_TIME
            while not try_lock(self._fd):
                if monotonic() >= until:
                    raise BlockingIOError(errno.EAGAIN, "in use by another process")
                native.sleep(_PAUSE)
            if not is_at(self.path, os.fstat(self._fd)):
                raise FileNotFoundError(errno.ENOENT, "emptied by another process")
        except OSError:
            os.close(self._fd)
            raise
        return self

    def settle(self, refused: Refused) -> None:
        """Remove the batch ``refused`` from the file when the ``with`` block ends."""
        self._settled.add(refused.sequence)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the settled batches, and unlock the file.

        If no other batch is left, the file is removed.
        """
        try:
            if self._settled:
                self._rewrite()
        finally:
            if self._fd >= 0:
                os.close(self._fd)

    def _rewrite(self) -> None:
        found = scan(self.path)
        if found.frames <= len(self._settled):
            self.remove()
            return
        if found.header is None:
            return  # the batches cannot be copied without the wire format
        self._copy.unlink(missing_ok=True)  # a replay that was killed may have left this file
        wire_format = found.header.wire_format
        fd = create_file(self._copy, APPEND)
        try:
            write_whole(fd, [pack_segment_header(1, found.header.time_ns, wire_format)])
            for one in self:
                if one.sequence not in self._settled:
                    where = (format_id(wire_format), one.sequence, one.time_ns)
                    write_whole(fd, pack_frame(*where, one.severities, one.body, reason=one.reason))
            sync_data(fd)
        except OSError:
            self._copy.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        self._close_on_windows()
        self._copy.replace(self.path)

    def _close_on_windows(self) -> None:
        """On Windows, close the file, because open files cannot be removed or replaced there."""
        if os.name == "nt":
            fd, self._fd = self._fd, -1
            os.close(fd)

    def move(self, path: Path) -> None:
        """Move the locked file and its credentials digest to ``path``.

        Raises:
            OSError: the file cannot be moved.
        """
        self._close_on_windows()
        mark = mark_beside(self.path)
        if mark.exists():
            mark.rename(mark_beside(path))
        self.path.rename(path)

    def remove(self) -> None:
        """Remove the locked file and its credentials digest.

        Raises:
            OSError: the file cannot be removed.
        """
        self._close_on_windows()
        self._copy.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        mark_beside(self.path).unlink(missing_ok=True)
