"""Walking through a segment, past whatever is damaged in it.

What a crash leaves at the end of a segment (part of a frame, or zeros after a
power failure) is normal and no damage.  Everything else that is no whole frame
is stepped over: the walk goes on at the next header whose checksum is right.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.delivery.spool.format import (
    LAYOUTS,
    VERSION,
    FrameHeader,
    NewerFormatError,
    Payload,
    SegmentFile,
    format_id,
    read_segment_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fapilog.delivery.spool.format import Layout, SegmentHeader

_CHUNK: Final = 1 << 16
_MAX_DAMAGES: Final = 1000


class Damage(NamedTuple):
    """A stretch of a segment that holds no whole frame.

    Attributes:
        offset: where it begins.
        end: the offset behind it.
        frames: how many frames are missing, as far as their sequences tell.
    """

    offset: int
    end: int
    frames: int


class Found(NamedTuple):
    """A frame of a segment; its payload only where that was asked for."""

    header: FrameHeader
    payload: Payload | None


def walk(
    file: SegmentFile, layout: Layout, start: int, end: int, *, last: int | None, load: bool
) -> Iterator[Found | Damage]:
    """Yield the whole frames between two offsets, and the damage between them.

    Blocks for the disk; holds one frame at a time.

    Args:
        file: the segment.
        layout: of its format version.
        start: where a frame begins, if nothing is damaged.
        end: the walk never looks behind it.
        last: the sequence before the first frame, or None.
        load: whether payloads are read and checked.  Without, a payload is
            looked at only where no frame follows it.

    Raises:
        OSError: the disk failed.
    """
    offset, broken = start, -1  # broken: where the current damage begins
    following: FrameHeader | None = None
    while True:
        header = following
        if header is None or header.end > end:
            header = layout.find(file, offset, end)
        if header is None:
            break
        if header.offset > offset and broken < 0:
            broken = offset
        following = layout.parse(file, header.end, end)
        is_framed = following is not None or _is_torn(file, layout, header.end, end)
        payload = layout.load(file, header) if load or not is_framed else None
        is_bad = payload is None and (load or not is_framed)
        if is_bad or (last is not None and header.sequence <= last):
            broken = header.offset if broken < 0 else broken
            # Whether its length can be believed is seen by what follows.
            offset = header.end if is_framed else header.offset + 1
            continue
        if broken >= 0:
            missing = 1 if last is None else max(header.sequence - last - 1, 1)
            yield Damage(broken, header.offset, missing)
            broken = -1
        yield Found(header, payload if load else None)
        last, offset = header.sequence, header.end
    if broken < 0 and not _is_torn(file, layout, offset, end):
        broken = offset
    if broken >= 0:
        yield Damage(broken, end, 1)


def _is_torn(file: SegmentFile, layout: Layout, offset: int, end: int) -> bool:
    """Whether what is left from ``offset`` on is what a crash leaves behind."""
    if end - offset < layout.frame_header_size or layout.parse(file, offset, end) is not None:
        return True
    return _is_zero(file, offset, end)


def _is_zero(file: SegmentFile, offset: int, end: int) -> bool:
    while offset < end:
        chunk = file.read(min(_CHUNK, end - offset), offset)
        if chunk.strip(b"\0"):
            return False
        if not chunk:
            break
        offset += len(chunk)
    return True


@dataclass
class Scan:
    """What a segment holds.

    Attributes:
        path: the segment.
        size: its bytes.
        inode: the file's number on its file system.
        header: its header; None if that is damaged or was never written.
        layout: reads its frames; None when there are none to be read.
        problem: why it must be left alone; "" if it need not.
        is_newer: whether the problem is that a later release wrote it.
        identity: :func:`fapilog.delivery.spool.format.format_id` of its wire
            format; None if nothing tells.
        start: where its first frame begins.
        frames: whole frames that are not settled,
        records: their records, and
        bytes: their size.
        oldest_ns: time of the first of them; 0 for none.
        damages: what is damaged, the first thousand.
        damaged_frames: how many frames all damage has cost.
    """

    path: Path
    size: int = 0
    inode: int = 0
    header: SegmentHeader | None = None
    layout: Layout | None = None
    problem: str = ""
    is_newer: bool = False
    identity: int | None = None
    start: int = 0
    frames: int = 0
    records: int = 0
    bytes: int = 0
    oldest_ns: int = 0
    damages: list[Damage] = field(default_factory=list)
    damaged_frames: int = 0

    def note(self, damage: Damage) -> None:
        """Count a damage."""
        self.damaged_frames += damage.frames
        if len(self.damages) < _MAX_DAMAGES:
            self.damages.append(damage)


def scan(path: Path, floor: int = 0, *, load: bool = False) -> Scan:
    """Look through a segment.  Never raises; blocks for the disk.

    Args:
        path: the segment.
        floor: frames of lower sequences are settled and not counted, nor is
            damage among them.
        load: whether payloads are read and checked, too.
    """
    found = Scan(path)
    try:
        with contextlib.closing(SegmentFile(path)) as file:
            status = file.status()
            found.size, found.inode = status.st_size, status.st_ino
            _look_at_header(found, file)
            if found.layout is not None:
                _look_at_frames(found, file, found.layout, floor, load=load)
    except NewerFormatError as error:
        found.problem = str(error)
        found.is_newer = True
    except OSError as error:
        found.problem = f"cannot be read: {error.strerror or error}"
    return found


def _look_at_header(found: Scan, file: SegmentFile) -> None:
    header = found.header = read_segment_header(file)
    if header is not None:
        found.layout = LAYOUTS[header.version]
        found.start = header.length
        found.identity = format_id(header.wire_format)
        return
    layout = LAYOUTS[VERSION]
    if found.size < layout.header_size or _is_zero(file, 0, found.size):
        return  # a crash came before anything was written
    found.layout = layout
    found.start = layout.header_size
    found.note(Damage(0, found.start, 0))


def _look_at_frames(
    found: Scan, file: SegmentFile, layout: Layout, floor: int, *, load: bool
) -> None:
    last = found.header.first_sequence - 1 if found.header else None
    broken: list[Damage] = []
    is_empty = True
    for one in walk(file, layout, found.start, found.size, last=last, load=load):
        if isinstance(one, Damage):
            broken.append(one)
            continue
        header = one.header
        is_empty = False
        if found.identity is None:
            found.identity = header.format_id
        if header.sequence < floor or header.format_id != found.identity:
            broken.clear()
            continue
        while broken:
            found.note(broken.pop(0))
        found.frames += 1
        found.records += header.records
        found.bytes += header.size
        found.oldest_ns = found.oldest_ns or header.time_ns
    for damage in broken:
        found.note(damage)
    if found.header is None and is_empty:
        found.problem = "is no segment"
        found.damages.clear()
        found.damaged_frames = 0
