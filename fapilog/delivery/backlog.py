"""The encoded records that wait in memory for one sink.

The pipeline's worker adds records in portions: one or more records that enter together.  The
sink's threads remove batches, which consist of whole portions.  Each counter has one writer,
so the worker and the threads need no common lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fapilog.protocols import BatchLimits
    from fapilog.spool import Frame

#: The memory that each record in the backlog needs in addition to its text, in bytes.
ITEM_OVERHEAD: Final = 256


@dataclass(eq=False)
class Batch:
    """Encoded records in order.

    Attributes:
        items: the records, as the sink's ``encode`` returned them.
        severities: the severity numbers of the records.
        size: the bytes of the records; 0 for a batch that :meth:`piece` returned.
        born: the monotonic time at which the oldest record arrived; 0.0 if unknown.
        frames: the frames of the spool that hold the same records on disk, in order.
        unacked: the number of records that are settled but still in the frames.
        portions: the number of entries of the backlog that the batch was made from.
        held: the bytes that the batch occupies in the backlog until it is settled.
        parts: while this batch is in flight, the batches that are not settled yet: the batch
            itself, or the smaller batches into which it was split.
        may_be_there: whether an attempt got no answer, so that the backend may already have
            the records.
    """

    items: list[Any] = field(default_factory=list)
    severities: list[int] = field(default_factory=list)
    size: int = 0
    born: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    unacked: int = 0
    portions: int = 0
    held: int = 0
    parts: list[Batch] = field(default_factory=list)
    may_be_there: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_on_disk(self) -> bool:
        """Whether the spool has a copy on disk of every unsettled record of the batch."""
        return bool(self.frames) and not any(frame.is_lost for frame in self.frames)

    def cut(self) -> None:
        """Split the first of ``parts`` into two halves.  Does nothing if no part is left."""
        for part in self.parts[:1]:
            middle, end = len(part) // 2, len(part)
            self.parts[:1] = [part.piece(0, middle), part.piece(middle, end)]

    def sample(self, skipped: int) -> None:
        """Move one record of the last part into its own part, which is sent next.

        Args:
            skipped: the index of the record in the last part.  If the index is too large, the
                last record is used.
        """
        for part in self.parts[-1:]:
            one, end = min(skipped, len(part) - 1), len(part)
            pieces = [part.piece(one, one + 1), part.piece(0, one), part.piece(one + 1, end)]
            single, before, after = pieces
            self.parts[:] = filter(len, [single, *self.parts[:-1], before, after])

    def piece(self, start: int, end: int) -> Batch:
        """Return the records from ``start`` to ``end`` (exclusive) as a new batch."""
        piece = Batch(self.items[start:end], self.severities[start:end])
        piece.may_be_there = self.may_be_there
        return piece

    def rest(self) -> Batch:
        """Return the records of an in-flight batch that are not settled yet."""
        rest = Batch()
        for part in self.parts:
            rest.extend(part)
        return rest

    def extend(self, portion: Batch) -> None:
        """Append the records of the batch ``portion`` to this batch."""
        self.items += portion.items
        self.severities += portion.severities
        self.size += portion.size
        self.born = self.born or portion.born


class Backlog:
    """A queue of encoded records between the pipeline's worker and a sink's threads.

    The worker adds records in portions, which are batches of one or more records.  The sink's
    threads must hold a common lock while they call :meth:`take`, :meth:`oldest`,
    :meth:`remove` or :meth:`release`.  Everything else needs no lock.

    Args:
        limits: the limits of a batch.  A portion must not exceed them, unless it consists of
            a single large record.

    Attributes:
        entered: the number of records that have entered the backlog so far.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._portions: deque[Batch] = deque()
        self._bytes_in = self.entered = 0  # written by the pipeline's worker
        self._bytes_out = self._bytes_taken = self._count_out = 0  # written by the sink's threads

    def __len__(self) -> int:
        """The number of records that wait.  Records in flight do not count."""
        return self.entered - self._count_out

    @property
    def pending_bytes(self) -> int:
        """The bytes of the records that wait or are in flight."""
        return self._bytes_in - self._bytes_out

    @property
    def waiting_since(self) -> float:
        """The monotonic time at which the oldest waiting record arrived, or 0.0 if none waits."""
        try:
            return self._portions[0].born
        except IndexError:
            return 0.0

    @property
    def is_due(self) -> bool:
        """Whether enough records for a full batch are waiting."""
        waiting = self._bytes_in - self._bytes_taken
        return len(self) >= self._limits.count or waiting >= self._limits.size

    def fits_a_batch(self, count: int, size: int) -> bool:
        """Whether ``count`` records with ``size`` bytes together are within a batch's limits."""
        return count <= self._limits.count and size <= self._limits.size

    def put(self, portion: Batch) -> None:
        """Add the records of ``portion``.  Only the pipeline's worker calls this."""
        # The counters change first, because a thread may remove the records as soon as they
        # are appended.
        self._bytes_in += portion.size
        self.entered += len(portion.items)
        self._portions.append(portion)

    def take(self) -> Batch:
        """Remove and return the oldest records, as many as a batch may contain."""
        batch = self.oldest()
        self.remove(batch)
        return batch

    def oldest(self) -> Batch:
        """Return the oldest records, as many as a batch may contain, without removing them."""
        batch = Batch()
        # An iterator would raise RuntimeError if the worker called put() during the loop.
        for position in range(len(self._portions)):
            following = self._portions[position]
            if batch.items and not self.fits_a_batch(
                len(batch.items) + len(following.items), batch.size + following.size
            ):
                break
            batch.extend(following)
            batch.portions += 1
        return batch

    def remove(self, batch: Batch) -> None:
        """Remove the records that :meth:`oldest` has returned as ``batch``."""
        for _ in range(batch.portions):
            self._portions.popleft()
        batch.held = batch.size
        self._bytes_taken += batch.size
        self._count_out += len(batch.items)

    def release(self, batch: Batch) -> None:
        """Free the space of a batch that is settled or on disk.  A second call does nothing."""
        self._bytes_out += batch.held
        batch.held = 0
