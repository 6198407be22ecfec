"""Stores batches on disk that a backend has refused permanently, so that users can inspect them.

The files are named ``<directory>/<sink>/quarantine/<time ns>-<pid>-<random>.seg``, and have the
format that ``fapilog.spool.format`` describes.  Each frame also contains the backend's reason for
the refusal.  A file is open and locked only while a batch is added to it, so the command
``fapilog spool`` can show, replay or delete the file while the application runs.  Several
processes share the directory and its size limit, but they write to different files.
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
#: The seconds after which the size of the quarantine directory is measured again, because other
#: processes also add and delete files.
_MEASURE_EVERY: Final = 1.0
#: The maximum number of seconds to wait until another process unlocks a file.  A process that
#: adds a batch unlocks the file sooner.
_LOCK_TIME: Final = 2.0
_PAUSE: Final = 0.01


class Quarantine:
    """Adds batches to the quarantine of one sink.  Thread-safe.

    The directory is created for the first batch.  No file stays open between batches.

    Args:
        sink_name: the sink's name.
        wire_format: the name of the format in which batches are packed, 1 to 48 bytes long.
        options: the user's options; ``quarantine_bytes`` limits the size of the quarantine.
        destination: a description, without secrets, of where the sink sends records.
        credentials: the secrets that the sink sends.  Only a salted digest of them is written
            to disk.
        label: the sink's name in messages on standard error, by default ``sink_name``.
        now_ns: a function that returns the current time in nanoseconds since the Unix epoch;
            tests replace it.
        monotonic: a function that returns the time of a monotonic clock in seconds; tests
            replace it.

    Attributes:
        path: the quarantine's directory.

    Raises:
        ConfigurationError: the sink's name is empty or too long.
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
        """Reset the state in a forked child, so that it does not write to the parent's files."""
        self._lock = native.Lock()
        self._file: Path | None = None
        self._sequence = 0
        # The files that this process has created.  Each value consists of the result of
        # _directory_now() at the file's creation, and the number of records per severity.
        self._kept: dict[Path, tuple[object, Counter[int]]] = {}
        self._lost: Counter[int] = Counter()
        self._used = 0
        self._measured_at = self._synced_at = float("-inf")

    def add(self, body: bytes, severities: Sequence[int], reason: str) -> bool:
        """Write a batch to the quarantine.  Blocks on disk I/O; never raises.

        If the batch cannot be written, the reason is reported on standard error.

        Args:
            body: the packed batch.
            severities: the severity number of each record.
            reason: the backend's reason for the refusal.  Only the first 1000 characters are
                written.

        Returns:
            Whether the batch was written.
        """
        try:
            with self._lock:
                marks, reason = severity_bytes(severities), reason[:_MAX_REASON]
                try:
                    self._add(body, marks, reason)
                except FileNotFoundError:  # another program has removed the directory
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
                self._file = None  # the next batch begins a new file
                os.ftruncate(fd, before)
                raise
            self._used += size
            if self._file is not None:
                self._kept[self._file][1].update(severities)
            self._sync(fd, severities)
        finally:
            os.close(fd)  # closing the file also unlocks it

    def take_lost(self) -> list[int]:
        """Return the severity numbers of records that this process wrote and that are lost.

        Records are lost if another program has deleted or replaced the quarantine's directory.
        If only a file is missing, a user has replayed or deleted it, so its records are not lost.
        Never raises.  Blocks on disk I/O.

        Returns:
            One severity number per lost record.  The next call does not return the same records
            again.
        """
        if not self._lock.acquire(timeout=_PAUSE):
            return []  # another thread is adding a batch; the next call finds the loss
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
        """Return the device and inode numbers of the quarantine's directory, or None if missing.

        The result shows whether the directory has been deleted and created again.
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
        """Open and lock the file to which this process wrote the previous batch.

        Return its file descriptor, or None if a batch of ``size`` bytes needs a new file.
        """
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
            try_lock(fd)  # always succeeds, because the file is new
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
                self._file = None  # begin a new file: a failed sync leaves the content unknown
                announce(
                    f"quarantine sync {self._label}",
                    f"{self._label}: {self.path} may not survive a power failure: {error}",
                )


@dataclass(frozen=True)
class Refused:
    """A batch that the backend has refused, read from the quarantine.

    Attributes:
        time_ns: the time when the batch was added, in nanoseconds since the Unix epoch.
        reason: the backend's reason for the refusal.
        severities: the severity number of each record.
        body: the packed batch.
        sequence: the number of the batch in its file.
    """

    time_ns: int
    reason: str
    severities: bytes
    body: bytes
    sequence: int


def list_files(sink_directory: Path) -> list[Path]:
    """Return the paths of the files in a sink's quarantine, oldest first.

    Raises:
        OSError: the quarantine's directory exists but cannot be read.
    """
    path = sink_directory / NAME
    try:
        names = os.listdir(path)  # noqa: PTH208 - only names are needed
    except FileNotFoundError:
        return []
    own = [name for name in names if _FILE.fullmatch(name)]
    return [path / name for name in sorted(own, key=lambda name: int(name.partition("-")[0]))]


class QuarantineFile:
    """A file in the quarantine of a sink.

    Iteration yields the batches in the file.  As a context manager, the object locks the file;
    when the ``with`` block ends, it removes the batches that were passed to :meth:`settle`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy = path.with_name(path.name + ".new")
        self._settled: set[int] = set()
        self._fd = -1

    def scan(self) -> Scan:
        """Read the file and verify all checksums.  Blocks on disk I/O; never raises."""
        return scan(self.path, load=True)

    def __iter__(self) -> Iterator[Refused]:
        """Yield the batches in the file, except damaged batches.

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
            BlockingIOError: another process still holds the lock after two seconds.
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
        """Remove the batches that were passed to :meth:`settle`, and unlock the file.

        If the file contained only these batches, the file is deleted.
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
            return  # without the header, the wire format for a new file is unknown
        self._copy.unlink(missing_ok=True)  # a killed process may have left this file
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
        """Close the file if this is Windows, which cannot remove or replace an open file."""
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
