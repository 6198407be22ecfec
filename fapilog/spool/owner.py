"""Whose records a directory holds: the sink's name, and where the sink sends them.

A directory is named after both, so records never reach a destination that they
were not logged for, whatever sinks come and go or change places.  The file
``destination`` in it says the same in words, for a person.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from fapilog.diagnostics import announce
from fapilog.process.files import (
    APPEND,
    create_file,
    make_private_directory,
    open_file,
    read_at,
    write_whole,
)
from fapilog.spool.directory import (
    file_name,
    is_locked,
    list_directories,
    list_segments,
    sink_name,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

FILE: Final = "destination"
_MARK: Final = "~"  # never part of a sink's file name
_MAX_FILE: Final = 1 << 16
#: Directories that are looked at for records without an owner.
_MAX_STRANGERS: Final = 100


@dataclass(frozen=True)
class Owner:
    """The sink that a directory belongs to.

    Attributes:
        name: the name that the sink was given.
        wire_format: the format of its batches.
        destination: where it sends them, in words and without secrets; "" when
            the sink does not say, and is known by its name alone.
    """

    name: str
    wire_format: str = ""
    destination: str = ""

    @property
    def directory(self) -> str:
        """The name of its directory.

        Raises:
            ConfigurationError: the sink's name is empty or too long.
        """
        name = file_name(self.name)
        if not self.destination:
            return name
        return f"{name}{_MARK}{_digest(self.wire_format, self.destination)}"


def _digest(*parts: str) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read_owner(path: Path) -> Owner:
    """Return whose directory ``path`` is, as far as it tells.  Never raises.

    A description that does not match the directory's name is not believed.
    """
    name, mark, _ = path.name.partition(_MARK)
    if mark:
        with contextlib.suppress(OSError, ValueError, TypeError):
            fd = open_file(path / FILE)
            try:
                owner = Owner(**json.loads(read_at(fd, _MAX_FILE, 0)))
            finally:
                os.close(fd)
            if owner.directory == path.name:
                return owner
    return Owner(sink_name(name))


def make_sink_directory(path: Path, owner: Owner) -> None:
    """Create the directory of a sink where missing, private and with its description.

    Raises:
        OSError: it cannot be created, or it is a link or another user's.
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
    """Announce records on disk that no sink which is present may send.  Never raises.

    Args:
        root: the spool's directory.
        present: the directories' names of the sinks that are present.
    """
    try:
        names = sorted(name for name in os.listdir(root) if name not in present)  # noqa: PTH208 - names are what is wanted
    except OSError:
        return
    for path in _with_records(root, names[:_MAX_STRANGERS]):
        owner = read_owner(path)
        whose = f"for {owner.destination}, and no sink named {owner.name!r} sends there"
        announce(
            f"spool stranger {path.name}",
            f"records wait in {path} "
            f"{whose if owner.destination else 'and nothing says where they should go'}; "
            f"give them to a sink with `fapilog spool adopt {path.name} --sink NAME`, or delete "
            f"them with `fapilog spool purge --sink {path.name}`",
        )


def _with_records(root: Path, names: list[str]) -> Iterator[Path]:
    """Yield the sinks' directories in which a dead process has left a segment."""
    for name in names:
        path = root / name
        with contextlib.suppress(OSError):
            directories = (path / one.text for one in list_directories(path))
            if any(list_segments(one) and not is_locked(one) for one in directories):
                yield path
