"""Carries one batch to the sink until each of its records is settled.

What a backend's answer asks for happens here: try again later, send smaller
parts, find the records it refuses and put those in quarantine.  One sender
serves all delivery threads of a sink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.send_size import SendSize
from fapilog.diagnostics import announce, describe
from fapilog.errors import (
    AccessDeniedError,
    InvalidDataError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.native import monotonic
from fapilog.protocols import Outcome, Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.delivery.backlog import Batch
    from fapilog.delivery.circuit import Circuit
    from fapilog.delivery.ledger import SinkLedger

#: How often a batch is cut in two before the rest of it is refused whole: a
#: backend that takes nothing must not be asked for every single record.
_MAX_CUTS: Final = 256
#: Seconds between two looks at the circuit and at the end.
_LOOK: Final = 0.1


class Sender:
    """One sink's way to its backend.  Thread-safe.

    Args:
        sink: opened; its ``send`` is called by as many threads as call
            :meth:`deliver`.
        name: of the sink, in announcements.
        circuit: shared by these threads.
        settled: called with a batch and how many more of its records are
            settled, before they are counted; in the end no part is left.
        export_timeout: seconds one attempt may take.
        unknown_attempts: for an error that the sink did not classify.
        keep: puts a refused batch in quarantine, given with the reason; False
            when that has no room.  None: there is no quarantine.

    Attributes:
        ledger: counts what becomes of the records.
        lock: held while something is counted.
        abandoned: once True nothing is sent or counted here any more.
        deadline: ``monotonic()`` after which nothing is sent.
        rest_is_safe: whether what is left at the end goes to disk, so that an
            open circuit is no reason to wait for the deadline.
        access_denied: whether the backend refuses our credentials now.
    """

    def __init__(
        self,
        sink: Sink[Any],
        name: str,
        circuit: Circuit,
        ledger: SinkLedger,
        settled: Callable[[Batch, int], None],
        *,
        export_timeout: float,
        unknown_attempts: int,
        keep: Callable[[Batch, str], bool] | None = None,
    ) -> None:
        self._sink = sink
        self._name = name
        self._circuit = circuit
        self.ledger = ledger
        self._settled = settled
        self._export_timeout = export_timeout
        self._unknown_attempts = unknown_attempts
        self._keep = keep
        self.lock = native.RLock()  # a signal handler may close what is being closed
        self.abandoned = False
        self.deadline: float | None = None
        self.rest_is_safe = False
        self.access_denied = False
        self._size = SendSize()

    def deliver(self, batch: Batch) -> None:
        """Send ``batch.parts``, blocking until they are settled or everything is abandoned.

        Never raises.  What is left at the end stays in ``batch.parts``, for
        whoever closes to count it and take it out.
        """
        part = batch
        cuts = unknown = 0
        while batch.parts and self._wait_for_turn():
            head = self._next_part(batch)
            if head is not None and head is not part:
                part, unknown = head, 0
            try:
                outcome = self._attempt(part)
            except (TooLargeError, InvalidDataError) as error:
                self._answered()
                if len(part) > 1 and cuts < _MAX_CUTS:
                    cuts += 1
                    with self.lock:
                        batch.parts[:1] = part.halves()
                else:
                    self._refuse(batch, part, describe(error))
            except PermanentError as error:
                self._answered()
                self._refuse(batch, part, describe(error))
            except RetryableError as error:
                self._failed(error)
            except BaseException as error:  # noqa: BLE001 - the thread outlives any sink's code
                unknown += 1
                if unknown < self._unknown_attempts:
                    self._failed(error)
                    continue
                self._answered()  # or the next batch would wait as well
                self._settle(batch, dropped="sink_error", message=describe(error))
            else:
                self._answered()
                self._settle(batch, rejected=outcome.rejected, message=outcome.message)

    def _wait_for_turn(self) -> bool:
        """Wait until the circuit lets this thread send; False when nothing is sent any more."""
        while not self.abandoned:
            wait = self._circuit.enter()
            if wait <= 0:
                return True
            deadline = self.deadline
            if deadline is not None and (self.rest_is_safe or monotonic() >= deadline):
                return False
            # In short naps: waking by lock or event is not safe in signal handlers.
            native.sleep(min(wait, _LOOK))
        return False

    def _next_part(self, batch: Batch) -> Batch | None:
        """Return the first part, cut to the size of an attempt; None if a handler took it."""
        most = self._size.most
        parts = batch.parts[:1]
        while parts and len(parts[0]) > most:
            with self.lock:
                batch.parts[:1] = parts[0].halves() if batch.parts else ()
            parts = batch.parts[:1]
        return parts[0] if parts else None

    def _attempt(self, part: Batch) -> Outcome:
        left = self._export_timeout
        if self.deadline is not None:
            left = min(left, max(self.deadline - monotonic(), 0.001))
        began = monotonic()
        try:
            answer = self._sink.send(part.items, left)
        except NoAnswerError:
            self._size.shrink(len(part), monotonic() - began)
            self._count_copies(part)
            part.may_be_there = True
            raise
        finally:
            seconds = monotonic() - began
            with self.lock:
                self.ledger.observe_send(seconds)
        self._size.grow(len(part), seconds)
        self._count_copies(part)
        return _outcome(answer)

    def _count_copies(self, part: Batch) -> None:
        """Count records that the backend has taken, or may have, for a second time."""
        if part.may_be_there:
            with self.lock:
                self.ledger.resent += len(part)

    def _answered(self) -> None:
        self.access_denied = False
        self._circuit.succeed()

    def _failed(self, error: BaseException) -> None:
        name = self._name
        self.access_denied = isinstance(error, AccessDeniedError)
        if self.access_denied:
            announce(
                f"access {name}",
                f"{name}: ALARM: the backend refuses our credentials, records are kept and "
                f"tried again: {describe(error)}",
            )
        else:
            announce(f"retry {name}", f"{name}: will try again: {describe(error)}")
        with self.lock:
            self.ledger.retries += 1
        is_wish = isinstance(error, RetryableError)
        self._circuit.fail(getattr(error, "retry_after", None) if is_wish else None)

    def _refuse(self, batch: Batch, part: Batch, reason: str) -> None:
        """Put the first part in quarantine, or count it as rejected."""
        if self._keep is not None and self._keep(part, reason):
            self._settle(batch, quarantined=True, message=reason)
        else:
            self._settle(batch, rejected=len(part), message=reason)

    def _settle(
        self,
        batch: Batch,
        *,
        rejected: int = 0,
        quarantined: bool = False,
        dropped: str = "",
        message: str = "",
    ) -> None:
        """Count the first part of ``batch`` and take it out."""
        name, ledger = self._name, self.ledger
        with self.lock:
            if self.abandoned:
                return
            try:
                part = batch.parts.pop(0)  # who takes a part out counts it
            except IndexError:  # a signal handler came before, and has closed
                return
            count = len(part)
            self._settled(batch, count)
            if dropped:
                ledger.drops.add_all(dropped, part.severities)
            elif quarantined:
                ledger.quarantined += count
            else:
                rejected = min(max(rejected, 0), count)
                ledger.rejected += rejected
                ledger.delivered += count - rejected
        if quarantined:
            announce(
                f"quarantine {name}",
                f"{name}: {count} records refused for good are in quarantine: {message}",
            )
        elif rejected or dropped:
            announce(f"rejected {name}", f"{name}: {rejected or count} records lost: {message}")
        elif message:
            announce(f"warning {name}", f"{name}: {message}")


def _outcome(answer: object) -> Outcome:
    """Return what a sink answered.  It did not raise, so it took the batch in any case."""
    if (
        isinstance(answer, Outcome)
        and isinstance(answer.rejected, int)
        and isinstance(answer.message, str)
    ):
        return answer
    return Outcome()
