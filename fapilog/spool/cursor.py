"""Up to where a directory's frames are settled, on disk.

Two slots are written in turn, each with a generation and a checksum, half a
kibibyte apart: whatever a crash does to one, the other holds.  A cursor that
is lost costs duplicates, never a record.  Behind a slot is where the lowest
frame that is not settled is, if that is known, so that whoever adopts a large
segment need not walk through all that was delivered.  Releases that do not know
it neither read nor write it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from fapilog.process.files import UPDATE, SyncedFile, create_file, open_file, read_at

if TYPE_CHECKING:
    from pathlib import Path

_SLOT: Final = struct.Struct("<4sQQI")  # magic, generation, floor, CRC of these
_PLACE: Final = struct.Struct("<QQQI")  # generation, segment, offset, CRC of these
_MAGIC: Final = b"FPC1"
_CRC_SIZE: Final = 4
_OFFSETS: Final = (0, 512)
_SIZE: Final = 1024

NAME: Final = "cursor"


class Place(NamedTuple):
    """Up to where a directory is settled.

    Attributes:
        generation: how often it was written; the newest counts.
        floor: the lowest sequence that is not settled.
        segment: the number of a segment in which everything before
        offset: is settled; both 0 when that is not known.
    """

    generation: int = 0
    floor: int = 0
    segment: int = 0
    offset: int = 0


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
        self.floor = self._generation = 0
        with contextlib.suppress(OSError):  # then everything counts as not settled
            self._generation, self.floor, *_ = _read(self._path)
            self.file = SyncedFile(self._path, open_file(self._path, UPDATE))
            return
        self.file = self._create()

    def move(self, floor: int, segment: int = 0, offset: int = 0) -> None:
        """Write that everything below ``floor`` is settled.

        Args:
            floor: the lowest sequence that is not settled.
            segment: the number of the segment in which its place is, if it is known.
            offset: its place.

        Raises:
            OSError: it was not written.
        """
        if self.file.failed:  # what its pages hold is not known
            self.file.close()
            self.file = self._create()
        self.floor = floor
        self._generation += 1
        slot = _SLOT.pack(_MAGIC, self._generation, floor, 0)[:-_CRC_SIZE]
        place = _PLACE.pack(self._generation, segment, offset, 0)[:-_CRC_SIZE]
        data = b"".join(part + struct.pack("<I", crc32(part)) for part in (slot, place))
        self.file.write_at(_OFFSETS[self._generation % 2], data)

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


def read_place(directory: Path) -> Place:
    """Return up to where a directory is settled.  Never raises."""
    try:
        return _read(directory / NAME)
    except OSError:
        return Place()


def read_floor(directory: Path) -> int:
    """Return the lowest sequence of a directory that is not settled.  Never raises."""
    return read_place(directory).floor


def _read(path: Path) -> Place:
    """Return what the newest slot says."""
    fd = open_file(path)
    try:
        size = _SLOT.size + _PLACE.size
        return max(_parsed(read_at(fd, size, offset)) for offset in _OFFSETS)
    finally:
        os.close(fd)


def _parsed(data: bytes) -> Place:
    """Return what a slot says; zeros for one that is empty or damaged."""
    slot, more = data[: _SLOT.size], data[_SLOT.size :]
    if len(slot) < _SLOT.size:
        return Place()
    magic, generation, floor, crc = _SLOT.unpack(slot)
    if magic != _MAGIC or crc != crc32(slot[:-_CRC_SIZE]):
        return Place()
    if len(more) == _PLACE.size:
        of, segment, offset, crc = _PLACE.unpack(more)
        if of == generation and crc == crc32(more[:-_CRC_SIZE]):
            return Place(generation, floor, segment, offset)
    return Place(generation, floor)
