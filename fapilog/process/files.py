"""Opens, locks, writes and syncs files that outlive the process.

The spool and the file sink call these functions.  A path that is a symbolic link is not opened.
Locks are advisory and belong to open files, so the system releases the locks of a dead process.
This module handles the differences between platforms.  Functions raise OSError if a system call
fails.
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

# Flags that are added whenever a file is opened.  Without O_NONBLOCK, opening a named pipe could
# block.
_SAFE: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
#: Flags for writing at the end of a file.  Reading is also allowed, so that the file's content
#: can still be read after another program has deleted the open file.
APPEND: Final = os.O_RDWR | os.O_APPEND
#: Flags for reading and writing at any offset.
UPDATE: Final = os.O_RDWR
_NEW: Final = os.O_CREAT | os.O_EXCL

_TAKEN: Final = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
#: The error numbers with which file systems report that they do not support locks.  NFS reports
#: EBADF for directories.
_NO_LOCK: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK}
_NO_SYNC: Final = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


class PlantedFileError(PermissionError):
    """A file is not opened, because another user may have created it."""


def create_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Create the file ``path`` and return its file descriptor.

    Args:
        path: the file's path.
        flags: :data:`APPEND` or :data:`UPDATE`.
        mode: the permission bits, which the file gets regardless of the umask.

    Raises:
        FileExistsError: the path already exists.
    """
    fd = os.open(path, flags | _NEW | _SAFE, mode)
    if hasattr(os, "fchmod"):
        os.fchmod(fd, mode)  # the umask may have cleared some bits
    return fd


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open the regular file ``path`` and return its file descriptor.

    ``flags`` is ``os.O_RDONLY``, :data:`APPEND` or :data:`UPDATE`.
    """
    fd = os.open(path, flags | _SAFE)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def open_unplanted(path: Path) -> int:
    """Open a regular file for appending, unless another user may have created the file.

    A user who creates a file in advance can read the records in it.  If that user creates a hard
    link instead, the records are appended to another file.

    Raises:
        PlantedFileError: all users can write to one of the file's parent directories, and the
            file has more than one hard link or belongs to another user (except root).
    """
    fd = open_file(path, APPEND)
    try:
        status = os.fstat(fd)
        if hasattr(os, "geteuid") and (
            status.st_uid not in {0, os.geteuid()} or status.st_nlink > 1
        ):
            # If another user has replaced a directory by a symbolic link, the resolved path
            # differs from the absolute path, so the parent directories of both are checked.
            for directory in (path.absolute().parent, path.resolve().parent):
                _refuse_open_to_all(directory, status)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_open_to_all(directory: Path, status: os.stat_result) -> None:
    for one in (directory, *directory.parents):
        above = one.stat()
        if above.st_mode & stat.S_IWOTH:
            reason = (
                f"the file belongs to user {status.st_uid} or has a second name, and all users "
                f"can write to {one}; use a directory of your own, or remove the file"
            )
            raise PlantedFileError(errno.EPERM, reason)
        if above.st_uid in {0, os.geteuid()}:
            return


def open_directory(path: Path) -> int:
    """Open the directory ``path`` and return its file descriptor, or -1 on Windows."""
    if sys.platform == "win32":
        return -1
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def close_file(fd: int) -> None:
    """Close a file descriptor, unless it is -1 or already closed."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)


def is_at(path: Path, status: os.stat_result) -> bool:
    """Return whether the file or directory at ``path`` is the one that ``status`` describes.

    If ``path`` is a symbolic link, the link is not followed.  Never raises OSError.
    """
    try:
        return os.path.samestat(path.lstat(), status)
    except OSError:
        return False


def make_directories(path: Path) -> None:
    """Create a directory and its missing parents with mode 0700."""
    with contextlib.suppress(FileExistsError):
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            make_directories(path.parent)
            path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))


def make_private_directory(path: Path) -> None:
    """Create a directory if it is missing, check its owner, and set its mode to 0700."""
    make_directories(path)
    check_private(path)
    if sys.platform != "win32" and path.stat().st_mode & 0o077:
        path.chmod(0o700)


