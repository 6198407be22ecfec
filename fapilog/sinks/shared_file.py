"""Opening and locking a file that several processes may share.

Under the file sink and its archive.  The lock is an advisory one on the open
file itself: there is no lock file to clean up, and a process that dies leaves
no lock behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Appending leaves the position to the system, which is what makes several
# writers and a truncation from outside safe.  Never through a symbolic link:
# in a directory others may write to, it could lead anywhere.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_TAKEN: Final = {errno.EAGAIN, errno.EACCES}
_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


def create_file(path: Path, mode: int) -> int:
    """Create ``path`` with exactly these permission bits and return its descriptor.

    Raises:
        FileExistsError: there is something of that name already.
        OSError: it cannot be created.
    """
    fd = os.open(path, _FLAGS | _NO_LINK | os.O_CREAT | os.O_EXCL, mode)
    if hasattr(os, "fchmod"):
        os.fchmod(fd, mode)  # whatever the umask
    return fd


def open_file(path: Path) -> int:
    """Open the regular file ``path``, which must not be a link, to read and append.

    Raises:
        OSError: there is no such file, or it is something else, or another user
            has put it into a directory that all users can write to.
    """
    fd = os.open(path, _FLAGS | _NO_LINK)
    try:
        _check(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


class PlantedFileError(PermissionError):
    """Another user may have made the file where it is; its text names the fix."""


def _check(path: Path, status: os.stat_result) -> None:
    """Refuse what is not a file, and a file that another user may have put there.

    Its owner could read what is written to it; a second name may be that of
    any file of this user.

    Raises:
        OSError: it is refused.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not hasattr(os, "geteuid"):
        return
    is_strange = status.st_uid not in {0, os.geteuid()} or status.st_nlink > 1
    # By both ways: a link among the directories may be another user's, too.
    if is_strange and any(map(_is_open_to_all, (path.absolute().parent, path.resolve().parent))):
        reason = (
            f"it belongs to user {status.st_uid} or has a second name, and all users can write to "
            "a directory that it lies in; use a directory of your own, or remove the file"
        )
        raise PlantedFileError(errno.EPERM, reason)


def _is_open_to_all(directory: Path) -> bool:
    """Whether any user can have made what lies in the directory, or the directory itself.

    Raises:
        OSError: the directory cannot be looked at.
    """
    for one in (directory, *directory.parents):
        status = one.stat()
        if status.st_mode & stat.S_IWOTH:
            return True
        if status.st_uid in {0, os.geteuid()}:
            return False
    return False


def make_directory(path: Path) -> None:
    """Create the directory and its parents where missing, for this user only.

    Raises:
        OSError: one cannot be created.
    """
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Have names made or changed in the directory survive a power failure.

    Raises:
        OSError: the disk failed.
    """
    if sys.platform != "win32":  # which opens no directories
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def ends_line(fd: int) -> bool:
    """Whether the open file is empty or ends in a newline."""
    size = os.fstat(fd).st_size
    if size == 0:
        return True
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1) in (b"\n", b"")  # nothing: it was truncated just now


def is_at(path: Path, file: os.stat_result) -> bool:
    """Whether ``path`` still names the open file of this status."""
    try:
        return os.path.samestat(path.lstat(), file)
    except FileNotFoundError:
        return False


if sys.platform == "win32":

    def try_lock(fd: int) -> bool:  # noqa: ARG001 - as below
        """Return True: Windows' locks forbid reading, so there it is one process a file."""
        return True

    def unlock(fd: int) -> None:
        """Undo :func:`try_lock`."""

else:
    import fcntl

    def try_lock(fd: int) -> bool:
        """Take the lock of an open file; False if another process has it.

        Does not block.  True as well where the file system has no locks:
        processes go unprotected there.

        Raises:
            OSError: ``fd`` is not an open file.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def unlock(fd: int) -> None:
        """Undo :func:`try_lock`."""
        with contextlib.suppress(OSError):  # the lock goes when the file is closed, too
            fcntl.flock(fd, fcntl.LOCK_UN)
