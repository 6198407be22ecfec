"""Up to where a directory's frames are settled, on disk.

Two slots are written in turn, each with a generation and a checksum, half a
kibibyte apart: whatever a crash does to one, the other holds.  A cursor that
is lost costs duplicates, never a record.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

from fapilog.delivery.spool.files import UPDATE, SyncedFile, create_file, open_file, read_at

if TYPE_CHECKING:
    from pathlib import Path

_SLOT: Final = struct.Struct("<4sQQI")  # magic, generation, floor, CRC of these
_MAGIC: Final = b"FPC1"
_CRC_SIZE: Final = 4
_OFFSETS: Final = (0, 512)
_SIZE: Final = 1024

NAME: Final = "cursor"


class Cursor:
    """The cursor of one directory, opened or made.

    Args:
        directory: its directory, locked by this process.

    Attributes:
        floor: the lowest sequence that is not settled.
        file: what is written, to be synced.

    Raises:
        OSError: it can neither be opened nor made.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self.floor, self._generation = 0, 0
        with contextlib.suppress(OSError):  # then everything counts as not settled
            self.floor, self._generation = _read(self._path)
            self.file = SyncedFile(self._path, open_file(self._path, UPDATE))
            return
        self.file = self._create()

    def move(self, floor: int) -> None:
        """Write that everything below ``floor`` is settled.

        Raises:
            OSError: it was not written.
        """
        if self.file.failed:  # what its pages hold is not known
            self.file.close()
            self.file = self._create()
        self.floor = floor
        self._generation += 1
        data = _SLOT.pack(_MAGIC, self._generation, floor, 0)[:-_CRC_SIZE]
        offset = _OFFSETS[self._generation % 2]
        self.file.write_at(offset, data + struct.pack("<I", crc32(data)))

    def renew(self) -> None:
        """Create the file again when somebody has deleted it.  Never raises."""
        if not self.file.has_name:
            with contextlib.suppress(OSError):  # costs duplicates, and the next move tries again
                self.file.close()
                self.file = self._create()
                self.move(self.floor)

    def _create(self) -> SyncedFile:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        file = SyncedFile(self._path, create_file(self._path, UPDATE))
        # Room for both, so that a full disk does not stop the cursor.
        file.write_at(0, bytes(_SIZE))
        return file


def read_floor(directory: Path) -> int:
    """Return the lowest sequence of a directory that is not settled.  Never raises."""
    try:
        return _read(directory / NAME)[0]
    except OSError:
        return 0


def _read(path: Path) -> tuple[int, int]:
    """Return the newest floor and generation."""
    fd = open_file(path)
    try:
        slots = [_parsed(read_at(fd, _SLOT.size, offset)) for offset in _OFFSETS]
    finally:
        os.close(fd)
    generation, floor = max(slots)
    return floor, generation


def _parsed(data: bytes) -> tuple[int, int]:
    """Return generation and floor; zeros for a slot that is empty or damaged."""
    if len(data) < _SLOT.size:
        return 0, 0
    magic, generation, floor, crc = _SLOT.unpack(data)
    if magic != _MAGIC or crc != crc32(data[:-_CRC_SIZE]):
        return 0, 0
    return generation, floor
