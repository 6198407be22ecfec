"""Looking through the directory of a dead process, in steps of about a millisecond.

What is found goes to a store step by step, so its first batches are sent while
the rest is looked through, and a process that ends before that has delivered
some.  The steps block for the disk alone; only handing over what was found
needs the lock of the delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fapilog.process.files import size_of
from fapilog.spool.cursor import read_place
from fapilog.spool.directory import list_segments
from fapilog.spool.scan import Scan, scan_in_steps, wire_format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fapilog.spool.directory import ProcessDirectory
    from fapilog.spool.store import Store

#: Segments whose headers are looked at in one step.
_HEADERS: Final = 16


class Adoption:
    """One directory that was claimed and is looked through.

    Args:
        directory: locked by this process.
        identity: the :func:`~fapilog.spool.format.format_id` of the
            wire format that the spool takes.
        make_store: makes the store of the directory.

    Attributes:
        directory: as above.
        store: None until the directory is known to be for this spool.
        disk: bytes of the segments that the store does not have yet.
        is_foreign: whether it holds another wire format.

    Raises:
        OSError: the directory cannot be listed.
    """

    def __init__(
        self,
        directory: ProcessDirectory,
        identity: int,
        make_store: Callable[[ProcessDirectory], Store],
    ) -> None:
        self.directory = directory
        self.store: Store | None = None
        self.is_foreign = False
        self._identity = identity
        self._make_store = make_store
        self._segments = [
            (number, path, size_of(path)) for number, path in list_segments(directory.path)
        ]
        self.disk = sum(size for _, _, size in self._segments)
        self._found: Scan | None = None
        self._steps = self._look_through()

    def step(self) -> bool:
        """Look a little further; whether there is more.  Needs no lock; blocks for the disk.

        Raises:
            OSError: the directory cannot be used.
        """
        return next(self._steps, None) is not None

    def take(self) -> tuple[int, Scan | None]:
        """Hand what the last step found to the store; under the lock of the delivery.

        Returns:
            The records that are new, and a segment that is complete.
        """
        found = self._found
        if found is None or self.store is None:
            return 0, None
        records = self.store.extend(found)
        return records, found if found.is_complete else None

    def _look_through(self) -> Iterator[bool]:
        for index, (_, path, _) in enumerate(self._segments):
            if wire_format_of(path) not in {None, self._identity}:
                self.is_foreign = True
                return
            if index % _HEADERS == _HEADERS - 1:
                yield True
        self.store = self._make_store(self.directory)
        place = read_place(self.directory.path)
        for number, path, size in self._segments:
            settled = place.offset if place.segment == number else 0
            yield from self._look_at(path, place.floor, settled)
            if self.is_foreign:
                return
            self.disk -= size
        self._found = None

    def _look_at(self, path: Path, floor: int, settled: int) -> Iterator[bool]:
        found = Scan(path)
        for _ in scan_in_steps(found, floor, settled=settled):
            if found.identity not in {None, self._identity}:
                break
            self._found = found
            yield True
        self.is_foreign = found.identity not in {None, self._identity}
        self._found = None if self.is_foreign else found
        yield True
        self._found = None

    def close(self) -> None:
        """Give the directory up, unless its store does that."""
        self._steps = iter(())
        if self.store is None:
            self.directory.release()

    def abandon(self) -> None:
        """Close every descriptor in a forked child."""
        if self._found is not None and self._found.file is not None:
            self._found.file.close()
        self.directory.abandon()
