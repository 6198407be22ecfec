r"""The file format of a segment: a header, followed by frames that contain one batch each.

All numbers are little-endian.  Checksums are CRC-32, as computed by zlib.  The tables give the
length of each field in bytes.

A segment header has 80 bytes::

    magic "\xffFAPSEG\n"     8    format version   2    header length   2
    first sequence          8    creation time    8    wire format    48
    CRC of bytes before it  4

In every format version, the segment header begins with the magic, the version and the length, and
ends with the CRC, so a release can distinguish a later version from damage.

A frame of version 1 has a header of 44 bytes, followed by metadata and the body, which is the
packed batch.  The fields of the header are::

    magic "\xff\xfaFR"        4    CRC of the wire format's name        4
    sequence                8    time               8    records       4
    metadata length         4    body length        4
    CRC of metadata, body   4    CRC of the header's bytes before it   4

The metadata contains one byte per record: the record's severity number.  In the quarantine, which
stores batches that the backend refused, the backend's reason follows as UTF-8 text.  Times are
nanoseconds since the Unix epoch.  The sequence numbers of the frames in a directory start at 1 and
have no gaps.  Neither of the two magic values can occur in UTF-8 text, so the text of a record
cannot look like a header.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from fapilog.process.files import close_file, open_file, read_at
from fapilog.severity import OFF

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

#: The maximum size of a frame in bytes.  If the lengths in a frame header exceed this maximum, the
#: header is treated as damaged.
MAX_FRAME: Final = 64 << 20
#: The format version that this release reads and writes.
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

_AHEAD: Final = 1 << 14  # shorter reads are extended to this many bytes and buffered
_CHUNK: Final = 1 << 16  # the number of bytes per read while searching for a frame
_NEAR: Final = 1 << 10  # a search first reads this many bytes, which often contain a frame


class NewerFormatError(Exception):
    """A later release wrote the segment file in a format version that this release cannot read."""


class SegmentHeader(NamedTuple):
    """The header of a segment file.

    Attributes:
        first_sequence: the sequence number of the first frame in the file.
        time_ns: the creation time of the file, in nanoseconds since the Unix epoch.
        wire_format: the name of the format in which the batches are packed.
    """

    first_sequence: int
    time_ns: int
    wire_format: str


class FrameHeader(NamedTuple):
    """The header of a frame.

    The frame consists of the bytes of the segment file from ``offset`` to ``end`` (exclusive).
    """

    offset: int
    format_id: int
    sequence: int
    time_ns: int
    records: int
    meta_length: int
    body_length: int
    payload_crc: int
    end: int

    @property
    def size(self) -> int:
        """The length of the frame in bytes, including its header."""
        return self.end - self.offset


class Payload(NamedTuple):
    """The content of a frame without its header.

    Attributes:
        severities: the severity numbers of the records, one byte per record.
        reason: the backend's reason for refusing the batch, or "" outside the quarantine.
        body: the packed batch.
    """

    severities: bytes
    reason: str
    body: bytes


class SegmentFile:
    """A segment file that is open for reading.

    All methods except :meth:`close` raise OSError if the disk fails.

    Args:
        path: the path of the segment file.
        fd: a file descriptor of the open file, or -1 to open ``path``.  :meth:`close` closes it.
    """

    def __init__(self, path: Path, fd: int = -1) -> None:
        self._fd = fd if fd >= 0 else open_file(path)
        self._ahead = b""
        self._ahead_at = 0
        # The cache of holds_zeros() contains the offset where a range of zeros starts, the offset
        # up to which the range has been read, and whether the zeros end at this second offset.
        self._zeros = (0, 0, False)

    def size(self) -> int:
        """Return the current size of the file in bytes."""
        return self.status().st_size

    def status(self) -> os.stat_result:
        """Return the result of ``os.fstat()`` for the file."""
        return os.fstat(self._fd)

    def next_data(self, offset: int) -> int:
        """Return the first offset at or after ``offset`` that is not in a hole of a sparse file.

        If the platform or the file system cannot find holes, return ``offset``.
        """
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except AttributeError:  # this platform has no os.SEEK_DATA
            return offset
        except OSError as error:
            return self.size() if error.errno == errno.ENXIO else offset

    def holds_zeros(self, offset: int, end: int) -> Generator[None, None, bool]:
        """Return whether all bytes from ``offset`` to ``end`` are zeros.

        Yield None after each chunk of 64 KiB, so that the caller can pause.
        """
        if self.read(1, offset).strip(b"\0"):
            return False
        begin, at, is_whole = self._zeros
        if not begin <= offset <= at:
            at, is_whole = offset, False
        while at < end and not is_whole:
            chunk = self.read(min(_CHUNK, end - at), at)
            rest = chunk.lstrip(b"\0")
            if rest or not chunk:  # chunk is empty if the file was truncated
                at += len(chunk) - len(rest)
                is_whole = True
                break
            at = min(self.next_data(at + len(chunk)), end)
            yield None
        self._zeros = (offset, at, is_whole)
        return at >= min(end, self.size())

    def close(self) -> None:
        """Close the file.  A second call does nothing."""
        fd, self._fd = self._fd, -1
        close_file(fd)

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes from ``offset``, or fewer at the end of the file.

        Reads of up to 16 KiB are buffered.
        """
        if size > _AHEAD:
            return read_at(self._fd, size, offset)
        start = offset - self._ahead_at
        if start < 0 or start + size > len(self._ahead):
            self._ahead, self._ahead_at, start = read_at(self._fd, _AHEAD, offset), offset, 0
        return self._ahead[start : start + size]


