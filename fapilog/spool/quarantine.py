"""Batches that a backend will never take, kept on disk for a person to look at.

``<directory>/<sink name>/quarantine/<time ns>-<pid>-<random>.seg``, in the
format of the spool with the reason in each frame.  A file is open and locked
only while a batch is added, so nothing stands in the way of looking, replaying
or deleting while the service runs.  Several processes share the directory and
its cap, each with files of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.native import monotonic
from fapilog.process.files import (
    APPEND,
    create_file,
    make_private_directory,
    open_file,
    size_of,
    sync_data,
    try_lock,
    write_whole,
)
from fapilog.severity import FATAL
from fapilog.spool.format import (
    MAX_FRAME,
    SEGMENT_HEADER_SIZE,
    format_id,
    pack_frame,
    pack_segment_header,
    severity_bytes,
)
from fapilog.spool.options import SpoolFullError
from fapilog.spool.owner import Owner, make_sink_directory
from fapilog.spool.quarantine_file import NAME, list_files
from fapilog.spool.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fapilog.spool.options import SpoolOptions

_MAX_FILE: Final = 1 << 20
_MAX_REASON: Final = 1000
#: Seconds until the directory is measured again, which other processes fill too.
_MEASURE_EVERY: Final = 1.0


class Quarantine:
    """Adds batches to the quarantine of one sink.  Thread-safe.

    Nothing is made on disk before the first batch, and no file stays open.

    Args:
        sink_name: the name that the sink was given.  It and the destination
            name its directory.
        wire_format: of the bodies, 1 to 48 bytes.
        options: the user's; ``quarantine_bytes`` is the cap.
        destination: where the sink sends, in words and without secrets.
        label: the sink's name in announcements; None: ``sink_name``.
        now_ns: nanoseconds since the Unix epoch, for tests.
        monotonic: seconds of a clock, for tests.

    Raises:
        ConfigurationError: the sink's name cannot be a directory's.
    """

    def __init__(
        self,
        sink_name: str,
        wire_format: str,
        options: SpoolOptions,
        *,
        destination: str = "",
        label: str | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._owner = Owner(sink_name, wire_format, destination)
        self._sink_name = label or sink_name
        self._wire_format = wire_format
        self._identity = format_id(wire_format)
        self._options = options
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._sink_path = options.directory.absolute() / self._owner.directory
        self.path = self._sink_path / NAME
        self.after_fork()

    def after_fork(self) -> None:
        """Begin a file of its own in a forked child."""
        options = self._options
        self._space = Space(self.path, options.quarantine_bytes, options.min_free, self._monotonic)
        self._lock = native.Lock()
        self._file: Path | None = None
        self._sequence = 0
        self._used = 0
        self._measured_at = self._synced_at = float("-inf")

    def add(self, body: bytes, severities: Sequence[int], reason: str) -> bool:
        """Keep a batch.  Blocks for the disk; never raises.

        Args:
            body: the batch, packed.
            severities: the severity number of each of its records.
            reason: why the backend refuses it; 1000 characters are kept.

        Returns:
            False when the cap or the free space is reached or the disk fails;
            then it is announced, and nothing was kept.
        """
        try:
            with self._lock:
                self._add(body, severity_bytes(severities), reason[:_MAX_REASON])
        except (OSError, SpoolFullError) as error:
            name = self._sink_name
            why = getattr(error, "strerror", None) or error
            announce(f"quarantine {name}", f"{name}: no room in quarantine: {why}")
            return False
        return True

    def _add(self, body: bytes, severities: bytes, reason: str) -> None:
        now = self._now_ns()
        parts = pack_frame(self._identity, self._sequence + 1, now, severities, body, reason=reason)
        size = sum(map(len, parts))
        if size > MAX_FRAME:
            msg = f"a batch of {size} bytes is more than a frame can hold ({MAX_FRAME})"
            raise SpoolFullError(msg)
        self._check_room(size + SEGMENT_HEADER_SIZE)
        fd = self._reopen(size)
        if fd is None:
            self._sequence = 0
            parts = pack_frame(self._identity, 1, now, severities, body, reason=reason)
            fd = self._begin(now)
        try:
            before = os.fstat(fd).st_size
            try:
                write_whole(fd, parts)
            except OSError:
                self._file = None  # should cutting it fail, nothing comes behind the rest
                os.ftruncate(fd, before)
                raise
            self._sequence += 1
            self._used += size
            self._sync(fd, severities)
        finally:
            os.close(fd)  # and with it the lock

    def _check_room(self, wanted: int) -> None:
        now = self._monotonic()
        if now - self._measured_at >= _MEASURE_EVERY:
            make_sink_directory(self._sink_path, self._owner)
            make_private_directory(self.path)
            self._used = sum(map(size_of, list_files(self._sink_path)))
            self._measured_at = now
        try:
            self._space.check(self._used, wanted)
        except SpoolFullError as error:
            raise SpoolFullError(str(error).replace("max_bytes", "quarantine_bytes")) from None

    def _reopen(self, size: int) -> int | None:
        """Return this process's file, locked; None where a new one is needed."""
        path = self._file
        if path is None:
            return None
        try:
            fd = open_file(path, APPEND)
        except FileNotFoundError:
            return None  # replayed or deleted
        status = os.fstat(fd)
        with contextlib.suppress(OSError):
            if (
                status.st_size + size <= _MAX_FILE
                and try_lock(fd)
                and os.path.samestat(path.lstat(), status)
            ):
                return fd
        os.close(fd)
        return None

    def _begin(self, now: int) -> int:
        path = self.path / f"{now}-{os.getpid()}-{secrets.token_hex(4)}.seg"
        fd = create_file(path, APPEND)
        try:
            try_lock(fd)  # nobody can know it yet
            write_whole(fd, (pack_segment_header(1, now, self._wire_format),))
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._file = path
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
                self._file = None  # what it holds is not known any more
                announce(
                    f"quarantine sync {self._sink_name}",
                    f"{self._sink_name}: {self.path} may not survive a power failure: {error}",
                )
