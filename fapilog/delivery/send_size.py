"""How many records one attempt carries: fewer while the backend is too slow for more.

A batch that always takes longer than the time limit would be sent for ever, and
all that waits for it with it.  Half of it has a chance.
"""

from __future__ import annotations

from typing import Final

_NO_LIMIT: Final = 1 << 20
#: The size is doubled after an attempt that took less than this part of the time limit.
_SPARE: Final = 1 / 3
#: Seconds that count as the time limit at least: a connection that is lost at once
#: says nothing of how long an answer may take.
_LEAST: Final = 1.0


class SendSize:
    """The size of a sink's attempts.  Its threads share it without a lock: it is a guess.

    Attributes:
        most: records one attempt may carry.
    """

    def __init__(self) -> None:
        self.most = _NO_LIMIT
        self._limit = _LEAST

    def shrink(self, count: int, seconds: float) -> None:
        """Note that ``count`` records were not answered within ``seconds``."""
        self._limit = max(seconds, _LEAST)
        self.most = max(min(self.most, count) // 2, 1)

    def grow(self, count: int, seconds: float) -> None:
        """Note that ``count`` records were answered within ``seconds``."""
        if count * 2 > self.most and seconds < self._limit * _SPARE:
            self.most = min(self.most * 2, _NO_LIMIT)
