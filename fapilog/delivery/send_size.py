"""How many records one attempt carries: fewer while the backend is too slow for more.

A batch that always takes longer than the time limit would be sent again and again,
and every later batch would wait for it.  Half of the batch has a chance.  A larger
size is tried again after some answers in time, and less often each time it fails:
every failure costs the whole time limit, and copies in the backend.
"""

from __future__ import annotations

from typing import Final

_NO_LIMIT: Final = 1 << 20
#: Answers in time that it takes to double the size, at least and at most.
_FEWEST: Final = 4
_MOST: Final = 256
#: The size is doubled only after answers that took less than this part of the time limit.
_SPARE: Final = 1 / 3
#: Seconds that count as the time limit at least: a connection that is lost at once
#: tells nothing about the time an answer may take.
_LEAST: Final = 1.0


class SendSize:
    """The size of a sink's attempts.  Its threads share it without a lock: it is a guess.

    Attributes:
        most: records one attempt may carry.
    """

    def __init__(self) -> None:
        self.most = _NO_LIMIT
        self._limit = _LEAST
        self._answers = 0  # in time, of attempts of this size
        self._needed = _FEWEST
        self._has_grown = False  # by the last change

    def shrink(self, count: int, seconds: float) -> None:
        """Note that ``count`` records were not answered within ``seconds``."""
        self._limit = max(seconds, _LEAST)
        self.most = max(min(self.most, count) // 2, 1)
        self._answers = 0
        if self._has_grown:
            self._has_grown = False
            self._needed = min(self._needed * 4, _MOST)

    def grow(self, count: int, seconds: float) -> None:
        """Note that ``count`` records were answered within ``seconds``."""
        if self.most == _NO_LIMIT or count * 2 <= self.most or seconds >= self._limit * _SPARE:
            return
        self._answers += 1
        if self._answers < self._needed:
            return
        if self._has_grown:
            self._needed = max(self._needed // 4, _FEWEST)
        self.most = min(self.most * 2, _NO_LIMIT)
        self._answers = 0
        self._has_grown = True
