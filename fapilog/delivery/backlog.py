"""What waits for one sink in memory: encoded records in portions.

The pipeline's worker puts portions in, the sink's threads take batches out.
Each counter has one writer at a time, so neither side takes a lock for the
other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fapilog.protocols import BatchLimits
    from fapilog.spool import Frame

#: What a record in the backlog costs besides its text, in bytes.
ITEM_OVERHEAD: Final = 256


@dataclass(eq=False)
class Batch:
    """Encoded records in order.

    Attributes:
        items: as the sink's ``encode`` returned them.
        severities: their severity numbers.
        size: bytes they take in the backlog.
        born: when they came, seconds of the monotonic clock; 0.0 unknown.
        frames: where they wait on disk as well, in the same order.
        ahead: records of them that are settled, while their frames are not.
        adopted: records of them that an earlier process left.
        portions: of the backlog that it is made of.
        held: bytes of the backlog that are given back once all is settled.
        parts: what is left to be settled, while it is being sent.
        may_be_there: whether an attempt was not answered, so the backend may
            have the records already.
    """

    items: list[Any] = field(default_factory=list)
    severities: list[int] = field(default_factory=list)
    size: int = 0
    born: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    ahead: int = 0
    adopted: int = 0
    portions: int = 0
    held: int = 0
    parts: list[Batch] = field(default_factory=list)
    may_be_there: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_on_disk(self) -> bool:
        """Whether all of it that is not settled is on disk as well."""
        return bool(self.frames) and not any(frame.is_lost for frame in self.frames)

    def halves(self) -> list[Batch]:
        """Return the batch in two parts, for a backend that refuses it whole."""
        middle, size = len(self) // 2, self.size // 2
        first = Batch(self.items[:middle], self.severities[:middle], size, self.born)
        second = Batch(self.items[middle:], self.severities[middle:], self.size - size, self.born)
        first.may_be_there = second.may_be_there = self.may_be_there
        return [first, second]

    def rest(self) -> Batch:
        """Return what is not settled of a batch that is being sent."""
        rest = Batch()
        for part in self.parts:
            rest.extend(part)
        return rest

    def extend(self, portion: Batch) -> None:
        """Append the records of ``portion``."""
        self.items += portion.items
        self.severities += portion.severities
        self.size += portion.size
        self.born = self.born or portion.born


class Backlog:
    """A queue of portions between the pipeline's worker and a sink's threads.

    Those take turns: all methods but :meth:`put` and the properties are
    called under one lock of theirs.

    Args:
        limits: bounds of a batch; a portion stays within them, but for a
            single record that is larger by itself.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._portions: deque[Batch] = deque()
        self._bytes_in = self._count_in = 0  # written by the worker
        self._bytes_out = self._bytes_taken = self._count_out = 0  # written by the sink's threads

    def __len__(self) -> int:
        """Records that wait; those in flight are not among them."""
        return self._count_in - self._count_out

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait or are in flight."""
        return self._bytes_in - self._bytes_out

    @property
    def waiting_since(self) -> float:
        """When the oldest waiting portion came, seconds of the monotonic clock; 0.0 for none."""
        try:
            return self._portions[0].born
        except IndexError:
            return 0.0

    @property
    def is_due(self) -> bool:
        """Whether a full batch waits."""
        waiting = self._bytes_in - self._bytes_taken
        return len(self) >= self._limits.count or waiting >= self._limits.size

    def fits_a_batch(self, count: int, size: int) -> bool:
        """Whether a portion of ``count`` records and ``size`` bytes may be put in whole."""
        return count <= self._limits.count and size <= self._limits.size

    def put(self, portion: Batch) -> None:
        """Add a portion; the worker's."""
        # Counted first: a thread may take it at once, and nothing may be below 0.
        self._bytes_in += portion.size
        self._count_in += len(portion.items)
        self._portions.append(portion)

    def take(self) -> Batch:
        """Take the oldest portions that make a batch together."""
        batch = self.oldest()
        self.remove(batch)
        return batch

    def oldest(self) -> Batch:
        """Return the oldest portions that make a batch together; they still wait here."""
        batch = Batch()
        # By index: the worker may append meanwhile, which ends an iteration.
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
        """Take out what :meth:`oldest` has returned."""
        for _ in range(batch.portions):
            self._portions.popleft()
        batch.held = batch.size
        self._bytes_taken += batch.size
        self._count_out += len(batch.items)

    def release(self, batch: Batch) -> None:
        """Give back the room of a batch that is settled, or waits elsewhere; once."""
        self._bytes_out += batch.held
        batch.held = 0
