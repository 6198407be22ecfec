"""The spool of one sink: its own directory, and those it adopted.

The top of the package; everything the delivery needs is a method here.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.native import monotonic
from fapilog.process.files import sync_directory
from fapilog.spool.adopted import AdoptedStores
from fapilog.spool.directory import create
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    MAX_FRAME,
    WIRE_FORMAT_SIZE,
    severity_bytes,
)
from fapilog.spool.options import SpoolFullError
from fapilog.spool.own import OwnStore
from fapilog.spool.owner import Owner, make_sink_directory
from fapilog.spool.segment import Amount, Corruption, Tally
from fapilog.spool.space import Space
from fapilog.spool.store import MAX_CHECKED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fapilog.spool.options import SpoolOptions
    from fapilog.spool.salvage import Salvage
    from fapilog.spool.segment import Frame

#: Segments that are looked at before the disk is trusted: 8 GiB in the usual size.
_TRUSTED: Final = 1024
#: Adopted directories are many; of each, fewer segments are looked at in one check.
_ADOPTED_SHARE: Final = 32
_NO_LOCK: Final = contextlib.nullcontext()


class Spool:
    """A queue of batches on disk, first in, first out, that outlives the process.

    All methods are called under one lock of the caller's, but :meth:`sync`,
    :meth:`flush`, :meth:`look_for_orphans` and :meth:`adopt_step`, which need
    none, and the properties, which may be read from any thread.

    Args:
        sink_name: the name that the sink was given.  It and the destination
            name its directory.
        wire_format: of the bodies, 1 to 48 bytes; what another format has
            written is neither adopted nor touched.
        options: the user's.
        destination: where the sink sends, in words and without secrets.  What
            was written for another one is neither adopted nor touched.
        label: the sink's name in announcements; None: ``sink_name``.
        cache_bytes: bytes of bodies kept in memory until they are read, so
            that a reader that keeps up reads nothing from the disk.
        now_ns: nanoseconds since the Unix epoch, for tests.
        monotonic: seconds of a clock, for tests.

    Attributes:
        corrupt: what could not be read back.  Its ``records`` had counted as
            pending (and adopted ones as adopted) and no longer do.

    Raises:
        ConfigurationError: the sink's or the format's name cannot be used.
    """

    def __init__(
        self,
        sink_name: str,
        wire_format: str,
        options: SpoolOptions,
        *,
        destination: str = "",
        label: str | None = None,
        cache_bytes: int = 4 << 20,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        if not 1 <= len(wire_format.encode()) <= WIRE_FORMAT_SIZE:
            msg = f"wire_format={wire_format!r} of sink {sink_name!r}: 1 to 48 bytes are possible"
            raise ConfigurationError(msg)
        self._owner = Owner(sink_name, wire_format, destination)
        self._sink_name = label or sink_name
        self._wire_format = wire_format
        self._options = options
        self._cache_bytes = cache_bytes
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._path = options.directory.absolute() / self._owner.directory
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        options = self._options
        self.corrupt = Corruption()
        self._own: OwnStore | None = None
        self._tally = Tally()
        self._adopted = AdoptedStores(self._sink_name, self._wire_format, self._path, self.corrupt)
        self._space = Space(self._path, options.max_bytes, options.min_free, self._monotonic)
        # What can be read of segments that somebody took away, and how much that is.
        self._salvages: deque[Salvage] = deque()
        self._salvaged: Frame | None = None  # read, but not written
        self._salvaging = Amount()
        self._is_adopted_turn = True
        self._synced_at = self._monotonic()

    def open(self) -> None:
        """Make the sink's directory where missing, and check that it can be used.

        A directory for this process is made, locked and removed again; the
        one to keep comes with the first append.  Adopts nothing yet.

        Raises:
            ConfigurationError: it cannot be written or locked, is a symbolic
                link, or belongs to another user.
        """
        try:
            make_sink_directory(self._path, self._owner)
            create(self._path, self._now_ns()).remove()
            with contextlib.suppress(PermissionError):  # to read what is above is not needed
                sync_directory(self._path.parent)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            msg = (
                f"spool.directory={str(self._options.directory)!r}: {self._path}: {reason}; "
                "it must be a directory of this user's on a local file system with locks"
            )
            raise ConfigurationError(msg) from error

    # ---- what waits; any thread

    @property
    def directory(self) -> Path | None:
        """This process's directory; None before the first append."""
        own = self._own
        return None if own is None else own.directory.path

    @property
    def pending_records(self) -> int:
        """Records on disk that are not settled, adopted ones among them."""
        found = self._tally.waiting.records + self._adopted.tally.waiting.records
        return found + self._salvaging.records

    @property
    def pending_bytes(self) -> int:
        """Bytes of their frames."""
        found = self._tally.waiting.size + self._adopted.tally.waiting.size
        return found + self._salvaging.size

    @property
    def unread_records(self) -> int:
        """Records of them that :meth:`read` has not returned; 0 once closed."""
        if self._closed:
            return 0
        found = self._tally.unread.records + self._adopted.tally.unread.records
        return found + self._salvaging.records

    @property
    def disk_bytes(self) -> int:
        """Bytes of all segments, which the cap is about."""
        return self._tally.disk + self._adopted.disk

    @property
    def adopted(self) -> int:
        """Records taken over from dead processes so far."""
        return self._adopted.records

    # ---- in and out

    def append(
        self, body: bytes, severities: Sequence[int], item: object = None, *, read: bool = False
    ) -> Frame:
        """Write a batch.

        Blocks for a write to the page cache, and for the disk with
        ``sync="always"``, a severity number of 21 or more, or a disk that
        falls five segments behind.  After an error the spool is as before.

        Args:
            body: the batch, packed.
            severities: the severity number of each of its records.
            item: any object for the reader, kept while the body is in memory.
            read: whether the batch is being sent already: :meth:`read` does
                not return it, and it waits for its :meth:`ack` all the same.

        Raises:
            SpoolFullError: the cap or the free space is reached, the batch is
                larger than 64 MiB, or the spool is closed.
            OSError: the disk failed or is full.
        """
        if self._closed:
            msg = "the spool is closed"
            raise SpoolFullError(msg)
        marks = severity_bytes(severities)
        size = FRAME_HEADER_SIZE + len(marks) + len(body)
        if size > MAX_FRAME:
            msg = f"a batch of {size} bytes is more than a frame can hold ({MAX_FRAME})"
            raise SpoolFullError(msg)
        own = self._own or self._make_own(size)
        try:
            return own.append(body, marks, self._now_ns(), item, read=read)
        except FileNotFoundError:  # the directory was removed from outside
            self.check()
        own = self._own or self._make_own(size)
        return own.append(body, marks, self._now_ns(), item, read=read)

    def _make_own(self, size: int) -> OwnStore:
        make_sink_directory(self._path, self._owner)
        self._check_room(size)
        directory = create(self._path, self._now_ns())
        try:
            self._own = OwnStore(
                self._sink_name,
                self._wire_format,
                directory,
                self._tally,
                self.corrupt,
                segment_size=self._options.segment_size,
                always_sync=self._options.sync == "always",
                cache_bytes=self._cache_bytes,
                check_room=self._check_room,
            )
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                directory.remove()
            raise
        return self._own

    def _check_room(self, size: int) -> None:
        self._space.check(self.disk_bytes, size)

    def read(self) -> Frame | None:
        """Return the next batch that was not read; None if there is none now.

        Own batches come first in, first out; adopted ones in between, one for
        one, those of the oldest directory first.  Blocks for the disk where
        the reader has fallen behind.
        """
        if self._closed:
            return None
        if frame := self._next_salvaged():
            return frame
        for is_adopted in (self._is_adopted_turn, not self._is_adopted_turn):
            store = self._adopted if is_adopted else self._own
            frame = None if store is None else store.read()
            if frame is not None:
                self._is_adopted_turn = not is_adopted
                return frame
        return None

    def ack(self, frame: Frame) -> None:
        """Settle a batch, in any order; once more does nothing.  Never raises.

        A batch that never is settled comes back in the process that adopts
        its directory.  Segments of settled batches are deleted, and adopted
        directories with the last of theirs.
        """
        frame.store.ack(frame)
        self._adopted.retire(frame.store)

    # ---- what somebody takes away

    @property
    def is_whole(self) -> bool:
        """Whether nothing of this process was deleted, replaced or cut from outside."""
        return not self._salvaging.frames and not (self._own and self._own.missing(_TRUSTED))

    def check(self, most: int = MAX_CHECKED) -> None:
        """Look whether files were deleted, replaced or cut from outside.

        What is missing and was not given out is written again by :meth:`mend`
        as far as it can be read, and else counted as corrupt.  What was given
        out is in memory alone from then on (:attr:`Frame.is_lost`).  Never
        raises; blocks as long as asking for the status of some files does.

        Args:
            most: how many segments are looked at, the next time the following ones.
        """
        for store in list(self._adopted.stores):
            for segment in store.missing(most // _ADOPTED_SHARE):
                lost = store.give_up(segment)
                self._count_lost(lost, store.directory.path, is_adopted=True)
            self._adopted.retire(store)
        own = self._own
        if own is None:
            return
        missing = own.missing(most)
        for segment in missing:
            salvage = own.salvage(segment)
            self._salvaging.add(salvage.left)
            self._salvages.append(salvage)
        if own.directory.is_there:
            own.renew()
        else:
            self._own = None
            own.close()
        if missing:
            announce(
                f"spool files {self._sink_name}",
                f"{self._sink_name}: files in {own.directory.path} were deleted or cut by somebody "
                "else; what can still be read is written again, the rest is counted as dropped",
            )

    def mend(self) -> bool:
        """Write one frame again of what was taken away; whether there may be more.

        Raises:
            SpoolFullError, OSError: as :meth:`append`; it is tried again by the
                next call.
        """
        frame = self._next_salvaged()
        if frame is None:
            return False
        try:
            self.append(frame.body, frame.severities, frame.item)
        except BaseException:
            self._salvaged = frame
            self._salvaging.add(frame.amount)
            raise
        return True

    def _next_salvaged(self) -> Frame | None:
        """Return the next frame of what was taken away; count what does not come out."""
        frame, self._salvaged = self._salvaged, None
        while frame is None and self._salvages:
            salvage = self._salvages[0]
            frame = salvage.next()
            if frame is None:
                self._salvages.popleft()
                salvage.close()
                self._salvaging.take(salvage.left)
                self._count_lost(salvage.left, salvage.segment.path, is_adopted=False)
        if frame is not None:
            self._salvaging.take(frame.amount)
        return frame

    def _count_lost(self, lost: Amount, path: Path, *, is_adopted: bool) -> None:
        if lost.frames > 0:
            self.corrupt.count(lost, is_adopted=is_adopted)
            announce(
                f"spool lost {self._sink_name}",
                f"{self._sink_name}: {lost.records} records are lost with {path}, which somebody "
                "else deleted or cut; they count as dropped (spool_damaged)",
            )

    # ---- the disk

    def sync(self) -> None:
        """Have everything survive a power failure, if it is time.

        That is when ``sync_interval`` has passed, or a segment is full.
        Blocks for the disk; never raises.  Thread-safe.
        """
        now = self._monotonic()
        own = self._own
        has_sealed = own is not None and own.has_sealed
        if has_sealed or now - self._synced_at >= self._options.sync_interval:
            self._synced_at = now
            self.flush()

    def flush(self) -> None:
        """Have everything survive a power failure, now.

        Blocks for the disk; never raises.  Thread-safe.
        """
        own = self._own
        for store in (*([own] if own else []), *self._adopted.stores):
            store.sync()

    # ---- directories of dead processes

    def adopt(self) -> int:
        """Take over directories of dead processes, the oldest first, and look through them.

        Blocks until all of their frames are counted; what has no room under
        the cap is for a later call.  Never raises.

        Returns:
            Records found in them.
        """
        before = self.adopted
        self.look_for_orphans()
        while self.adopt_step():
            pass
        return self.adopted - before

    def look_for_orphans(self) -> bool:
        """Take over directories of dead processes; :meth:`adopt_step` looks through them.

        Called by one thread at a time, without the caller's lock.  Blocks for
        the disk, but reads no segment.  Never raises.

        Returns:
            Whether some were left, because there are too many at a time.
        """
        if self._closed:
            return False
        most = self._options.max_bytes
        return self._adopted.look(self.directory, lambda: self.disk_bytes < most)

    def adopt_step(self, lock: AbstractContextManager[object] = _NO_LOCK) -> bool:
        """Look a little further through what was taken over; whether there is more.

        Called by one thread at a time.  Keeps the interpreter for about a
        millisecond, blocks for the disk, and never raises.

        Args:
            lock: the caller's, which is held only to count what was found.
        """
        return not self._closed and self._adopted.step(lock)

    # ---- the end

    def close(self) -> None:
        """Sync, and give all directories up; those that are empty are removed.

        What was not settled stays on disk and in :attr:`pending_records`.
        Blocks for the disk; never raises; once more does nothing.
        """
        if self._closed:
            return
        self._closed = True
        while frame := self._next_salvaged():  # there was no room for it
            self._count_lost(frame.amount, frame.segment.path, is_adopted=False)
        self.flush()
        self._adopted.close()
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def after_fork(self) -> None:
        """Forget everything in a forked child; the files and locks are the parent's.

        Closes the inherited descriptors and touches no file.  The child gets
        a directory of its own with its first append.
        """
        self._adopted.abandon()
        for salvage in self._salvages:
            salvage.abandon()
        if self._own is not None:
            self._own.abandon()
        self._reset()
