"""The store of this process's own directory: the only one that is written to.

Appending is one write to the page cache, which a SIGKILL does not take away;
a power failure takes what no sync has reached.  Syncing is slow and therefore
left to a thread of the caller's, but for what must not wait.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.process.files import APPEND, SyncedFile, create_file, sync_directory
from fapilog.severity import FATAL
from fapilog.spool.directory import ProcessDirectory, segment_path
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    LAYOUTS,
    SEGMENT_HEADER_SIZE,
    VERSION,
    format_id,
    pack_frame,
    pack_segment_header,
)
from fapilog.spool.options import SpoolFullError
from fapilog.spool.salvage import Salvage, readable
from fapilog.spool.segment import Corruption, Frame, Segment, Tally
from fapilog.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Sealed segments that may wait for a sync; with one more, an append syncs them.
_MAX_UNSYNCED: Final = 4
#: What a frame in memory costs besides its body, bytes.
_OVERHEAD: Final = 512


class _Active(NamedTuple):
    """The segment that frames are written to."""

    segment: Segment
    writer: SyncedFile


class OwnStore(Store):
    """Takes frames, and gives them back as any store does.

    Args:
        sink_name: of the sink, in announcements.
        wire_format: of the bodies.
        directory: made by this process.
        tally: of this store.
        corrupt: of the spool.
        segment_size: bytes of a segment.
        always_sync: whether an append returns only when the frame is on the disk.
        cache_bytes: bodies that are kept in memory until they are read.
        check_room: raises :class:`SpoolFullError` where so many bytes have no room.
    """

    def __init__(
        self,
        sink_name: str,
        wire_format: str,
        directory: ProcessDirectory,
        tally: Tally,
        corrupt: Corruption,
        *,
        segment_size: int,
        always_sync: bool,
        cache_bytes: int,
        check_room: Callable[[int], None],
    ) -> None:
        identity = format_id(wire_format)
        super().__init__(sink_name, directory, identity, tally, corrupt, is_adopted=False)
        self._wire_format = wire_format
        self._segment_size = segment_size
        self._always_sync = always_sync
        self._cache_bytes = cache_bytes
        self._check_room = check_room
        self._active: _Active | None = None
        self._number = self._sequence = 0
        self._cache: deque[Frame] = deque()  # the newest frames that were not read
        self._cached = 0
        self._sealed: deque[SyncedFile] = deque()  # to be synced and closed
        self._new_names: deque[Path] = deque([directory.path.parent])  # directories to be synced

    def append(
        self, body: bytes, severities: bytes, time_ns: int, item: object, *, read: bool
    ) -> Frame:
        """Write a frame.  See :meth:`fapilog.spool.Spool.append`."""
        active = self._room_for(FRAME_HEADER_SIZE + len(severities) + len(body), time_ns)
        segment = active.segment
        parts = pack_frame(self._identity, self._sequence + 1, time_ns, severities, body)
        try:
            active.writer.write(parts)
        except OSError:
            self._cut_off(active)
            raise
        self._sequence += 1
        size = sum(map(len, parts))
        begin, segment.end = segment.end, segment.end + size
        segment.size = segment.end
        self._tally.disk += size
        frame = Frame(
            self._sequence, time_ns, severities, body, item, False, size, segment.end, segment, self
        )
        for total in (segment.unread, segment.waiting, self._tally.unread, self._tally.waiting):
            total.add(frame.amount)
        if read:
            if segment.position == begin:
                segment.skip_to(segment.end)
            self._pass_by(frame)
            self._mark_out(frame)
        else:
            self._keep(frame)
        if self._always_sync or max(severities, default=0) >= FATAL:
            self.sync()
        return frame

    def _room_for(self, size: int, time_ns: int) -> _Active:
        """Return where the next frame goes to, of so many bytes."""
        active = self._active
        if active is not None and (active.writer.failed or not self._fits(active.segment, size)):
            self.seal()
        wanted = size + SEGMENT_HEADER_SIZE
        try:
            self._check_room(wanted)
        except SpoolFullError:
            if self._active is None or self._active.segment.waiting.frames:
                raise
            self.seal()  # which deletes it, as nothing in it is needed
            self._check_room(wanted)
        return self._active or self._begin(time_ns)

    def _fits(self, segment: Segment, size: int) -> bool:
        return segment.end + size <= self._segment_size or segment.end <= SEGMENT_HEADER_SIZE

    def _begin(self, time_ns: int) -> _Active:
        """Make the next segment."""
        self._number += 1
        path = segment_path(self.directory.path, self._number)
        writer = SyncedFile(path, create_file(path, APPEND))
        try:
            writer.write((pack_segment_header(self._sequence + 1, time_ns, self._wire_format),))
        except OSError:
            writer.close()
            with contextlib.suppress(OSError):  # what is left is no whole header: no alarm
                path.unlink()
            raise
        start = SEGMENT_HEADER_SIZE
        segment = Segment(
            path, LAYOUTS[VERSION], start, start, start, writer.inode, sealed=False, writer=writer
        )
        self._segments.append(segment)
        self._unread.append(segment)
        self._tally.disk += segment.size
        self._new_names.append(self.directory.path)
        self._active = _Active(segment, writer)
        return self._active

    def _cut_off(self, active: _Active) -> None:
        """Remove what was written of a frame, or write no more behind it."""
        try:
            active.writer.cut(active.segment.end)
        except OSError:
            self.seal()

    def seal(self) -> None:
        """Write no more to the active segment; the next sync has it on the disk and closes it."""
        active, self._active = self._active, None
        if active is None:
            return
        active.segment.sealed = True
        if active.segment.waiting.frames == 0:
            self._drop(active.segment)
            return
        self._sealed.append(active.writer)
        if len(self._sealed) > _MAX_UNSYNCED:
            self.sync()

    @property
    def has_sealed(self) -> bool:
        """Whether a full segment waits for its sync."""
        return bool(self._sealed)

    def _keep(self, frame: Frame) -> None:
        """Keep a frame in memory for a reader that keeps up."""
        self._cache.append(frame)
        self._cached += len(frame.body) + _OVERHEAD
        while self._cached > self._cache_bytes:
            self._forget()

    def _forget(self) -> Frame:
        frame = self._cache.popleft()
        self._cached -= len(frame.body) + _OVERHEAD
        return frame

    def read(self) -> Frame | None:
        """See :meth:`Store.read`; what is in memory is not read from the disk."""
        cache = self._cache
        while cache and cache[0].sequence < self._next:
            self._forget()
        if cache and cache[0].sequence == self._next and self._is_open:
            frame = self._forget()
            frame.segment.skip_to(frame.end)
            self._give_out(frame)
            return frame
        return super().read()

    def salvage(self, segment: Segment) -> Salvage:
        """Give up a segment that was taken away; return what can still be read of it."""
        if self._active is not None and self._active.segment is segment:
            self._active = None
            segment.sealed = True
        cached = {frame.sequence: frame for frame in self._cache if frame.segment is segment}
        self._cache = deque(frame for frame in self._cache if frame.segment is not segment)
        self._cached -= sum(len(frame.body) + _OVERHEAD for frame in cached.values())
        file = readable(segment)
        first, done = self._next, frozenset(self._ahead)
        left = self.give_up(segment)
        return Salvage(segment, file, cached, first=first, done=done, left=left, store=self)

    def sync(self) -> None:
        """Have everything survive a power failure.  Blocks for the disk; never raises.

        Thread-safe.  A segment that cannot be synced is announced and gets no
        further frame; what it holds is still read and delivered.
        """
        with self._syncing:
            while self._new_names:
                path = self._new_names.popleft()
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
        """Seal, sync, and give the directory up; see :meth:`Store.close`.  Blocks for the disk."""
        self.seal()
        if self._segments:
            self.sync()
        return super().close()

    def abandon(self) -> None:
        """See :meth:`Store.abandon`."""
        super().abandon()
        self._cache.clear()
