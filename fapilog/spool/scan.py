"""Walking through a segment, past whatever is damaged in it.

What a crash leaves at the end of a segment (part of a frame, or zeros after a
power failure) is normal and no damage.  Everything else that is no whole frame
is stepped over: the walk goes on at the next header whose checksum is right.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.native import monotonic
from fapilog.process.files import taken_by
from fapilog.spool.format import (
    LAYOUTS,
    MAX_FRAME,
    VERSION,
    FrameHeader,
    NewerFormatError,
    Payload,
    SegmentFile,
    format_id,
    read_segment_header,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from fapilog.spool.format import Layout, SegmentHeader

_CHUNK: Final = 1 << 16
_MAX_DAMAGES: Final = 1000
#: Bytes that are searched for a frame in one go.
_WINDOW: Final = 1 << 16
#: Frames that make a step, and seconds where there are none.
_STEP: Final = 256
_STEP_TIME: Final = 0.001
#: Bytes of damage from which on a reader is told to skip it.
_LONG: Final = 1 << 20


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

    Blocks for the disk; holds one frame at a time.  The arguments are those of
    :func:`walk_in_steps`.

    Raises:
        OSError: the disk failed.
    """
    for one in walk_in_steps(file, layout, start, end, last=last, load=load):
        if one is not None:
            yield one


def walk_in_steps(
    file: SegmentFile, layout: Layout, start: int, end: int, *, last: int | None, load: bool
) -> Iterator[Found | Damage | None]:
    """Walk as :func:`walk` does, and yield None in between when nothing is found for long.

    Args:
        file: the segment.
        layout: the reader of its format version.
        start: where a frame begins, if nothing is damaged.
        end: the walk never looks behind it.
        last: the sequence before the first frame, or None.
        load: whether payloads are read and checked.  Without, a payload is
            looked at only when no frame follows it.

    Raises:
        OSError: the disk failed.
    """
    offset, broken = start, -1  # broken: where the current damage begins
    following: FrameHeader | None = None
    budget = end - start + MAX_FRAME  # bytes to read for headers that nothing confirms
    while True:
        header = following
        if header is None or header.end > end:
            header = yield from _find(file, layout, offset, end)
        if header is None:
            break
        if header.offset > offset and broken < 0:
            broken = offset
        following = layout.parse(file, header.end, end)
        is_framed = following is not None or (yield from _is_torn(file, layout, header.end, end))
        payload = None
        if load or not is_framed:
            budget -= 0 if is_framed else header.size
            payload = layout.load(file, header) if budget > 0 else None
        is_bad = payload is None and (load or not is_framed)
        if is_bad or (last is not None and header.sequence <= last):
            broken = header.offset if broken < 0 else broken
            # Whether its length can be believed is seen by what follows.
            offset = header.end if is_framed else header.offset + 1
            yield None
            continue
        if broken >= 0:
            missing = 1 if last is None else max(header.sequence - last - 1, 1)
            yield Damage(broken, header.offset, missing)
            broken = -1
        yield Found(header, payload if load else None)
        last, offset = header.sequence, header.end
    if broken < 0 and not (yield from _is_torn(file, layout, offset, end)):
        broken = offset
    if broken >= 0:
        yield Damage(broken, end, 1)


def _find(
    file: SegmentFile, layout: Layout, offset: int, end: int
) -> Generator[None, None, FrameHeader | None]:
    """Return the first right header from ``offset`` on whose frame ends by ``end``."""
    while offset < end:
        until = min(offset + _WINDOW, end)
        header = layout.find(file, offset, until, end)
        if header is not None:
            return header
        yield None
        offset = file.next_data(until)
    return None


def _is_torn(
    file: SegmentFile, layout: Layout, offset: int, end: int
) -> Generator[None, None, bool]:
    """Return whether what is left from ``offset`` on is what a crash leaves behind."""
    if end - offset < layout.frame_header_size or layout.parse(file, offset, end) is not None:
        return True
    return (yield from _is_zero(file, offset, end))


def _is_zero(file: SegmentFile, offset: int, end: int) -> Generator[None, None, bool]:
    """Return whether a file holds zeros alone between two offsets."""
    if file.read(1, offset).strip(b"\0"):
        return False
    begin, at, is_whole = file.zeros
    if not begin <= offset <= at:
        at, is_whole = offset, False
    while at < end and not is_whole:
        chunk = file.read(min(_CHUNK, end - at), at)
        rest = chunk.lstrip(b"\0")
        if rest or not chunk:  # or the file is shorter than it was
            at += len(chunk) - len(rest)
            is_whole = True
            break
        at = min(file.next_data(at + len(chunk)), end)
        yield None
    file.zeros = (offset, at, is_whole)
    return at >= min(end, file.size())


