"""The system calls of the spool: private files, locks, whole writes, syncs.

Everything the spool keeps is its owner's alone (directories 0700, files 0600)
and is never reached through a symbolic link, except above the directory that
the user chose.  What a platform lacks is replaced here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from fapilog import native

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A pipe or a link that somebody put there must not block or mislead the opening.
_SAFE: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
#: Appending leaves the position to the system, also after a file was cut.  Reading is
#: for the case that somebody deletes the file.
APPEND: Final = os.O_RDWR | os.O_APPEND
UPDATE: Final = os.O_RDWR
_NEW: Final = os.O_CREAT | os.O_EXCL

_TAKEN: Final = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
#: A file system that locks no directories, such as NFS.
_NO_LOCK: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK}
_NO_SYNC: Final = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


def create_file(path: Path, flags: int) -> int:
    """Create ``path`` for its owner alone (0600) and return its descriptor.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it cannot be created.
    """
    return os.open(path, flags | _NEW | _SAFE, 0o600)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open ``path``, a regular file and no link, and return its descriptor.

    Raises:
        OSError: it is not there, is something else, or cannot be opened.
    """
    fd = os.open(path, flags | _SAFE)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def open_directory(path: Path) -> int:
    """Open a directory, not a link to one, and return its descriptor; -1 on Windows.

    Raises:
        OSError: it is not there, is something else, or cannot be opened.
    """
    if sys.platform == "win32":
        return -1
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def try_lock_directory(fd: int) -> bool:
    """Take the lock of an open directory; False if somebody else has it.  Does not block.

    True as well when there is nothing to lock: on Windows, where ``fd`` is -1,
    and on a file system that locks files only.

    Raises:
        OSError: locking failed.
    """
    try:
        return fd < 0 or try_lock(fd)
    except OSError as error:
        if error.errno in _NO_LOCK:
            return True
        raise


def close_file(fd: int) -> None:
    """Close a descriptor; -1, and one that is closed already, do nothing."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)


def make_directories(path: Path) -> None:
    """Create the directory and its parents where missing, for this user only.

    Raises:
        OSError: one cannot be created, or something else is there.
    """
    with contextlib.suppress(FileExistsError):
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            make_directories(path.parent)
            path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))


def make_private_directory(path: Path) -> None:
    """Create the directory where missing, and have it be this user's alone (0700).

    Raises:
        OSError: it cannot be, or it is a link or somebody else's.
    """
    make_directories(path)
    check_private(path)
    if sys.platform != "win32" and path.stat().st_mode & 0o077:
        path.chmod(0o700)


def check_private(path: Path) -> None:
    """Check that ``path`` is a directory, not a link to one, and this user's own.

    Raises:
        OSError: it is not, and why.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link, which the spool does not follow", str(path))
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to user {status.st_uid}", str(path))


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return up to ``size`` bytes at ``offset``; fewer only at the end of the file.

    Raises:
        OSError: the disk failed.
    """
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def write_whole(fd: int, parts: Sequence[bytes]) -> None:
    """Write ``parts`` one after the other, in one system call where there is one.

    Raises:
        OSError: not everything was written; the start of it may have been.
    """
    written = os.write(fd, b"".join(parts)) if sys.platform == "win32" else os.writev(fd, parts)
    if written < sum(map(len, parts)):
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def sync_data(fd: int) -> None:
    """Have what an open file holds survive a power failure.

    Raises:
        OSError: the disk failed.
    """
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_directory(path: Path) -> None:
    """Have names made or changed in the directory survive a power failure.

    Raises:
        OSError: the disk failed.
    """
    if sys.platform == "win32":
        return  # which opens no directories
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # some network file systems have no such thing
            raise
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Return how many bytes the file takes; 0 when there is none."""
    try:
        return taken_by(path.lstat())
    except OSError:
        return 0


def taken_by(status: os.stat_result) -> int:
    """Return how many bytes a file takes; the holes of a sparse file take none."""
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


if sys.platform == "win32":
    import msvcrt

    def try_lock(fd: int) -> bool:
        """Take the lock of an open file; False if somebody else has it."""
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def unlock(fd: int) -> None:
        """Undo :func:`try_lock`."""
        with contextlib.suppress(OSError):  # the lock goes when the file is closed, too
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(fd: int) -> bool:
        """Take the lock of an open file; False if somebody else has it.  Does not block.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def unlock(fd: int) -> None:
        """Undo :func:`try_lock`, for every process that inherited the open file."""
        with contextlib.suppress(OSError):  # the lock goes when the file is closed, too
            fcntl.flock(fd, fcntl.LOCK_UN)


class SyncedFile:
    """An open file that one thread writes while another may have it synced.

    ``write``, ``write_at``, ``cut`` and ``close`` belong to one thread at a
    time; ``sync`` may be called from any other meanwhile.

    Args:
        path: names the file in announcements.
        fd: open for writing.

    Attributes:
        inode: the file's number on its file system.
        failed: whether a sync has failed.  What the file holds then may or may
            not be on the disk, and no later sync can tell: nothing more should
            be written to it.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.inode = os.fstat(fd).st_ino
        self.failed = False
        self._fd = fd
        self._copy = -1  # what a sync is working on
        self._dirty = False
        # Between closing the descriptor and taking a copy of it.
        self._guard = native.RLock()

    def write(self, parts: Sequence[bytes]) -> None:
        """Write ``parts`` at the position of the file, which with :data:`APPEND` is its end.

        Raises:
            OSError: not everything was written; the start of it may have been.
        """
        try:
            write_whole(self._fd, parts)
        finally:  # and not before: a sync that runs meanwhile may miss it
            self._dirty = True

    def write_at(self, offset: int, data: bytes) -> None:
        """Write ``data`` at ``offset`` of a file not opened with :data:`APPEND`.

        Raises:
            OSError: not everything was written.
        """
        os.lseek(self._fd, offset, os.SEEK_SET)
        self.write((data,))

    def cut(self, size: int) -> None:
        """Cut the file to ``size`` bytes.

        Raises:
            OSError: it is as long as it was.
        """
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Have what was written survive a power failure.  Blocks for the disk.

        Does nothing when that is so already, when the file is closed, and
        after a sync that failed: the system may have forgotten the pages it
        could not write, and a second try would succeed without them.

        Raises:
            OSError: it failed, now, or the file has no name any more.
        """
        with self._guard:
            if self._fd < 0 or not self._dirty or self.failed:
                return
            self._dirty = False
            self._copy = os.dup(self._fd)
        try:
            sync_data(self._copy)
            if os.fstat(self._copy).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "was deleted by somebody else")
        except OSError:
            self.failed = True
            raise
        finally:
            os.close(self._copy)
            self._copy = -1

    def copy(self) -> int:
        """Return another descriptor of the file, to read what has lost its name; -1 once closed.

        Raises:
            OSError: there are too many open files.
        """
        with self._guard:
            return os.dup(self._fd) if self._fd >= 0 else -1

    @property
    def has_name(self) -> bool:
        """Whether the file is still what its path leads to."""
        try:
            with self._guard:
                return os.path.samestat(self.path.lstat(), os.fstat(self._fd))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; again does nothing."""
        with self._guard:
            fd, self._fd = self._fd, -1
        close_file(fd)

    def abandon(self) -> None:
        """Close the file in a forked child, where another thread may have held the guard."""
        for fd in (self._fd, self._copy):
            close_file(fd)
        self._fd = self._copy = -1
