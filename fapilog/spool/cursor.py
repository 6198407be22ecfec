"""The cursor file of a directory records which frames have been acknowledged.

The cursor file contains a sequence number, the floor: all frames with a lower number are
acknowledged, so they need not be sent again.  The file has two slots, each with a generation, a
floor and a checksum.  Writes alternate between the two slots, so a crash damages at most one slot.
If the cursor file is lost, records may be delivered twice, but no record is lost.

A position follows each slot: the number of a segment file, and an offset before which all frames
of this file are acknowledged.  A process that adopts the directory starts to read at this offset.
Releases that do not support the position ignore it.
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

_SLOT: Final = struct.Struct("<4sQQI")  # magic, generation, floor, checksum
_PLACE: Final = struct.Struct("<QQQI")  # generation, segment, offset, checksum
_MAGIC: Final = b"FPC1"
_CRC_SIZE: Final = 4
_OFFSETS: Final = (0, 512)
_SIZE: Final = 1024

NAME: Final = "cursor"


class Place(NamedTuple):
    """The content of one slot of the cursor file, and of the position after the slot.

    Attributes:
        generation: a number that grows with each write, so the slot with the higher generation
            contains the current values.
        floor: the lowest sequence number of a frame that is not acknowledged.
        segment: the number of the segment file to which ``offset`` belongs, or 0 if unknown.
        offset: an offset before which all frames of the segment file are acknowledged, or 0 if
            unknown.
    """

    generation: int = 0
    floor: int = 0
    segment: int = 0
    offset: int = 0


class Cursor:
    """The file that records which frames in a locked directory are acknowledged.

    The file is created if it is missing.

    Attributes:
        floor: the lowest sequence number of a frame that is not acknowledged.
        file: the open cursor file.  The directory's ``Store`` syncs and closes it.

    Raises:
        OSError: the cursor file can be neither opened nor created.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self.floor = self._generation = 0
        with contextlib.suppress(OSError):  # if opening the file fails, create a new file
            self._generation, self.floor, *_ = _read(self._path)
            self.file = SyncedFile(self._path, open_file(self._path, UPDATE))
            return
        self.file = self._create()

    def move(self, floor: int, segment: int = 0, offset: int = 0) -> None:
        """Write ``floor`` to the cursor file: all frames below it are acknowledged.

        Args:
            floor: the lowest sequence number of a frame that is not acknowledged.
            segment: the number of the segment file that contains the frame with the sequence
                number ``floor - 1``, or 0 if unknown.
            offset: the offset where this frame ends in the segment file, or 0 if unknown.

        Raises:
            OSError: the cursor file could not be written.
        """
        if self.file.failed:  # replace the file: after a failed sync, its content is unknown
            self.file.close()
            self.file = self._create()
        self.floor = floor
        self._generation += 1
        slot = _SLOT.pack(_MAGIC, self._generation, floor, 0)[:-_CRC_SIZE]
        place = _PLACE.pack(self._generation, segment, offset, 0)[:-_CRC_SIZE]
        data = b"".join(part + struct.pack("<I", crc32(part)) for part in (slot, place))
        self.file.write_at(_OFFSETS[self._generation % 2], data)

    def renew(self) -> None:
        """Create the cursor file again if another program has deleted it.  Never raises."""
        if not self.file.has_name:
            with contextlib.suppress(OSError):  # a later call tries to create the file again
                self.file.close()
                self.file = self._create()
                self.move(self.floor)

    def _create(self) -> SyncedFile:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        file = SyncedFile(self._path, create_file(self._path, UPDATE))
        # Reserve the space for both slots, so that later writes succeed even if the disk is full.
        file.write_at(0, bytes(_SIZE))
        return file


def read_place(directory: Path) -> Place:
    """Return the content of the cursor file in ``directory``.  Never raises.

    If the file is missing or unreadable, all values are zero.
    """
    try:
        return _read(directory / NAME)
    except OSError:
        return Place()


def _read(path: Path) -> Place:
    fd = open_file(path)
    try:
        size = _SLOT.size + _PLACE.size
        return max(_parsed(read_at(fd, size, offset)) for offset in _OFFSETS)
    finally:
        os.close(fd)


def _parsed(data: bytes) -> Place:
    """Parse a slot and the position after it.  Damaged or missing values become zero."""
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
