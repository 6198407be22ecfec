"""Adopts the spool directories of dead processes, so that this process sends their records.

A process locks a directory before it adopts it, so two processes never use the same directory.
The process then scans the directory's files in steps of about a millisecond, without holding
``fapilog.delivery.state.DeliveryState.lock``.  The first batches are sent while the scan
continues.  If a directory belongs to another user, or contains batches in a wire format that the
sink does not use, the directory stays unchanged, and the same process does not try to adopt it
again.  Segment files in a later format version stay unchanged, too.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from fapilog.process.files import size_of
from fapilog.spool.credentials import FILE, read_mark
from fapilog.spool.cursor import read_place
from fapilog.spool.directory import claim, list_directories, list_segments
from fapilog.spool.scan import Scan, scan_in_steps, wire_format_of
from fapilog.spool.store import Frame, SpoolState, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fapilog.spool.directory import ProcessDirectory

#: The maximum number of directories that a process adopts at the same time.  Three files stay open
#: per directory.
_MAX_ADOPTED: Final = 64
#: The number of scan steps after which scanning continues with the next directory.
_TURN: Final = 64
#: The number of segment files whose headers one scan step reads.
_HEADERS: Final = 16
#: The errors that occur if a path belongs to another user or is not a directory.  After such an
#: error, the spool does not try to adopt the path again.
_NOT_OURS: Final = {errno.EPERM, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.EINVAL}


class Adoption:
    """A dead process's directory that this process has locked and is scanning.

    Attributes:
        directory: the locked directory.
        store: the ``Store`` that reads the directory, or None until the wire formats of the
            segment files have been checked.
        found: the results for the segment file that the last step scanned, or None.
        disk: the total size of the segment files whose scan has not finished, in bytes.
        is_foreign: whether a file contains records in a wire format that the sink does not use.

    Raises:
        OSError: the directory cannot be listed.
    """

    def __init__(self, state: SpoolState, directory: ProcessDirectory) -> None:
        self.directory = directory
        self.store: Store | None = None
        self.is_foreign = False
        self._state = state
        segments = list_segments(directory.path)
        self._segments = [(number, path, size_of(path)) for number, path in segments]
        self.disk = sum(size for _, _, size in self._segments)
        self.found: Scan | None = None
        self._steps = self._scan()

    def step(self) -> bool:
        """Scan the directory for about a millisecond.  Return False if the scan has finished.

        Blocks on disk I/O.

        Raises:
            OSError: the directory's cursor file can be neither opened nor created.
        """
        return next(self._steps, None) is not None

    def _scan(self) -> Iterator[bool]:
        for index, (_, path, _) in enumerate(self._segments):
            if wire_format_of(path) not in {None, self._state.identity}:
                self.is_foreign = True
                return
            if index % _HEADERS == _HEADERS - 1:
                yield True
        self.store = Store(self._state, self.directory, is_adopted=True)
        place = read_place(self.directory.path)
        for number, path, size in self._segments:
            settled = place.offset if place.segment == number else 0
            yield from self._scan_segment(path, place.floor, settled)
            if self.is_foreign:
                return
            self.disk -= size

    def _scan_segment(self, path: Path, floor: int, settled: int) -> Iterator[bool]:
        mine = {None, self._state.identity}
        found = Scan(path)
        for _ in scan_in_steps(found, floor, settled=settled):
            if found.identity not in mine:
                break
            self.found = found
            yield True
        self.is_foreign = found.identity not in mine
        self.found = None if self.is_foreign else found
        yield True
        self.found = None

    def close(self) -> None:
        """Stop the scan.  If :attr:`store` is None, also unlock the directory.

        Otherwise, the store unlocks the directory when the store is closed.
        """
        self._steps = iter(())
        if self.store is None:
            self.directory.release()

    def abandon(self) -> None:
        """Close all file descriptors in a forked child, without releasing the parent's locks."""
        if self.found is not None and self.found.file is not None:
            self.found.file.close()
        if self.store is not None:
            self.store.abandon()
        self.directory.abandon()


