"""The equation that every ledger satisfies, and a wait for other threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from fapilog.delivery.ledger import Stats


def balanced(stats: Stats) -> bool:
    """Whether every record is accounted for once, in total and by sink."""
    settled = stats.delivered + stats.rejected + stats.dropped + stats.quarantined
    return (
        stats.accepted == settled + stats.spooled + stats.pending
        and min(settled, stats.spooled, stats.pending) >= 0
        and stats.dropped == sum(sum(by.values()) for by in stats.drops.values())
        and all(map(balanced, stats.sinks.values()))
    )


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.002)
