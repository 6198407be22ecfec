"""Defines ``FileSink``, which appends records to a log file and rotates the file.

Other processes may write to the same file, and logrotate may rename it.  So for every batch, the
sink locks the open file, and checks that the configured path still refers to this file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.errors import RetryableError
from fapilog.native import monotonic
from fapilog.options.checks import (
    NONE,
    SECONDS,
    Rule,
    absolute_path,
    check_all,
    one_of,
    refuse,
    whole,
)
from fapilog.process.files import (
    APPEND,
    PlantedFileError,
    create_file,
    is_at,
    make_directories,
    open_unplanted,
    read_at,
    sync_directory,
    try_lock_if_possible,
    unlock,
)
from fapilog.protocols import BatchLimits, Sink
from fapilog.sinks.lines import Progress, json_line, portions, split_written, without_commands
from fapilog.sinks.rotation import Archive, Retention, Rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from fapilog.record import LogRecord, Resource, Scope

    #: The result of ``FileSink.encode``: a JSON line; or in the format ``otlp``, the record's
    #: resource and scope, and the record as a JSON object.
    Item: TypeAlias = bytes | tuple[Resource, Scope, bytes]

_OPEN_ATTEMPTS: Final = 10
_PAUSE: Final = 0.001  # seconds between two attempts to lock the file
_NEXT_TRY: Final = 30.0  # seconds before a failed rotation is tried again
_PERIODS: Final = {"hour": 3600.0, "day": 86400.0}  # the lengths in seconds

_RULES: Final[Mapping[str, Rule]] = {
    "path": Rule(
        lambda value: not str(value).endswith(".gz"),
        "a name without .gz; compress='gzip' compresses rotated files",
    ),
    "format": one_of("json", "otlp"),
    "max_bytes": whole(1, unit="bytes") | NONE,
    "rotate_every": one_of(*_PERIODS) | SECONDS | NONE,
    "compress": one_of("gzip") | NONE,
    "keep_count": whole(unit="files") | NONE,
    "keep_age": SECONDS | NONE,
    "keep_bytes": whole(unit="bytes") | NONE,
    "mode": Rule(whole(0, 0o777).accepts, "permission bits from 0 to 0o777"),
}


class FileSink(Sink["Item"]):
    """Appends records to a file: one line per record (JSON) or per batch (OTLP).

    Several processes may write to the same file: each process appends complete lines while
    it has an advisory lock on the file, and only one of them rotates the file.  On Windows,
    which has no advisory locks, only one process may use the file.  If another program
    renames or removes the file, the sink notices this at the next batch, and opens or creates
    the file at ``path``.  Do not use logrotate's option ``copytruncate``: lines written
    between the copy and the truncation are lost, and the sink cannot count them.  With
    logrotate's option ``create``, no line is lost.  If a full disk or a crash leaves a line
    unfinished, the next record begins on a new line.

    Args:
        path: the path of the file.  Missing directories are created with mode 0700.  The
            file must not be a symbolic link, but its directory may be a symbolic link.
        format: the line format: ``"json"`` (see :func:`fapilog.sinks.lines.json_line`), or
            ``"otlp"``, the OTLP file format
            (https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/).
        max_bytes: the maximum size of the file in bytes, or None for no limit.  The file
            rotates before it exceeds this size, unless a single line is longer.
        rotate_every: the rotation period: a number of seconds, ``"hour"``, ``"day"``, or
            None for no periodic rotation.  Periods are counted from the Unix epoch, so hours
            and days begin as in UTC.  The file rotates at the first record of a new period.
        compress: the compression of rotated files, ``"gzip"`` or None.  A separate thread
            compresses the files.
        keep_count: the number of newest rotated files to keep, or None for all.
        keep_age: the maximum age of a rotated file in seconds, or None for no limit.
        keep_bytes: the maximum total size of the rotated files in bytes, or None for no
            limit.
        mode: the permission bits of files that this sink creates, regardless of the umask;
            the bits of an existing file do not change.
        fsync: whether ``os.fsync`` is called for every batch before the batch is reported as
            delivered.
        name: the sink's name in statistics and diagnostic messages.
        clock: a function that returns the seconds since the Unix epoch, for tests.

    The name of a rotated file contains the rotation time:
    ``app-20261123T101500.123456Z.jsonl``.  Only files whose names have exactly this form are
    compressed and deleted.
    """

    limits = BatchLimits(delay=0.1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "json",  # noqa: A002 - the option's usual name
        max_bytes: int | None = None,
        rotate_every: float | str | None = None,
        compress: str | None = None,
        keep_count: int | None = None,
        keep_age: float | None = None,
        keep_bytes: int | None = None,
        mode: int = 0o600,
        fsync: bool = False,
        name: str = "file",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._options = {
            "path": path,
            "format": format,
            "max_bytes": max_bytes,
            "rotate_every": rotate_every,
            "compress": compress,
            "keep_count": keep_count,
            "keep_age": keep_age,
            "keep_bytes": keep_bytes,
            "mode": mode,
        }
        self._path = absolute_path("path", path, f"sink {name!r}")
        self._mode = mode
        self._fsync = fsync
        self._clock = clock
        every = _PERIODS.get(rotate_every) if isinstance(rotate_every, str) else rotate_every
        self._rotation = Rotation(max_bytes, every)
        self._archive = Archive(
            self._path,
            compress=compress == "gzip",
            retention=Retention(keep_count, keep_age, keep_bytes),
            clock=clock,
        )
        self._progress: Progress[Item] = Progress()
        self._otlp: Any = None  # the module fapilog.otlp.encode_json, if the format is "otlp"
        self._fd: int | None = None
        self._size = 0  # the size of the open file in bytes after this sink's last write
        self._written = 0  # the number of bytes of the current batch that are in the file
        self._no_rotation_before = 0.0

    def open(self) -> None:
        """Check the options, open the file, and start compressing and deleting rotated files.

        Raises:
            ConfigurationError: an option is wrong, or the file or its directory cannot be
                written.
        """
        check_all(_RULES, self._options, f"sink {self.name!r}")
        if self._options["format"] == "otlp":
            from fapilog.otlp import encode_json  # noqa: PLC0415 - only for this format

            self._otlp = encode_json
        try:
            self._fd = self._open_file()
            if self._rotation != Rotation() and not os.access(self._path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, "rotation must rename files in its directory")
        except (OSError, ValueError) as error:
            self._close_file()
            refuse("path", str(self._path), _explain(error), f"sink {self.name!r}")
        self._archive.wake()

    def encode(self, record: LogRecord) -> Item:
        """Return the encoded record for ``send``.

        The result is a JSON line.  In the format ``otlp``, the result is a tuple of the resource,
        the scope and a JSON object, and ``send`` joins the tuples of a batch into one line.
        """
        if self._otlp:
            return record.resource, record.scope, self._otlp.encode_record_json(record)
        return json_line(record)

    def send(self, batch: Sequence[Item], timeout: float) -> None:
        """Append the encoded records in ``batch`` to the file.

        Blocks while the disk writes, and up to ``timeout`` seconds for the file's lock.

        Raises:
            RetryableError: the file could not be opened or written (for example, because the
                disk is full), or could not be locked within ``timeout``.  A retry of the batch
                continues after the last written line; in the format ``otlp``, it writes the
                complete batch again.
        """
        deadline = monotonic() + timeout
        rest = self._progress.rest(batch)
        lines: Any = [without_commands(self._otlp.logs_data_line(rest))] if self._otlp else rest
        self._written = 0
        try:
            for data in portions(lines, self._rotation.max_bytes):
                self._append(data, deadline)
        except BaseException as error:
            self._close_file()
            if not self._otlp:  # in the format "otlp", a retry writes the batch again
                done, missing = split_written(lines, self._written)
                # If only the newline of a line was not written, a retry need not write the line
                # again, because the next write begins with a newline.
                self._progress.advance(batch, done + (missing == b"\n"))
            if not isinstance(error, OSError):
                raise
            msg = f"cannot write {self._path}: {error.strerror or error}"
            raise RetryableError(msg) from error
        self._progress.clear()

    def close(self) -> None:
        """Close the file, and wait up to 5 s until rotated files are compressed."""
        self._close_file()
        self._archive.close()

    def after_fork(self) -> None:
        """In a forked child, close the inherited file.

        The file's lock would be shared with the parent process.
        """
        self._close_file()
        self._archive.after_fork()
        self._progress.clear()

    def _append(self, data: bytes, deadline: float) -> None:
        fd = self._lock(len(data), deadline)
        try:
            if not _ends_line(fd):
                os.write(fd, b"\n")
            before = self._written
            while self._written < before + len(data):
                self._written += os.write(fd, data[self._written - before :])
            if self._fsync:
                self._written = before  # if fsync() fails, a retry writes the data again
                os.fsync(fd)
                self._written = before + len(data)
            self._size += self._written - before
        finally:
            unlock(fd)
        self._rotation.last_write = self._clock()

    def _lock(self, incoming: int, deadline: float) -> int:
        """Lock the log file and return its descriptor.

        If the file must rotate before ``incoming`` more bytes are written, this method
        rotates the file, and locks the new file.  Raises TimeoutError at the ``deadline``.
        """
        while True:
            if self._fd is None:
                self._fd = self._open_file()
            locked = try_lock_if_possible(self._fd)
            file = os.fstat(self._fd)
            if not is_at(self._path, file):  # another program has moved or removed the file
                self._close_file()
            elif not locked:
                native.sleep(_PAUSE)
            elif monotonic() >= self._no_rotation_before and self._rotation.is_due(
                file, incoming, self._clock()
            ):
                self._rotate()
            else:
                self._note_size(file.st_size)
                return self._fd
            if monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "other processes held its lock for too long")

    def _note_size(self, size: int) -> None:
        """Store the file's size.  If the file has become smaller, report that it was truncated.

        The report contains no number of lost lines, because the sink cannot know this number.
        """
        if size < self._size:
            announce(
                f"truncate {self._path}",
                f"{self._path} had {self._size} bytes and was truncated by another program; if "
                "it was logrotate's copytruncate, lines written during its copy are lost: let "
                "this sink rotate (max_bytes, rotate_every), or use logrotate's create",
            )
        self._size = size

    def _rotate(self) -> None:
        """Rename the file while it is locked, so that only one process rotates it."""
        if sys.platform == "win32":
            self._close_file()  # Windows does not rename an open file
        try:
            self._path.rename(self._archive.new_path())
        except OSError as error:
            self._no_rotation_before = monotonic() + _NEXT_TRY
            announce(
                f"rotate {self._path}",
                f"cannot rotate {self._path}: {error}; records keep going to the current file",
            )
        else:
            self._archive.wake()
        self._close_file()

    def _open_file(self) -> int:
        make_directories(self._path.parent)
        for _ in range(_OPEN_ATTEMPTS):
            with contextlib.suppress(FileExistsError):
                fd = create_file(self._path, APPEND, self._mode)
                if self._fsync:
                    sync_directory(self._path.parent)
                return fd
            with contextlib.suppress(FileNotFoundError):  # another process has just moved the file
                return open_unplanted(self._path)
        raise FileNotFoundError(errno.ENOENT, "the path exists but cannot be opened")

    def _close_file(self) -> None:
        fd, self._fd, self._size = self._fd, None, 0
        if fd is not None:
            with contextlib.suppress(OSError):  # a failed write has already raised its error
                os.close(fd)


def _ends_line(fd: int) -> bool:
    """Return whether the open file is empty or ends in a newline."""
    size = os.fstat(fd).st_size
    # If another process has just truncated the file, the read returns b"".
    return size == 0 or read_at(fd, 1, size - 1) in {b"\n", b""}


def _explain(error: Exception) -> str:
    """Return a message that says why a log file could not be opened, and how to fix it."""
    if isinstance(error, PlantedFileError):
        return str(error.strerror)
    code = getattr(error, "errno", None)
    if code in {errno.ELOOP, errno.EMLINK}:  # open() with O_NOFOLLOW refused a symbolic link
        return "it is a symbolic link; give the path of the file that it points to"
    if code == errno.EISDIR:
        return "it is a directory; give a file in it"
    if code == errno.EINVAL:
        return "it is not a regular file; write to pipes and devices with a ConsoleSink"
    return f"{error}; give a path in a directory this user may write to"
