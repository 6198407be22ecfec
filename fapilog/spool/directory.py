"""The directories of the spool: one per sink, with one subdirectory per process.

A sink's directory is named after the sink and its destination, so records are only sent to the
destination that they were logged for.  The file ``destination`` in the sink's directory contains
the sink's name, wire format and destination.

Each process that writes records to the spool creates a directory inside the sink's directory, and
locks it.  The lock ends with the process.  Then another process may lock (adopt) the directory and
send the records.  The process id in the directory's name does not show whether the process is
alive, because the system reuses ids.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.process.files import (
    APPEND,
    UPDATE,
    check_private,
    close_file,
    create_file,
    is_at,
    make_private_directory,
    open_directory,
    open_file,
    read_at,
    try_lock,
    try_lock_if_possible,
    unlock,
    write_whole,
)
from fapilog.spool import credentials, cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

LOCK: Final = "lock"
FILE: Final = "destination"
_MARK: Final = "~"  # separates the sink's name from the digest; a ~ in the name becomes %7E
_NAME: Final = re.compile(r"(\d{1,20})-(\d{1,10})-[0-9a-f]{8}", re.ASCII)
_SEGMENT: Final = re.compile(r"(\d{8,20})\.seg", re.ASCII)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]|^\.", re.ASCII)
_MAX_NAME: Final = 200
_MAX_FILE: Final = 1 << 16
_ATTEMPTS: Final = 100
#: The maximum number of sink directories that :func:`announce_strangers` searches for records.
_MAX_STRANGERS: Final = 100


@dataclass(frozen=True)
class Owner:
    """The sink to which a directory belongs.

    Attributes:
        name: the sink's name.
        wire_format: the name of the format in which the sink packs batches.
        destination: a description, without secrets, of where the sink sends records, or "" if
            unknown.
    """

    name: str
    wire_format: str = ""
    destination: str = ""

    @property
    def directory(self) -> str:
        """The name of the sink's directory: the sink's name, ``~`` and a digest.

        The digest covers the wire format and the destination.  If the destination is unknown,
        the directory's name is only the sink's name.  Characters that are unsafe in file names
        become ``%XX``.

        Raises:
            ConfigurationError: the sink's name is empty or too long.
        """
        name = _UNSAFE.sub(_escaped, self.name)
        if not name or len(name) > _MAX_NAME:
            msg = f"sink name {self.name!r}: give a name of 1 to {_MAX_NAME} bytes for the spool"
            raise ConfigurationError(msg)
        if not self.destination:
            return name
        parts = json.dumps((self.wire_format, self.destination))
        return f"{name}{_MARK}{sha256(parts.encode()).hexdigest()[:16]}"


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def read_owner(path: Path) -> Owner:
    """Return the sink to which the directory ``path`` belongs.  Never raises.

    If the file ``destination`` is missing or invalid, the result contains only the sink's name,
    which is part of the directory's name.
    """
    name, mark, _ = path.name.partition(_MARK)
    if mark:
        with contextlib.suppress(OSError, ValueError, TypeError):
            fd = open_file(path / FILE)
            try:
                owner = Owner(**json.loads(read_at(fd, _MAX_FILE, 0)))
            finally:
                os.close(fd)
            if owner.directory == path.name:  # if not, somebody has changed the file "destination"
                return owner
    return Owner(unquote(name))


def make_sink_directory(path: Path, owner: Owner) -> None:
    """Create a sink's directory if it is missing.

    If the sink's destination is known, also write the file ``destination``.

    Raises:
        OSError: the directory cannot be created, is a symbolic link, or belongs to another
            user.
    """
    make_private_directory(path)
    if not owner.destination or read_owner(path) == owner:
        return
    text = json.dumps(asdict(owner), indent=2) + "\n"
    new = path / f"{FILE}.{os.getpid()}-{secrets.token_hex(4)}"
    fd = create_file(new, APPEND)
    try:
        write_whole(fd, [text.encode()])
    finally:
        os.close(fd)
    new.replace(path / FILE)


def announce_strangers(root: Path, present: Container[str]) -> None:
    """Report records of dead processes that no configured sink will send.  Never raises.

    The report is a line on standard error for each directory with such records.

    Args:
        root: the directory that contains the directories of all sinks.
        present: the names of the configured sinks' directories.
    """
    try:
        names = sorted(name for name in os.listdir(root) if name not in present)  # noqa: PTH208 - only names are needed
    except OSError:
        return
    for path in (root / name for name in names[:_MAX_STRANGERS]):
        if not has_orphans(path):
            continue
        owner = read_owner(path)
        whose = f"for {owner.destination}, and no sink named {owner.name!r} sends there"
        announce(
            f"spool stranger {path.name}",
            f"records wait in {path} "
            f"{whose if owner.destination else 'and their destination is not known'}; "
            f"give them to a sink with `fapilog spool adopt {path.name} --sink NAME`, or delete "
            f"them with `fapilog spool purge --sink {path.name}`",
        )


def has_orphans(sink_directory: Path) -> bool:
    """Return whether a dead process has left a segment file in a sink's directory.

    Never raises; the result is False if a directory cannot be read.
    """
    with contextlib.suppress(OSError):
        directories = (sink_directory / one.text for one in list_directories(sink_directory))
        return any(list_segments(one) and not is_locked(one) for one in directories)
    return False


@dataclass(frozen=True, order=True)
class DirectoryName:
    """The name of a process's directory, split into fields.

    Names sort by the time at which the directories were created.

    Attributes:
        started_ns: the creation time, in nanoseconds since the Unix epoch.
        pid: the id of the process that created the directory.
        text: the complete name.
    """

    started_ns: int
    pid: int
    text: str


def list_directories(sink_directory: Path) -> list[DirectoryName]:
    """Return the names of the process directories in a sink's directory, oldest first.

    Raises:
        OSError: the sink's directory exists but cannot be read.
    """
    try:
        names = os.listdir(sink_directory)  # noqa: PTH208 - only names are needed
    except FileNotFoundError:
        return []
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(DirectoryName(int(m[1]), int(m[2]), m[0]) for m in matches if m)


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """Return the numbers and paths of the segment files in a directory, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    matches = (_SEGMENT.fullmatch(name) for name in os.listdir(directory))  # noqa: PTH208 - only names are needed
    return sorted((int(match[1]), directory / match[0]) for match in matches if match)


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of the segment file ``number`` in a process's directory."""
    return directory / f"{number:08d}.seg"


