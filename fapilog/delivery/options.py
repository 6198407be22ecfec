"""How the records of one sink are kept and sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fapilog.delivery.retry import RetryPolicy
from fapilog.severity import WARN

if TYPE_CHECKING:
    from fapilog.delivery.overflow import OverflowPolicy
    from fapilog.delivery.spooling import SpoolMode
    from fapilog.spool import Quarantine, Spool


@dataclass(frozen=True)
class DeliveryOptions:
    """Options of a sending queue.

    Attributes:
        capacity: bytes the backlog may hold.
        export_timeout: seconds one attempt may take.
        retry: when a failed batch is tried again.
        overflow: what a full backlog does; what is refused is counted as
            ``backlog_full``.
        block_timeout: seconds that ``block``, and ``spill`` for a busy disk,
            wait at most for room, delaying every sink.
        protect: severity number from which the whole backlog may be used.
        spool: opened; None keeps records in memory only.
        spool_mode: when it is used.
        quarantine: for batches that are refused for good.
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
