"""Reads the records that an application left in its spool's directory.

This reader follows the description in ``fapilog.spool.format`` and uses none of its code,
because the code that writes records must not also judge whether they are there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.decode import read_stored

_SEGMENT: Final = struct.Struct("<8sHHQQ48sI")
_FRAME: Final = struct.Struct("<4sIQQIIIII")
_SLOT: Final = struct.Struct("<4sQQI")
_SLOTS: Final = (0, 512)


@dataclass(frozen=True)
class OnDisk:
    """The numbers of the records in the spool's directory."""

    spooled: frozenset[int] = frozenset()
    quarantined: frozenset[int] = frozenset()


def on_disk(directory: Path | None) -> OnDisk:
    """Return the records in the directory; none without a directory.

    Raises:
        ValueError: a frame is damaged; no row damages frames.
    """
    if directory is None:
        return OnDisk()
    spooled: set[int] = set()
    quarantined: set[int] = set()
    for segment in directory.glob("*/*/*.seg"):
        is_spool = segment.parent.name != "quarantine"
        floor = _floor(segment.with_name("cursor")) if is_spool else 0
        (spooled if is_spool else quarantined).update(_numbers(segment, floor))
    return OnDisk(frozenset(spooled), frozenset(quarantined))


def _floor(cursor: Path) -> int:
    """Return the sequence number up to which everything is settled."""
    data = cursor.read_bytes()
    slots = [_SLOT.unpack_from(data, at) for at in _SLOTS]
    whole = [slot for slot in slots if slot[3] == zlib.crc32(_SLOT.pack(*slot)[:-4])]
    floor: int = max(whole, key=lambda slot: slot[1])[2] if whole else 0
    return floor


def _numbers(segment: Path, floor: int) -> Iterator[int]:
    data = segment.read_bytes()
    _magic, _version, at, _first, _time, name, _crc = _SEGMENT.unpack_from(data)
    wire_format = name.rstrip(b"\0").decode()
    while len(data) - at >= _FRAME.size:
        _magic, _name, sequence, _time, records, meta, length, crc, _own = _FRAME.unpack_from(
            data, at
        )
        start = at + _FRAME.size
        at = start + meta + length
        if at > len(data):
            return  # the process was killed while it wrote
        if zlib.crc32(data[start:at]) != crc:
            message = f"{segment}: a damaged frame"
            raise ValueError(message)
        numbers = [record.n for record in read_stored(data[start + meta : at], wire_format)]
        if len(numbers) != records:
            message = f"{segment}: {len(numbers)} records where {records} are said to be"
            raise ValueError(message)
        if sequence >= floor:
            yield from numbers
