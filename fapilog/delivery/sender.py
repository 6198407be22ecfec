"""Sends one batch until the backend has accepted or refused each record, or the record is dropped.

The backend's answer decides the next step: send the batch again after a wait, split the batch,
or isolate the records that the backend refuses.

A sink's delivery threads, the exporters for an OpenTelemetry SDK and the command
``fapilog spool replay`` use this module.  Each of them uses a different subclass of
:class:`Delivery`.  The subclass decides how long to wait, how to handle refused records, and what
to count.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.circuit import Circuit
from fapilog.diagnostics import announce
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
    from fapilog.delivery.backlog import Batch
    from fapilog.delivery.circuit import RetryPolicy

#: The maximum number of times that a batch is split.  After that, refused records are dropped
#: or quarantined without further splits, so that a backend that refuses everything does not get
#: one request per record.
MAX_CUTS: Final = 256

#: The number of records that are sent singly after the backend has refused a large batch, to
#: find out whether the backend refuses every record.
SAMPLES: Final = 16
#: A refused batch with at least this number of records is sampled: some of its records are sent
#: singly.  A smaller refused batch is split into halves without sampling.
_MIN_SAMPLED: Final = 4 * SAMPLES
#: Matches the parts of a backend's error message that may differ between records: quoted text,
#: text in braces, and words that contain digits.
_VARIES: Final = re.compile(r"""'[^']*'?|"[^"]*"?|\{[^}]*\}?|\S*\d\S*""")

#: The number of characters of an error message that are compared, to decide whether the backend
#: refused two records for the same reason.
_MAX_REASON: Final = 1000

_NO_LIMIT: Final = 1 << 20
#: ``SendSize`` doubles its limit after a number of fast answers.  ``_FEWEST`` and ``_MOST`` are
#: the minimum and the maximum of this number.
_FEWEST: Final = 4
_MOST: Final = 256
#: An answer is fast if it arrives within this fraction of the duration of the latest attempt that
#: got no answer.
_FAST: Final = 1 / 3
#: The minimum duration, in seconds, that is assumed for an attempt without an answer.  If the
#: connection broke immediately, the real duration says nothing about the backend's speed.
_LEAST: Final = 1.0


