"""A queue in memory of the encoded records that wait to be sent to one sink.

The pipeline's worker thread adds portions: batches of one or more records that were encoded
together.  The sink's delivery threads remove batches, each made from one or more portions.
Each counter is written either only by the worker thread or only by the delivery threads, so
the worker thread needs no lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fapilog.protocols import BatchLimits
    from fapilog.spool import Frame

#: An estimate of the memory, in bytes, that each record needs in addition to ``LogRecord.size``.
ITEM_OVERHEAD: Final = 256


@dataclass(eq=False)
class Batch:
    """A list of encoded records that are sent together, and their state during delivery.

    Attributes:
        items: the records, as the sink's ``encode`` returned them, oldest first.
        severities: the severity number of each record.
        size: the total size of the records in bytes; 0 for a batch that :meth:`piece` returned.
        born: the monotonic time at which the oldest record arrived; 0.0 if unknown.
        frames: the entries of the spool on disk that contain the same records, in order.
        unacked: the number of records that need not be sent again, but are still in ``frames``.
        portions: the number of portions of a ``Backlog`` from which the batch was made.
        held: the number of bytes of the backlog's capacity that the batch still occupies.
        parts: the batches that are still to be sent: this batch itself, or the smaller batches
            into which it was split.  Empty before this batch is in flight.
        may_be_there: whether the backend may already have the records, because an earlier
            attempt to send them got no answer.
        began: the monotonic time at which the first attempt to send the batch began; 0.0 before.
        failure: the name of the latest error because of which records of the batch were refused
            or dropped, or "".
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
    began: float = 0.0
    failure: str = ""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_on_disk(self) -> bool:
        """Whether the spool on disk contains every record of the batch that must still be sent."""
        return bool(self.frames) and not any(frame.is_lost for frame in self.frames)

    def cut(self) -> None:
        """Split the first batch in ``parts`` into two halves, unless ``parts`` is empty."""
        for part in self.parts[:1]:
            middle, end = len(part) // 2, len(part)
            self.parts[:1] = [part.piece(0, middle), part.piece(middle, end)]

    def sample(self, skipped: int) -> None:
        """Move one record from the last batch in ``parts`` to the front, to be sent alone.

        Args:
            skipped: the number of records before this record in the last batch.  If that batch
                has too few records, its last record is moved.
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
        """Return the records of an in-flight batch that are still to be sent, as one batch."""
        rest = Batch()
        for part in self.parts:
            rest.extend(part)
        return rest

    def extend(self, portion: Batch) -> None:
        """Append the records of ``portion`` to this batch."""
        self.items += portion.items
        self.severities += portion.severities
        self.size += portion.size
        self.born = self.born or portion.born


class Backlog:
    """A queue of encoded records between the pipeline's worker thread and a sink's threads.

    The worker thread adds portions, which are batches of one or more records.  A thread must
    hold ``DeliveryState.lock`` while it calls :meth:`take`, :meth:`oldest`, :meth:`remove` or
    :meth:`release`.  The other methods and the properties need no lock.

    Args:
        limits: the limits of a batch.  A portion must not exceed these limits, unless the
            portion consists of a single large record.

    Attributes:
        entered: the number of records that have been added to the backlog so far.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._portions: deque[Batch] = deque()
        self._bytes_in = self.entered = 0  # written only by the pipeline's worker thread
        self._bytes_out = self._bytes_taken = self._count_out = 0  # written by the sink's threads

    def __len__(self) -> int:
        """Return the number of waiting records, without the records that are in flight."""
        return self.entered - self._count_out

    @property
    def pending_bytes(self) -> int:
        """The total size of the records that wait or are in flight, in bytes."""
        return self._bytes_in - self._bytes_out

    @property
    def waiting_since(self) -> float:
        """The monotonic time when the oldest waiting record arrived, or 0.0 if no record waits."""
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
        """Return whether a batch may contain ``count`` records with ``size`` bytes in total."""
        return count <= self._limits.count and size <= self._limits.size

    def put(self, portion: Batch) -> None:
        """Add ``portion`` to the queue.  Only the pipeline's worker thread may call this."""
        # The counters change before the append, because a delivery thread may remove the portion
        # immediately after the append.
        self._bytes_in += portion.size
        self.entered += len(portion.items)
        self._portions.append(portion)

    def take(self) -> Batch:
        """Remove the oldest records from the queue, at most one full batch, and return them."""
        batch = self.oldest()
        self.remove(batch)
        return batch

    def oldest(self) -> Batch:
        """Return the oldest records, at most one full batch, without removing them."""
        batch = Batch()
        # Iterating over the deque would raise RuntimeError if put() were called during the loop.
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
        """Remove the records in ``batch``, which :meth:`oldest` has returned."""
        for _ in range(batch.portions):
            self._portions.popleft()
        batch.held = batch.size
        self._bytes_taken += batch.size
        self._count_out += len(batch.items)

    def release(self, batch: Batch) -> None:
        """Free the capacity that ``batch`` occupies.

        Called when the batch has been sent, dropped or written to disk.  A second call does
        nothing.
        """
        self._bytes_out += batch.held
        batch.held = 0
