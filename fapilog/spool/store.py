"""Reads and acknowledges the frames (batches) in one directory of the spool.

The spool has one :class:`fapilog.spool.own_store.OwnStore` for the directory of this process, and
one :class:`Store` for each adopted directory of a dead process.  A store reads frames in order,
but they may be acknowledged in any order.  Callers must hold
``fapilog.delivery.state.DeliveryState.lock`` unless a docstring says otherwise.
"""

from __future__ import annotations

import errno
import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fapilog import diagnostics, native
from fapilog.spool.cursor import Cursor
from fapilog.spool.format import SegmentFile, format_id
from fapilog.spool.scan import Damage, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fapilog.process.files import SyncedFile
    from fapilog.spool.credentials import Credentials
    from fapilog.spool.directory import ProcessDirectory
    from fapilog.spool.options import SpoolOptions
    from fapilog.spool.scan import Found, Scan

#: By default, one call checks at most this many segment files for changes by other programs.
MAX_CHECKED: Final = 128
#: Errors that are caused by a lack of resources, not by the file.  After such an error, a later
#: call tries to read the file again.
_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(eq=False)
class Amount:
    """A number of frames, with the total number of their records and their size in bytes."""

    frames: int = 0
    records: int = 0
    size: int = 0

    def add(self, other: Amount) -> None:
        """Add ``other`` to this amount."""
        self.frames += other.frames
        self.records += other.records
        self.size += other.size

    def take(self, other: Amount) -> None:
        """Subtract ``other`` from this amount."""
        self.frames -= other.frames
        self.records -= other.records
        self.size -= other.size


@dataclass(eq=False)
class Corruption:
    """Counters of the data that cannot be read from disk.  Any thread may read them.

    Attributes:
        frames: the number of damaged or lost frames, partly estimated from the sequence numbers.
        records: the number of lost records that ``Spool.pending_records`` had included before.
        adopted: the number of records in ``records`` that a dead process had written.
        segments: the number of segment files that are unreadable or have a later format version.
    """

    frames: int = 0
    records: int = 0
    adopted: int = 0
    segments: int = 0

    def count(self, lost: Amount, *, is_adopted: bool) -> None:
        """Add lost frames and their records to the counters.

        ``is_adopted`` is True if a dead process had written the frames.
        """
        self.frames += lost.frames
        self.records += lost.records
        if is_adopted:
            self.adopted += lost.records


@dataclass(eq=False)
class Tally:
    """Counters for this process's directory, or for all adopted directories of dead processes.

    Any thread may read the attributes.

    Attributes:
        waiting: the number of frames, records and bytes that are not acknowledged.
        unread: the number of frames, records and bytes that have been neither read nor sent.
        disk: the total size of the segment files in bytes.
    """

    waiting: Amount = field(default_factory=Amount)
    unread: Amount = field(default_factory=Amount)
    disk: int = 0


@dataclass(eq=False)
class SpoolState:
    """The options and counters that all ``Store`` objects of one sink's spool share."""

    label: str
    wire_format: str
    options: SpoolOptions
    credentials: Credentials
    corrupt: Corruption = field(default_factory=Corruption)
    own: Tally = field(default_factory=Tally)
    adopted: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.identity = format_id(self.wire_format)

    def announce(self, kind: str, text: str) -> None:
        """Write ``text`` to standard error, at most once every 30 seconds for each ``kind``."""
        diagnostics.announce(f"spool {kind} {self.label}", f"{self.label}: {text}")

    def count_lost(self, lost: Amount, path: Path, *, is_adopted: bool) -> None:
        """Count and report frames whose file another program has deleted, replaced or truncated.

        The report is a line on standard error.
        """
        if lost.frames > 0:
            self.corrupt.count(lost, is_adopted=is_adopted)
            self.announce(
                "lost",
                f"{lost.records} records are lost with {path}, which somebody else deleted or "
                "cut; they count as dropped (spool_damaged)",
            )


