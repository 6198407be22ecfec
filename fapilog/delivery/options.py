"""The options for buffering and sending the records of one sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from fapilog.delivery.circuit import RetryPolicy
from fapilog.severity import WARN

if TYPE_CHECKING:
    from fapilog.delivery.admission import OverflowPolicy
    from fapilog.spool import Quarantine, Spool


#: The mode of the spool, which is a queue on disk.  ``overflow`` writes records to disk while
#: the backend is down or slow, or while the queue in memory is filling up.  ``always`` writes
#: every record to disk before the record is sent.  ``never`` uses only memory.
SpoolMode: TypeAlias = Literal["overflow", "always", "never"]


@dataclass(frozen=True)
class DeliveryOptions:
    """The options of one sink's delivery.

    Attributes:
        capacity: the maximum size of the sink's backlog (the queue in memory), in bytes.
        export_timeout: the time limit for one attempt to send a batch, in seconds.
        retry: the policy for sending a failed batch again.
        overflow: the policy for a full backlog.
        block_timeout: the longest wait for space in a full backlog, in seconds.  The wait
            delays every sink, because one thread fills the backlogs of all sinks.
        protect: the lowest severity number of the records that may use the full backlog.
        spool: the opened queue on disk, or None to buffer records only in memory.
        spool_mode: the rule that decides when records are written to the spool.
        quarantine: the store on disk for batches that the backend refuses permanently, or None
            to discard these batches.
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
