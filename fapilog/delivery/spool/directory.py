"""A process's directory: its name, its lock, and what may be removed of it.

``<directory>/<sink name>/<start time ns>-<pid>-<random>/`` holds ``lock``,
``cursor`` and segments ``00000001.seg``.  Whoever holds the lock of ``lock``
owns the directory: the process that made it, and after its death one that
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

from fapilog.delivery.spool import cursor
from fapilog.delivery.spool.files import (
    UPDATE,
    check_private,
    create_file,
    make_private_directory,
    open_file,
    try_lock,
    unlock,
)
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
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
        OSError: its lock cannot be opened, other than because it is missing.
    """
    try:
        fd = open_file(directory / LOCK, UPDATE)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


class ProcessDirectory:
    """A directory whose lock this process holds; made by :func:`create` or :func:`claim`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Give the directory up to whoever claims it next; again does nothing."""
        if self._lock >= 0:
            unlock(self._lock)
        self.abandon()

    def abandon(self) -> None:
        """Close the lock without unlocking it: in a forked child it is the parent's."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # closed by somebody else, as daemons do
                os.close(fd)

    def remove(self) -> bool:
        """Remove the directory, and release it in any case.

        Returns:
            Whether it is gone.  It stays while it holds a segment, or
            anything that is not the spool's.

        Raises:
            OSError: something cannot be removed.
        """
        try:
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
            return True  # somebody removed it from outside
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
        # Until it is locked, another process may take it for an orphan and
        # remove it; then there is just no lock to be had, and this tries again.
        with contextlib.suppress(FileNotFoundError):
            fd = create_file(path / LOCK, UPDATE)
            if _is_mine(path, fd):
                return ProcessDirectory(path, fd)
    raise OSError(errno.EBUSY, "other processes keep removing new directories", str(sink_directory))


def claim(path: Path) -> ProcessDirectory | None:
    """Lock the directory of a dead process; None if its owner lives or it is gone.

    An empty directory without a lock, which a crash may leave, is removed.

    Raises:
        OSError: it is not this user's, or its lock cannot be opened.
    """
    try:
        check_private(path)
        try:
            fd = open_file(path / LOCK, UPDATE)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # not empty: a power failure took the lock
                path.rmdir()
                return None
            fd = create_file(path / LOCK, UPDATE)
    except (FileNotFoundError, FileExistsError):
        return None  # another process was quicker
    return ProcessDirectory(path, fd) if _is_mine(path, fd) else None


def _is_mine(path: Path, fd: int) -> bool:
    """Take the lock; close it where that fails or it is not the directory's any more."""
    try:
        is_mine = try_lock(fd) and os.path.samestat((path / LOCK).lstat(), os.fstat(fd))
    except FileNotFoundError:  # another process has removed the directory
        is_mine = False
    except OSError:
        os.close(fd)
        raise
    if not is_mine:
        os.close(fd)
    return is_mine
