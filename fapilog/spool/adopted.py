"""What dead processes left: finding their directories and taking them over.

A directory is adopted with its lock, so two processes never share one.  One
that this spool cannot use - of another wire format, of a later release, of
another user - is left as it is and not looked at again.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from fapilog.diagnostics import announce
from fapilog.spool.adoption import Adoption
from fapilog.spool.directory import age_of, claim, list_directories
from fapilog.spool.format import format_id
from fapilog.spool.segment import Corruption, Frame, Tally
from fapilog.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fapilog.spool.directory import ProcessDirectory
    from fapilog.spool.scan import Scan

#: Directories adopted at a time, each of which keeps three descriptors open.
_MAX_ADOPTED: Final = 64
#: Steps until the next directory has its turn.
_TURN: Final = 64

#: What tells that a directory is not this user's, or none: it is not asked again.
_NOT_OURS: Final = {errno.EPERM, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.EINVAL}


class AdoptedStores:
    """The stores a spool did not write itself.

    Args:
        sink_name: of the sink, in announcements.
        wire_format: of its batches.
        path: the sink's directory.
        corrupt: of the spool.

    Attributes:
        stores: adopted, not drained, and with something found in them, the oldest first.
        tally: of these.
        records: records found in adopted directories so far.
        waiting_disk: bytes of those for which there was no room.
    """

    def __init__(self, sink_name: str, wire_format: str, path: Path, corrupt: Corruption) -> None:
        self._sink_name = sink_name
        self._wire_format = wire_format
        self._path = path
        self._corrupt = corrupt
        self._left: set[str] = set()  # directories that are not for this spool
        self._claiming: ProcessDirectory | None = None
        self._underway: deque[Adoption] = deque()
        self._steps = 0
        self.stores: list[Store] = []
        self.tally = Tally()
        self.records = 0
        self.waiting_disk = 0

    def look(self, own: Path | None, has_room: Callable[[], bool]) -> bool:
        """Claim directories of dead processes, for :meth:`step` to look through.

        Never raises; blocks for the disk, but reads no segment.

        Args:
            own: the directory of this process.
            has_room: whether the cap has room for another one.

        Returns:
            Whether some were left, because there are too many at a time.
        """
        self.waiting_disk = 0
        try:
            names = [name.text for name in list_directories(self._path)]
        except OSError as error:
            self._announce(self._path, error)
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
        """Claim one directory if its process is dead; or only note how large it is."""
        directory: ProcessDirectory | None = None
        try:
            directory = self._claiming = claim(path)
            if directory is None:
                return
            adoption = Adoption(directory, format_id(self._wire_format), self._make_store)
            if is_wanted:
                self._underway.append(adoption)
                return
            self.waiting_disk += adoption.disk
        except OSError as error:
            self._give_back(path, error)
        finally:
            self._claiming = None
        if directory is not None:
            directory.release()

    def _make_store(self, directory: ProcessDirectory) -> Store:
        return Store(
            self._sink_name,
            directory,
            format_id(self._wire_format),
            self.tally,
            self._corrupt,
            is_adopted=True,
        )

    def step(self, lock: AbstractContextManager[object]) -> bool:
        """Look a little further through a directory; whether there is more to look at.

        Never raises.  Blocks for the disk without the lock.

        Args:
            lock: held while what was found is handed over.
        """
        if not self._underway:
            return False
        adoption = self._underway[0]
        goes_on = False
        try:
            goes_on = adoption.step()
        except OSError as error:
            self._give_back(adoption.directory.path, error)
        with lock:
            self._hand_over(adoption)
            if not goes_on:
                self._underway.popleft()
                self._complete(adoption)
        self._steps += 1
        if self._steps % _TURN == 0:  # a large one does not hold the others up
            self._underway.rotate(-1)
        return bool(self._underway)

    def _hand_over(self, adoption: Adoption) -> None:
        """Give a store what was found; under the lock."""
        records, found = adoption.take()
        self.records += records
        if records and adoption.store is not None and adoption.store not in self.stores:
            self._add(adoption.store)
        if found is not None:
            self._note(found)

    def _add(self, store: Store) -> None:
        self.stores.append(store)
        self.stores.sort(key=lambda one: age_of(one.directory.path))

    def _complete(self, adoption: Adoption) -> None:
        """End an adoption; under the lock."""
        store, path = adoption.store, adoption.directory.path
        if adoption.is_foreign:
            self._left.add(path.name)
            announce(
                f"spool format {self._sink_name}",
                f"{self._sink_name}: {path} holds another wire format than {self._wire_format} "
                "and waits for a sink that takes it",
            )
        adoption.close()
        if store is None:
            return
        store.is_complete = not adoption.is_foreign
        if store not in self.stores:
            self._add(store)
        if adoption.is_foreign and store.records == 0:
            self.stores.remove(store)
            store.close()
        self.retire(store)

    @property
    def disk(self) -> int:
        """Bytes of all segments, those without room and those not looked through among them."""
        return self.tally.disk + self.waiting_disk + sum(one.disk for one in list(self._underway))

    def _note(self, found: Scan) -> None:
        name = self._sink_name
        if found.problem:
            self._corrupt.segments += 1
            announce(f"spool aside {name}", f"{name}: {found.path} is left alone: {found.problem}")
        elif found.damaged_frames:
            self._corrupt.frames += found.damaged_frames
            announce(
                f"spool damage {name}",
                f"{name}: {found.damaged_frames} frames of {found.path} are damaged and lost",
            )

    def _give_back(self, path: Path, error: OSError) -> None:
        """Say why a directory is not adopted; one that is not this user's is not asked again."""
        self._announce(path, error)
        if error.errno in _NOT_OURS:
            self._left.add(path.name)

    def _announce(self, path: Path, error: OSError) -> None:
        what = f"{self._sink_name}: {path} is not adopted: {error.strerror or error}"
        announce(f"spool adopt {self._sink_name}", what)

    def read(self) -> Frame | None:
        """Return the next frame of the oldest directory that has one."""
        for store in list(self.stores):
            frame = store.read()
            if frame is not None:
                return frame
            self.retire(store)
        return None

    def retire(self, store: Store) -> None:
        """Remove the directory of a store that is drained, if it is one of these."""
        if store.is_drained and store in self.stores:
            self.stores.remove(store)
            if not store.close():
                self._left.add(store.directory.path.name)

    def close(self) -> None:
        """Give every directory up."""
        for adoption in self._underway:
            adoption.close()
            if adoption.store is not None and adoption.store not in self.stores:
                self.stores.append(adoption.store)
        self._underway.clear()
        for store in self.stores:
            store.close()
        self.stores.clear()

    def abandon(self) -> None:
        """Close every descriptor in a forked child."""
        for store in self.stores:
            store.abandon()
        for adoption in self._underway:
            adoption.abandon()
            if adoption.store is not None:
                adoption.store.abandon()
        if self._claiming is not None:
            self._claiming.abandon()
