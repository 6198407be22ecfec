"""A process's directory: its name, its lock, and what may be removed of it.

``<directory>/<sink name>/<start time ns>-<pid>-<random>/`` holds ``lock``,
``cursor`` and segments ``00000001.seg``.  Whoever holds the locks of the
directory and of ``lock`` owns it: the process that made it, and after its death one that
adopts it.  Process ids are never asked; they are reused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from fapilog.errors import ConfigurationError
from fapilog.process.files import (
    UPDATE,
    check_private,
    close_file,
    create_file,
    make_private_directory,
    open_directory,
    open_file,
    try_lock,
    try_lock_if_possible,
    unlock,
)
from fapilog.spool import cursor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCK: Final = "lock"
_NAME: Final = re.compile(r"(\d{1,20})-(\d{1,10})-[0-9a-f]{8}", re.ASCII)
_SEGMENT: Final = re.compile(r"(\d{8,20})\.seg", re.ASCII)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]|^\.", re.ASCII)
_MAX_NAME: Final = 200
_ATTEMPTS: Final = 100


def file_name(sink_name: str) -> str:
    """Return a sink's name as a safe file name, other characters as ``%XX`` of their UTF-8.

    Raises:
        ConfigurationError: it is empty or too long.
    """
    name = _UNSAFE.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), sink_name)
    if not name or len(name) > _MAX_NAME:
        msg = f"sink name {sink_name!r}: the spool needs one of 1 to {_MAX_NAME} bytes"
        raise ConfigurationError(msg)
    return name


def sink_name(file_name: str) -> str:
    """Undo :func:`file_name`."""
    return unquote(file_name)


@dataclass(frozen=True, order=True)
class DirectoryName:
    """What the name of a process's directory tells; ordered by age, the oldest first."""

    started_ns: int
    pid: int
    text: str


def list_directories(sink_directory: Path) -> list[DirectoryName]:
    """Return the process directories of a sink, the oldest first; none where it is missing.

    Raises:
        OSError: it cannot be read.
    """
    try:
        names = os.listdir(sink_directory)  # noqa: PTH208 - Path.iterdir makes a path of each
    except FileNotFoundError:
        return []
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(DirectoryName(int(m[1]), int(m[2]), m[0]) for m in matches if m)


