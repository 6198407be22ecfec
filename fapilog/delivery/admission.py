"""Decides whether a record may enter a bounded queue.

``Admission`` is used for the pipeline's queue and for each sink's backlog.  Some space of a queue
is reserved for severe records, so less severe records are refused before the queue is full.  A
queued record is never removed to make space for another record.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from fapilog.severity import INFO, WARN

#: The policy for a queue without enough space for a new record.  ``block`` waits for space, for
#: a limited time.  ``drop_newest`` drops the new record.  ``drop_lowest`` also drops new records
#: of low severity before the queue is full.  ``spill`` waits while older records are moved to
#: the spool on disk, and acts like ``drop_lowest`` if the spool accepts no records.
OverflowPolicy: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]

_PERCENT_RESERVED: Final = 10
_PERCENT_RESERVED_FROM_INFO: Final = 15
_PERCENT_RESERVED_FROM_DEBUG: Final = 30


class Admission:
    """Limits how full a queue may become, depending on a new record's severity.  Immutable.

    Args:
        capacity: the maximum size of the queue, in records or bytes.
        policy: the overflow policy.  Under ``drop_lowest`` and ``spill``, DEBUG and TRACE
            records may not use the last 30 % of the capacity, and other records below
            ``protect`` may not use the last 15 %.
        protect: the lowest severity number of the records that may use the full capacity.
            Under every policy, at least the last 10 % are reserved for these records.

    Attributes:
        lowest: the limit for the least severe records.  A record of any severity may enter if
            the size of the queue, including this record, does not exceed this limit.
    """

    def __init__(
        self, capacity: int, policy: OverflowPolicy = "drop_newest", protect: int = WARN
    ) -> None:
        self.capacity = capacity
        self._protect = protect
        if policy in {"drop_lowest", "spill"}:
            self._middle = capacity - capacity * _PERCENT_RESERVED_FROM_INFO // 100
            self.lowest = capacity - capacity * _PERCENT_RESERVED_FROM_DEBUG // 100
        else:
            self._middle = self.lowest = capacity - capacity * _PERCENT_RESERVED // 100

    def limit(self, severity_number: int) -> int:
        """Return the size that the queue may reach when a record of this severity enters.

        The result is in records or bytes, like ``capacity``.
        """
        if severity_number >= self._protect:
            return self.capacity
        return self._middle if severity_number >= INFO else self.lowest
