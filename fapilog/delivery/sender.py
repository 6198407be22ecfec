"""The loop that sends one batch until each of its records is settled.

The backend's answer decides the next step: wait and send again, send smaller parts, or isolate
the records that the backend refuses.  A sink's delivery threads, the exporters for an
OpenTelemetry SDK and ``fapilog spool replay`` share the loop.  Each implements
:class:`Delivery`, which decides how long to wait, how to handle refused records, and what to
count.
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

#: The maximum number of times that a batch is split.  After that, a refused part is given up
#: as a whole: a backend that accepts nothing must not get one request per record.
MAX_CUTS: Final = 256

#: The number of records of a batch that are sent alone, to find out whether the backend refuses
#: every record.
SAMPLES: Final = 16
#: The minimum number of records in a batch from which records are sent alone.  A smaller batch
#: is bisected at once.
_MIN_SAMPLED: Final = 4 * SAMPLES
#: Matches the words of a backend's message that differ from record to record: quotations, text
#: in braces, and words that contain digits.
_VARIES: Final = re.compile(r"""'[^']*'?|"[^"]*"?|\{[^}]*\}?|\S*\d\S*""")

#: Two refusals have the same reason if this number of characters of their messages are equal.
_MAX_REASON: Final = 1000

_NO_LIMIT: Final = 1 << 20
#: The lower and the upper bound for the number of fast answers after which the size doubles.
_FEWEST: Final = 4
_MOST: Final = 256
#: An answer is fast if it takes less than this fraction of the time limit.
_FAST: Final = 1 / 3
#: The minimum of the time limit against which answers are measured, in seconds.  The limit is
#: the duration of the latest attempt without an answer, which may be close to 0 if the
#: connection broke at once.
_LEAST: Final = 1.0


