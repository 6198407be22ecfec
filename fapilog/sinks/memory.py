"""Defines ``MemorySink``, which stores the newest records in memory without encoding them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fapilog import native
from fapilog.options.checks import whole
from fapilog.protocols import BatchLimits, Sink
from fapilog.record import LogRecord

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemorySink(Sink[LogRecord]):
    """Stores the newest records in a list of limited length, for tests and for inspection.

    Args:
        capacity: the maximum number of records, at least 1.  When the list is full, the sink
            drops the oldest record for each new one.
        name: the sink's name in statistics and diagnostic messages.

    ``records``, ``dropped`` and ``clear`` are thread-safe and do not block.
    """

    limits = BatchLimits(delay=0)

    def __init__(self, *, capacity: int = 10_000, name: str = "memory") -> None:
        self.name = name
        self._capacity = capacity
        self._lock = native.Lock()
        self._records: deque[LogRecord] = deque()
        self._dropped = 0

    @property
    def records(self) -> list[LogRecord]:
        """The stored records, oldest first.  Each access returns a new list."""
        with self._lock:
            return list(self._records)

    @property
    def dropped(self) -> int:
        """The number of records that the sink has dropped because it was full."""
        with self._lock:
            return self._dropped

    def clear(self) -> None:
        """Discard all records and reset the count of dropped records."""
        with self._lock:
            self._records.clear()
            self._dropped = 0

    def open(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: ``capacity`` is not a whole number above 0.
        """
        whole(1, unit="records").check("capacity", self._capacity, f"sink {self.name!r}")

    def encode(self, record: LogRecord) -> LogRecord:
        """Return ``record`` itself, because this sink stores records without encoding them."""
        return record

    def send(self, batch: Sequence[LogRecord], timeout: float) -> None:  # noqa: ARG002 - never waits
        """Add the records of ``batch`` to the list.  Never blocks or fails."""
        with self._lock:
            self._records.extend(batch)
            while len(self._records) > self._capacity:
                self._records.popleft()
                self._dropped += 1

    def after_fork(self) -> None:
        """In a forked child, discard the records, which belong to the parent process."""
        self._lock = native.Lock()
        self._records = deque()
        self._dropped = 0
