"""What dead processes left: finding their directories and taking them over.

A directory is adopted with its lock, so two processes never share one.  One
that this spool cannot use - of another wire format, of a later release, of
another user - is left as it is and not looked at again.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from fapilog.delivery.spool.cursor import read_floor
from fapilog.delivery.spool.directory import age_of, claim, list_directories, list_segments
from fapilog.delivery.spool.files import size_of
from fapilog.delivery.spool.format import format_id
from fapilog.delivery.spool.scan import scan
from fapilog.delivery.spool.segment import Corruption, Frame, Tally
from fapilog.delivery.spool.store import Store
from fapilog.diagnostics import announce

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fapilog.delivery.spool.directory import ProcessDirectory
    from fapilog.delivery.spool.scan import Scan

#: Directories adopted at a time, each of which keeps two descriptors open; and
#: seconds after which one call adopts no further one.
_MAX_ADOPTED: Final = 128
_ADOPT_TIME: Final = 1.0

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
        stores: adopted and not drained, the oldest first.
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
        self.stores: list[Store] = []
        self.tally = Tally()
        self.records = 0
        self.waiting_disk = 0

    def adopt(
        self, own: Path | None, has_room: Callable[[], bool], monotonic: Callable[[], float]
    ) -> int:
        """Take over directories of dead processes; see :meth:`Spool.adopt`.

        Args:
            own: the directory of this process.
            has_room: whether the cap has room for another one.
            monotonic: seconds of a clock.
        """
        self.waiting_disk = 0
        try:
            names = [name.text for name in list_directories(self._path)]
        except OSError as error:
            self._announce(self._path, error)
            return 0
        self._left.intersection_update(names)
        known = {store.directory.path.name for store in self.stores} | self._left
        if own is not None:
            known.add(own.name)
        until = monotonic() + _ADOPT_TIME
        found = 0
        for name in names:
            if name not in known:
                is_time = len(self.stores) < _MAX_ADOPTED and monotonic() < until
                found += self._try(self._path / name, is_wanted=is_time and has_room())
        self.records += found
        return found

    def _try(self, path: Path, *, is_wanted: bool) -> int:
        """Take one directory over if its process is dead; or only note how large it is."""
        try:
            directory = self._claiming = claim(path)
        except OSError as error:
            self._announce(path, error)
            if error.errno in _NOT_OURS:
                self._left.add(path.name)
            return 0
        if directory is None:
            return 0
        try:
            if is_wanted:
                return self._take_over(directory)
            self.waiting_disk += sum(size_of(segment) for _, segment in list_segments(path))
        except OSError as error:
            self._announce(path, error)
        finally:
            self._claiming = None
        directory.release()
        return 0

    def _take_over(self, directory: ProcessDirectory) -> int:
        """Add the store of a directory that was claimed; return its records."""
        path = directory.path
        floor = read_floor(path)
        scans = [scan(segment, floor) for _, segment in list_segments(path)]
        identity = format_id(self._wire_format)
        if {found.identity for found in scans} - {None, identity}:
            announce(
                f"spool format {self._sink_name}",
                f"{self._sink_name}: {path} holds another wire format than {self._wire_format} "
                "and waits for a sink that takes it",
            )
            self._left.add(path.name)
            directory.release()
            return 0
        store = Store(
            self._sink_name, directory, identity, self.tally, self._corrupt, is_adopted=True
        )
        for found in scans:
            self._note(found)
            if not found.problem:
                store.add(found)
        records = store.records
        self.stores.append(store)
        self.stores.sort(key=lambda one: age_of(one.directory.path))
        self.retire(store)
        return records

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
        for store in self.stores:
            store.close()
        self.stores.clear()

    def abandon(self) -> None:
        """Close every descriptor in a forked child."""
        for store in self.stores:
            store.abandon()
        if self._claiming is not None:
            self._claiming.abandon()
