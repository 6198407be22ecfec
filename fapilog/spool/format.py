r"""The bytes of a segment: its header, and frames of one batch each.

Everything is little-endian.  Checksums are CRC-32 as zlib has it.

Segment header, 80 bytes::

    magic "\xffFAPSEG\n"     8    format version   2    header length   2
    first sequence          8    creation time    8    wire format    48
    CRC of all before it    4

The first twelve bytes, and a CRC in the last four, are the same in every
version, so a version from the future is told apart from damage.

Frame, version 1: header of 44 bytes, then meta, then body::

    magic "\xff\xfaFR"        4    CRC of the wire format's name        4
    sequence                8    time               8    records       4
    meta length             4    body length        4
    CRC of meta and body    4    CRC of all before it                  4

Meta is one byte for each record, its severity number, and a text in UTF-8
that only the quarantine uses: the reason.  Times are nanoseconds since the
Unix epoch.  Sequences of a process's own directory count up from 1 without
gaps.  Neither magic can be part of a text in UTF-8.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from zlib import crc32

from fapilog.process.files import close_file, open_file, read_at
from fapilog.severity import OFF

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Bytes of a frame at most; a length beyond is a lie.
MAX_FRAME: Final = 64 << 20
#: The version that is written.
VERSION: Final = 1

_SEGMENT: Final = struct.Struct("<8sHHQQ48sI")
_PREFIX: Final = struct.Struct("<8sHH")
_SEGMENT_MAGIC: Final = b"\xffFAPSEG\n"
_MAX_SEGMENT_HEADER: Final = 4096
_FRAME: Final = struct.Struct("<4sIQQIIIII")
_FRAME_MAGIC: Final = b"\xff\xfaFR"
_CRC: Final = struct.Struct("<I")
_CRC_SIZE: Final = _CRC.size

SEGMENT_HEADER_SIZE: Final = _SEGMENT.size
FRAME_HEADER_SIZE: Final = _FRAME.size
WIRE_FORMAT_SIZE: Final = 48

_AHEAD: Final = 1 << 14  # bytes read at once while headers are looked at
_CHUNK: Final = 1 << 16  # bytes searched at once after damage
_NEAR: Final = 1 << 10  # and at first, because the next frame is often near


class NewerFormatError(Exception):
    """A segment was written by a later release."""


class SegmentHeader(NamedTuple):
    """What stands at the start of a segment."""

    version: int
    length: int
    first_sequence: int
    time_ns: int
    wire_format: str


class FrameHeader(NamedTuple):
    """Where a frame is and what it says of itself; lengths in bytes."""

    offset: int
    format_id: int
    sequence: int
    time_ns: int
    records: int
    meta_length: int
    body_length: int
    payload_crc: int
    start: int  # of meta

    @property
    def end(self) -> int:
        """The offset behind the frame."""
        return self.start + self.meta_length + self.body_length

    @property
    def size(self) -> int:
        """Bytes of the whole frame."""
        return self.end - self.offset


class Payload(NamedTuple):
    """What a frame carries."""

    severities: bytes
    reason: str
    body: bytes


class Layout(Protocol):
    """Reads segments of one format version.

    Attributes:
        header_size: bytes of a segment's header.
        frame_header_size: bytes of a frame's header.
    """

    header_size: int
    frame_header_size: int

    def describe(self, header: bytes) -> SegmentHeader | None:
        """Return what a segment's header says; its CRC is right.  None if it makes no sense."""
        ...

    def parse(self, file: SegmentFile, offset: int, end: int) -> FrameHeader | None:
        """Return the header at ``offset``; None if there is none that is whole and right.

        The frame may reach beyond ``end``: then the file was cut off.
        """
        ...

    def find(self, file: SegmentFile, offset: int, until: int, end: int) -> FrameHeader | None:
        """Return the first right header from ``offset`` on whose frame ends by ``end``.

        None when none begins before ``until``.
        """
        ...

    def load(self, file: SegmentFile, header: FrameHeader) -> Payload | None:
        """Return what the frame carries; None if it is damaged."""
        ...


