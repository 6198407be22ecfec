"""A circuit breaker for the delivery threads of one sink, and the wait before each retry.

All delivery threads of a sink share one circuit.  The circuit is closed while the backend
answers.  The first failure opens the circuit.  While the circuit is open, the threads wait, and
after each wait, one thread may send its batch as a probe (half-open).  The first success closes
the circuit for all threads.

If the backend sends ``Retry-After``, this value replaces the exponential backoff, as specified
in https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

#: The longest wait before a probe during a shutdown, in seconds, unless the backend sent
#: ``Retry-After``.
_CLOSING_DELAY: Final = 0.25
#: Seconds after which a thread asks again whether it may send, while another thread's probe is
#: running.
_WHILE_PROBING: Final = 1.0


@dataclass(frozen=True)
class RetryPolicy:
    """The wait before each retry: exponential backoff with full jitter.

    Attributes:
        initial: the upper bound of the first wait, in seconds.  The bound doubles with
            each attempt.
        maximum: the upper bound of every wait, in seconds, even if the backend's
            ``Retry-After`` is longer.
        unknown_attempts: the number of failed attempts after which records are dropped.  Only
            attempts that raised neither ``RetryableError`` nor ``PermanentError`` are counted.
    """

    initial: float = 1.0
    maximum: float = 30.0
    unknown_attempts: int = 5

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            attempt: the number of failed attempts so far, at least 1.
            retry_after: the wait in seconds that the backend asked for, or None.
        """
        bound = min(self.initial * 2.0 ** min(attempt - 1, 32), self.maximum)
        least = bound / 20  # avoids a busy loop if the backend asks for 0 seconds
        if isinstance(retry_after, (int, float)):  # a custom sink may pass any type
            return min(max(least, retry_after), self.maximum)  # for NaN, max() returns least
        return random.uniform(least, bound)  # noqa: S311 - only spreads load


class Circuit:
    """A circuit breaker: decides which thread may send, and when.  Thread-safe; never blocks.

    Args:
        retry: the policy that sets the time between probes.
        probe_timeout: the seconds after which another thread may send a probe if the first
            probe still has no result.
        clock: a monotonic clock, which tests replace.

    Attributes:
        failures: the number of consecutive failures; 0 while the circuit is closed.
        opened_at: the time when the circuit was opened, read from ``clock``; None while the
            circuit is closed.
        access_denied: whether the latest attempt failed because the backend refused the
            credentials.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        probe_timeout: float = 60.0,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.retry = retry
        self._probe_timeout = probe_timeout
        self._clock = clock
        self._lock = native.RLock()  # re-entrant: a signal handler may call shutdown()
        self.failures = 0
        self.opened_at: float | None = None
        self.access_denied = False
        self._probe_at = 0.0
        self._prober: int | None = None
        self._probing_until = 0.0
        self._is_retry_after = False  # whether the backend's Retry-After set _probe_at
        self._hurried = False

    def enter(self) -> float:
        """Return 0.0 if this thread may send now, or the seconds to wait before the next call.

        After sending, the thread must call :meth:`succeed` or :meth:`fail`.
        """
        with self._lock:
            if not self.failures:
                return 0.0
            now = self._clock()
            if self._prober is not None and now < self._probing_until:
                return _WHILE_PROBING
            if now < self._probe_at:
                return self._probe_at - now
            self._prober = native.get_ident()
            self._probing_until = now + self._probe_timeout
            return 0.0

    def succeed(self) -> None:
        """Close the circuit, because the backend has answered by accepting or refusing records."""
        with self._lock:
            self.failures = 0
            self.access_denied = False
            self.opened_at = self._prober = None

    def fail(self, retry_after: float | None = None, *, access_denied: bool = False) -> None:
        """Open the circuit, or set the time of the next probe if the circuit is already open.

        Args:
            retry_after: the wait in seconds that the backend asked for, or None.
            access_denied: whether the backend refused the credentials.
        """
        with self._lock:
            self.access_denied = access_denied
            if self.failures and self._prober != native.get_ident():
                return  # only the failure of the current probe delays the next probe
            self.failures += 1
            self._prober = None
            if self.opened_at is None:
                self.opened_at = self._clock()
            self._is_retry_after = retry_after is not None
            self._probe_at = self._clock() + self.retry.delay(self.failures, retry_after)
            if self._hurried:
                self.hurry()

    def hurry(self) -> None:
        """Shorten the waits before probes, because a shutdown has begun.

        A wait that the backend asked for with ``Retry-After`` is not shortened.
        """
        with self._lock:
            self._hurried = True
            if not self._is_retry_after:
                self._probe_at = min(self._probe_at, self._clock() + _CLOSING_DELAY)
