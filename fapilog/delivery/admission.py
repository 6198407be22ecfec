"""Decides which records may enter the queue or a sink's backlog while it fills up.

Every store keeps a reserve for severe records.  No record is removed to make
room: less severe records have a lower limit, so admission costs one comparison
and takes no lock.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from fapilog.severity import INFO, WARN

#: ``block`` waits for space in the store for a limited time.  ``drop_newest`` refuses records
#: while the store is full.  ``drop_lowest`` refuses less severe records earlier.  ``spill``
#: waits while older records move to the spool, and acts like ``drop_lowest`` if the spool
#: accepts none.
OverflowPolicy: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]

_PERCENT_RESERVED: Final = 10
_PERCENT_RESERVED_FROM_INFO: Final = 15
_PERCENT_RESERVED_FROM_DEBUG: Final = 30


class Admission:
    """Limits how full a store may be for a record of each severity.  Immutable.

    Args:
        capacity: the size of the store, in the unit that the caller counts in.
        policy: the overflow policy.  Under ``drop_lowest`` and ``spill``, DEBUG
            and TRACE may not use the last 30 %, and other records below
            ``protect`` may not use the last 15 %.
        protect: the severity number from which records may use the whole
            store.  Under every policy, the last 10 % are reserved for them.

    Attributes:
        lowest: the smallest limit; a record of any severity may enter up to it.
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
        """Return the level up to which a record of this severity may fill the store."""
        if severity_number >= self._protect:
            return self.capacity
        return self._middle if severity_number >= INFO else self.lowest