class SegmentFile:
    """A segment open for reading.

    Args:
        path: the segment.
        fd: a descriptor of it, which is closed in the end; -1 to open the path.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path, fd: int = -1) -> None:
        self._fd = fd if fd >= 0 else open_file(path)
        self._ahead = b""
        self._ahead_at = 0
        # Where the last run of zeros that was looked at begins and ends, and whether it
        # ends there, or the look did.
        self.zeros = (0, 0, False)

    def size(self) -> int:
        """Return how many bytes the file has now."""
        return self.status().st_size

    def status(self) -> os.stat_result:
        """Return what the system says of the file."""
        return os.fstat(self._fd)

    def next_data(self, offset: int) -> int:
        """Return where data may begin from ``offset`` on: holes of a sparse file are zeros."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except AttributeError:  # a platform that does not know holes
            return offset
        except OSError as error:
            return self.size() if error.errno == errno.ENXIO else offset

    def close(self) -> None:
        """Close the file; again does nothing."""
        fd, self._fd = self._fd, -1
        close_file(fd)

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at ``offset``, fewer at the end; small reads are buffered."""
        if size > _AHEAD:
            return read_at(self._fd, size, offset)
        start = offset - self._ahead_at
        if start < 0 or start + size > len(self._ahead):
            self._ahead, self._ahead_at, start = read_at(self._fd, _AHEAD, offset), offset, 0
        return self._ahead[start : start + size]


class FirstLayout:
    """Reads segments of version 1."""

    header_size = _SEGMENT.size
    frame_header_size = _FRAME.size

    def describe(self, header: bytes) -> SegmentHeader | None:
        """See :meth:`Layout.describe`."""
        if len(header) != _SEGMENT.size:
            return None
        _, version, length, first, time_ns, wire_format, _ = _SEGMENT.unpack(header)
        return SegmentHeader(
            version, length, first, time_ns, wire_format.rstrip(b"\0").decode("utf-8", "replace")
        )

    def parse(self, file: SegmentFile, offset: int, end: int) -> FrameHeader | None:
        """See :meth:`Layout.parse`."""
        if offset + FRAME_HEADER_SIZE > end:
            return None
        return self._parsed(file.read(FRAME_HEADER_SIZE, offset), offset)

    def _parsed(self, data: bytes, offset: int) -> FrameHeader | None:
        if len(data) < FRAME_HEADER_SIZE or not data.startswith(_FRAME_MAGIC):
            return None
        _, format_id, sequence, time_ns, records, meta, body, payload_crc, crc = _FRAME.unpack(data)
        if crc != crc32(data[:-_CRC_SIZE]):
            return None
        if records > meta or FRAME_HEADER_SIZE + meta + body > MAX_FRAME:
            return None
        start = offset + FRAME_HEADER_SIZE
        return FrameHeader(
            offset, format_id, sequence, time_ns, records, meta, body, payload_crc, start
        )

    def find(self, file: SegmentFile, offset: int, until: int, end: int) -> FrameHeader | None:
        """See :meth:`Layout.find`."""
        header = self.parse(file, offset, end)
        if header is not None and header.end <= end:
            return header
        position, size = offset + 1, _NEAR
        while position < until and position + FRAME_HEADER_SIZE <= end:
            chunk = file.read(min(size, end - position), position)
            size = _CHUNK
            at = chunk.find(_FRAME_MAGIC)
            while at >= 0:
                header = self.parse(file, position + at, end)
                if header is not None and header.end <= end:
                    return header
                at = chunk.find(_FRAME_MAGIC, at + 1)
            if len(chunk) < len(_FRAME_MAGIC):
                break  # the file is shorter than it was
            position += len(chunk) - len(_FRAME_MAGIC) + 1  # one may lie across the chunks
        return None

    def load(self, file: SegmentFile, header: FrameHeader) -> Payload | None:
        """See :meth:`Layout.load`."""
        # In two reads: a copy of a long body would keep the interpreter.
        meta = file.read(header.meta_length, header.start)
        body = file.read(header.body_length, header.start + header.meta_length)
        if len(meta) < header.meta_length or len(body) < header.body_length:
            return None
        if crc32(body, crc32(meta)) != header.payload_crc:
            return None
        return Payload(
            meta[: header.records], meta[header.records :].decode("utf-8", "replace"), body
        )


#: Readers by format version.  A version that is no longer written keeps its own.
LAYOUTS: Final[dict[int, Layout]] = {VERSION: FirstLayout()}


def format_id(wire_format: str) -> int:
    """Return what a frame holds of its wire format, so that one can stand for itself."""
    return crc32(wire_format.encode())


def pack_segment_header(first_sequence: int, time_ns: int, wire_format: str) -> bytes:
    """Return the header of a new segment; ``wire_format`` has up to 48 bytes."""
    fields = (VERSION, _SEGMENT.size, first_sequence, time_ns, wire_format.encode())
    data = _SEGMENT.pack(_SEGMENT_MAGIC, *fields, 0)[:-_CRC_SIZE]
    return data + _CRC.pack(crc32(data))


def severity_bytes(severities: Sequence[int]) -> bytes:
    """Return one byte a record; a number that is no severity counts as unspecified."""
    try:
        return bytes(severities)
    except (ValueError, TypeError):
        numbers: Sequence[Any] = severities
        return bytes([n if type(n) is int and 0 <= n < OFF else 0 for n in numbers])


def pack_frame(
    identity: int, sequence: int, time_ns: int, severities: bytes, body: bytes, *, reason: str = ""
) -> tuple[bytes, bytes, bytes]:
    """Return header, meta and body of a frame.

    Args:
        identity: :func:`format_id` of the wire format.
        sequence: its place among the frames of its directory.
        time_ns: when it is written.
        severities: one byte for each record.
        body: the batch.
        reason: why it is in quarantine.
    """
    meta = severities + reason.encode("utf-8", "replace") if reason else severities
    payload_crc = crc32(body, crc32(meta))
    header = _FRAME.pack(
        _FRAME_MAGIC,
        identity,
        sequence,
        time_ns,
        len(severities),
        len(meta),
        len(body),
        payload_crc,
        0,
    )[:-_CRC_SIZE]
    return header + _CRC.pack(crc32(header)), meta, body


def read_segment_header(file: SegmentFile) -> SegmentHeader | None:
    """Return the header of a segment; None if it is damaged or was never whole.

    Raises:
        NewerFormatError: it is right, but of a version that is not known here.
        OSError: the disk failed.
    """
    data = file.read(_MAX_SEGMENT_HEADER, 0)
    if len(data) < _PREFIX.size or not data.startswith(_SEGMENT_MAGIC):
        return None
    _, version, length = _PREFIX.unpack_from(data)
    if not _PREFIX.size + _CRC_SIZE <= length <= len(data):
        return None
    if _CRC.unpack_from(data, length - _CRC_SIZE)[0] != crc32(data[: length - _CRC_SIZE]):
        return None
    if version not in LAYOUTS:
        msg = f"format version {version}; this release reads {', '.join(map(str, LAYOUTS))}"
        raise NewerFormatError(msg)
    return LAYOUTS[version].describe(data[:length])