@dataclass(eq=False)
class Segment:
    """A segment: a file that contains frames.

    Attributes:
        path: the file's path.
        position: the offset of the first unread frame.
        end: the offset where the last intact frame ends (exclusive).
        size: the number of bytes that :attr:`Tally.disk` includes for this file.
        inode: the file's inode number.
        sealed: whether the file is complete, so that no frames will be added.
        unread: the number of frames, records and bytes that have been neither read nor sent.
        waiting: the number of frames, records and bytes that are not acknowledged.
        is_lost: whether another program has deleted, replaced or truncated the file.
        is_kept: whether the file stays on disk after all frames are acknowledged, because the
            scan could not read it to its end.
        gaps: the damaged ranges of 1 MiB or more, which are skipped, as ``{start: end}``.
        unread_since_ns: a time at or shortly before the time when the oldest unread frame was
            written, in nanoseconds since the Unix epoch.
    """

    path: Path
    position: int
    end: int
    size: int
    inode: int
    sealed: bool = False
    unread: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    is_lost: bool = False
    is_kept: bool = False
    gaps: dict[int, int] = field(default_factory=dict)
    unread_since_ns: int = 0
    _file: SegmentFile | None = None
    _found: Iterator[Found | Damage] | None = None
    _found_end: int = 0  # the offset where the iterator _found ends

    def next_found(self) -> Found | None:
        """Return the next intact frame at or after ``position``, or None at the end of the file.

        Raises:
            OSError: the file cannot be read.
        """
        while self.position < self.end:
            if self._file is None:
                self._file = SegmentFile(self.path)
            if self._found is None:
                self.position = self.gaps.pop(self.position, self.position)
                later = (gap for gap in self.gaps if gap > self.position)
                self._found_end = min(later, default=self.end)
                end = min(self._found_end, self._file.size())  # the file may have been truncated
                self._found = walk(self._file, self.position, end, load=True)
            one = next(self._found, None)
            if one is None:
                self.skip_to(self._found_end)
            elif isinstance(one, Damage):
                self.position = one.end
            else:
                self.position = one.header.end
                return one
        return None

    @property
    def is_there(self) -> bool:
        """Whether the file still exists at :attr:`path` and is not truncated.  Never raises."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return status.st_ino == self.inode and status.st_size >= self.end

    def skip_to(self, position: int) -> None:
        """Make :meth:`next_found` continue at the offset ``position``."""
        self.position = position
        self._found = None

    def detach_reader(self) -> SegmentFile | None:
        """Return the file if it is open for reading, or None.  The caller must close the file."""
        file, self._file, self._found = self._file, None, None
        return file

    def close_reader(self) -> None:
        """Close the file if it is open for reading."""
        self._found = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Close all file descriptors."""
        self.close_reader()

    def abandon(self) -> None:
        """Close all file descriptors in a forked child."""
        self.close_reader()


@dataclass(eq=False, slots=True)
class Frame:
    """One batch on disk.  Only the spool uses ``end``, ``segment`` and ``store``.

    Attributes:
        sequence: the sequence number of the frame in its directory, counted from 1.
        time_ns: the time when the frame was written, in nanoseconds since the Unix epoch.
        severities: the severity number of each record.
        body: the packed batch.
        item: the object that was passed to :meth:`Spool.append` with the batch, or None if the
            frame was read from the disk.
        size: the length of the frame on disk in bytes.
        end: the offset where the frame ends (exclusive).
        segment: the segment that contains the frame.
        store: the store that contains the segment.
    """

    sequence: int
    time_ns: int
    severities: bytes
    body: bytes
    item: object
    size: int
    end: int
    segment: Segment
    store: Store

    @property
    def amount(self) -> Amount:
        """One frame, the number of its records and its size in bytes, as an :class:`Amount`."""
        return Amount(1, len(self.severities), self.size)

    @property
    def is_adopted(self) -> bool:
        """Whether a dead process wrote the frame."""
        return self.store.is_adopted

    @property
    def is_lost(self) -> bool:
        """Whether another program has deleted, replaced or truncated the frame's file.

        If so, the frame exists only in memory.
        """
        return self.segment.is_lost


