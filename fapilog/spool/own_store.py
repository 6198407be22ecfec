"""Writes batches to this process's spool directory, and reads them again.

A process writes batches only to this directory, not to directories that it has adopted.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fapilog.process.files import APPEND, SyncedFile, create_file, sync_directory
from fapilog.severity import FATAL
from fapilog.spool.credentials import FILE, write_mark
from fapilog.spool.directory import ProcessDirectory, segment_path
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    SegmentFile,
    pack_frame,
    pack_segment_header,
)
from fapilog.spool.options import SpoolFullError
from fapilog.spool.salvage import LostSegment
from fapilog.spool.scan import Found, walk
from fapilog.spool.store import Frame, Segment, SpoolState, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: The maximum number of complete segment files that wait for a sync.  If there are more,
#: :meth:`OwnStore.seal` syncs them.
_MAX_UNSYNCED: Final = 4
#: The estimated memory in bytes that a cached frame needs in addition to its body.
_OVERHEAD: Final = 512


@dataclass(eq=False)
class OwnSegment(Segment):
    """A segment file that this process writes.

    ``writer`` is the file, open for writing.
    """

    writer: SyncedFile = field(kw_only=True)

    def detach_reader(self) -> SegmentFile | None:
        """Return the file, open for reading, or None if it cannot be opened.

        The caller must close the file.  The file can be read even if another program has deleted
        the path.
        """
        file = super().detach_reader()
        if file is not None:
            return file
        with contextlib.suppress(OSError):
            file = SegmentFile(self.path, self.writer.copy())
            if file.status().st_ino == self.inode:
                return file
            file.close()
        return None

    def close(self) -> None:
        """Close the file descriptors for reading and writing."""
        self.close_reader()
        self.writer.close()

    def abandon(self) -> None:
        """Close all file descriptors in a forked child.

        No lock is acquired, because a thread that does not exist in the child may hold the lock.
        """
        self.close_reader()
        self.writer.abandon()


class OwnStore(Store):
    """Writes, reads and acknowledges the frames in the directory of this process.

    Args:
        state: the options and counters of the sink's spool.
        directory: the directory.  This process has created and locked it.
        cache_bytes: the maximum number of bytes of unread batches that are cached in memory.
        check_room: a function that raises :class:`SpoolFullError` if writing the given number of
            bytes would exceed the spool's limits.
    """

    def __init__(
        self,
        state: SpoolState,
        directory: ProcessDirectory,
        cache_bytes: int,
        check_room: Callable[[int], None],
    ) -> None:
        super().__init__(state, directory, is_adopted=False)
        self._cache_bytes = cache_bytes
        self._check_room = check_room
        self._active: OwnSegment | None = None  # the segment file to which new frames are written
        self._number = self._sequence = 0
        self._cache: deque[Frame] = deque()  # the newest frames that read() has not returned
        self._cached = 0  # the estimated memory, in bytes, that _cache uses
        self._sealed: deque[SyncedFile] = deque()  # complete files that are not synced yet
        self._unsynced: deque[Path] = deque([directory.path.parent])  # paths that need a sync
        self._write_mark()

    def _write_mark(self) -> None:
        mark, path = self._state.credentials.mark, self.directory.path / FILE
        if mark and not path.exists():
            write_mark(path, mark)
            self._unsynced.append(path)

    def append(
        self, body: bytes, severities: bytes, time_ns: int, item: object, *, read: bool
    ) -> Frame:
        """Write a frame; see :meth:`fapilog.spool.Spool.append`."""
        segment = self._room_for(FRAME_HEADER_SIZE + len(severities) + len(body), time_ns)
        parts = pack_frame(self._state.identity, self._sequence + 1, time_ns, severities, body)
        try:
            segment.writer.write(parts)
        except OSError:
            self._cut_off(segment)
            raise
        self._sequence += 1
        size = sum(map(len, parts))
        begin, segment.end = segment.end, segment.end + size
        segment.size = segment.end
        self._tally.disk += size
        where = (size, segment.end, segment, self)
        frame = Frame(self._sequence, time_ns, severities, body, item, *where)
        self._count_new(segment, frame.amount)
        if read:
            if segment.position == begin:
                segment.skip_to(segment.end)
            self._pass_by(frame)
            self._mark_out(frame)
        else:
            self._keep(frame)
            if segment.unread.frames == 1:  # this frame is the only unread frame of the file
                segment.unread_since_ns = time_ns
        if self._state.options.sync == "always" or max(severities, default=0) >= FATAL:
            self.sync()
        return frame

    def _room_for(self, size: int, time_ns: int) -> OwnSegment:
        """Return the segment file for a new frame of ``size`` bytes.  Create a file if needed.

        Raises:
            SpoolFullError: the frame would exceed the spool's limits.
            OSError: a new segment file cannot be written.
        """
        active = self._active
        if active is not None and (active.writer.failed or not self._fits(active, size)):
            self.seal()
        wanted = size + SEGMENT_HEADER_SIZE
        try:
            self._check_room(wanted)
        except SpoolFullError:
            if self._active is None or self._active.waiting.frames:
                raise
            self.seal()  # deletes the file, because all of its frames are acknowledged
            self._check_room(wanted)
        return self._active or self._begin(time_ns)

    def _fits(self, segment: Segment, size: int) -> bool:
        is_empty = segment.end <= SEGMENT_HEADER_SIZE
        return is_empty or segment.end + size <= self._state.options.segment_size

    def _begin(self, time_ns: int) -> OwnSegment:
        self._number += 1
        path = segment_path(self.directory.path, self._number)
        writer = SyncedFile(path, create_file(path, APPEND))
        header = pack_segment_header(self._sequence + 1, time_ns, self._state.wire_format)
        try:
            writer.write((header,))
        except OSError:
            writer.close()
            with contextlib.suppress(OSError):  # readers ignore the file if it remains
                path.unlink()
            raise
        start = SEGMENT_HEADER_SIZE
        segment = OwnSegment(path, start, start, start, writer.inode, writer=writer)
        self._add(segment)
        self._unsynced.append(self.directory.path)
        self._active = segment
        return segment

    def _cut_off(self, segment: OwnSegment) -> None:
        """Remove an incomplete frame from the end of the file.

        If this fails, write no further frames to the file.
        """
        try:
            segment.writer.cut(segment.end)
        except OSError:
            self.seal()

    def seal(self) -> None:
        """Write no further frames to the current segment file; the next frame begins a new file.

        The next sync closes the current file.  If all of its frames are acknowledged, the file is
        deleted immediately instead.
        """
        segment, self._active = self._active, None
        if segment is None:
            return
        segment.sealed = True
        if segment.waiting.frames == 0:
            self._drop(segment)
            return
        self._sealed.append(segment.writer)
        if len(self._sealed) > _MAX_UNSYNCED:
            self.sync()

    @property
    def has_sealed(self) -> bool:
        """Whether a complete segment file still has to be synced."""
        return bool(self._sealed)

    def _keep(self, frame: Frame) -> None:
        """Add ``frame`` to the cache in memory, so that :meth:`read` need not read the disk."""
        self._cache.append(frame)
        self._cached += len(frame.body) + _OVERHEAD
        while self._cached > self._cache_bytes:
            self._forget()

    def _forget(self) -> Frame:
        frame = self._cache.popleft()
        self._cached -= len(frame.body) + _OVERHEAD
        return frame

    def read(self) -> Frame | None:
        """Return the next frame; see :meth:`Store.read`."""
        cache = self._cache
        while cache and cache[0].sequence < self._next:
            self._forget()
        if cache and cache[0].sequence == self._next and self._is_open:
            frame = self._forget()
            frame.segment.skip_to(frame.end)
            self._give_out(frame)
            return frame
        return super().read()

    def renew(self) -> None:
        """Create the files ``lock``, ``cursor`` and ``credentials`` again if they are missing.

        Never raises.
        """
        super().renew()
        with contextlib.suppress(OSError):  # the next call of renew() tries again
            self._write_mark()

    def salvage(self, segment: Segment) -> LostSegment:
        """Remove ``segment``, whose file was deleted, replaced or truncated, from the store.

        Returns:
            The unread frames of the segment that can still be read from the open file or are in
            the cache.
        """
        if self._active is segment:
            self._active = None
            segment.sealed = True
        cached = {frame.sequence: frame for frame in self._cache if frame.segment is segment}
        self._cache = deque(frame for frame in self._cache if frame.segment is not segment)
        self._cached -= sum(len(frame.body) + _OVERHEAD for frame in cached.values())
        file = segment.detach_reader()
        first, done = self._next, frozenset(self._ahead)
        left = self.give_up(segment)
        frames = self._rest_of(segment, file, cached)
        due = (one for one in frames if one.sequence >= first and one.sequence not in done)
        return LostSegment(segment, left, file, due)

    def _rest_of(
        self, segment: Segment, file: SegmentFile | None, cached: dict[int, Frame]
    ) -> Iterator[Frame]:
        if file is not None:
            with contextlib.suppress(OSError):  # unreadable frames are counted as lost later
                end = min(segment.end, file.size())
                for one in walk(file, segment.position, end, load=True):
                    frame = self.frame_of(segment, one) if isinstance(one, Found) else None
                    if frame is not None:
                        yield cached.pop(frame.sequence, frame)
        yield from cached.values()

    def sync(self) -> None:
        """Sync all files and directories to disk; see :meth:`Store.sync`.

        If a segment file cannot be synced, this is reported on standard error, and no further
        frames are written to the file.  The frames in the file are still read and delivered.
        """
        with self._syncing:
            while self._unsynced:
                path = self._unsynced.popleft()
                try:
                    sync_directory(path)
                except OSError as error:
                    self._announce_sync(path, error)
            while self._sealed:
                self._sync_file(self._sealed[0])
                self._sealed[0].close()
                self._sealed.popleft()
            active = self._active
            if active is not None:
                self._sync_file(active.writer)
            self._sync_file(self.cursor.file)

    def close(self) -> bool:
        """Sync and close all files, and unlock the directory; see :meth:`Store.close`."""
        self.seal()
        if self._segments:
            self.sync()
        return super().close()

    def abandon(self) -> None:
        """Close all file descriptors in a forked child, because the files belong to the parent."""
        super().abandon()
        self._cache.clear()