class AdoptedStores:
    """The directories of dead processes that this process has adopted, one ``Store`` for each.

    Attributes:
        stores: the stores with frames that are not acknowledged, oldest directory first.
        records: the number of records that the scans of adopted directories have found so far.
    """

    def __init__(self, state: SpoolState, path: Path) -> None:
        self._state = state
        self._path = path
        self._left: set[str] = set()  # names of directories that look() must not adopt
        self._underway: deque[Adoption] = deque()
        self._steps = 0
        self._waiting_disk = 0  # bytes in directories that may be adopted later
        self.stores: list[Store] = []
        self.records = 0

    @property
    def disk(self) -> int:
        """The total size of the segment files in bytes.

        Includes directories that are adopted, are being scanned, or may be adopted later.
        """
        underway = sum(one.disk for one in list(self._underway))
        return self._state.adopted.disk + self._waiting_disk + underway

    def look(self, own: Path | None, has_room: Callable[[], bool]) -> bool:
        """Lock directories of dead processes; see :meth:`Spool.look_for_orphans`.

        Args:
            own: the directory of this process, which is not adopted, or None.
            has_room: a function that returns True while the spool is below its size limit.
        """
        self._waiting_disk = 0
        try:
            names = [name.text for name in list_directories(self._path)]
        except OSError as error:
            self._refuse(self._path, error)
            return False
        self._left.intersection_update(names)
        known = {one.directory.path.name for one in self.stores} | self._left
        known.update(one.directory.path.name for one in self._underway)
        if own is not None:
            known.add(own.name)
        has_place = True
        for name in names:
            if name not in known:
                has_place = len(self.stores) + len(self._underway) < _MAX_ADOPTED
                self._claim(self._path / name, is_wanted=has_place and has_room())
        return not has_place

    def _claim(self, path: Path, *, is_wanted: bool) -> None:
        """Start to adopt the directory ``path`` if its process is dead.

        The directory is not adopted if its credentials digest shows that the records were logged
        with credentials other than the sink's.  If ``is_wanted`` is False, only add the size of
        the directory to :attr:`disk`.
        """
        directory: ProcessDirectory | None = None
        try:
            directory = claim(path)
            if directory is None:
                return
            if not self._state.credentials.match(read_mark(path / FILE)):
                directory.release()
                self._announce_other_credentials(path)
                return
            adoption = Adoption(self._state, directory)
            if is_wanted:
                self._underway.append(adoption)
                return
            self._waiting_disk += adoption.disk
        except OSError as error:
            self._refuse(path, error)
        if directory is not None:
            directory.release()

    def _refuse(self, path: Path, error: OSError) -> None:
        """Report on standard error why the directory ``path`` is not adopted.

        If ``path`` belongs to another user or is not a directory, later calls of :meth:`look`
        skip ``path``.
        """
        self._state.announce("adopt", f"{path} is not adopted: {error.strerror or error}")
        if error.errno in _NOT_OURS:
            self._left.add(path.name)

    def _announce_other_credentials(self, path: Path) -> None:
        """Report that this sink's credentials do not match those of the records in ``path``."""
        try:
            if not list_segments(path):
                return
        except OSError:
            return  # another process has already removed the directory
        sink = self._path.name
        self._state.announce(
            "credentials",
            f"{path} holds records that were logged with other credentials, so they wait: if the "
            "credentials belong to the same account, let this sink send the records with `fapilog "
            f"spool adopt {sink} --sink NAME`; if two accounts share this directory, give each "
            "sink its own name",
        )

    def step(self, lock: AbstractContextManager[object]) -> bool:
        """Scan a locked directory for about a millisecond; see :meth:`Spool.adopt_step`."""
        if not self._underway:
            return False
        adoption = self._underway[0]
        goes_on = False
        try:
            goes_on = adoption.step()
        except OSError as error:
            self._refuse(adoption.directory.path, error)
        with lock:
            self._hand_over(adoption)
            if not goes_on:
                self._underway.popleft()
                self._complete(adoption)
        self._steps += 1
        if self._steps % _TURN == 0:  # a large directory must not delay the other directories
            self._underway.rotate(-1)
        return bool(self._underway)

    def _hand_over(self, adoption: Adoption) -> None:
        """Add the frames that the latest scan step has found to the directory's store.

        When a segment file is completely scanned, report its damaged frames on standard error.
        The caller holds ``DeliveryState.lock``.
        """
        found, store = adoption.found, adoption.store
        if found is None or store is None:
            return
        if records := store.extend(found):
            self.records += records
            self._add(store)
        if not found.is_complete:
            return
        if found.problem:
            self._state.corrupt.segments += 1
            self._state.announce("aside", f"{found.path} is left alone: {found.problem}")
        elif found.damaged_frames:
            self._state.corrupt.frames += found.damaged_frames
            what = f"{found.damaged_frames} frames of {found.path} are damaged and lost"
            self._state.announce("damage", what)

    def _complete(self, adoption: Adoption) -> None:
        """Close ``adoption`` after its last scan step, and remove its directory if possible.

        The directory is removed if all of its frames are acknowledged.  The caller holds
        ``DeliveryState.lock``.
        """
        store, path = adoption.store, adoption.directory.path
        if adoption.is_foreign:
            self._left.add(path.name)
            self._state.announce(
                "format",
                f"{path} holds a wire format other than {self._state.wire_format} and waits for a "
                "sink that uses that format",
            )
        adoption.close()
        if store is None:
            return
        store.is_complete = not adoption.is_foreign
        self._add(store)
        if adoption.is_foreign and store.records == 0:
            self.stores.remove(store)
            store.close()
        self.retire(store)

    def _add(self, store: Store) -> None:
        if store not in self.stores:
            self.stores.append(store)
            self.stores.sort(key=lambda one: one.directory.started_ns)

    def read(self) -> Frame | None:
        """Return the next frame of the oldest directory that has unread frames, or None."""
        for store in list(self.stores):
            frame = store.read()
            if frame is not None:
                return frame
            self.retire(store)
        return None

    def retire(self, store: Store) -> None:
        """Remove ``store`` and its directory if all frames are scanned and acknowledged."""
        if store.is_drained and store in self.stores:
            self.stores.remove(store)
            if not store.close():
                self._left.add(store.directory.path.name)

    def close(self) -> None:
        """Stop all scans, and unlock all directories, so that other processes can adopt them."""
        for adoption in self._underway:
            adoption.close()
            if adoption.store is not None:
                self._add(adoption.store)
        self._underway.clear()
        for store in self.stores:
            store.close()
        self.stores.clear()

    def abandon(self) -> None:
        """Close all file descriptors in a forked child, without releasing the parent's locks."""
        for store in self.stores:
            store.abandon()
        for adoption in self._underway:
            adoption.abandon()
