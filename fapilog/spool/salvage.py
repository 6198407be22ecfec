"""Rescues this process's frames whose files another program deleted, replaced or truncated.

The newest frames are in memory, and a deleted file can still be read while it is open.  The
frames found there are sent or written again; all other frames count as lost.
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
    """A segment whose file another program deleted, replaced or truncated.

    Attributes:
        segment: the segment, which is no longer part of its store.
        left: the number of unread frames, records and bytes that :meth:`Salvage.next` has not
            returned yet.
        file: the open file from which ``frames`` reads, or None.
        frames: the unread frames that can still be read.
    """

    segment: Segment
    left: Amount
    file: SegmentFile | None
    frames: Iterator[Frame]

    def close(self) -> None:
        """Close the file, and delete it if it still exists (another program truncated it)."""
        self.abandon()
        with contextlib.suppress(OSError):
            if self.segment.path.lstat().st_ino == self.segment.inode:
                self.segment.path.unlink()

    def abandon(self) -> None:
        """Close the file, without deleting it, in a forked child."""
        if self.file is not None:
            self.file.close()


class Salvage:
    """A queue of frames from lost segments.

    Attributes:
        left: the number of frames, records and bytes in the queue.  Any thread may read it.
    """

    def __init__(self, state: SpoolState) -> None:
        self._state = state
        self._segments: deque[LostSegment] = deque()
        self._returned: Frame | None = None
        self.left = Amount()

    def add(self, segment: LostSegment) -> None:
        """Add the frames of a lost segment to the queue."""
        self.left.add(segment.left)
        self._segments.append(segment)

    def next(self) -> Frame | None:
        """Return the next frame that can be read, or None if the queue is empty.

        Unreadable frames count as lost.  Blocks on disk I/O; never raises.
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
        """Empty the queue, and count its frames as lost."""
        while frame := self.next():
            self._state.count_lost(frame.amount, frame.segment.path, is_adopted=False)

    def abandon(self) -> None:
        """Close all file descriptors in a forked child."""
        for segment in self._segments:
            segment.abandon()
