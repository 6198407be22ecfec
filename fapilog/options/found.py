"""Whose configuration file it is that lies in the working directory.

A tool that is run inside a directory of somebody else must not obey a file
there: it could send records, with the credentials of the environment, to a
stranger, or write them to any file.  So a file that nobody named is obeyed
whole only if it belongs to the application: if code of that directory is
running.  Otherwise it sets nothing but the options that are marked with
:data:`HARMLESS`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from fapilog.options.schema import is_group, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

#: Marks an option that names no destination, loads nothing, weakens no
#: protection and takes no resources: ``Field(..., json_schema_extra=HARMLESS)``.
HARMLESS: Final[dict[str, Any]] = {"harmless": True}

#: Bytes of a file that is read; one that nobody named may be of any size.
_MAX_BYTES: Final = 1 << 20
_INSTALLED: Final = {"site-packages", "dist-packages"}
# Opening must not wait for the writer of a pipe.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read(path: Path) -> tuple[str, bool]:
    """Return the text of a file, and whether nobody but its user and root can have written it.

    Does not block: what is not a regular file is not read.

    Raises:
        OSError: it cannot be read, or is not a file of options.
        ValueError: it is not UTF-8.
    """
    with open(os.open(path, _FLAGS), "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES} bytes")
    return content.decode(), _is_own(status) and _is_own(path.lstat(), link=True)


def _is_own(status: os.stat_result, *, link: bool = False) -> bool:
    """Whether the user or root owns it, and others cannot write to it, if it is not a link."""
    if not hasattr(os, "geteuid"):
        return True
    is_shared = bool(status.st_mode & stat.S_IWOTH) and not link
    return status.st_uid in {0, os.geteuid()} and not is_shared


def belongs_to_application(path: Path) -> bool:
    """Whether code that lies in the directory of ``path`` runs now, or is the main program."""
    try:
        directory = path.absolute().parent.resolve()
    except OSError:
        return False
    return any(_is_within(file, directory) for file in _running_files())


def _running_files() -> Iterator[str]:
    """Yield the files of the main program, and of the modules whose code runs on this thread.

    Those of a frame's module, not what its code object names: that may be the
    name of a template that was compiled.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    # In zero code the main program is not loaded yet, and nothing has left its directory.
    yield main or next(iter(sys.orig_argv[1:]), "")
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to the callers
    seen: set[int] = set()
    while frame is not None:
        values, frame = frame.f_globals, frame.f_back
        module = sys.modules.get(str(values.get("__name__")))
        if module is not None and vars(module) is values and id(module) not in seen:
            seen.add(id(module))
            yield getattr(module, "__file__", None) or ""


def _is_within(file: str, directory: Path) -> bool:
    """Whether a file lies in the directory, and was not installed there."""
    if not file or file.startswith(("<", "-")):
        return False
    try:
        resolved = Path(file).resolve()
        scripts = Path(sysconfig.get_path("scripts")).resolve()
        return (
            resolved.is_file()
            and directory in resolved.parents
            and scripts != resolved.parent
            and _INSTALLED.isdisjoint(resolved.parts)
        )
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that cannot be one
        return False


def harmless(
    model: type[BaseModel], values: dict[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of harmless options that are right, and the dotted names of the others."""
    kept: dict[str, Any] = {}
    others: list[str] = []
    for name, value in values.items():
        field = model.model_fields.get(name)
        group: Any = None if field is None else field.annotation
        if isinstance(value, dict) and is_group(group):
            inner, more = harmless(group, value, f"{prefix}{name}.")
            others += more
            if inner:
                kept[name] = inner
        elif field is not None and field.json_schema_extra == HARMLESS and _is_right(field, value):
            kept[name] = value
        else:
            others.append(f"{prefix}{name}")
    return kept, others


def _is_right(field: FieldInfo, value: object) -> bool:
    """Whether an option may have a value: a wrong one in a stranger's file stops no tool."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind_of(field))
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
