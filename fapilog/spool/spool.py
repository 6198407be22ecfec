"""The spool of one sink: this process's own store, and the stores that it adopted."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from fapilog.errors import ConfigurationError
from fapilog.native import monotonic
from fapilog.process.files import sync_directory
from fapilog.spool.adopted import AdoptedStores
from fapilog.spool.credentials import Credentials
from fapilog.spool.directory import Owner, create, has_orphans, make_sink_directory
from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    MAX_FRAME,
    WIRE_FORMAT_SIZE,
    severity_bytes,
)
from fapilog.spool.options import Space, SpoolFullError
from fapilog.spool.own_store import OwnStore
from fapilog.spool.salvage import Salvage
from fapilog.spool.store import MAX_CHECKED, Corruption, SpoolState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fapilog.spool.options import SpoolOptions
    from fapilog.spool.store import Frame

#: The number of segments that :attr:`Spool.is_whole` checks: 8 GiB at the default size.
_TRUSTED: Final = 1024
#: One check looks at fewer segments of each adopted directory, because there can be many.
_ADOPTED_SHARE: Final = 32
_NO_LOCK: Final = contextlib.nullcontext()


class Spool:
    """A first-in, first-out queue of batches on disk that outlives the process.

    The caller calls all methods under one lock, except :meth:`sync`,
    :meth:`flush`, :meth:`look_for_orphans` and :meth:`adopt_step`, which need
    none.  The properties may be read from any thread.

    Args:
        sink_name: the sink's name; its directory is named after the name and
            the destination.
        wire_format: the format of the bodies, 1 to 48 bytes; data of another
            format is neither adopted nor changed.
        options: the user's options.
        destination: the place that the sink sends to, in words and without
            secrets; data for another one is neither adopted nor changed.
        credentials: the secrets that the sink sends, "" if there are none;
            data of other credentials is neither adopted nor changed.  Only a
            salted digest is written.
        label: the sink's name in announcements; None for ``sink_name``.
        cache_bytes: the bytes of bodies that stay in memory until they are
            read, so that a reader that keeps up reads nothing from the disk.
        now_ns: a clock in nanoseconds since the Unix epoch, for tests.
        monotonic: a clock in seconds, for tests.

    Raises:
        ConfigurationError: the sink's name or the format's name cannot be used.
    """

    def __init__(
        self,
        sink_name: str,
        wire_format: str,
        options: SpoolOptions,
        *,
        destination: str = "",
        credentials: str = "",
        label: str | None = None,
        cache_bytes: int = 4 << 20,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        if not 1 <= len(wire_format.encode()) <= WIRE_FORMAT_SIZE:
            msg = f"wire_format={wire_format!r} of sink {sink_name!r}: use 1 to 48 bytes"
            raise ConfigurationError(msg)
        self._owner = Owner(sink_name, wire_format, destination)
        self._credentials = Credentials(credentials)
        self._label = label or sink_name
        self._options = options
        self._cache_bytes = cache_bytes
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._path = options.directory.absolute() / self._owner.directory
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        options = self._options
        self._state = SpoolState(self._label, self._owner.wire_format, options, self._credentials)
        self._own: OwnStore | None = None
        self._adopted = AdoptedStores(self._state, self._path)
        self._salvage = Salvage(self._state)
        cap = options.max_bytes
        self._space = Space(self._path, cap, "max_bytes", options.min_free, self._monotonic)
        self._is_adopted_turn = True
        self._synced_at = self._monotonic()

    def open(self) -> None:
        """Create the sink's directory if it is missing, and check that it can be used.

        A directory for this process is created, locked and removed again; the
        first append creates the one that stays.  Adopts nothing yet.

        Raises:
            ConfigurationError: the directory cannot be written or locked, is a
                symbolic link, or belongs to another user.
        """
        try:
            make_sink_directory(self._path, self._owner)
            _ = self._credentials.mark  # takes 10 ms, which the first append does not have
            create(self._path, self._now_ns()).remove()
            with contextlib.suppress(PermissionError):  # the directory above may be unreadable
                sync_directory(self._path.parent)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            msg = (
                f"spool.directory={str(self._options.directory)!r}: {self._path}: {reason}; give a "
                "directory that belongs to this user, on a local file system with locks"
            )
            raise ConfigurationError(msg) from error

    # ---- counts; any thread

    @property
    def directory(self) -> Path | None:
        """The directory of this process; None before the first append."""
        own = self._own
        return None if own is None else own.directory.path

    @property
    def corrupt(self) -> Corruption:
        """Counts of the data that cannot be read back.

        Its ``records`` counted as pending until the damage was found.
        """
        return self._state.corrupt

    @property
    def pending_records(self) -> int:
        """The number of records that are not settled, including adopted ones."""
        found = self._state.own.waiting.records + self._state.adopted.waiting.records
        return found + self._salvage.left.records

    @property
    def pending_bytes(self) -> int:
        """The bytes of the frames of all pending records."""
        found = self._state.own.waiting.size + self._state.adopted.waiting.size
        return found + self._salvage.left.size

    @property
    def unread_records(self) -> int:
        """The number of pending records that :meth:`read` has not returned; 0 once closed."""
        if self._closed:
            return 0
        found = self._state.own.unread.records + self._state.adopted.unread.records
        return found + self._salvage.left.records

    @property
    def disk_bytes(self) -> int:
        """The bytes of all segments, which the cap limits."""
        return self._state.own.disk + self._adopted.disk

    @property
    def adopted(self) -> int:
        """The number of records adopted from dead processes so far."""
        return self._adopted.records

    # ---- writing, reading, settling

    def append(
        self, body: bytes, severities: Sequence[int], item: object = None, *, read: bool = False
    ) -> Frame:
        """Write a batch.

        Blocks during a write to the page cache; blocks on disk I/O with
        ``sync="always"``, for a severity number of 21 or more, and when a
        fifth segment waits for a sync.  An error leaves the spool as it was.

        Args:
            body: the packed batch.
            severities: the severity number of each record.
            item: an object for the reader, kept while the body is in memory.
            read: whether the batch is already being sent; if so, :meth:`read`
                does not return it, but it still waits for :meth:`ack`.

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
            msg = f"a batch of {size} bytes is larger than a frame may be ({MAX_FRAME} bytes)"
            raise SpoolFullError(msg)
        own = self._own or self._make_own(size)
        try:
            return own.append(body, marks, self._now_ns(), item, read=read)
        except FileNotFoundError:  # somebody else removed the directory
            self.check()
        own = self._own or self._make_own(size)
        return own.append(body, marks, self._now_ns(), item, read=read)

    def _make_own(self, size: int) -> OwnStore:
        make_sink_directory(self._path, self._owner)
        self._check_room(size)
        directory = create(self._path, self._now_ns())
        try:
            self._own = OwnStore(self._state, directory, self._cache_bytes, self._check_room)
        except OSError:
            with contextlib.suppress(OSError):  # the error above is raised
                directory.remove()
            raise
        return self._own

    def _check_room(self, size: int) -> None:
        self._space.check(self.disk_bytes, size)

    def read(self) -> Frame | None:
        """Return the next unread batch; None if no batch is ready.

        Own and adopted batches take turns.  Own batches are first in, first
        out; adopted batches of the oldest directory come first.
        Blocks on disk I/O if the reader has fallen behind.
        """
        if self._closed:
            return None
        if frame := self._salvage.next():
            return frame
        for is_adopted in (self._is_adopted_turn, not self._is_adopted_turn):
            store = self._adopted if is_adopted else self._own
            frame = None if store is None else store.read()
            if frame is not None:
                self._is_adopted_turn = not is_adopted
                return frame
        return None

    def ack(self, frame: Frame) -> None:
        """Settle a batch, in any order; a second call does nothing.  Never raises.

        A process that adopts the directory reads every unsettled batch again.  A
        segment is deleted when all of its batches are settled, and an adopted
        directory is deleted with its last segment.
        """
        frame.store.ack(frame)
        self._adopted.retire(frame.store)

    # ---- files that somebody else deletes, replaces or cuts

    @property
    def is_whole(self) -> bool:
        """Whether all files of this process exist in their full length."""
        return not self._salvage.left.frames and not (self._own and self._own.missing(_TRUSTED))

    def check(self, most: int = MAX_CHECKED) -> None:
        """Check whether somebody else deleted, replaced or cut files.

        Missing batches that were not given out are written again by
        :meth:`mend` if they can be read, and count as corrupt otherwise.
        Batches that were given out remain only in memory
        (:attr:`Frame.is_lost`).  Never raises; blocks while it reads the status of files.

        Args:
            most: the number of segments to check; the next call checks the next ones.
        """
        for store in list(self._adopted.stores):
            for segment in store.missing(most // _ADOPTED_SHARE):
                lost = store.give_up(segment)
                self._state.count_lost(lost, store.directory.path, is_adopted=True)
            self._adopted.retire(store)
        own = self._own
        if own is None:
            return
        missing = own.missing(most)
        for segment in missing:
            self._salvage.add(own.salvage(segment))
        if own.directory.is_there:
            own.renew()
        else:
            self._own = None
            own.close()
        if missing:
            self._state.announce(
                "files",
                f"files in {own.directory.path} were deleted or cut by somebody else; records that "
                "can still be read are written again, the others count as dropped",
            )

    def mend(self) -> bool:
        """Write one lost batch again; return whether more may follow.

        Raises:
            SpoolFullError, OSError: see :meth:`append`; the next call tries again.
        """
        frame = self._salvage.next()
        if frame is None:
            return False
        try:
            self.append(frame.body, frame.severities, frame.item)
        except BaseException:
            self._salvage.put_back(frame)
            raise
        return True

    # ---- the disk

    def sync(self) -> None:
        """Write everything to the disk if ``sync_interval`` has passed or a segment is full.

        Blocks on disk I/O; never raises.  Thread-safe.
        """
        now = self._monotonic()
        own = self._own
        has_sealed = own is not None and own.has_sealed
        if has_sealed or now - self._synced_at >= self._options.sync_interval:
            self._synced_at = now
            self.flush()

    def flush(self) -> None:
        """Write everything to the disk now, so that it survives a power failure.

        Blocks on disk I/O; never raises.  Thread-safe.
        """
        own = self._own
        for store in (*([own] if own else []), *self._adopted.stores):
            store.sync()

    # ---- directories of dead processes

    @property
    def has_orphans(self) -> bool:
        """Whether dead processes have left records.  Blocks for names and locks on disk."""
        return has_orphans(self._path)

    def adopt(self) -> int:
        """Adopt directories of dead processes, the oldest first, and scan them.

        Blocks until all of their frames are counted; directories that
        exceed the cap wait for a later call.  Never raises.

        Returns:
            The number of records in them.
        """
        before = self.adopted
        self.look_for_orphans()
        while self.adopt_step():
            pass
        return self.adopted - before

    def look_for_orphans(self) -> bool:
        """Claim directories of dead processes, which :meth:`adopt_step` then scans.

        One thread at a time calls it, without the caller's lock.  Blocks on
        disk I/O, but reads no segment.  Never raises.

        Returns:
            Whether some directories must wait because too many are adopted already.
        """
        if self._closed:
            return False
        most = self._options.max_bytes
        return self._adopted.look(self.directory, lambda: self.disk_bytes < most)

    def adopt_step(self, lock: AbstractContextManager[object] = _NO_LOCK) -> bool:
        """Scan the claimed directories a little further; return whether there is more.

        One thread at a time calls it.  Keeps the interpreter for about a
        millisecond, blocks on disk I/O, and never raises.

        Args:
            lock: the caller's lock, held only while the findings are counted.
        """
        return not self._closed and self._adopted.step(lock)

    # ---- the end

    def close(self) -> None:
        """Sync and release all directories; empty ones are removed.

        Batches that were not settled stay on disk and in
        :attr:`pending_records`.  Blocks on disk I/O; never raises; a second
        call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._salvage.close()
        self.flush()
        self._adopted.close()
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def after_fork(self) -> None:
        """Forget everything in a forked child; files and locks belong to the parent.

        Closes the inherited descriptors and changes no file.  The child's
        first append creates a directory for the child.
        """
        self._adopted.abandon()
        self._salvage.abandon()
        if self._own is not None:
            self._own.abandon()
        self._reset()