def read_segment_header(file: SegmentFile) -> SegmentHeader | None:
    """Return the header of a segment file, or None if it is damaged or incomplete.

    Raises:
        NewerFormatError: the header has a format version that this release cannot read.
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
    if version != VERSION:
        msg = f"format version {version}; this release reads version {VERSION}"
        raise NewerFormatError(msg)
    if length != SEGMENT_HEADER_SIZE:
        return None
    *_, first, time_ns, wire_format, _ = _SEGMENT.unpack(data[:length])
    return SegmentHeader(first, time_ns, wire_format.rstrip(b"\0").decode("utf-8", "replace"))


def parse_frame(file: SegmentFile, offset: int, end: int) -> FrameHeader | None:
    """Return the frame header at ``offset``, or None if these bytes are not an intact header.

    The header must not extend beyond the offset ``end``.  The content of the frame may extend
    beyond ``end``, because the file may have been truncated.
    """
    if offset + FRAME_HEADER_SIZE > end:
        return None
    data = file.read(FRAME_HEADER_SIZE, offset)
    if len(data) < FRAME_HEADER_SIZE or not data.startswith(_FRAME_MAGIC):
        return None
    _, identity, sequence, time_ns, records, meta, body, payload_crc, crc = _FRAME.unpack(data)
    size = FRAME_HEADER_SIZE + meta + body
    if crc != crc32(data[:-_CRC_SIZE]) or records > meta or size > MAX_FRAME:
        return None
    return FrameHeader(
        offset, identity, sequence, time_ns, records, meta, body, payload_crc, offset + size
    )


def find_frame(file: SegmentFile, offset: int, until: int, end: int) -> FrameHeader | None:
    """Return the first intact frame header at or after ``offset``, or None.

    The search stops at about the offset ``until``, and ignores frames that extend beyond the
    offset ``end``.
    """
    header = parse_frame(file, offset, end)
    if header is not None and header.end <= end:
        return header
    position, size = offset + 1, _NEAR
    while position < until and position + FRAME_HEADER_SIZE <= end:
        chunk = file.read(min(size, end - position), position)
        size = _CHUNK
        at = chunk.find(_FRAME_MAGIC)
        while at >= 0:
            header = parse_frame(file, position + at, end)
            if header is not None and header.end <= end:
                return header
            at = chunk.find(_FRAME_MAGIC, at + 1)
        if len(chunk) < len(_FRAME_MAGIC):
            break  # the file was truncated during the search
        position += len(chunk) - len(_FRAME_MAGIC) + 1  # magic bytes may span two chunks
    return None


def load_payload(file: SegmentFile, header: FrameHeader) -> Payload | None:
    """Return the content of the frame with this ``header``, or None if the content is damaged."""
    # Read the metadata and the body separately.  Splitting the result of a single read would copy
    # the body while holding the GIL.
    start = header.offset + FRAME_HEADER_SIZE
    meta = file.read(header.meta_length, start)
    body = file.read(header.body_length, start + header.meta_length)
    if len(meta) < header.meta_length or len(body) < header.body_length:
        return None
    if crc32(body, crc32(meta)) != header.payload_crc:
        return None
    reason = meta[header.records :].decode("utf-8", "replace")
    return Payload(meta[: header.records], reason, body)


def format_id(wire_format: str) -> int:
    """Return the CRC-32 of a wire format's name.  It identifies the format in frame headers."""
    return crc32(wire_format.encode())


def severity_bytes(severities: Sequence[int]) -> bytes:
    """Return the severity numbers as bytes, one byte per record.

    If all values are integers from 0 to 255, they are stored unchanged.  Otherwise, every value
    that is not an OpenTelemetry severity number (0 to 24) becomes 0 (unspecified).
    """
    try:
        return bytes(severities)
    except (ValueError, TypeError):
        numbers: Sequence[Any] = severities
        return bytes([n if type(n) is int and 0 <= n < OFF else 0 for n in numbers])


def pack_segment_header(first_sequence: int, time_ns: int, wire_format: str) -> bytes:
    """Return the header of a new segment file as bytes.

    Args:
        first_sequence: the sequence number of the first frame in the file.
        time_ns: the current time, in nanoseconds since the Unix epoch.
        wire_format: the name of the format of the batches, at most 48 bytes.
    """
    fields = (VERSION, _SEGMENT.size, first_sequence, time_ns, wire_format.encode())
    data = _SEGMENT.pack(_SEGMENT_MAGIC, *fields, 0)[:-_CRC_SIZE]
    return data + _CRC.pack(crc32(data))


def pack_frame(
    identity: int, sequence: int, time_ns: int, severities: bytes, body: bytes, *, reason: str = ""
) -> tuple[bytes, bytes, bytes]:
    """Return the header, the metadata and the body of a frame, to be written in this order.

    ``identity`` is the :func:`format_id` of the body's wire format.  ``reason`` is the backend's
    reason for refusing the batch, or "" outside the quarantine.
    """
    meta = severities + reason.encode("utf-8", "replace") if reason else severities
    crc = crc32(body, crc32(meta))
    fields = (identity, sequence, time_ns, len(severities), len(meta), len(body), crc)
    header = _FRAME.pack(_FRAME_MAGIC, *fields, 0)[:-_CRC_SIZE]
    return header + _CRC.pack(crc32(header)), meta, body
