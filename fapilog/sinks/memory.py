"""Keeps the newest records in memory, for tests and for a look at the recent past.

The sink does not encode: its items are the records themselves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fapilog import native
from fapilog.errors import ConfigurationError
from fapilog.protocols import BatchLimits, Sink
from fapilog.record import LogRecord

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemorySink(Sink[LogRecord]):
    """A bounded list of the newest records.

    Args:
        capacity: the number of records to keep, at least 1; the sink drops the oldest.
        name: the sink's name in counts and announcements.

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
        """The records in a new list, oldest first; the records are shared."""
        with self._lock:
            return list(self._records)

    @property
    def dropped(self) -> int:
        """The number of records that were dropped because newer ones needed the room."""
        with self._lock:
            return self._dropped

    def clear(self) -> None:
        """Forget all records and the count of dropped ones."""
        with self._lock:
            self._records.clear()
            self._dropped = 0

    def open(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: ``capacity`` is not a whole number above 0.
        """
        if type(self._capacity) is not int or self._capacity < 1:
            msg = f"capacity={self._capacity!r} of sink {self.name!r}: use a whole number above 0"
            raise ConfigurationError(msg)

    def encode(self, record: LogRecord) -> LogRecord:
        """Return ``record`` itself."""
        return record

    def send(self, batch: Sequence[LogRecord], timeout: float) -> None:  # noqa: ARG002 - never waits
        """Keep the records of ``batch``.  Never blocks or fails."""
        with self._lock:
            self._records.extend(batch)
            while len(self._records) > self._capacity:
                self._records.popleft()
                self._dropped += 1

    def after_fork(self) -> None:
        """Forget the records, which belong to the parent."""
        self._lock = native.Lock()
        self._records = deque()
        self._dropped = 0
