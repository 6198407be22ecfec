"""What a store counts and hands around: amounts, segments, frames."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fapilog.spool.format import SegmentFile
from fapilog.spool.scan import Damage, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fapilog.process.files import SyncedFile
    from fapilog.spool.format import Layout
    from fapilog.spool.scan import Found
    from fapilog.spool.store import Store


@dataclass(eq=False)
class Amount:
    """How much is somewhere; size in bytes."""

    frames: int = 0
    records: int = 0
    size: int = 0

    def add(self, other: Amount) -> None:
        """Add what ``other`` has."""
        self.frames += other.frames
        self.records += other.records
        self.size += other.size

    def take(self, other: Amount) -> None:
        """Take away what ``other`` has."""
        self.frames -= other.frames
        self.records -= other.records
        self.size -= other.size


@dataclass(eq=False)
class Corruption:
    """What could not be read back; plain counts, readable from any thread.

    Attributes:
        frames: damaged frames that were skipped, as far as they can be counted.
        records: records among them that had counted as pending.
        adopted: records among these that a dead process wrote.
        segments: segments left alone: of a later format, or unreadable.
    """

    frames: int = 0
    records: int = 0
    adopted: int = 0
    segments: int = 0

    def count(self, lost: Amount, *, is_adopted: bool) -> None:
        """Count frames that had counted as pending."""
        self.frames += lost.frames
        self.records += lost.records
        if is_adopted:
            self.adopted += lost.records


@dataclass(eq=False)
class Tally:
    """What all stores of one kind hold; plain counts, readable from any thread.

    Attributes:
        waiting: what is not settled.
        unread: what has not been given out.
        disk: bytes of all segments.
    """

    waiting: Amount = field(default_factory=Amount)
    unread: Amount = field(default_factory=Amount)
    disk: int = 0


@dataclass(eq=False)
class Segment:
    """One file of frames.

    Attributes:
        path: the file.
        layout: reads its frames.
        position: where the first frame begins that was not read.
        end: where its last whole frame ends.
        size: bytes it counts for on the disk.
        inode: the file's number on its file system.
        sealed: whether nothing more is written to it.
        unread: its frames that have not been given out.
        waiting: its frames that are not settled.
        writer: open for writing, or None.
    """

    path: Path
    layout: Layout
    position: int
    end: int
    size: int
    inode: int
    sealed: bool
    unread: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    writer: SyncedFile | None = None
    is_lost: bool = False  # somebody took the file away
    is_kept: bool = False  # it stays, because not all of it can be read here
    gaps: dict[int, int] = field(default_factory=dict)  # to be skipped, from offset to offset
    file: SegmentFile | None = None
    found: Iterator[Found | Damage] | None = None
    found_end: int = 0  # the end as it was when the walk began

    def next_found(self) -> Found | None:
        """Return the next whole frame from ``position`` on; None at the end.

        Raises:
            OSError: the segment cannot be read.
        """
        while self.position < self.end:
            if self.file is None:
                self.file = SegmentFile(self.path)
            if self.found is None:
                self.position = self.gaps.pop(self.position, self.position)
                ahead = (gap for gap in self.gaps if gap > self.position)
                self.found_end = min(ahead, default=self.end)
                end = min(self.found_end, self.file.size())  # somebody may have cut it
                self.found = walk(self.file, self.layout, self.position, end, last=None, load=True)
            one = next(self.found, None)
            if one is None:
                self.skip_to(self.found_end)
            elif isinstance(one, Damage):
                self.position = one.end
            else:
                self.position = one.header.end
                return one
        return None

    @property
    def is_there(self) -> bool:
        """Whether its path still leads to it, and to all that was written.  Never raises."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return status.st_ino == self.inode and status.st_size >= self.end

    def skip_to(self, position: int) -> None:
        """Go on reading at ``position``."""
        self.position = position
        self.found = None

    def close_reader(self) -> None:
        """Close what was opened to read."""
        self.found = None
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            self.file = None


@dataclass(eq=False, slots=True)
class Frame:
    """One batch of the spool.

    Attributes:
        sequence: its place in its directory.
        time_ns: when it was written, nanoseconds since the Unix epoch.
        severities: the severity number of each record.
        body: the batch, as the sink packed it.
        item: what :meth:`Spool.append` was given beside it, if that is still
            in memory, else None.
        is_adopted: whether a dead process wrote it.
        size: bytes it takes on the disk.
        end, segment, store: where it is; the spool's own business.
    """

    sequence: int
    time_ns: int
    severities: bytes
    body: bytes
    item: object
    is_adopted: bool
    size: int
    end: int
    segment: Segment
    store: Store

    @property
    def amount(self) -> Amount:
        """What it counts for."""
        return Amount(1, len(self.severities), self.size)

    @property
    def is_lost(self) -> bool:
        """Whether somebody took its file away, so that it is in memory alone."""
        return self.segment.is_lost
