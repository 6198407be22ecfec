"""Recovers batches whose spool file another program has deleted, replaced or truncated.

The newest batches are still cached in memory, and a deleted file can still be read while it is
open.  Batches that can be read in this way are sent, or written to a new file.  The other batches
of the file are counted as lost.  Only files that this process wrote are recovered.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog.spool.store import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.spool.format import SegmentFile
    from fapilog.spool.store import Frame, Segment, SpoolState


@dataclass(eq=False)
class LostSegment:
    """A segment file that another program has deleted, replaced or truncated.

    Attributes:
        segment: the segment, already removed from its store.
        left: the number of unread frames, records and bytes that :meth:`Salvage.next` has not
            returned yet.
        file: the open file from which ``frames`` reads, or None if it cannot be read.
        frames: yields the unread frames that can still be read.
    """

    segment: Segment
    left: Amount
    file: SegmentFile | None
    frames: Iterator[Frame]

    def close(self) -> None:
        """Close the file.  If it was truncated but not replaced, also delete it."""
        self.abandon()
        with contextlib.suppress(OSError):
            if self.segment.path.lstat().st_ino == self.segment.inode:
                self.segment.path.unlink()

    def abandon(self) -> None:
        """Close the file, without deleting it, in a forked child."""
        if self.file is not None:
            self.file.close()


class Salvage:
    """A queue of unread frames whose files were deleted, replaced or truncated.

    Attributes:
        left: the number of frames, records and bytes in the queue.  Any thread may read it.
    """

    def __init__(self, state: SpoolState) -> None:
        self._state = state
        self._segments: deque[LostSegment] = deque()
        self._returned: Frame | None = None
        self.left = Amount()

    def add(self, segment: LostSegment) -> None:
        """Add the frames of ``segment`` to the queue."""
        self.left.add(segment.left)
        self._segments.append(segment)

    def next(self) -> Frame | None:
        """Remove and return the next frame that can be read, or None if the queue is empty.

        Unreadable frames are counted as lost.  Blocks on disk I/O; never raises.
        """
        frame, self._returned = self._returned, None
        while frame is None and self._segments:
            first = self._segments[0]
            frame = next(first.frames, None)
            if frame is None:
                self._segments.popleft()
                first.close()
                self.left.take(first.left)
                self._state.count_lost(first.left, first.segment.path, is_adopted=False)
            else:
                first.left.take(frame.amount)
        if frame is not None:
            self.left.take(frame.amount)
        return frame

    def put_back(self, frame: Frame) -> None:
        """Put ``frame`` back in the queue, so that :meth:`next` returns it again."""
        self._returned = frame
        self.left.add(frame.amount)

    def close(self) -> None:
        """Remove all frames from the queue, and count them as lost."""
        while frame := self.next():
            self._state.count_lost(frame.amount, frame.segment.path, is_adopted=False)

    def abandon(self) -> None:
        """Close all file descriptors in a forked child."""
        for segment in self._segments:
            segment.abandon()