def check_private(path: Path) -> None:
    """Check that ``path`` is a directory that belongs to this user, not a symbolic link.

    Raises:
        OSError: ``path`` is not such a directory; the message contains the reason.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link, which the spool does not follow", str(path))
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to user {status.st_uid}", str(path))


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return ``size`` bytes from ``offset``, or fewer bytes if the file ends earlier."""
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def write_whole(fd: int, parts: Sequence[bytes]) -> None:
    """Write all bytes in ``parts``, if possible in a single system call.

    Raises:
        OSError: writing failed; the file may contain some of the bytes.
    """
    written = os.write(fd, b"".join(parts)) if sys.platform == "win32" else os.writev(fd, parts)
    if written < sum(map(len, parts)):
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def sync_data(fd: int) -> None:
    """Sync the data of an open file to disk, so that it survives a power failure."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_directory(path: Path) -> None:
    """Sync a directory's entries to disk, if the platform and the file system support it."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Return the number of bytes that a file occupies on disk, or 0 if missing.  Never raises."""
    try:
        return taken_by(path.lstat())
    except OSError:
        return 0


def taken_by(status: os.stat_result) -> int:
    """Return the number of bytes that the file with this ``status`` occupies on disk.

    The holes of a sparse file occupy no bytes.
    """
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows does not report blocks
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def try_lock(fd: int) -> bool:
    """Try to lock an open file.  Return False if another process has locked it.  Never blocks."""
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def unlock(fd: int) -> None:
    """Unlock an open file.  Never raises OSError.

    Child processes that inherited the file descriptor lose the lock, too.
    """
    with contextlib.suppress(OSError):  # closing the file will also release the lock
        _unlock(fd)


def try_lock_if_possible(fd: int) -> bool:
    """Like :func:`try_lock`, but also return True if the file system does not support locks.

    On Windows, this function does not lock the file and returns True, because a lock would
    prevent other programs from reading the file.
    """
    try:
        return sys.platform == "win32" or try_lock(fd)
    except OSError as error:
        if error.errno in _NO_LOCK:
            return True
        raise


class SyncedFile:
    """An open file that one thread may write while another thread syncs it.

    One thread at a time may call ``write``, ``write_at``, ``cut`` and ``close``;
    another thread may call ``sync`` at the same time.

    Args:
        path: the file's path.
        fd: a file descriptor that is open for writing; :meth:`close` closes it.

    Attributes:
        inode: the file's inode number.
        failed: whether a sync has failed.  Then the file must not be written again, because
            data may be lost and later syncs do not report this.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.inode = os.fstat(fd).st_ino
        self.failed = False
        self._fd = fd
        self._copy = -1  # the duplicate of _fd that a running sync uses, or -1
        self._dirty = False  # whether data was written after the latest sync began
        self._guard = native.RLock()  # held while _fd is copied or closed

    def write(self, parts: Sequence[bytes]) -> None:
        """Write ``parts`` at the end of a file that was opened with :data:`APPEND`."""
        try:
            write_whole(self._fd, parts)
        finally:  # set _dirty after the write, because a concurrent sync() sets it to False
            self._dirty = True

    def write_at(self, offset: int, data: bytes) -> None:
        """Write ``data`` at ``offset`` of a file that was opened with :data:`UPDATE`."""
        os.lseek(self._fd, offset, os.SEEK_SET)
        self.write((data,))

    def cut(self, size: int) -> None:
        """Truncate the file to ``size`` bytes."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Sync the file's data to disk, so that it survives a power failure.  Blocks.

        Does nothing after a failed sync, because the system may have discarded the data that it
        could not write, and another sync would wrongly report success.

        Raises:
            OSError: the disk failed, or the file was deleted.
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
        """Return a duplicate of the file descriptor, or -1 if the file is closed."""
        with self._guard:
            return os.dup(self._fd) if self._fd >= 0 else -1

    @property
    def has_name(self) -> bool:
        """Whether this file still exists at ``path``.  Never raises."""
        with self._guard, contextlib.suppress(OSError):
            return is_at(self.path, os.fstat(self._fd))
        return False

    def close(self) -> None:
        """Close the file.  A second call does nothing."""
        with self._guard:
            fd, self._fd = self._fd, -1
        close_file(fd)

    def abandon(self) -> None:
        """Close the file in a forked child.

        The lock of this object is not acquired, because a thread of the parent process may have
        held it during the fork.
        """
        for fd in (self._fd, self._copy):
            close_file(fd)
        self._fd = self._copy = -1
