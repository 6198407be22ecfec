"""The clock of every deadline and interval in fapilog.

Test tools such as freezegun and time-machine stop ``time.monotonic``: they
replace the function in the modules that imported it, or inside ``time``.  A
deadline on a stopped clock never comes, so waiting code would wait for ever.
They leave ``time.clock_gettime(CLOCK_MONOTONIC)`` alone, and a ``partial``
is not what they look for.  The time of an event is not taken from here: tests
freeze it on purpose.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Windows has no clock_gettime: time that is frozen before the import stops this clock too.
monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else partial(time.monotonic)
)