class Store:
    """Reads and acknowledges the frames of one directory that this process has locked.

    Attributes:
        directory: the locked directory.
        is_adopted: whether a dead process created the directory.
        cursor: the cursor file, which records which frames are acknowledged.
        is_complete: whether all segments have been scanned.  Always True for the directory of
            this process, which needs no scan.

    Raises:
        OSError: the cursor file can be neither opened nor created.
    """

    def __init__(self, state: SpoolState, directory: ProcessDirectory, *, is_adopted: bool) -> None:
        self._state = state
        self._tally = state.adopted if is_adopted else state.own
        self.directory = directory
        self.is_adopted = is_adopted
        self.cursor = Cursor(directory.path)
        self._segments: list[Segment] = []
        self._unread: deque[Segment] = deque()  # segments with frames that may be unread
        # The following attributes contain sequence numbers.  A frame is "out" after read() has
        # returned it, or after append() has written it with read=True.
        #   _next: the lowest number that was never out
        #   _ahead: the numbers above _next that were out or are acknowledged
        #   _out: the numbers that are out and not acknowledged
        #   _order: a heap of the numbers in _out; acknowledged numbers are removed later
        self._next = max(self.cursor.floor, 1)
        self._ahead: set[int] = set()
        self._out: set[int] = set()
        self._order: list[int] = []
        self.is_complete = not is_adopted
        self._growing: Segment | None = None  # the segment whose scan has not finished
        self._grown = Amount()  # the frames of _growing that _grow() has counted
        self._is_open = True
        self._checked = 0  # missing() checks the segments from this index on
        self._syncing = native.RLock()

    def extend(self, found: Scan) -> int:
        """Add the frames that the scan of a segment file has found since the previous call.

        Args:
            found: the results of the scan so far.

        Returns:
            The number of records in the added frames.
        """
        segment, self._growing = self._growing, None
        if segment is None:
            if found.is_complete and not found.is_readable and not found.problem:
                self._delete(found.path)  # the file contains no frame
                return 0
            is_certain = found.is_complete and not found.problem
            if not found.is_readable or not (found.frames or is_certain):
                return 0
            segment = Segment(found.path, found.start, found.start, found.disk, found.inode)
            self._add(segment)
            self._grown = Amount()
        if not found.is_complete:
            self._growing = segment
        elif not segment.is_lost:
            segment.sealed = True
            segment.is_kept = bool(found.problem)
        return self._grow(segment, found)

    def _grow(self, segment: Segment, found: Scan) -> int:
        if segment.is_lost:
            return 0
        new = Amount(found.frames, found.records, found.bytes)
        new.take(self._grown)
        self._grown.add(new)
        segment.end = max(segment.end, found.end)
        segment.unread_since_ns = segment.unread_since_ns or found.oldest_ns
        segment.gaps.update((o, e) for o, e in found.gaps.items() if o >= segment.position)
        self._count_new(segment, new)
        if segment.sealed and segment.waiting.frames <= 0:
            self._drop(segment)
        return new.records

    def _add(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._unread.append(segment)
        self._tally.disk += segment.size

    def _count_new(self, segment: Segment, amount: Amount) -> None:
        for total in (segment.unread, segment.waiting, self._tally.unread, self._tally.waiting):
            total.add(amount)

    def _count_read(self, segment: Segment, amount: Amount) -> None:
        segment.unread.take(amount)
        self._tally.unread.take(amount)

    @property
    def is_drained(self) -> bool:
        """Whether every frame is acknowledged and no further frames will be added."""
        return self.is_complete and not self._segments

    @property
    def records(self) -> int:
        """The number of records that are not acknowledged."""
        return sum(segment.waiting.records for segment in self._segments)

    @property
    def unread_since_ns(self) -> int:
        """A time at or shortly before the time when the oldest unread frame was written.

        In nanoseconds since the Unix epoch; 0 if every frame has been read.  Any thread may read
        it.
        """
        for segment in tuple(self._unread):
            if segment.unread.frames > 0:
                return segment.unread_since_ns
        return 0

    def read(self) -> Frame | None:
        """Return the next unread frame, or None if there is no unread frame.

        Acknowledged frames, and frames that ``append`` wrote with ``read=True``, are skipped.
        Blocks on disk I/O; never raises.
        """
        while self._unread:
            segment = self._unread[0]
            try:
                while (found := segment.next_found()) is not None:
                    frame = self.frame_of(segment, found)
                    if frame is not None and self._is_due(frame.sequence):
                        self._give_out(frame)
                        return frame
            except OSError as error:
                what = f"{segment.path} cannot be read: {error.strerror or error}"
                self._state.announce("read", what)
                if error.errno in _PASSING:
                    return None
                segment.skip_to(segment.end)
            self._finish(segment)
            if not segment.sealed:
                return None
            if self._unread and self._unread[0] is segment:
                self._unread.popleft()
        return None

    def frame_of(self, segment: Segment, found: Found) -> Frame | None:
        """Return a :class:`Frame` for ``found``, or None if it has another wire format."""
        header, payload = found
        if payload is None or header.format_id != self._state.identity:
            return None
        marks, body = payload.severities, payload.body
        where = (header.size, header.end, segment, self)
        return Frame(header.sequence, header.time_ns, marks, body, None, *where)

    def _is_due(self, sequence: int) -> bool:
        """Return whether :meth:`read` may return the frame with the number ``sequence``.

        The result is False if the frame was already returned, sent or acknowledged.
        """
        if sequence in self._ahead:
            self._go_on_at(sequence)
            return False
        return sequence >= self._next

    def _give_out(self, frame: Frame) -> None:
        frame.segment.unread_since_ns = frame.time_ns
        self._go_on_at(frame.sequence + 1)
        self._mark_out(frame)

    def _go_on_at(self, sequence: int) -> None:
        """Set ``_next`` to the lowest number not in ``_ahead`` that is at least ``sequence``.

        The numbers from ``sequence`` to ``_next`` are removed from ``_ahead``.
        """
        while sequence in self._ahead:
            self._ahead.discard(sequence)
            sequence += 1
        self._next = sequence

    def _mark_out(self, frame: Frame) -> None:
        self._out.add(frame.sequence)
        heapq.heappush(self._order, frame.sequence)
        self._count_read(frame.segment, frame.amount)

    def _finish(self, segment: Segment) -> None:
        """Close ``segment`` after its last frame is read; count its unreadable frames as lost."""
        segment.close_reader()
        lost = replace(segment.unread)
        if lost.frames > 0:
            self._state.corrupt.count(lost, is_adopted=self.is_adopted)
            self._state.announce(
                "damage",
                f"{lost.frames} frames with {lost.records} records in {segment.path} are damaged "
                "and lost",
            )
            self._count_read(segment, lost)
            self._settle(segment, lost)

    def ack(self, frame: Frame) -> None:
        """Acknowledge a frame: it need not be sent again.  Never raises.

        A second call does nothing.
        """
        sequence = frame.sequence
        if not self._is_open:
            return
        if frame.is_lost:  # give_up() has already subtracted the frame from the counters
            self._out.discard(sequence)
            self._move_cursor(frame)
            return
        if sequence in self._out:
            self._out.discard(sequence)
        elif sequence >= self._next and sequence not in self._ahead:
            self._pass_by(frame)
            self._count_read(frame.segment, frame.amount)
        else:
            return
        self._settle(frame.segment, frame.amount)
        self._move_cursor(frame)

    def _pass_by(self, frame: Frame) -> None:
        """Make :meth:`read` skip ``frame``, which was sent or acknowledged before it was read."""
        self._ahead.add(frame.sequence)
        self._go_on_at(self._next)

    def _settle(self, segment: Segment, amount: Amount) -> None:
        segment.waiting.take(amount)
        self._tally.waiting.take(amount)
        if segment.sealed and segment.waiting.frames <= 0:
            self._drop(segment)

    def _move_cursor(self, frame: Frame) -> None:
        """Update the cursor file if ``frame`` was the first frame that was not acknowledged."""
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
            self._state.announce(
                "cursor",
                f"the cursor of {self.directory.path} cannot be written, records may be delivered "
                f"twice: {error.strerror or error}",
            )

    def missing(self, most: int = MAX_CHECKED) -> list[Segment]:
        """Return segments whose files another program has deleted, replaced or truncated.

        If the directory itself is missing, all segments are returned.

        Args:
            most: the maximum number of segments to check.  The next call continues with the
                following segments.  In addition, each call checks the newest segment.
        """
        segments = self._segments
        if not self.directory.is_there:
            return list(segments)
        begin = self._checked if self._checked < len(segments) else 0
        self._checked = begin + most
        checked = segments[begin : self._checked]
        if segments and self._checked < len(segments):
            checked.append(segments[-1])
        return [segment for segment in checked if not segment.is_there]

    def renew(self) -> None:
        """Create the files ``lock`` and ``cursor`` again if they are missing.  Never raises."""
        self.directory.renew_lock()
        self.cursor.renew()

    def give_up(self, segment: Segment) -> Amount:
        """Remove ``segment``, whose file was deleted, replaced or truncated, from the store.

        Returns:
            The number of unread frames, records and bytes that the segment had.
        """
        left = replace(segment.unread)
        self._tally.unread.take(left)
        self._tally.waiting.take(segment.waiting)
        segment.is_lost = True
        self._take_out(segment)
        return left

    def _drop(self, segment: Segment) -> None:
        self._take_out(segment)
        if not segment.is_kept:
            self._delete(segment.path)

    def _take_out(self, segment: Segment) -> None:
        self._segments.remove(segment)
        if segment in self._unread:
            self._unread.remove(segment)
        segment.close()
        self._tally.disk -= segment.size

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._state.announce("delete", f"cannot delete {path}: {error.strerror or error}")

    def sync(self) -> None:
        """Sync the store's files to disk, so that their content survives a power failure.

        Thread-safe: the caller need not hold ``DeliveryState.lock``.  Blocks on disk I/O; never
        raises.
        """
        with self._syncing:
            self._sync_file(self.cursor.file)

    def _sync_file(self, file: SyncedFile) -> None:
        try:
            file.sync()
        except OSError as error:
            self._announce_sync(file.path, error)

    def _announce_sync(self, path: Path, error: OSError) -> None:
        why = error.strerror or error
        self._state.announce("sync", f"{path} may not survive a power failure: {why}")

    def close(self) -> bool:
        """Close all files, and unlock the directory.  Remove the directory if it has no segments.

        Returns:
            Whether the directory no longer exists.
        """
        self._is_open = False
        for segment in self._segments:
            segment.close()
        self._unread.clear()
        self.cursor.file.close()
        if self._segments or not self.is_complete:
            self.directory.release()
            return False
        try:
            return self.directory.remove()
        except OSError as error:
            what = f"cannot remove {self.directory.path}: {error.strerror or error}"
            self._state.announce("delete", what)
            return False

    def abandon(self) -> None:
        """Close all file descriptors in a forked child, because the files belong to the parent."""
        self._is_open = False
        for segment in self._segments:
            segment.abandon()
        self.cursor.file.abandon()
        self.directory.abandon()
