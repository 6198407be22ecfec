"""Reads the frames (batches) of a segment file, and skips damaged frames.

A crash may leave an incomplete frame at the end of a file, and a power failure may leave zeros.
This module does not report them as damage.  If other bytes are damaged, reading continues at the
next frame header with a correct checksum.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.native import monotonic
from fapilog.process.files import taken_by
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    MAX_FRAME,
    SEGMENT_HEADER_SIZE,
    FrameHeader,
    NewerFormatError,
    Payload,
    SegmentFile,
    find_frame,
    format_id,
    load_payload,
    parse_frame,
    read_segment_header,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from fapilog.spool.format import SegmentHeader

_MAX_DAMAGES: Final = 1000
#: The number of bytes that are searched for a frame header before the caller may pause the search.
_WINDOW: Final = 1 << 16
#: A scan step ends after this number of frames.  A step that searches a damaged range ends after
#: ``_STEP_TIME`` seconds.
_STEP: Final = 256
_STEP_TIME: Final = 0.001
#: Damaged ranges of at least this many bytes (1 MiB) are stored in ``Scan.gaps``, so that
#: ``Segment.next_found`` skips them.
_LONG: Final = 1 << 20


class Damage(NamedTuple):
    """A range of bytes in a segment file that contains no intact frame.

    Attributes:
        offset: the offset where the range starts.
        end: the offset where the range ends (exclusive).
        frames: the number of lost frames, estimated from gaps in the sequence numbers.
    """

    offset: int
    end: int
    frames: int


class Found(NamedTuple):
    """An intact frame in a segment file.

    ``payload`` is None unless ``walk`` or ``walk_in_steps`` was called with ``load=True``.
    """

    header: FrameHeader
    payload: Payload | None


def walk(
    file: SegmentFile, start: int, end: int, *, last: int | None = None, load: bool
) -> Iterator[Found | Damage]:
    """Yield the intact frames and the damaged ranges between ``start`` and ``end``.

    The arguments are the same as for :func:`walk_in_steps`.
    """
    for one in walk_in_steps(file, start, end, last=last, load=load):
        if one is not None:
            yield one


def walk_in_steps(
    file: SegmentFile, start: int, end: int, *, last: int | None, load: bool
) -> Iterator[Found | Damage | None]:
    """Yield the intact frames and the damaged ranges between ``start`` and ``end``.

    While no frame is found, yield None from time to time, so that the caller can pause.
    Blocks on disk I/O.  Loads only one frame at a time into memory.

    Args:
        file: the segment file.
        start: the offset where the first frame should begin.
        end: the offset at which reading ends (exclusive).
        last: the sequence number of the frame before ``start``, or None if it is unknown.
        load: whether all payloads are loaded and their checksums verified.  If False, a
            checksum is verified only if the frame is not followed by another frame header.

    Raises:
        OSError: the disk failed.
    """
    offset, broken = start, -1  # broken: the start of the current damaged range, or -1
    following: FrameHeader | None = None
    # The maximum number of bytes to load in order to verify headers that are not followed by
    # another header.  A damaged range may contain many false headers with large payload lengths.
    budget = end - start + MAX_FRAME
    while True:
        header = following
        if header is None or header.end > end:
            header = yield from _find(file, offset, end)
        if header is None:
            break
        if header.offset > offset and broken < 0:
            broken = offset
        following = parse_frame(file, header.end, end)
        is_framed = following is not None or (yield from _is_torn(file, header.end, end))
        payload = None
        if load or not is_framed:
            budget -= 0 if is_framed else header.size
            payload = load_payload(file, header) if budget > 0 else None
        is_bad = payload is None and (load or not is_framed)
        if is_bad or (last is not None and header.sequence <= last):
            broken = header.offset if broken < 0 else broken
            # If another frame header, an incomplete frame or zeros follow, the frame's length is
            # correct: skip the frame.  Otherwise its header may be false: skip one byte.
            offset = header.end if is_framed else header.offset + 1
            yield None
            continue
        if broken >= 0:
            missing = 1 if last is None else max(header.sequence - last - 1, 1)
            yield Damage(broken, header.offset, missing)
            broken = -1
        yield Found(header, payload if load else None)
        last, offset = header.sequence, header.end
    if broken < 0 and not (yield from _is_torn(file, offset, end)):
        broken = offset
    if broken >= 0:
        yield Damage(broken, end, 1)


def _find(file: SegmentFile, offset: int, end: int) -> Generator[None, None, FrameHeader | None]:
    """Return the first intact frame header at or after ``offset``, or None.

    Frames that extend beyond ``end`` are ignored.  Yield None after each ``_WINDOW`` bytes.
    """
    while offset < end:
        until = min(offset + _WINDOW, end)
        header = find_frame(file, offset, until, end)
        if header is not None:
            return header
        yield None
        offset = file.next_data(until)
    return None


def _is_torn(file: SegmentFile, offset: int, end: int) -> Generator[None, None, bool]:
    """Return whether the bytes from ``offset`` to ``end`` are an incomplete frame or only zeros.

    A crash or power failure may leave such bytes.  Other bytes without a frame are damage.
    """
    if end - offset < FRAME_HEADER_SIZE or parse_frame(file, offset, end) is not None:
        return True
    return (yield from file.holds_zeros(offset, end))


@dataclass
class Scan:
    """The results of scanning one segment file.

    Attributes:
        path: the path of the segment file.
        size: the length of the file in bytes.
        disk: the disk space that the file occupies, in bytes.
        inode: the file's inode number.
        header: the file's header, or None if it is damaged or was never written.
        is_readable: whether the file begins with an intact or damaged header, so that frames
            may follow.  False if the file is too short or contains only zeros.
        problem: the reason why the file must not be used, or "".
        is_newer: whether the file must not be used because a later release wrote it.
        identity: the :func:`fapilog.spool.format.format_id` of the file's wire format, or
            None if the format is unknown.
        start: the offset of the first frame that is not acknowledged.
        end: the offset where the last unacknowledged frame ends (exclusive).
        is_complete: whether the scan has ended.
        gaps: the damaged ranges of 1 MiB or more, as ``{start: end}``.
        file: the open file during the scan, or None.
        frames: the number of intact frames that are not acknowledged.
        records: the number of records in the unacknowledged frames.
        bytes: the size of the unacknowledged frames in bytes.
        oldest_ns: the time when the first unacknowledged frame was written, in nanoseconds since
            the Unix epoch, or 0 if all frames are acknowledged.
        damages: the damaged ranges, at most a thousand.
        damaged_frames: the number of damaged frames, estimated from the sequence numbers.
    """

    path: Path
    size: int = 0
    disk: int = 0
    inode: int = 0
    header: SegmentHeader | None = None
    is_readable: bool = False
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

    def note(self, *damages: Damage) -> None:
        """Add damaged ranges to the results."""
        for damage in damages:
            self.damaged_frames += damage.frames
            if len(self.damages) < _MAX_DAMAGES:
                self.damages.append(damage)
            if damage.end - damage.offset >= _LONG and len(self.gaps) < _MAX_DAMAGES:
                self.gaps[damage.offset] = damage.end

    def count(self, header: FrameHeader, floor: int) -> bool:
        """Add a frame to the results, unless it is acknowledged or has another wire format.

        Args:
            header: the header of the frame.
            floor: the lowest sequence number of a frame that is not acknowledged.

        Returns:
            Whether the frame was added.
        """
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
    """Scan a segment file, and return the results.  Never raises; blocks on disk I/O.

    Args:
        path: the path of the segment file.
        floor: the lowest sequence number of a frame that is not acknowledged.  Frames with a
            lower number, and damage between them, are not counted.
        load: whether the checksums of all payloads are verified.
    """
    found = Scan(path)
    for _ in scan_in_steps(found, floor, load=load):
        pass
    return found


def scan_in_steps(
    found: Scan, floor: int = 0, *, load: bool = False, settled: int = 0
) -> Iterator[None]:
    """Scan a segment file like :func:`scan`, but in steps of about a millisecond.

    Yield None after each step.

    Args:
        found: the results, which each step updates.
        floor: the lowest sequence number of a frame that is not acknowledged.
        load: whether the checksums of all payloads are verified.
        settled: an offset before which all frames are acknowledged, or 0 if unknown.
    """
    try:
        with contextlib.closing(SegmentFile(found.path)) as file:
            found.file = file
            status = file.status()
            found.size, found.inode = status.st_size, status.st_ino
            found.disk = taken_by(status)
            yield from _read_header(found, file)
            if found.is_readable:
                yield from _read_frames(found, file, floor, settled, load=load)
    except NewerFormatError as error:
        found.problem = str(error)
        found.is_newer = True
    except OSError as error:
        found.problem = f"cannot be read: {error.strerror or error}"
    found.file = None
    found.is_complete = True


def wire_format_of(path: Path) -> int | None:
    """Return the :func:`format_id` of the wire format that a segment file's header names.

    If the header cannot be read, the result is None.  Never raises.
    """
    try:
        with contextlib.closing(SegmentFile(path)) as file:
            header = read_segment_header(file)
    except (NewerFormatError, OSError):
        return None
    return None if header is None else format_id(header.wire_format)


def _read_header(found: Scan, file: SegmentFile) -> Iterator[None]:
    header = found.header = read_segment_header(file)
    if header is not None:
        found.identity = format_id(header.wire_format)
    elif found.size < SEGMENT_HEADER_SIZE or (yield from file.holds_zeros(0, found.size)):
        return  # the file is empty: its process ended before it wrote a frame
    found.is_readable = True
    found.start = found.end = SEGMENT_HEADER_SIZE
    if header is None:
        found.note(Damage(0, found.start, 0))


def _read_frames(
    found: Scan, file: SegmentFile, floor: int, settled: int, *, load: bool
) -> Iterator[None]:
    start, last = found.start, found.header.first_sequence - 1 if found.header else None
    if settled > start and _is_settled(file, settled, floor, found.size):
        start, last = settled, floor - 1
    broken: list[Damage] = []
    is_empty, work, until = start == found.start, 0, monotonic() + _STEP_TIME
    for one in walk_in_steps(file, start, found.size, last=last, load=load):
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
        if found.count(one.header, floor):
            found.note(*broken)
        broken.clear()
    found.note(*broken)
    if found.header is None and is_empty:
        found.problem = "is not a segment"
        found.damages.clear()
        found.damaged_frames = 0


def _is_settled(file: SegmentFile, offset: int, floor: int, size: int) -> bool:
    """Check an offset from a cursor file, before which all frames should be acknowledged.

    Return True if the file ends at ``offset``, or if the frame that starts at ``offset`` has a
    sequence number of at least ``floor``.
    """
    if offset >= size:
        return offset == size
    header = parse_frame(file, offset, size)
    return header is not None and header.sequence >= floor
