"""Decides whether a configuration file in the working directory belongs to the application.

If a user runs a program inside another person's directory, a configuration file in this
directory must not control the program: it could send the records to a stranger.  So a file may
set only harmless options, unless the user named the file or code in its directory is running.
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

#: The pydantic metadata of an option that even an untrusted file may set.  Such an option does not
#: set a destination, load code, weaken a protection or use resources.
HARMLESS: Final[dict[str, Any]] = {"harmless": True}
#: The pydantic metadata of a level that an untrusted file may lower.  The file must not raise the
#: level above its default, because that would hide records.
HARMLESS_IF_LOWER: Final[dict[str, Any]] = {"harmless": "if lower"}

#: The maximum size, in bytes, of a configuration file; a larger file raises an error.
_MAX_BYTES: Final = 1 << 20
_INSTALLED: Final = {"site-packages", "dist-packages"}
# Without O_NONBLOCK, open() would block if the path were a named pipe without a writer.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read(path: Path) -> tuple[bytes, bool]:
    """Return the content of a file, and whether it is safe from changes by other users.

    The second value is True if this user or root owns the file and not everyone may write to
    it.  Does not block, because only regular files are read.

    Raises:
        FileNotFoundError: the file does not exist, or its directory cannot be searched.
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
    """Return whether this user or root owns a file that is not world-writable.

    If ``link`` is True, the file is a symbolic link, whose permissions have no effect.
    """
    if not hasattr(os, "geteuid"):
        return True
    is_shared = bool(status.st_mode & stat.S_IWOTH) and not link
    return status.st_uid in {0, os.geteuid()} and not is_shared


def belongs_to_application(path: Path) -> bool:
    """Return whether the directory of ``path`` contains the main program or a running module.

    A module is running if one of its functions is on the call stack of this thread.
    """
    try:
        directory = path.absolute().parent.resolve()
    except OSError:
        return False
    return any(_is_within(file, directory) for file in _running_files())


def _running_files() -> Iterator[str]:
    """Yield the files of the main program and of the modules on this thread's call stack.

    The paths come from the modules' ``__file__``, not from code objects, because a program can
    compile code under any file name.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    # With OpenTelemetry's zero-code instrumentation, the main program is not loaded yet.  In the
    # usual command ``python FILE``, its file is the first argument of the interpreter.
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
    """Return whether ``file`` is in ``directory`` and does not belong to an installed package."""
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
    except (OSError, RuntimeError, ValueError):  # a loop of symbolic links, or an invalid path
        return False


def is_installed(file: str | Path) -> bool:
    """Return whether ``file`` is in a directory of packages, such as ``site-packages``."""
    return not _INSTALLED.isdisjoint(Path(file).parts)


def is_harmless(field: FieldInfo, value: Any) -> bool:
    """Return whether even an untrusted file may set the option ``field`` to ``value``."""
    if field.json_schema_extra == HARMLESS_IF_LOWER:
        return bool(value <= field.default)
    return field.json_schema_extra == HARMLESS
