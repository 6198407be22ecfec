"""What can still be read of a segment that somebody deleted, replaced or cut.

A file that was deleted can be read as long as it is open, and the newest frames
are in memory.  They come out once more, one at a time, to be written elsewhere
or sent; what does not come out is lost.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fapilog.spool.format import SegmentFile
from fapilog.spool.scan import Damage, walk
from fapilog.spool.segment import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.spool.format import FrameHeader
    from fapilog.spool.segment import Amount, Segment
    from fapilog.spool.store import Store


def readable(segment: Segment) -> SegmentFile | None:
    """Return a file to read a segment from that was taken away; None when there is none."""
    file, segment.file = segment.file, None
    if file is not None:
        return file
    with contextlib.suppress(OSError):
        fd = segment.writer.copy() if segment.writer is not None else -1
        found = SegmentFile(segment.path, fd)
        if found.status().st_ino == segment.inode:
            return found
        found.close()
    return None


class Salvage:
    """The frames of one segment that were not given out, as far as they can be read.

    Args:
        segment: it was given up.
        file: to read it from, or None.
        cached: frames of it that are in memory, by sequence.
        first: frames of lower sequences were given out, and so were those in
        done: which may be above.
        left: how much was not given out.
        store: the segment's.

    Attributes:
        left: how much has not come out yet, and may be lost.
        segment: as above.
    """

    def __init__(
        self,
        segment: Segment,
        file: SegmentFile | None,
        cached: dict[int, Frame],
        *,
        first: int,
        done: frozenset[int],
        left: Amount,
        store: Store,
    ) -> None:
        self.segment = segment
        self.left = left
        self._file = file
        self._cached = cached
        self._first = first
        self._done = done
        self._store = store
        self._frames = self._read()

    def next(self) -> Frame | None:
        """Return the next frame; None at the end.  Blocks for the disk; never raises."""
        frame = next(self._frames, None)
        if frame is not None:
            self.left.take(frame.amount)
        return frame

    def _read(self) -> Iterator[Frame]:
        try:
            for frame in self._read_file():
                yield self._cached.pop(frame.sequence, frame)
        except OSError:  # what is not read is counted as lost
            pass
        yield from filter(self._is_due, self._cached.values())

    def _is_due(self, one: Frame | FrameHeader) -> bool:
        """Whether a frame was never given out."""
        return one.sequence >= self._first and one.sequence not in self._done

    def _read_file(self) -> Iterator[Frame]:
        file, segment = self._file, self.segment
        if file is None:
            return
        end = min(segment.end, file.size())
        for one in walk(file, segment.layout, segment.position, end, last=None, load=True):
            if isinstance(one, Damage) or one.payload is None:
                continue
            header, payload = one.header, one.payload
            if self._is_due(header):
                yield Frame(
                    header.sequence,
                    header.time_ns,
                    payload.severities,
                    payload.body,
                    None,
                    False,
                    header.size,
                    header.end,
                    segment,
                    self._store,
                )

    def close(self) -> None:
        """Close the file, and delete what is left of it: its frames are elsewhere, or lost."""
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            if self.segment.path.lstat().st_ino == self.segment.inode:
                self.segment.path.unlink()

    def abandon(self) -> None:
        """Close the file in a forked child."""
        if self._file is not None:
            self._file.close()
