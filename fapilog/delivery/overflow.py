"""Who may still enter a store that fills up: the queue, and each sink's backlog.

Every store keeps a reserve for the severities that matter.  Nothing is ever
taken out again to make room, so admission costs one comparison and no lock:
what is less important simply finds the store full earlier.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from fapilog.severity import INFO, WARN

#: ``block`` waits for room, at most a given time; ``drop_newest`` refuses what
#: comes on top; ``drop_lowest`` refuses the less severe earlier; ``spill``
#: writes to the spool, for which it waits as ``block`` does, and where that has
#: no room does as ``drop_lowest``.
OverflowPolicy: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]

_RESERVE: Final = 10  # a tenth of the store
_LOWER: Final = 15  # percent kept from INFO under drop_lowest
_LOWEST: Final = 30  # percent kept from DEBUG and TRACE


class Admission:
    """How full a store may be for a record of some severity.  Immutable.

    Args:
        capacity: what the store holds, in any unit.
        policy: ``drop_lowest`` and ``spill`` keep 30 % from DEBUG and TRACE
            and 15 % from what is between them and ``protect``.
        protect: severity number from which records may use the whole store;
            the last tenth is theirs under every policy.

    Attributes:
        lowest: the smallest of all limits; below it everybody may enter.
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
        """Return how much the store may hold for this severity to enter."""
        if severity_number >= self._protect:
            return self.capacity
        return self._middle if severity_number >= INFO else self.lowest