@dataclass
class Scan:
    """What a segment holds.

    Attributes:
        path: the segment.
        size: its bytes.
        disk: bytes that it takes on the disk.
        file: the segment while it is being looked through.
        inode: the file's number on its file system.
        header: its header; None if that is damaged or was never written.
        layout: reads its frames; None when there are none to be read.
        problem: why it must be left alone; "" if it need not.
        is_newer: whether the problem is that a later release wrote it.
        identity: :func:`fapilog.spool.format.format_id` of its wire
            format; None if nothing tells.
        start: where its first frame begins that is not settled.
        end: where the last of these ends that was found so far.
        is_complete: whether it was looked through to the end.
        gaps: long stretches without a frame, from offset to offset.
        frames: whole frames that are not settled,
        records: their records, and
        bytes: their size.
        oldest_ns: time of the first of them; 0 for none.
        damages: what is damaged, the first thousand.
        damaged_frames: how many frames all damage has cost.
    """

    path: Path
    size: int = 0
    disk: int = 0
    inode: int = 0
    header: SegmentHeader | None = None
    layout: Layout | None = None
    problem: str = ""
    is_newer: bool = False
    identity: int | None = None
    start: int = 0
    end: int = 0
    is_complete: bool = False
    gaps: dict[int, int] = field(default_factory=dict)
    file: SegmentFile | None = None
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
        if damage.end - damage.offset >= _LONG and len(self.gaps) < _MAX_DAMAGES:
            self.gaps[damage.offset] = damage.end

    def note_all(self, damages: list[Damage]) -> None:
        """Count damages."""
        for damage in damages:
            self.note(damage)

    def counts(self, header: FrameHeader, floor: int) -> bool:
        """Count a frame, unless it is settled or of another format; whether it was counted."""
        if self.identity is None:
            self.identity = header.format_id
        if header.sequence < floor or header.format_id != self.identity:
            return False
        if not self.frames:
            self.start = header.offset
            self.oldest_ns = header.time_ns
        self.end = header.end
        self.frames += 1
        self.records += header.records
        self.bytes += header.size
        return True


def scan(path: Path, floor: int = 0, *, load: bool = False) -> Scan:
    """Look through a segment.  Never raises; blocks for the disk.

    Args:
        path: the segment.
        floor: frames of lower sequences are settled and not counted, nor is
            damage among them.
        load: whether payloads are read and checked, too.
    """
    found = Scan(path)
    for _ in scan_in_steps(found, floor, load=load):
        pass
    return found


def scan_in_steps(
    found: Scan, floor: int = 0, *, load: bool = False, settled: int = 0
) -> Iterator[None]:
    """Look through a segment in steps of about a millisecond.  Never raises.

    Args:
        found: gets what is found, step by step.
        floor: as in :func:`scan`.
        load: as in :func:`scan`.
        settled: offset before which everything is settled, if it is known.
    """
    try:
        with contextlib.closing(SegmentFile(found.path)) as file:
            found.file = file
            status = file.status()
            found.size, found.inode = status.st_size, status.st_ino
            found.disk = taken_by(status)
            yield from _look_at_header(found, file)
            if found.layout is not None:
                yield from _look_at_frames(found, file, found.layout, floor, settled, load=load)
    except NewerFormatError as error:
        found.problem = str(error)
        found.is_newer = True
    except OSError as error:
        found.problem = f"cannot be read: {error.strerror or error}"
    found.file = None
    found.is_complete = True


def wire_format_of(path: Path) -> int | None:
    """Return the :func:`format_id` in a segment's header; None if nothing tells.  Never raises."""
    try:
        with contextlib.closing(SegmentFile(path)) as file:
            header = read_segment_header(file)
    except (NewerFormatError, OSError):
        return None
    return None if header is None else format_id(header.wire_format)


def _look_at_header(found: Scan, file: SegmentFile) -> Iterator[None]:
    header = found.header = read_segment_header(file)
    if header is not None:
        found.start = found.end = header.length
        found.identity = format_id(header.wire_format)
        found.layout = LAYOUTS[header.version]
        return
    layout = LAYOUTS[VERSION]
    if found.size < layout.header_size or (yield from _is_zero(file, 0, found.size)):
        return  # a crash came before anything was written
    found.layout = layout
    found.start = found.end = layout.header_size
    found.note(Damage(0, found.start, 0))


def _look_at_frames(
    found: Scan, file: SegmentFile, layout: Layout, floor: int, settled: int, *, load: bool
) -> Iterator[None]:
    start, last = found.start, found.header.first_sequence - 1 if found.header else None
    if settled > start and _is_settled(file, layout, settled, floor, found.size):
        start, last = settled, floor - 1
    broken: list[Damage] = []
    is_empty, work, until = start == found.start, 0, monotonic() + _STEP_TIME
    for one in walk_in_steps(file, layout, start, found.size, last=last, load=load):
        work += 1
        if work >= _STEP or (not isinstance(one, Found) and monotonic() >= until):
            yield
            work, until = 0, monotonic() + _STEP_TIME
        if one is None:
            continue
        if isinstance(one, Damage):
            broken.append(one)
            continue
        is_empty = False
        if found.counts(one.header, floor):
            found.note_all(broken)
        broken.clear()
    found.note_all(broken)
    if found.header is None and is_empty:
        found.problem = "is no segment"
        found.damages.clear()
        found.damaged_frames = 0


def _is_settled(file: SegmentFile, layout: Layout, offset: int, floor: int, size: int) -> bool:
    """Whether an offset can be what the cursor says: the first frame that is not settled."""
    if offset >= size:
        return offset == size
    header = layout.parse(file, offset, size)
    return header is not None and header.sequence >= floor
