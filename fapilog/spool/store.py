"""The frames of one directory on their way out: read in order, settled in any.

The spool has one store for its own directory (``own.py``) and one for each
directory it adopted.  All methods are called under the lock of the spool's
caller.
"""

from __future__ import annotations

import errno
import heapq
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.diagnostics import announce
from fapilog.spool.cursor import Cursor
from fapilog.spool.segment import Amount, Corruption, Frame, Segment, Tally

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog.process.files import SyncedFile
    from fapilog.spool.directory import ProcessDirectory
    from fapilog.spool.format import Layout
    from fapilog.spool.scan import Found, Scan

#: Segments that are looked at in one check.
MAX_CHECKED: Final = 128
#: Errors of this process, not of the segment: reading is tried again.
_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Store:
    """Reads and settles the frames of one directory.

    Args:
        sink_name: of the sink, in announcements.
        directory: locked by this process.
        identity: of the wire format; other frames are skipped.
        tally: of all stores of this kind.
        corrupt: of the spool.
        is_adopted: whether a dead process wrote it.

    Attributes:
        sink_name: as above.
        directory: as above.
        cursor: of the directory.
        is_complete: whether no further segment is added.

    Raises:
        OSError: the cursor can neither be opened nor made.
    """

    def __init__(
        self,
        sink_name: str,
        directory: ProcessDirectory,
        identity: int,
        tally: Tally,
        corrupt: Corruption,
        *,
        is_adopted: bool,
    ) -> None:
        self.sink_name = sink_name
        self.directory = directory
        self.cursor = Cursor(directory.path)
        self._identity = identity
        self._tally = tally
        self._corrupt = corrupt
        self._is_adopted = is_adopted
        self._segments: list[Segment] = []
        self._unread: deque[Segment] = deque()  # those not read to the end
        self._next = max(self.cursor.floor, 1)  # the lowest sequence that was not given out
        self._ahead: set[int] = set()  # given out, or settled, before their turn
        self._out: set[int] = set()  # given out and not settled
        self._order: list[int] = []  # a heap of those, and of some that are settled
        self.is_complete = not is_adopted
        self._growing: Segment | None = None  # not looked through to its end
        self._grown = Amount()  # what was found of it
        self._is_open = True
        self._checked = 0  # where the next check begins
        self._syncing = native.RLock()

    def extend(self, found: Scan) -> int:
        """Take what was found in a segment since the last time, in order.

        Args:
            found: of one segment until it is complete, then of the next.

        Returns:
            The records that are new.
        """
        segment, self._growing = self._growing, None
        if found.is_complete and found.layout is None and not found.problem:
            self._delete(found.path)  # a crash came before anything was written
            return 0
        if segment is None:
            if found.layout is None or (
                not found.frames and (found.problem or not found.is_complete)
            ):
                return 0
            segment = self._begin_growing(found, found.layout)
        if not found.is_complete:
            self._growing = segment
        elif not segment.is_lost:
            segment.sealed = True
            segment.is_kept = bool(found.problem)
        return self._grow(segment, found)

    def _begin_growing(self, found: Scan, layout: Layout) -> Segment:
        segment = Segment(
            found.path, layout, found.start, found.start, found.disk, found.inode, sealed=False
        )
        self._segments.append(segment)
        self._unread.append(segment)
        self._tally.disk += segment.size
        self._grown = Amount()
        return segment

    def _grow(self, segment: Segment, found: Scan) -> int:
        new = Amount(found.frames, found.records, found.bytes)
        new.take(self._grown)
        if segment.is_lost:
            return 0
        self._grown.add(new)
        segment.end = max(segment.end, found.end)
        segment.gaps.update((o, e) for o, e in found.gaps.items() if o >= segment.position)
        for total in (segment.unread, segment.waiting, self._tally.unread, self._tally.waiting):
            total.add(new)
        if segment.sealed and segment.waiting.frames <= 0:
            self._drop(segment)
        return new.records

    @property
    def is_drained(self) -> bool:
        """Whether every frame is settled, and there are no more to come."""
        return self.is_complete and not self._segments

    @property
    def records(self) -> int:
        """Records that are not settled."""
        return sum(segment.waiting.records for segment in self._segments)

    def read(self) -> Frame | None:
        """Return the next frame and count it as given out; None if there is none now."""
        while self._unread:
            segment = self._unread[0]
            try:
                while (found := segment.next_found()) is not None:
                    frame = self._take(segment, found)
                    if frame is not None:
                        return frame
            except OSError as error:
                what = f"{self.sink_name}: {segment.path} cannot be read: {error.strerror or error}"
                announce(f"spool read {self.sink_name}", what)
                if error.errno in _PASSING:
                    return None
                segment.skip_to(segment.end)
            self._finish(segment)
            if not segment.sealed:
                return None
            if self._unread and self._unread[0] is segment:
                self._unread.popleft()
        return None

    def _take(self, segment: Segment, found: Found) -> Frame | None:
        """Return a frame that was read from the disk, unless it was given out before."""
        header, payload = found
        sequence = header.sequence
        if payload is None or sequence < self._next or header.format_id != self._identity:
            return None
        if sequence in self._ahead:
            self._go_on_at(sequence)
            return None
        frame = Frame(
            sequence,
            header.time_ns,
            payload.severities,
            payload.body,
            None,
            self._is_adopted,
            header.size,
            header.end,
            segment,
            self,
        )
        self._give_out(frame)
        return frame

    def _give_out(self, frame: Frame) -> None:
        """Count the next frame as read."""
        self._go_on_at(frame.sequence + 1)
        self._mark_out(frame)

    def _go_on_at(self, sequence: int) -> None:
        """Read next what comes from ``sequence`` on and has not had its turn."""
        while sequence in self._ahead:
            self._ahead.discard(sequence)
            sequence += 1
        self._next = sequence

    def _mark_out(self, frame: Frame) -> None:
        self._out.add(frame.sequence)
        heapq.heappush(self._order, frame.sequence)
        frame.segment.unread.take(frame.amount)
        self._tally.unread.take(frame.amount)

    def _finish(self, segment: Segment) -> None:
        """Settle what should have been in a segment that was read to its end."""
        segment.close_reader()
        lost = Amount(segment.unread.frames, segment.unread.records, segment.unread.size)
        if lost.frames > 0:
            self._corrupt.count(lost, is_adopted=self._is_adopted)
            announce(
                f"spool damage {self.sink_name}",
                f"{self.sink_name}: {lost.frames} frames with {lost.records} records in "
                f"{segment.path} are damaged and lost",
            )
            segment.unread.take(lost)
            self._tally.unread.take(lost)
            self._settle(segment, lost)

    def ack(self, frame: Frame) -> None:
        """Settle a frame; once more does nothing.  Never raises."""
        sequence = frame.sequence
        if not self._is_open:
            return
        if frame.is_lost:  # and no longer counted
            self._out.discard(sequence)
            self._move_cursor(frame)
            return
        if sequence in self._out:
            self._out.discard(sequence)
        elif sequence >= self._next and sequence not in self._ahead:
            self._pass_by(frame)
            frame.segment.unread.take(frame.amount)
            self._tally.unread.take(frame.amount)
        else:
            return
        self._settle(frame.segment, frame.amount)
        self._move_cursor(frame)

    def _pass_by(self, frame: Frame) -> None:
        """Have the reading skip a frame whose turn has not come."""
        self._ahead.add(frame.sequence)
        self._go_on_at(self._next)

    def _settle(self, segment: Segment, amount: Amount) -> None:
        segment.waiting.take(amount)
        self._tally.waiting.take(amount)
        if segment.sealed and segment.waiting.frames <= 0:
            self._drop(segment)

    def _move_cursor(self, frame: Frame) -> None:
        """Note how far everything is settled, after ``frame`` was."""
        while self._order and self._order[0] not in self._out:
            heapq.heappop(self._order)
        floor = min(self._order[0], self._next) if self._order else self._next
        if floor <= self.cursor.floor:
            return
        try:
            if floor == frame.sequence + 1:
                self.cursor.move(floor, int(frame.segment.path.stem), frame.end)
            else:
                self.cursor.move(floor)
        except OSError as error:
            what = f"{self.sink_name}: the cursor of {self.directory.path} cannot be written"
            announce(
                f"spool cursor {self.sink_name}",
                f"{what}, records may be delivered twice: {error.strerror or error}",
            )

    # ---- what somebody took away

    def missing(self, most: int = MAX_CHECKED) -> list[Segment]:
        """Return segments whose files were deleted, replaced or cut from outside.

        Looks at ``most`` of them, the next time at the following ones.
        """
        segments = self._segments
        if not self.directory.is_there:
            return list(segments)
        begin = self._checked if self._checked < len(segments) else 0
        self._checked = begin + most
        looked_at = segments[begin : self._checked]
        if segments and self._checked < len(segments):
            looked_at.append(segments[-1])
        return [segment for segment in looked_at if not segment.is_there]

    def renew(self) -> None:
        """Write again what was deleted of the lock and the cursor.  Never raises."""
        self.directory.renew_lock()
        self.cursor.renew()

    def give_up(self, segment: Segment) -> Amount:
        """Forget a segment that was taken away; return what of it was never given out."""
        left = replace(segment.unread)
        self._tally.unread.take(left)
        self._tally.waiting.take(segment.waiting)
        segment.is_lost = True
        self._take_out(segment)
        return left

    def _drop(self, segment: Segment) -> None:
        """Delete a segment whose frames are all settled."""
        self._take_out(segment)
        if not segment.is_kept:
            self._delete(segment.path)

    def _take_out(self, segment: Segment) -> None:
        self._segments.remove(segment)
        if segment in self._unread:
            self._unread.remove(segment)
        segment.close_reader()
        if segment.writer is not None:
            segment.writer.close()
        self._tally.disk -= segment.size

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            what = f"{self.sink_name}: cannot delete {path}: {error.strerror or error}"
            announce(f"spool delete {self.sink_name}", what)

    def sync(self) -> None:
        """Have the cursor survive a power failure.  Blocks for the disk; never raises.

        Thread-safe.
        """
        with self._syncing:
            self._sync_file(self.cursor.file)

    def _sync_file(self, file: SyncedFile) -> None:
        try:
            file.sync()
        except OSError as error:
            self._announce_sync(file.path, error)

    def _announce_sync(self, path: Path, error: OSError) -> None:
        announce(
            f"spool sync {self.sink_name}",
            f"{self.sink_name}: {path} may not survive a power failure: {error.strerror or error}",
        )

    def close(self) -> bool:
        """Close everything and give the directory up, removing it when it is empty.

        Returns:
            Whether it is gone.
        """
        self._is_open = False
        for segment in self._segments:
            segment.close_reader()
            if segment.writer is not None:
                segment.writer.close()
        self._unread.clear()
        self.cursor.file.close()
        if self._segments or not self.is_complete:
            self.directory.release()
            return False
        try:
            return self.directory.remove()
        except OSError as error:
            what = f"{self.sink_name}: cannot remove {self.directory.path}"
            announce(f"spool delete {self.sink_name}", f"{what}: {error.strerror or error}")
            return False

    def abandon(self) -> None:
        """Close every descriptor in a forked child; the files are the parent's."""
        self._is_open = False
        for segment in self._segments:
            segment.close_reader()
            if segment.writer is not None:
                segment.writer.abandon()
        self.cursor.file.abandon()
        self.directory.abandon()
