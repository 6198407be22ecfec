"""Decides which records may enter a store that fills up: the queue or a sink's backlog.

Every store keeps a reserve for severe records.  No record is removed to make
room: less severe records have a lower limit, so admission costs one comparison
and takes no lock.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from fapilog.severity import INFO, WARN

#: ``block`` waits for room, up to a given time.  ``drop_newest`` refuses records
#: while the store is full.  ``drop_lowest`` refuses less severe records earlier.
#: ``spill`` writes to the spool and waits for it as ``block`` does; if the spool
#: has no room, it acts like ``drop_lowest``.
OverflowPolicy: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]

_RESERVE: Final = 10  # a tenth of the store
_LOWER: Final = 15  # percent that INFO may not use under drop_lowest
_LOWEST: Final = 30  # percent that DEBUG and TRACE may not use


class Admission:
    """Limits how full a store may be for a record of each severity.  Immutable.

    Args:
        capacity: the size of the store, in any unit.
        policy: the overflow policy.  Under ``drop_lowest`` and ``spill``, DEBUG
            and TRACE may not use the last 30 %, and other records below
            ``protect`` may not use the last 15 %.
        protect: the severity number from which records may use the whole
            store; the last tenth is reserved for them under every policy.

    Attributes:
        lowest: the smallest of all limits; below it every record may enter.
    """

    def __init__(
        self, capacity: int, policy: OverflowPolicy = "drop_newest", protect: int = WARN
    ) -> None:
        self.capacity = capacity
        self._protect = protect
        if policy in {"drop_lowest", "spill"}:
            self._middle = capacity - capacity * _LOWER // 100
            self.lowest = capacity - capacity * _LOWEST // 100
        else:
            self._middle = self.lowest = capacity - capacity // _RESERVE

    def limit(self, severity_number: int) -> int:
        """Return how full the store may be after a record of this severity has entered."""
        if severity_number >= self._protect:
            return self.capacity
        return self._middle if severity_number >= INFO else self.lowest