def is_locked(directory: Path) -> bool:
    """Return whether a process has locked the directory; False if the directory is missing.

    Raises:
        OSError: the directory or the file ``lock`` in it cannot be opened.
    """
    probe = ProcessDirectory(directory)
    try:
        return not probe.take(lambda path: open_file(path / LOCK, UPDATE))
    except FileNotFoundError:
        return False
    finally:
        probe.release()


class ProcessDirectory:
    """A process's directory and its two locks, which :func:`create` and :func:`claim` acquire.

    The first lock is on the directory itself, so it remains if somebody deletes the files in the
    directory.  The second lock is on the file ``lock`` in the directory, because Windows and some
    file systems do not support locks on directories, and earlier releases locked only this file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = -1
        self._lock = -1

    def take(self, open_lock: Callable[[Path], int]) -> bool:
        """Lock the directory and the file ``lock`` in it.

        Args:
            open_lock: a function that opens or creates the file ``lock`` in the given directory,
                and returns a file descriptor.

        Returns:
            True if both locks were acquired.  False if another process holds a lock, or has
            replaced the directory or the file after it was opened.

        Raises:
            OSError: the directory or the file cannot be opened or locked.
        """
        is_mine = False
        try:
            self._guard = open_directory(self.path)
            if try_lock_if_possible(self._guard) and self.is_there:
                self._lock = open_lock(self.path)
                is_mine = try_lock(self._lock) and is_at(self.path / LOCK, os.fstat(self._lock))
            return is_mine
        finally:
            if not is_mine:
                self.abandon()

    @property
    def started_ns(self) -> int:
        """The time at which the directory was created, in nanoseconds since the Unix epoch."""
        return int(self.path.name.partition("-")[0])

    @property
    def is_there(self) -> bool:
        """Whether the directory still exists at :attr:`path`.  Never raises."""
        if self._guard < 0:
            return os.path.lexists(self.path)
        with contextlib.suppress(OSError):
            return is_at(self.path, os.fstat(self._guard))
        return False

    def renew_lock(self) -> None:
        """Create the file ``lock`` again if another program has deleted it.  Never raises."""
        if self._lock < 0 or (self.path / LOCK).exists():
            return
        with contextlib.suppress(OSError):  # if this fails, only the directory is locked
            fd = create_file(self.path / LOCK, UPDATE)
            try_lock(fd)
            close_file(self._lock)
            self._lock = fd

    def release(self) -> None:
        """Release the locks, so that another process can claim the directory."""
        for fd in (self._lock, self._guard):
            if fd >= 0:
                unlock(fd)
        self.abandon()

    def abandon(self) -> None:
        """Close the file descriptors of the locks in a forked child.

        The locks are not released, because the parent shares them.
        """
        locks = (self._lock, self._guard)
        self._lock = self._guard = -1
        for fd in locks:
            close_file(fd)

    def move(self, path: Path) -> None:
        """Move the directory to ``path``.  The locks are released even if the move fails.

        Raises:
            OSError: the directory cannot be moved.
        """
        try:
            if os.name == "nt":
                self.release()  # Windows cannot move a directory that has open files
            self.path.rename(path)
        finally:
            self.release()

    def remove(self) -> bool:
        """Remove the directory with its files ``lock``, ``cursor`` and ``credentials``.

        If the directory contains any other file, nothing is removed.  The locks are released
        in any case.

        Returns:
            Whether the directory no longer exists.

        Raises:
            OSError: a file cannot be removed.
        """
        try:
            if not self.is_there:
                return True
            if set(os.listdir(self.path)) - {LOCK, cursor.NAME, credentials.FILE}:  # noqa: PTH208 - only names are needed
                return False
            # Remove the file ``lock`` last, because another process may lock the directory as
            # soon as this file is missing.
            for name in (cursor.NAME, credentials.FILE, LOCK):
                if os.name == "nt" and name == LOCK:
                    self.release()  # Windows cannot remove an open file
                with contextlib.suppress(FileNotFoundError):
                    (self.path / name).unlink()
            self.path.rmdir()
        except FileNotFoundError:
            return True  # another process has already removed the directory
        finally:
            self.release()
        return True


def create(sink_directory: Path, now_ns: int) -> ProcessDirectory:
    """Create a directory for this process in the sink's directory, and lock it.

    ``now_ns``, the current time in nanoseconds since the Unix epoch, is part of the name.

    Raises:
        OSError: the directory cannot be created or locked.
    """
    make_private_directory(sink_directory)
    for _ in range(_ATTEMPTS):
        path = sink_directory / f"{now_ns}-{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        # Until the locks are acquired, another process may assume that this directory belongs to a
        # dead process, and lock or remove it.
        directory = ProcessDirectory(path)
        with contextlib.suppress(FileNotFoundError):
            if directory.take(_create_lock):
                return directory
        with contextlib.suppress(OSError):
            path.rmdir()
    raise OSError(errno.EBUSY, "other processes keep removing new directories", str(sink_directory))


def claim(path: Path) -> ProcessDirectory | None:
    """Lock the directory ``path`` if its process is dead.

    If a crash has left an empty directory without the file ``lock``, remove the directory.

    Returns:
        The locked directory, or None if a running process has locked the directory or if the
        directory does not exist.

    Raises:
        OSError: the directory belongs to another user, or the file ``lock`` cannot be opened.
    """
    directory = ProcessDirectory(path)
    # These errors occur if the directory has been removed, or if another process has just created
    # the file ``lock``.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        check_private(path)
        if directory.take(_open_lock):
            return directory
    return None


def _create_lock(path: Path) -> int:
    return create_file(path / LOCK, UPDATE)


def _open_lock(path: Path) -> int:
    try:
        return open_file(path / LOCK, UPDATE)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # rmdir() fails if the directory is not empty
            path.rmdir()
        return _create_lock(path)
