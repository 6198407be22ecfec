"""Decides whether a configuration file in the working directory belongs to the application.

A tool that runs inside another person's directory must not obey a file there: the
file could send records to a stranger.  If the user did not name a file and no code in
the file's directory is running, the file may set only options that are marked as harmless.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pydantic.fields import FieldInfo

#: Marks an option that even an untrusted file may set.  Such an option names no
#: destination, loads no code, weakens no protection and takes no resources.
HARMLESS: Final[dict[str, Any]] = {"harmless": True}
#: Marks a level that an untrusted file may lower.  The file may not raise it above the
#: default, which would hide records.
HARMLESS_IF_LOWER: Final[dict[str, Any]] = {"harmless": "if lower"}

#: The maximum size of a file in bytes; a larger file is an error.
_MAX_BYTES: Final = 1 << 20
_INSTALLED: Final = {"site-packages", "dist-packages"}
# O_NONBLOCK, because without it open() would wait if the path were a pipe without a writer.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read(path: Path) -> tuple[bytes, bool]:
    """Return a file's content, and True if the file belongs to this user or root.

    The second value is False if another user owns the file, or everyone may write to it.
    Does not block: only a regular file is read.

    Raises:
        FileNotFoundError: there is no file, or its directory cannot be searched.
        OSError: the file cannot be read, is not a regular file, or is too large.
    """
    if not os.access(path.parent, os.X_OK):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with open(os.open(path, _FLAGS), "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES} bytes")
    return content, _is_own(status) and _is_own(path.lstat(), link=True)


def _is_own(status: os.stat_result, *, link: bool = False) -> bool:
    """Whether this user or root owns a file, and not everyone may write to it.

    If ``link`` is True, ``status`` is that of a symbolic link, whose permissions do not count.
    """
    if not hasattr(os, "geteuid"):
        return True
    is_shared = bool(status.st_mode & stat.S_IWOTH) and not link
    return status.st_uid in {0, os.geteuid()} and not is_shared


def belongs_to_application(path: Path) -> bool:
    """Whether the directory of ``path`` contains the main program or its running modules.

    A running module is one whose code is on the stack of this thread.
    """
    try:
        directory = path.absolute().parent.resolve()
    except OSError:
        return False
    return any(_is_within(file, directory) for file in _running_files())


def _running_files() -> Iterator[str]:
    """Yield the files of the main program and of the modules that run on this thread.

    The names come from the modules.  Those in code objects are not used, because any
    program can compile code under any file name.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    # With zero-code instrumentation, the main program is not loaded yet.  Its file is then
    # the first argument of the interpreter.
    yield main or next(iter(sys.orig_argv[1:]), "")
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only access to the callers
    seen: set[int] = set()
    while frame is not None:
        values, frame = frame.f_globals, frame.f_back
        module = sys.modules.get(str(values.get("__name__")))
        if module is not None and vars(module) is values and id(module) not in seen:
            seen.add(id(module))
            yield getattr(module, "__file__", None) or ""


def _is_within(file: str, directory: Path) -> bool:
    """Whether a file is in the directory, and is not part or a script of an installed package."""
    if not file or file.startswith(("<", "-")):
        return False
    try:
        resolved = Path(file).resolve()
        scripts = Path(sysconfig.get_path("scripts")).resolve()
        return (
            resolved.is_file()
            and directory in resolved.parents
            and scripts != resolved.parent
            and not is_installed(resolved)
        )
    except (OSError, RuntimeError, ValueError):  # a loop of links, or an invalid name
        return False


def is_installed(file: str | Path) -> bool:
    """Whether a file is in a directory of installed packages, such as ``site-packages``."""
    return not _INSTALLED.isdisjoint(Path(file).parts)


def is_harmless(field: FieldInfo, value: Any) -> bool:
    """Whether even an untrusted file may set an option to ``value``."""
    if field.json_schema_extra == HARMLESS_IF_LOWER:
        return bool(value <= field.default)
    return field.json_schema_extra == HARMLESS
