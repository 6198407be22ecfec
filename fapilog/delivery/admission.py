"""Decides whether a record may enter a store, which is the queue or a sink's backlog.

Each store reserves some of its space for severe records, so less severe records are refused
before the store is full.  A record that has entered is never removed to make space for another
record.  So the decision needs one comparison and no lock.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from fapilog.severity import INFO, WARN

#: ``block`` waits for space in the store for a limited time.  ``drop_newest`` refuses records
#: while the store is full.  ``drop_lowest`` refuses less severe records before the store is
#: full.  ``spill`` waits while older records move to the spool, and acts like ``drop_lowest``
#: if the spool accepts no records.
OverflowPolicy: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]

_PERCENT_RESERVED: Final = 10
_PERCENT_RESERVED_FROM_INFO: Final = 15
_PERCENT_RESERVED_FROM_DEBUG: Final = 30


class Admission:
    """Limits how full a store may be when a record enters, by the record's severity.  Immutable.

    Args:
        capacity: the size of the store, in the unit that the caller counts in.
        policy: the overflow policy.  Under ``drop_lowest`` and ``spill``, DEBUG
            and TRACE may not use the last 30 %, and other records below
            ``protect`` may not use the last 15 %.
        protect: the severity number from which records may use the whole
            store.  Under every policy, the last 10 % are reserved for them.

    Attributes:
        lowest: the limit for the least severe records.  While the store does not exceed this
            limit, records of every severity may enter.
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
        """Return how full the store may be after a record of this severity has entered.

        The result has the unit of ``capacity``.
        """
        if severity_number >= self._protect:
            return self.capacity
        return self._middle if severity_number >= INFO else self.lowest