def age_of(directory: Path) -> int:
    """Return when the process of a directory began, in nanoseconds since the Unix epoch."""
    return int(directory.name.partition("-")[0])


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """Return numbers and paths of the segments in a directory, the oldest first.

    Raises:
        OSError: it cannot be read.
    """
    matches = (_SEGMENT.fullmatch(name) for name in os.listdir(directory))  # noqa: PTH208 - as above
    return sorted((int(match[1]), directory / match[0]) for match in matches if match)


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of a segment."""
    return directory / f"{number:08d}.seg"


def is_locked(directory: Path) -> bool:
    """Whether a process owns the directory now.

    Raises:
        OSError: it or its lock cannot be opened, other than because it is missing.
    """
    fd = -1
    try:
        fd = open_directory(directory)
        if not try_lock_if_possible(fd):
            return True
        close_file(fd)
        fd = -1
        fd = open_file(directory / LOCK, UPDATE)
        return not try_lock(fd)
    except FileNotFoundError:
        return False
    finally:
        close_file(fd)


class ProcessDirectory:
    """A directory that this process owns; made by :func:`create` or :func:`claim`.

    Two locks say so.  That of the directory itself cannot be taken away by
    whoever deletes files.  That of the file ``lock`` is for Windows, for file
    systems that lock files only, and for releases that knew no other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = -1
        self._lock = -1

    def take(self, open_lock: Callable[[Path], int]) -> bool:
        """Take both locks; False when another process has one, or the directory is not the same.

        Args:
            open_lock: opens or creates the file ``lock`` and returns its descriptor.

        Raises:
            OSError: something cannot be opened or locked.
        """
        self._guard = open_directory(self.path)
        if not try_lock_if_possible(self._guard) or not self.is_there:
            return False
        lock = self._lock = open_lock(self.path)
        return try_lock(lock) and os.path.samestat((self.path / LOCK).lstat(), os.fstat(lock))

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to this directory.  Never raises."""
        try:
            status = self.path.lstat()
            return self._guard < 0 or os.path.samestat(status, os.fstat(self._guard))
        except OSError:
            return False

    def renew_lock(self) -> None:
        """Create the file ``lock`` again when somebody has deleted it.  Never raises."""
        if self._lock < 0 or (self.path / LOCK).exists():
            return
        with contextlib.suppress(OSError):  # the directory itself is locked
            fd = create_file(self.path / LOCK, UPDATE)
            try_lock(fd)
            close_file(self._lock)
            self._lock = fd

    def release(self) -> None:
        """Give the directory up to whoever claims it next; again does nothing."""
        for fd in (self._lock, self._guard):
            if fd >= 0:
                unlock(fd)
        self.abandon()

    def abandon(self) -> None:
        """Close the locks without unlocking them: in a forked child they are the parent's."""
        locks = (self._lock, self._guard)
        self._lock = self._guard = -1
        for fd in locks:
            close_file(fd)

    def move(self, path: Path) -> None:
        """Move the directory there, and release it in any case.

        Raises:
            OSError: it cannot be moved.
        """
        try:
            if os.name == "nt":
                self.release()  # Windows moves nothing with open files in it
            self.path.rename(path)
        finally:
            self.release()

    def remove(self) -> bool:
        """Remove the directory, and release it in any case.

        Returns:
            Whether it is gone.  It stays while it holds a segment, or
            anything that is not the spool's.

        Raises:
            OSError: something cannot be removed.
        """
        try:
            if not self.is_there:
                return True  # somebody removed it from outside
            own = {LOCK, cursor.NAME}
            if set(os.listdir(self.path)) - own:  # noqa: PTH208 - names are what is wanted
                return False
            # The lock last: without it, others take an empty directory for unfinished.
            for name in (cursor.NAME, LOCK):
                if os.name == "nt" and name == LOCK:
                    self.release()  # Windows removes no open file
                with contextlib.suppress(FileNotFoundError):
                    (self.path / name).unlink()
            self.path.rmdir()
        except FileNotFoundError:
            return True  # as above
        finally:
            self.release()
        return True


def create(sink_directory: Path, now_ns: int) -> ProcessDirectory:
    """Make a directory for this process and lock it.

    Raises:
        OSError: it cannot be made or locked.
    """
    make_private_directory(sink_directory)
    for _ in range(_ATTEMPTS):
        path = sink_directory / f"{now_ns}-{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        # Until it is locked, another process may take it for an orphan and lock
        # or remove it; then this tries again.
        directory = ProcessDirectory(path)
        with contextlib.suppress(FileNotFoundError):
            if _takes(directory, _create_lock):
                return directory
        with contextlib.suppress(OSError):
            path.rmdir()
    raise OSError(errno.EBUSY, "other processes keep removing new directories", str(sink_directory))


def claim(path: Path) -> ProcessDirectory | None:
    """Lock the directory of a dead process; None if its owner lives or it is gone.

    An empty directory without a lock, which a crash may leave, is removed.

    Raises:
        OSError: it is not this user's, or its lock cannot be opened.
    """
    directory = ProcessDirectory(path)
    with contextlib.suppress(FileNotFoundError, FileExistsError):  # another process was quicker
        check_private(path)
        if _takes(directory, _open_lock):
            return directory
    return None


def _takes(directory: ProcessDirectory, open_lock: Callable[[Path], int]) -> bool:
    """Take the locks of a directory; those of a directory that is not to be had are released."""
    is_mine = False
    try:
        is_mine = directory.take(open_lock)
    finally:
        if not is_mine:
            directory.abandon()
    return is_mine


def _create_lock(path: Path) -> int:
    return create_file(path / LOCK, UPDATE)


def _open_lock(path: Path) -> int:
    try:
        return open_file(path / LOCK, UPDATE)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # not empty: somebody, or a power failure, took the lock
            path.rmdir()
        return _create_lock(path)
