"""The circuit of one sink: closed while its backend takes records, open while it does not.

All delivery threads of a sink share one.  While it is open they hold back but
for one that probes now and then with the batch it has (half-open); the first
success closes it for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fapilog import native
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.delivery.retry import RetryPolicy

State: TypeAlias = Literal["closed", "open", "half_open"]

#: Longest backoff of our own once a shutdown has begun, seconds.
_CLOSING_DELAY: Final = 0.25
#: Seconds until a thread that may not probe looks again.
_OTHERS: Final = 1.0


class Circuit:
    """Says who may send, and when.  Thread-safe; never blocks.

    Args:
        retry: how the time between probes grows.
        probe_timeout: seconds after which another thread may probe, should
            the first not come back.
        clock: seconds of a monotonic clock.

    Attributes:
        failures: consecutive ones; 0 while closed.
        opened_at: when the first of them happened, by ``clock``; None while
            closed.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        probe_timeout: float = 60.0,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._retry = retry
        self._probe_timeout = probe_timeout
        self._clock = clock
        self._lock = native.RLock()  # a signal handler may close the sink
        self.failures = 0
        self.opened_at: float | None = None
        self._probe_at = 0.0
        self._prober: int | None = None
        self._probing_until = 0.0
        self._asked = False  # the backend itself named the time
        self._hurried = False

    @property
    def state(self) -> State:
        """The circuit as it is now."""
        if self.opened_at is None:
            return "closed"
        return "open" if self._prober is None else "half_open"

    @property
    def open_for(self) -> float:
        """Seconds since it opened; 0.0 while closed."""
        opened_at = self.opened_at
        return 0.0 if opened_at is None else self._clock() - opened_at

    def enter(self) -> float:
        """Return the seconds to wait before asking again; 0.0 to send now.

        Who was let in tells the result by :meth:`succeed` or :meth:`fail`.
        """
        with self._lock:
            if not self.failures:
                return 0.0
            now = self._clock()
            if self._prober is not None and now < self._probing_until:
                return _OTHERS
            if now < self._probe_at:
                return self._probe_at - now
            self._prober = native.get_ident()
            self._probing_until = now + self._probe_timeout
            return 0.0

    def succeed(self) -> None:
        """The backend has answered, be it that it refuses this batch for good."""
        with self._lock:
            self.failures = 0
            self.opened_at = self._prober = None

    def fail(self, retry_after: float | None = None) -> None:
        """The backend could not be reached or cannot take records now.

        Args:
            retry_after: seconds it asked to wait, or None.
        """
        with self._lock:
            if self.failures and self._prober != native.get_ident():
                return  # sent before the circuit opened: known already
            self.failures += 1
            self._prober = None
            if self.opened_at is None:
                self.opened_at = self._clock()
            self._asked = retry_after is not None
            self._probe_at = self._clock() + self._retry.delay(self.failures, retry_after)
            if self._hurried:
                self.hurry()

    def hurry(self) -> None:
        """From now on cut the backoff short, for a shutdown; a backend's wish still holds."""
        with self._lock:
            self._hurried = True
            if not self._asked:
                self._probe_at = min(self._probe_at, self._clock() + _CLOSING_DELAY)
