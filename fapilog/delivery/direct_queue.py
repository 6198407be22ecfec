"""A sending queue that any thread fills, without the pipeline's queue and worker.

The SDK's span processors pass batches of spans on their own threads.  These spans need no
worker: they are already converted, and the calling thread may encode them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.backlog import ITEM_OVERHEAD
from fapilog.delivery.ledger import Drops
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fapilog.delivery.ledger import Stats
    from fapilog.delivery.options import DeliveryOptions
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord


#: The least number of portions that fit in the backlog.
_PORTIONS: Final = 8


class DirectQueue(SendingQueue):
    """A sending queue with a thread-safe :meth:`put`.  It has no route and no fallback.

    Args:
        sink: the opened sink; with a spool or a quarantine, a ``DurableSink``.
        name: the sink's name in the ledger.
        options: the options of the delivery; the caller of :meth:`put` decides how long it
            waits, instead of ``block_timeout``.

    Attributes:
        accepted: the number of records that :meth:`put` and :meth:`refuse` have counted.
    """

    def __init__(self, sink: Sink[Any], *, name: str, options: DeliveryOptions) -> None:
        # put() waits for space before it takes the lock, so the intake itself need not wait.
        super().__init__(sink, name=name, options=replace(options, block_timeout=0.0))

    def _reset(self) -> None:
        super()._reset()
        self.accepted = 0
        self._counting = native.RLock()  # re-entrant: a signal handler may count, too
        self._lock = native.Lock()
        self._holder = 0  # the ident of the thread that holds the lock
        self._arrived: deque[Sequence[LogRecord]] = deque()

    def put(self, records: Sequence[LogRecord], patience: float = 0.0) -> bool:
        """Put records, whose ``size`` is set, into the backlog or the spool.  Never raises.

        Records for which there is no space are dropped and counted.

        Args:
            records: the records.
            patience: the longest time that the call may wait for space, in seconds.  The call
                waits only if the overflow policy waits.

        Returns:
            False if the queue is closing, so that its threads may have ended.  The records are
            not counted then.
        """
        if self.state.deadline is not None:
            return False
        deadline = monotonic() + patience
        for portion in self._portions(records):
            if patience > 0:
                lowest = min([record.severity_number for record in portion])
                self.intake.wait_for_room(_size(portion), lowest, deadline - monotonic())
            self._put(portion)
        return True

    def _portions(self, records: Sequence[LogRecord]) -> Iterator[Sequence[LogRecord]]:
        """Divide records into portions that are small, compared with the backlog's capacity.

        Batches in flight use up to half of the capacity.  While a small portion has no room,
        the backlog therefore has records that can move to the spool, so waiting makes sense.
        """
        most = self.options.capacity // _PORTIONS
        start = size = 0
        for end, record in enumerate(records):
            size += record.size + ITEM_OVERHEAD
            if size > most and end > start:
                yield records[start:end]
                start, size = end, record.size + ITEM_OVERHEAD
        if len(records) > start:
            yield records[start:]

    def _put(self, records: Sequence[LogRecord]) -> None:
        self._arrived.append(records)
        # A signal handler or a finaliser may call this method while its thread holds the lock.
        # Then the interrupted call takes in the records.
        while self._arrived and self._holder != native.get_ident():
            with self._lock:
                self._holder = native.get_ident()
                try:
                    self._take_in()
                finally:
                    self._holder = 0

    def _take_in(self) -> None:
        while self._arrived:
            records = self._arrived.popleft()
            self._accept(len(records))
            self.offer(records)

    def refuse(self, reason: str, severities: Sequence[int]) -> None:
        """Count records that do not enter the queue as accepted, and as dropped for ``reason``."""
        self._accept(len(severities))
        self.intake.refuse(reason, severities)

    def _accept(self, count: int) -> None:
        with self._counting:
            # A signal handler cannot interrupt the addition, because it calls no function.
            self.accepted += count

    def stats(self) -> Stats:
        """Return a snapshot of the ledger.  Does not block."""
        return self.state.stats(lambda: self.accepted, Drops())


def _size(records: Sequence[LogRecord]) -> int:
    return sum([record.size for record in records]) + ITEM_OVERHEAD * len(records)