class SendSize:
    """Limits the number of records per attempt while the backend is slow.

    Without this limit, a batch that always takes longer than the time limit would be sent
    forever.  After some fast answers, a larger size is tried.  If the larger size fails, the
    next increase needs more fast answers, because a failure costs the whole time limit and
    may cause duplicates in the backend.  A sink's threads share the size without a lock,
    because the size is only an estimate.

    Attributes:
        most: the maximum number of records per attempt.
    """

    def __init__(self) -> None:
        self.most = _NO_LIMIT
        self._limit = _LEAST
        self._answers = 0  # the number of fast answers since the size last changed
        self._needed = _FEWEST
        self._has_grown = False  # whether the latest change was an increase

    def shrink(self, count: int, seconds: float) -> None:
        """Lower the limit, because ``count`` records got no answer within ``seconds``."""
        self._limit = max(seconds, _LEAST)
        self.most = max(min(self.most, count) // 2, 1)
        self._answers = 0
        if self._has_grown:
            self._has_grown = False
            self._needed = min(self._needed * 4, _MOST)

    def grow(self, count: int, seconds: float) -> None:
        """Raise the limit if there were enough fast answers to attempts close to the limit.

        Args:
            count: the number of records of the attempt that was answered.
            seconds: the duration of this attempt.
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
    """The interface through which :func:`send_until_settled` uses one sink.

    Args:
        sink: the opened sink.
        name: the sink's name, used in messages.
        retry: the policy for the waits between attempts.
        probe_timeout: the seconds after which another probe may start; see :class:`Circuit`.

    Attributes:
        circuit: the circuit that decides when a thread may send.
        size: the limit on the number of records per attempt.
        lock: the lock that is held while a batch is split or its records are settled.
    """

    def __init__(
        self, sink: Sink[Any], name: str, retry: RetryPolicy, probe_timeout: float = 60.0
    ) -> None:
        self.sink = sink
        self.name = name
        self.circuit = Circuit(retry, probe_timeout)
        self.size = SendSize()
        self.lock = native.RLock()  # re-entrant: a signal handler may call shutdown()

    def announce(self, kind: str, message: str) -> None:
        """Write a message about the sink to stderr, at most once per ``kind`` in 30 seconds."""
        announce(f"{kind} {self.name}", f"{self.name}: {message}")

    def announce_lost(self, count: int, why: str) -> None:
        """Announce that ``count`` records were refused or given up, for the reason ``why``."""
        self.announce("rejected", f"{count} records lost: {why}")

    def announce_outcome(self, outcome: Outcome) -> None:
        """Announce how many records of an accepted batch the backend rejected, and why.

        If the backend rejected none, announce its message, if there is one.
        """
        if outcome.rejected:
            self.announce_lost(outcome.rejected, outcome.message)
        elif outcome.message:
            self.announce("warning", outcome.message)

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``.  Return False to end the delivery.

        The loop calls this before each attempt, with 0.0 if the circuit allows the attempt.
        """

    @abstractmethod
    def time_limit(self) -> float:
        """Return the seconds that the next attempt may take."""

    def count_attempt(self, seconds: float, copies: int) -> None:  # noqa: B027 - optional
        """Count an attempt that took ``seconds``.  ``copies`` records may have arrived twice."""

    @abstractmethod
    def fail(self, error: BaseException, attempt: int) -> None:
        """Announce and count a failed attempt, which will be repeated.

        Args:
            error: the error that the sink raised.
            attempt: the number of attempts so far with the same records.
        """

    @abstractmethod
    def accept(self, batch: Batch, outcome: Outcome) -> None:
        """Remove the first of ``batch.parts``, and count its records.

        The backend accepted these records, except for those that ``outcome`` rejects.
        """

    @abstractmethod
    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        """Remove ``part``, the first of ``batch.parts``, and count its records as lost or kept.

        ``error`` is a ``PermanentError`` if the backend refused these records.  Otherwise it
        is an error of an unknown type that the sink raised too often.
        """


def send_until_settled(batch: Batch, delivery: Delivery) -> None:
    """Send ``batch.parts`` until all parts are settled or ``delivery.wait`` returns False.

    Blocks.  Raises only errors that methods of ``delivery`` raise.  Unsettled parts remain in
    ``batch.parts``.
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
                circuit.succeed()  # an open circuit would delay the next batch
                delivery.give_up(batch, part, error)
        else:
            circuit.succeed()
            division.samples_left = 0  # the backend does not refuse every record
            delivery.accept(batch, outcome)


class _Division:
    """Handles refusals: splits the refused records of one batch, or gives them up.

    A refused part that contains bad records is bisected.  But a backend that refuses every
    record for the same reason must not get hundreds of requests per batch.  So after the first
    refusal of a large batch, samples are sent, each a single record: the first record of the
    batch, and then records from all of it.  If the backend refuses all samples for the same
    reason, the rest of the batch is given up.  Samples are chosen at random, because bad
    records may be regular, for example every second record.

    Attributes:
        samples_left: the number of samples that must still be refused before the rest is given
            up; 0 if no samples are being sent.
    """

    def __init__(self, batch: Batch, delivery: Delivery) -> None:
        self._batch = batch
        self._delivery = delivery
        self._cuts = 0
        self._step = 0  # one sample is chosen from each group of this many records
        self._place = 0  # the index of the latest sample in its group
        self._reason = ""
        self.samples_left = 0

    def refuse(self, part: Batch, error: PermanentError) -> None:
        """Handle the refusal of ``part``, the first of ``batch.parts``: split it or give it up."""
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
        """Whether ``part`` is a large batch that has not been split yet."""
        return not self._cuts and len(self._batch.parts) == 1 and len(part) >= _MIN_SAMPLED

    def _take_sample(self, skipped: int) -> None:
        self._cuts += 1
        with self._delivery.lock:
            self._batch.sample(skipped)

    def _end_sample(self, error: PermanentError) -> None:
        """Handle the refusal of a sample: choose the next sample, or stop sampling.

        If every sample was refused for the same reason, give up the rest of the batch.
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
    """Wait until the circuit allows this thread to send.  Return False if delivery has ended."""
    while delivery.wait(seconds := delivery.circuit.enter()):
        if seconds <= 0:
            return True
    return False


def _next_part(batch: Batch, delivery: Delivery) -> Batch | None:
    """Return the first of ``batch.parts``, or None if all records are settled.

    If the part has more than ``size.most`` records, it is split first.
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
    return Outcome()  # a sink that returns without an error has accepted all records
