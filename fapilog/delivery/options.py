"""The options that decide how one sink's records are kept and sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from fapilog.delivery.circuit import RetryPolicy
from fapilog.severity import WARN

if TYPE_CHECKING:
    from fapilog.delivery.admission import OverflowPolicy
    from fapilog.spool import Quarantine, Spool


#: ``overflow`` uses the disk while the backend is down or slow, or the backlog is filling up.
#: ``always`` writes every record to disk before the record is sent.  ``never`` uses only memory.
SpoolMode: TypeAlias = Literal["overflow", "always", "never"]


@dataclass(frozen=True)
class DeliveryOptions:
    """The options of one sink's delivery.

    Attributes:
        capacity: the bytes that the backlog may hold.
        export_timeout: the seconds that one attempt may take.
        retry: the policy for sending a failed batch again.
        overflow: the policy for a full backlog.
        block_timeout: the longest wait for space in a full backlog, in seconds.  The wait
            delays every sink.
        protect: the severity number from which records may use the whole
            backlog.
        spool: the opened spool, or None to keep records only in memory.
        spool_mode: the rule that decides when records go to the spool.
        quarantine: the store for batches that the backend refuses for good.
    """

    capacity: int = 64 << 20
    export_timeout: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    overflow: OverflowPolicy = "drop_lowest"
    block_timeout: float = 1.0
    protect: int = WARN
    spool: Spool | None = None
    spool_mode: SpoolMode = "overflow"
    quarantine: Quarantine | None = None
