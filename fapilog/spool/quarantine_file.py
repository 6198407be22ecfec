"""One file of a quarantine: looking at it, and taking batches out of it again."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import Self

from fapilog import native
from fapilog.native import monotonic
from fapilog.process.files import (
    APPEND,
    UPDATE,
    create_file,
    open_file,
    sync_data,
    try_lock,
    write_whole,
)
from fapilog.spool.format import (
    SegmentFile,
    format_id,
    pack_frame,
    pack_segment_header,
)
from fapilog.spool.scan import Damage, Scan, scan, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

NAME: Final = "quarantine"
_FILE: Final = re.compile(r"\d{1,20}-\d{1,10}-[0-9a-f]{8}\.seg", re.ASCII)
_LOCK_TIME: Final = 2.0  # seconds that a process may take to add a batch
_PAUSE: Final = 0.01


@dataclass(frozen=True)
class Refused:
    """One batch in quarantine.

    Attributes:
        time_ns: when it came there, nanoseconds since the Unix epoch.
        reason: why.
        severities: the severity number of each of its records.
        body: the batch, packed.
        sequence: its place in its file.
    """

    time_ns: int
    reason: str
    severities: bytes
    body: bytes
    sequence: int


def list_files(sink_directory: Path) -> list[Path]:
    """Return the files of a sink's quarantine, the oldest first; none where it is missing.

    Raises:
        OSError: it cannot be read.
    """
    path = sink_directory / NAME
    try:
        names = os.listdir(path)  # noqa: PTH208 - Path.iterdir makes a path of each
    except FileNotFoundError:
        return []
    own = [name for name in names if _FILE.fullmatch(name)]
    return [path / name for name in sorted(own, key=lambda name: int(name.partition("-")[0]))]


class QuarantineFile:
    """A file of a quarantine, to look at or, as a context manager, to empty.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy = path.with_name(path.name + ".new")
        self._settled: set[int] = set()
        self._fd = -1

    def scan(self) -> Scan:
        """Look through the file.  Never raises; blocks for the disk."""
        return scan(self.path, load=True)

    def __iter__(self) -> Iterator[Refused]:
        """Yield its batches, without those that are damaged.

        Raises:
            OSError: it cannot be read.
        """
        with contextlib.closing(SegmentFile(self.path)) as file:
            found = scan(self.path)
            if found.layout is None:
                return
            frames = walk(file, found.layout, found.start, found.size, last=None, load=True)
            for one in frames:
                if not isinstance(one, Damage) and one.payload is not None:
                    header, payload = one.header, one.payload
                    yield Refused(
                        header.time_ns,
                        payload.reason,
                        payload.severities,
                        payload.body,
                        header.sequence,
                    )

    def __enter__(self) -> Self:
        """Lock the file.

        Raises:
            BlockingIOError: somebody else is emptying it.
            OSError: it is gone, or cannot be opened.
        """
        self._fd = open_file(self.path, UPDATE)
        try:
            until = monotonic() + _LOCK_TIME
            while not try_lock(self._fd):  # a process may be adding to it, for a moment
                if monotonic() >= until:
                    raise BlockingIOError(errno.EAGAIN, "in use by another process")
                native.sleep(_PAUSE)
            if not os.path.samestat(self.path.lstat(), os.fstat(self._fd)):
                raise FileNotFoundError(errno.ENOENT, "emptied by another process")
        except OSError:
            os.close(self._fd)
            raise
        return self

    def settle(self, refused: Refused) -> None:
        """Have a batch of it removed at the end."""
        self._settled.add(refused.sequence)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove what was settled, or the file with the last of it, and unlock it."""
        try:
            if self._settled:
                self._rewrite()
        finally:
            if self._fd >= 0:
                os.close(self._fd)

    def _rewrite(self) -> None:
        found = scan(self.path)
        if found.frames <= len(self._settled):
            self.remove()
            return
        if found.header is None:
            return  # its wire format is not known: better twice than never
        copy = self._copy
        copy.unlink(missing_ok=True)  # of a replay that was killed
        fd = create_file(copy, APPEND)
        try:
            header = found.header
            write_whole(fd, [pack_segment_header(1, header.time_ns, header.wire_format)])
            for refused in self:
                if refused.sequence not in self._settled:
                    write_whole(fd, _packed(refused, header.wire_format))
            sync_data(fd)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        self._close_on_windows()
        copy.replace(self.path)

    def _close_on_windows(self) -> None:
        """Close the file where an open one can neither be removed nor replaced."""
        if os.name == "nt":
            fd, self._fd = self._fd, -1
            os.close(fd)

    def move(self, path: Path) -> None:
        """Move the file, which is locked, there.

        Raises:
            OSError: it cannot be moved.
        """
        self._close_on_windows()
        self.path.rename(path)

    def remove(self) -> None:
        """Remove the file, which is locked.

        Raises:
            OSError: it cannot be removed.
        """
        self._close_on_windows()
        self._copy.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _packed(refused: Refused, wire_format: str) -> tuple[bytes, bytes, bytes]:
    return pack_frame(
        format_id(wire_format),
        refused.sequence,
        refused.time_ns,
        refused.severities,
        refused.body,
        reason=refused.reason,
    )
