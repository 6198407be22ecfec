"""Whose configuration file it is that lies in the working directory.

A tool that is run inside a directory of somebody else must not obey a file
there: it could send records, with the credentials of the environment, to a
stranger, or write them to any file.  So a file that nobody named is obeyed
whole only if it belongs to the application: if code of that directory is
running.  Otherwise it sets nothing but the options that are marked with
:data:`HARMLESS`.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

#: Marks an option that names no destination, loads nothing, weakens no
#: protection and takes no resources: ``Field(..., json_schema_extra=HARMLESS)``.
HARMLESS: Final[dict[str, Any]] = {"harmless": True}

_INSTALLED: Final = {"site-packages", "dist-packages"}
_WRITABLE_BY_OTHERS: Final = stat.S_IWOTH


def belongs_to_application(path: Path) -> bool:
    """Whether code of the directory of ``path`` runs now, or is the main program.

    The file must also be its user's own, or root's, and not writable by others.
    """
    try:
        directory = path.resolve().parent
        status = path.stat()
    except OSError:
        return False
    if hasattr(os, "geteuid") and (
        status.st_uid not in {0, os.geteuid()} or status.st_mode & _WRITABLE_BY_OTHERS
    ):
        return False
    return any(_is_within(file, directory) for file in _running_files())


def _running_files() -> Iterator[str]:
    """Yield the files of the running code, and of the main program."""
    yield getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if len(sys.orig_argv) > 1 and not sys.orig_argv[1].startswith("-"):
        yield sys.orig_argv[1]  # before the main program is loaded, as in zero code
    frame = sys._getframe(1)  # noqa: SLF001 - documented, and the only way to the callers
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back  # type: ignore[assignment]


def _is_within(file: str, directory: Path) -> bool:
    if not file or file.startswith("<"):
        return False
    try:
        resolved = Path(file).resolve()
    except OSError:
        return False
    parts = resolved.parts
    return (
        resolved.is_file()
        and _INSTALLED.isdisjoint(parts)
        and parts[: len(directory.parts)] == directory.parts
        and resolved.parent != resolved
    )


def harmless(
    model: type[BaseModel], values: dict[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of harmless options, and the dotted names of the others."""
    kept: dict[str, Any] = {}
    others: list[str] = []
    for name, value in values.items():
        field = model.model_fields.get(name)
        kind: Any = None if field is None else field.annotation
        if isinstance(value, dict) and isinstance(kind, type) and hasattr(kind, "model_fields"):
            inner, more = harmless(kind, value, f"{prefix}{name}.")
            others += more
            if inner:
                kept[name] = inner
        elif field is not None and field.json_schema_extra == HARMLESS:
            kept[name] = value
        else:
            others.append(f"{prefix}{name}")
    return kept, others
