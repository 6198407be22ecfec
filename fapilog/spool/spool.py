"""The spool of one sink: a queue of batches on disk.

The queue consists of the batches that this process has written, and of the batches that dead
processes have left.
"""

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

#: The maximum number of segment files that one access to :attr:`Spool.is_whole` checks.  At the
#: default file size, these files contain up to 8 GiB.
_TRUSTED: Final = 1024
#: :meth:`Spool.check` checks 1/32 as many files in the directory of each dead process as in this
#: process's directory, because there may be many dead processes.
_ADOPTED_SHARE: Final = 32
_NO_LOCK: Final = contextlib.nullcontext()


class Spool:
    """A first-in, first-out queue of batches on disk that outlives the process.

    The caller must hold ``fapilog.delivery.state.DeliveryState.lock`` during all methods except
    :meth:`sync`, :meth:`flush`, :meth:`look_for_orphans` and :meth:`adopt_step`.  Any thread may
    read the properties without the lock.

    Args:
        sink_name: the sink's name.  The sink's directory is named after ``sink_name`` and
            ``destination``.
        wire_format: the name of the format in which batches are packed, 1 to 48 bytes long.
        options: the user's options.
        destination: a description, without secrets, of where the sink sends records.  Records on
            disk for another destination or in another format are neither sent nor changed.
        credentials: the secrets that the sink sends, or "".  Records on disk that were logged
            with other credentials are not sent.  Only a salted digest of the secrets is written
            to disk.
        label: the sink's name in messages on standard error, by default ``sink_name``.
        cache_bytes: the maximum number of bytes of unread batches that are also cached in
            memory, so that :meth:`read` need not read them from disk.
        now_ns: a function that returns the current time in nanoseconds since the Unix epoch;
            tests replace it.
        monotonic: a function that returns the time of a monotonic clock in seconds; tests
            replace it.

    Raises:
        ConfigurationError: the name of the sink or of the format is empty or too long.
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
        self._space = Space(self._path, options.max_bytes, "max_bytes", options.min_free)
        self._is_adopted_turn = True
        self._synced_at = self._monotonic()

    def open(self) -> None:
        """Create the sink's directory if it is missing, and check that it can be used.

        The check creates, locks and removes a directory inside the sink's directory.

        Raises:
            ConfigurationError: the sink's directory cannot be written or locked, is a
                symbolic link, or belongs to another user.
        """
        try:
            make_sink_directory(self._path, self._owner)
            _ = self._credentials.mark  # computes the digest now, not in the first append()
            create(self._path, self._now_ns()).remove()
            with contextlib.suppress(PermissionError):  # the parent directory may be unreadable
                sync_directory(self._path.parent)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            msg = (
                f"spool.directory={str(self._options.directory)!r}: {self._path}: {reason}; give a "
                "directory that belongs to this user, on a local file system with locks"
            )
            raise ConfigurationError(msg) from error

    @property
    def directory(self) -> Path | None:
        """The directory of this process, or None before the first call of :meth:`append`."""
        own = self._own
        return None if own is None else own.directory.path

    @property
    def corrupt(self) -> Corruption:
        """The numbers of frames, records and segment files that cannot be read from disk."""
        return self._state.corrupt

    @property
    def pending_records(self) -> int:
        """The number of unacknowledged records, including adopted records of dead processes."""
        found = self._state.own.waiting.records + self._state.adopted.waiting.records
        return found + self._salvage.left.records

    @property
    def pending_bytes(self) -> int:
        """The bytes on disk of all unacknowledged batches."""
        found = self._state.own.waiting.size + self._state.adopted.waiting.size
        return found + self._salvage.left.size

    @property
    def unread_records(self) -> int:
        """The number of records that :meth:`read` has not returned yet.

        After :meth:`close`, the number is 0.
        """
        if self._closed:
            return 0
        found = self._state.own.unread.records + self._state.adopted.unread.records
        return found + self._salvage.left.records

    @property
    def unread_since_ns(self) -> int:
        """A time at or shortly before the time when the oldest unread batch was written.

        In nanoseconds since the Unix epoch; 0 if every batch has been read.
        """
        stores = [*self._adopted.stores, *([self._own] if self._own else [])]
        times = [store.unread_since_ns for store in stores]
        return min(filter(None, times), default=0)

    @property
    def disk_bytes(self) -> int:
        """The total size of all segment files in bytes, which ``max_bytes`` limits."""
        return self._state.own.disk + self._adopted.disk

    @property
    def adopted(self) -> int:
        """The number of records of dead processes that this process has adopted so far."""
        return self._adopted.records

    def append(
        self, body: bytes, severities: Sequence[int], item: object = None, *, read: bool = False
    ) -> Frame:
        """Write a batch to disk.

        Blocks during a write to the page cache.  Also waits for a sync to disk if
        ``sync="always"``, if a record has a severity number of 21 (FATAL) or more, or if five
        complete segment files are not synced yet.  After an error, the spool is unchanged.

        Args:
            body: the packed batch.
            severities: the severity number of each record.
            item: an object that is cached in memory together with the body.  When :meth:`read`
                returns the batch from the cache, :attr:`Frame.item` is this object.
            read: whether the caller is already sending the batch, so that :meth:`read`
                must not return it.

        Raises:
            SpoolFullError: the batch would exceed ``max_bytes`` or ``min_free``, is larger than
                64 MiB, or the spool is closed.
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
        except FileNotFoundError:  # another program has removed the directory
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
            with contextlib.suppress(OSError):
                directory.remove()
            raise
        return self._own

    def _check_room(self, size: int) -> None:
        self._space.check(self.disk_bytes, size)

    def read(self) -> Frame | None:
        """Return the next unread batch, or None if there is no unread batch.

        Batches of this process alternate with adopted batches of dead processes.  Blocks on disk
        I/O if the batch is not cached in memory.
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
        """Acknowledge a batch: it need not be sent again.  A second call does nothing.

        Deletes a segment file when all of its batches are acknowledged, and the directory of a
        dead process when all of its segment files are deleted.  Never raises.
        """
        frame.store.ack(frame)
        self._adopted.retire(frame.store)

    @property
    def is_whole(self) -> bool:
        """Whether all segment files of this process still exist and have not been truncated.

        The value is also False while :meth:`mend` still has to write batches again.  Blocks on
        disk I/O.
        """
        return not self._salvage.left.frames and not (self._own and self._own.missing(_TRUSTED))

    def check(self, most: int = MAX_CHECKED) -> None:
        """Find segment files that another program has deleted, replaced or truncated.

        Unread batches that can still be read are queued, and :meth:`mend` writes them to a new
        file.  All other unread batches in these files are lost and added to :attr:`corrupt`.  If a
        dead process wrote the file, all of its unread batches are lost.

        A batch that :meth:`read` has already returned can still be sent, because the caller has
        the batch in memory.  If its file was deleted, replaced or truncated, the attribute
        :attr:`Frame.is_lost` of the batch is True.  Blocks on disk I/O; never raises.

        Args:
            most: the maximum number of this process's segment files to check.  The next call
                continues with the following files.
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
        """Write one of the batches that :meth:`check` has queued to a new file.

        Returns:
            True if a batch was written, so the caller should call the method again.  False if
            the queue is empty.

        Raises:
            SpoolFullError: the batch would exceed a size limit, or the spool is closed.  The next
                call tries to write the same batch.
            OSError: the disk failed or is full.  The next call tries to write the same batch.
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

    def sync(self) -> None:
        """Sync all files to disk if a sync is due.

        A sync is due if ``sync_interval`` seconds have passed since the previous sync, or if a
        complete segment file has not been synced yet.  Blocks on disk I/O; never raises.
        Thread-safe.
        """
        now = self._monotonic()
        own = self._own
        has_sealed = own is not None and own.has_sealed
        if has_sealed or now - self._synced_at >= self._options.sync_interval:
            self._synced_at = now
            self.flush()

    def flush(self) -> None:
        """Sync all files to disk now.  Blocks on disk I/O; never raises.  Thread-safe."""
        own = self._own
        for store in (*([own] if own else []), *self._adopted.stores):
            store.sync()

    @property
    def has_orphans(self) -> bool:
        """Whether dead processes have left files with records.  Blocks on disk I/O."""
        return has_orphans(self._path)

    def adopt(self) -> int:
        """Lock and scan the directories of dead processes, so that their batches can be read.

        Blocks until the scan has finished.  When the spool has reached its size limit, the
        remaining directories are not adopted; a later call may adopt them.  Never raises.

        Returns:
            The number of records in the adopted directories.
        """
        before = self.adopted
        self.look_for_orphans()
        while self.adopt_step():
            pass
        return self.adopted - before

    def look_for_orphans(self) -> bool:
        """Lock directories of dead processes, which :meth:`adopt_step` then scans.

        Only one thread at a time may call this method.  Blocks on disk I/O, but does not
        read segment files.  Never raises.

        Returns:
            Whether a later call must lock further directories, because the maximum number of
            64 adopted directories has been reached.
        """
        if self._closed:
            return False
        most = self._options.max_bytes
        return self._adopted.look(self.directory, lambda: self.disk_bytes < most)

    def adopt_step(self, lock: AbstractContextManager[object] = _NO_LOCK) -> bool:
        """Scan a locked directory for about a millisecond.  Return False if no scan remains.

        Only one thread at a time may call this method.  Blocks on disk I/O; never raises.

        Args:
            lock: the ``DeliveryState.lock``, which this method acquires only while it adds the
                results of the scan to the spool.
        """
        return not self._closed and self._adopted.step(lock)

    def close(self) -> None:
        """Sync all files, unlock all directories, and remove directories without batches.

        Unacknowledged batches stay on disk, and :attr:`pending_records` still includes them.
        Blocks on disk I/O; never raises.  A second call does nothing.
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
        """Make the spool empty in a forked child: the files and locks belong to the parent."""
        self._adopted.abandon()
        self._salvage.abandon()
        if self._own is not None:
            self._own.abandon()
        self._reset()
