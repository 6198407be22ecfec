"""When to try a failed batch again: exponential backoff with full jitter.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling (the
backend's own wish wins over the backoff).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds to wait before each further attempt.

    Attributes:
        initial: upper bound of the first wait.
        maximum: upper bound of every wait, a backend's wish included.
        multiplier: growth of the bound from one attempt to the next.
        unknown_attempts: attempts for an error that no sink classified; a
            classified retryable one is tried as long as there is room.
    """

    initial: float = 1.0
    maximum: float = 30.0
    multiplier: float = 2.0
    unknown_attempts: int = 5

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the wait before attempt ``attempt + 1``; attempts count from 1.

        A ``retry_after`` that is no number counts as None.
        """
        bound = min(self.initial * self.multiplier ** min(attempt - 1, 32), self.maximum)
        least = bound / 20  # never a busy loop, even for a backend that asks for 0 seconds
        if (type(retry_after) is int or type(retry_after) is float) and not math.isnan(retry_after):
            return min(max(retry_after, least), self.maximum)
        return random.uniform(least, bound)  # noqa: S311 - spreads load, guards nothing