class SendSize:
    """Limits the number of records per attempt while the backend is slow.

    Without this limit, a batch that takes longer than the timeout would be sent again and again.
    An attempt without an answer halves the limit.  Several fast answers double it.  If an attempt
    gets no answer after an increase, the next increase needs more fast answers, because each
    attempt without an answer takes the full timeout and may cause duplicates in the backend.
    A sink's threads share one object without a lock, because the limit is only an estimate.

    Attributes:
        most: the maximum number of records per attempt.
    """

    def __init__(self) -> None:
        self.most = _NO_LIMIT
        self._limit = _LEAST
        self._answers = 0  # the number of fast answers since the last change of `most`
        self._needed = _FEWEST
        self._has_grown = False  # whether the latest change of `most` was an increase

    def shrink(self, count: int, seconds: float) -> None:
        """Lower the maximum number of records per attempt after an attempt without an answer.

        Args:
            count: the number of records in the attempt.
            seconds: the duration of the attempt.
        """
        self._limit = max(seconds, _LEAST)
        self.most = max(min(self.most, count) // 2, 1)
        self._answers = 0
        if self._has_grown:
            self._has_grown = False
            self._needed = min(self._needed * 4, _MOST)

    def grow(self, count: int, seconds: float) -> None:
        """Register an answered attempt, and double the limit after enough fast answers.

        Attempts with at most half of the allowed number of records are ignored.

        Args:
            count: the number of records in the attempt.
            seconds: the duration of the attempt.
        """
        if self.most == _NO_LIMIT or count * 2 <= self.most or seconds >= self._limit * _FAST:
            return
        self._answers += 1
        if self._answers < self._needed:
            return
        if self._has_grown:
            self._needed = max(self._needed // 4, _FEWEST)
        self.most = min(self.most * 2, _NO_LIMIT)
        self._answers = 0
        self._has_grown = True


class Delivery(ABC):
    """The base class of objects that :func:`send_until_settled` uses to deliver to a sink.

    Subclasses define how to wait, what to count, and how to handle refused records.

    Args:
        sink: the opened sink.
        name: the sink's name, used in messages.
        retry: the policy for the waits between attempts.
        probe_timeout: the seconds after which another thread may send a probe; see
            :class:`Circuit`.

    Attributes:
        circuit: the circuit that decides when a thread may send.
        size: the limit on the number of records per attempt.
        lock: the lock that a thread holds while it splits a batch or counts the records that
            the backend accepted or refused.
    """

    def __init__(
        self, sink: Sink[Any], name: str, retry: RetryPolicy, probe_timeout: float = 60.0
    ) -> None:
        self.sink = sink
        self.name = name
        self.circuit = Circuit(retry, probe_timeout)
        self.size = SendSize()
        self.lock = native.RLock()  # re-entrant: a signal handler may call shutdown()

    def announce(self, kind: str, message: str, count: int = 1) -> None:
        """Write a message about the sink to stderr, at most once per ``kind`` every 30 seconds.

        ``count`` is the number of records that the message is about.
        """
        announce(f"{kind} {self.name}", f"{self.name}: {message}", count)

    def announce_lost(self, count: int, why: str) -> None:
        """Write a message that ``count`` records were lost for the reason ``why``."""
        self.announce("rejected", f"{count} records lost: {why}", count)

    def announce_outcome(self, outcome: Outcome) -> None:
        """Write a message about an accepted batch, unless ``outcome`` is empty.

        The message says how many records of the batch the backend rejected, and why, or contains
        the backend's warning.
        """
        if outcome.rejected:
            self.announce_lost(outcome.rejected, outcome.message)
        elif outcome.message:
            self.announce("warning", outcome.message)

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``.  Return False if sending must stop.

        Called before each attempt.  ``seconds`` is 0.0 if the circuit allows the attempt.
        """

    @abstractmethod
    def time_limit(self) -> float:
        """Return the time limit of the next attempt, in seconds."""

    def count_attempt(self, seconds: float, copies: int) -> None:  # noqa: B027 - optional
        """Count an attempt that took ``seconds`` and may have created ``copies`` duplicates."""

    @abstractmethod
    def fail(self, error: BaseException, attempt: int) -> None:
        """Count a failed attempt that will be repeated, and write a message about it.

        Args:
            error: the error that the sink raised.
            attempt: the number of attempts so far with the same records.
        """

    @abstractmethod
    def accept(self, batch: Batch, outcome: Outcome) -> None:
        """Remove the first batch from ``batch.parts``, and count its records.

        The backend accepted the records, except for ``outcome.rejected`` records.
        """

    @abstractmethod
    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        """Remove ``part`` from ``batch.parts``, because its records will not be sent again.

        Args:
            batch: the batch that is being sent.
            part: the first batch in ``batch.parts``.
            error: a ``PermanentError`` if the backend refused the records.  Otherwise, the
                sink's latest unexpected error, after ``RetryPolicy.unknown_attempts`` attempts
                have raised such errors.
        """


def send_until_settled(batch: Batch, delivery: Delivery) -> None:
    """Send the batches in ``batch.parts`` until all are accepted, refused or dropped.

    Stops earlier if ``delivery.wait`` returns False.  Then the batches that are still to be sent
    remain in ``batch.parts``.  Blocks.  Raises only errors that methods of ``delivery`` raise.
    """
    circuit, part, division = delivery.circuit, batch, _Division(batch, delivery)
    attempts = unknown = 0
    while batch.parts and _may_send(delivery):
        head = _next_part(batch, delivery)
        if head is None:
            return
        if head is not part:
            part, attempts, unknown = head, 0, 0
        attempts += 1
        batch.began = batch.began or monotonic()
        try:
            outcome = _attempt(part, delivery)
        except PermanentError as error:
            circuit.succeed()
            division.refuse(part, error)
        except BaseException as error:  # noqa: BLE001 - the thread outlives any sink's code
            is_retryable = isinstance(error, RetryableError)
            unknown += not is_retryable
            if is_retryable or unknown < circuit.retry.unknown_attempts:
                delivery.fail(error, attempts)
                retry_after = getattr(error, "retry_after", None) if is_retryable else None
                circuit.fail(retry_after, access_denied=isinstance(error, AccessDeniedError))
            else:
                circuit.succeed()  # close the circuit, so that the next batch need not wait
                delivery.give_up(batch, part, error)
        else:
            circuit.succeed()
            division.samples_left = 0  # end sampling: the backend does not refuse every record
            delivery.accept(batch, outcome)


class _Division:
    """Splits a batch that the backend refuses, until the bad records are isolated.

    A refused batch is repeatedly split into halves.  But a backend that refuses every record
    must not get hundreds of requests per batch.  So if the backend refuses a large batch, some
    single records (samples) are sent first: the first record of the batch, and then random
    records from the entire batch.  If the backend refuses all samples for the same reason, the
    remaining records are dropped or quarantined without being sent.  The samples are random,
    because bad records may occur at regular intervals.

    Attributes:
        samples_left: the number of samples that have not been refused yet; 0 if no samples are
            being sent.
    """

    def __init__(self, batch: Batch, delivery: Delivery) -> None:
        self._batch = batch
        self._delivery = delivery
        self._cuts = 0
        # One sample is chosen from each group of _step records.  _place is the index of the latest
        # sample in its group.
        self._step = 0
        self._place = 0
        self._reason = ""
        self.samples_left = 0

    def refuse(self, part: Batch, error: PermanentError) -> None:
        """Handle the backend's refusal of ``part``, the first batch in ``batch.parts``.

        Split ``part``, or begin to send samples, or drop or quarantine the records of ``part``.
        """
        is_divisible = isinstance(error, (TooLargeError, InvalidDataError)) and len(part) > 1
        if not is_divisible or self._cuts >= MAX_CUTS:
            self._delivery.give_up(self._batch, part, error)
            if self.samples_left:
                self._end_sample(error)
        elif isinstance(error, InvalidDataError) and self._is_whole(part):
            self._step, self.samples_left = len(part) // SAMPLES, SAMPLES
            self._take_sample(0)
        else:
            self._cuts += 1
            with self._delivery.lock:
                self._batch.cut()

    def _is_whole(self, part: Batch) -> bool:
        """Return whether ``part`` is a large batch that has not been split yet."""
        return not self._cuts and len(self._batch.parts) == 1 and len(part) >= _MIN_SAMPLED

    def _take_sample(self, skipped: int) -> None:
        self._cuts += 1
        with self._delivery.lock:
            self._batch.sample(skipped)

    def _end_sample(self, error: PermanentError) -> None:
        """Choose the next sample after the backend has refused a sample, or stop sampling.

        If every sample was refused for the same reason, drop or quarantine the batch's remaining
        records.
        """
        reason = _VARIES.sub("", f"{type(error).__name__} {error}"[:_MAX_REASON])
        self._reason = self._reason or reason
        self.samples_left -= 1
        if reason != self._reason:
            self.samples_left = 0
        elif self.samples_left:
            place = random.randrange(self._step)  # noqa: S311 - not for a secret
            skipped = self._step - 1 - self._place + place
            self._place = place
            self._take_sample(skipped)
        else:
            self._give_up_rest(error)

    def _give_up_rest(self, error: PermanentError) -> None:
        batch = self._batch
        with self._delivery.lock:
            rest = batch.rest()
            batch.parts[:] = [rest] if rest else []
        if rest:
            why = f"{SAMPLES} records sent alone were refused for this reason, so the rest was not"
            self._delivery.give_up(batch, rest, InvalidDataError(f"{error} ({why})"))


def _may_send(delivery: Delivery) -> bool:
    """Wait until the circuit allows this thread to send.  Return False if sending must stop."""
    while delivery.wait(seconds := delivery.circuit.enter()):
        if seconds <= 0:
            return True
    return False


def _next_part(batch: Batch, delivery: Delivery) -> Batch | None:
    """Return the first batch in ``batch.parts``, or None if the list is empty.

    If that batch has more than ``delivery.size.most`` records, it is split first.
    """
    with delivery.lock:
        while batch.parts and len(batch.parts[0]) > delivery.size.most:
            batch.cut()
        return batch.parts[0] if batch.parts else None


def _attempt(part: Batch, delivery: Delivery) -> Outcome:
    began = monotonic()
    copies = len(part) if part.may_be_there else 0
    try:
        answer: object = delivery.sink.send(part.items, delivery.time_limit())
    except NoAnswerError:
        delivery.size.shrink(len(part), monotonic() - began)
        part.may_be_there = True
        raise
    except BaseException:
        copies = 0
        raise
    finally:
        seconds = monotonic() - began
        delivery.count_attempt(seconds, copies)
    delivery.size.grow(len(part), seconds)
    if isinstance(answer, Outcome) and isinstance(answer.rejected, int):
        return Outcome(min(max(answer.rejected, 0), len(part)), answer.message)
    return Outcome()  # without a valid Outcome, all records count as accepted
