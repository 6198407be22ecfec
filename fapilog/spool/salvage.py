"""Frames of this process whose files another program deleted, replaced or cut.

The newest frames are in memory, and a deleted file can be read as long as it is open.
These frames are sent or appended again; all other frames count as lost.
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
    """A segment whose file another program deleted, replaced or cut.

    Attributes:
        segment: the segment, which its store has forgotten.
        left: the amount of its frames that :meth:`Salvage.next` has not returned.
        file: the open file that ``frames`` reads, or None.
        frames: the unread frames that can still be read.
    """

    segment: Segment
    left: Amount
    file: SegmentFile | None
    frames: Iterator[Frame]

    def close(self) -> None:
        """Close the file, and delete it if it was only cut."""
        self.abandon()
        with contextlib.suppress(OSError):
            if self.segment.path.lstat().st_ino == self.segment.inode:
                self.segment.path.unlink()

    def abandon(self) -> None:
        """Close the file in a forked child."""
        if self.file is not None:
            self.file.close()


class Salvage:
    """A queue of the frames of lost segments.

    Attributes:
        left: the amount of the frames in the queue; readable from any thread.
    """

    def __init__(self, state: SpoolState) -> None:
        self._state = state
        self._segments: deque[LostSegment] = deque()
        self._returned: Frame | None = None
        self.left = Amount()

    def add(self, segment: LostSegment) -> None:
        """Queue the frames of a segment."""
        self.left.add(segment.left)
        self._segments.append(segment)

    def next(self) -> Frame | None:
        """Return the next frame, or None at the end.  Blocks on disk I/O; never raises."""
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
        """Make the next call of :meth:`next` return a frame again."""
        self._returned = frame
        self.left.add(frame.amount)

    def close(self) -> None:
        """Count the remaining frames as lost."""
        while frame := self.next():
            self._state.count_lost(frame.amount, frame.segment.path, is_adopted=False)

    def abandon(self) -> None:
        """Close all descriptors in a forked child."""
        for segment in self._segments:
            segment.abandon()
