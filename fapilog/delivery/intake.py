"""Routes and encodes records, and puts them into a sink's backlog, a queue in memory.

All of this happens on the pipeline's worker thread.  At the deadline of a shutdown, the worker
thread may still be inside a slow encoder, so ``Intake`` stores which records the thread is
processing.  A lock ensures that each of these records is counted once: either the worker thread
puts the record into the backlog, or :meth:`Intake.close` returns the record's severity number
and the caller counts the record as dropped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.delivery.admission import Admission
from fapilog.delivery.backlog import ITEM_OVERHEAD, Batch
from fapilog.diagnostics import announce, kind_of, place_of
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog.delivery.route import Route
    from fapilog.delivery.state import DeliveryState
    from fapilog.record import LogRecord

#: Seconds between two checks for space in a full backlog.
_POLL: Final = 0.001


class Intake:
    """Routes and encodes records for one sink, and puts them into the sink's backlog.

    Only the pipeline's worker thread may call the methods, except :meth:`close`, :meth:`refuse`
    and :meth:`wait_for_room`, which any thread may call.  For a ``DirectQueue``, the thread that
    holds the queue's lock takes the place of the worker.

    Args:
        state: the state of the sink's delivery.
        route: the route that selects the records.
        notice: a function that informs the sink's threads that records may be ready to send.
        divert: a function that passes records to the fallback sink that the route names.  The
            function returns False if there is no fallback sink, or if it is closed.

    Attributes:
        takes_all: whether the route selects every record.
        closed: whether new records are refused, because the sink is shutting down.
        patience: the total time, in seconds, for which further calls may wait for space in the
            backlog; infinite before a shutdown.
    """

    def __init__(
        self,
        state: DeliveryState,
        route: Route,
        notice: Callable[[], object],
        divert: Callable[[Sequence[LogRecord]], bool],
    ) -> None:
        options = state.options
        self._state = state
        self._sink = state.sink
        self._backlog = state.backlog
        self._ledger = state.ledger
        self._admission = Admission(options.capacity, options.overflow, options.protect)
        self._route = route
        self.takes_all = route.takes_all
        self._notice = notice
        self._divert = divert
        # With a spool, records wait on disk during an outage instead of going to the fallback.
        self._diverts_after = route.fallback_after if options.spool is None else math.inf
        self.closed = False
        self.patience = math.inf
        self._lock = native.RLock()  # re-entrant: a signal handler may call shutdown()
        self._hand: Sequence[LogRecord] = ()
        self._done = 0  # the number of records in _hand that were processed
        self._skipped = 0  # number of records excluded by the route, to be added to the ledger

    def meant(self, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Return the records that the route selects for this sink.  Never raises."""
        if self.takes_all or not records:
            return records
        return [] if self._route.takes_none else [one for one in records if self._takes(one)]

    def _takes(self, record: LogRecord) -> bool:
        try:
            return self._route.takes(record)
        except BaseException as error:  # noqa: BLE001 - the worker outlives the application's code
            what = f"its route raised {kind_of(error)}{place_of(error)}"
            self._state.announce("route", f"{what}; the record is sent")
            return True

    def hand(self, records: Sequence[LogRecord], skipped: int = 0) -> None:
        """Store the records that the next :meth:`take_in` puts into the backlog.  Never raises.

        After :meth:`close`, count the records as dropped instead.

        Args:
            records: the records that :meth:`meant` returned.
            skipped: the number of records that the route excluded.
        """
        with self._lock:
            self._hand, self._done, self._skipped = records, 0, skipped
            if self.closed:
                self._ledger.overflow.add_all("shutdown", self._empty_hand())

    def divert(self, records: Sequence[LogRecord]) -> bool:
        """Accept records from another sink, whose route names this sink as its fallback.

        Ignores records that this sink has already received from the pipeline.

        Returns:
            False if this sink is shutting down, so that the caller must handle the records.
        """
        with self._lock:
            if self.closed:
                return False
            known = {id(record) for record in self._hand}
            new = [record for record in records if id(record) not in known]
            self._hand = [*self._hand, *new]
            self._skipped -= len(new)
            return True

    def take_in(self) -> None:
        """Put the records from :meth:`hand` into the backlog, or pass them to the fallback sink.

        May wait for space in the backlog.  Never raises.
        """
        try:
            with self._lock:
                if self.closed:
                    return
                self._count_skipped()
            records = self._hand
            if not records:
                return
            opened_at = self._state.circuit.opened_at
            is_down = opened_at is not None and monotonic() - opened_at > self._diverts_after
            if not (is_down and self._pass_on(records)):
                self._take(records)
                self._notice()
            self._hand = ()
        except BaseException as error:  # noqa: BLE001 - out of memory; the other sinks continue
            self._lose(error)

    def refuse(self, reason: str, severities: Sequence[int]) -> None:
        """Count records that do not enter the backlog as dropped for ``reason``.

        Any thread may call this method.
        """
        with self._lock:
            self._ledger.overflow.add_all(reason, severities)

    def close(self) -> list[int]:
        """Refuse all further records, and return the severity numbers of the unprocessed records.

        The caller must count the unprocessed records as dropped.
        """
        with self._lock:
            self.closed = True
            return self._empty_hand()

    def _lose(self, error: BaseException) -> None:
        with self._lock:
            left = self._empty_hand()
            self._ledger.overflow.add_all("internal_error", left)
        if left:
            announce("internal", f"a record was dropped: {kind_of(error)}")

    def _count_skipped(self) -> None:
        self._ledger.skipped += self._skipped
        self._skipped = 0

    def _empty_hand(self) -> list[int]:
        """Discard the records that :meth:`hand` stored, and return their severity numbers.

        Records that were already put into the backlog, passed to the fallback sink or dropped are
        not included.
        """
        self._count_skipped()
        left = [record.severity_number for record in self._hand[self._done :]]
        self._hand = ()
        return left

    def _take(self, records: Sequence[LogRecord]) -> None:
        portion = self._encode(records)
        # Up to this limit, records of every severity may enter, so one check is enough for all.
        if portion and self._backlog.pending_bytes + portion.size <= self._admission.lowest:
            self._put(portion)
        else:
            self._take_singly(records)

    def _encode(self, records: Sequence[LogRecord]) -> Batch | None:
        """Encode all records as one batch, or return None if they must be encoded one by one."""
        size = sum([record.size for record in records]) + ITEM_OVERHEAD * len(records)
        if not self._backlog.fits_a_batch(len(records), size):
            return None
        encode = self._sink.encode
        try:
            items = [encode(record) for record in records]
        except BaseException:  # noqa: BLE001 - _take_singly counts and announces the error
            return None
        severities = [record.severity_number for record in records]
        return Batch(items, severities, size, monotonic())

    def _take_singly(self, records: Sequence[LogRecord]) -> None:
        patience = self._state.options.block_timeout
        for record in records:
            size = record.size + ITEM_OVERHEAD
            number = record.severity_number
            if not self.wait_for_room(size, number, patience):
                patience = 0.0  # do not wait again for the remaining records
                if not self._pass_on([record]):
                    self._drop("backlog_full", record)
                    self._state.announce("overflow", "backlog is full; records dropped")
                continue
            try:
                item = self._sink.encode(record)
            except BaseException as error:  # noqa: BLE001 - the worker outlives any sink's code
                self._drop("encode_error", record)
                what = f"{kind_of(error)}{place_of(error)}"
                self._state.announce("encode", f"a record cannot be encoded: {what}")
                continue
            self._put(Batch([item], [number], size, monotonic()))

    def _has_room(self, size: int, severity_number: int) -> bool:
        return self._backlog.pending_bytes + size <= self._admission.limit(severity_number)

    def wait_for_room(self, size: int, severity_number: int, seconds: float) -> bool:
        """Wait up to ``seconds`` for ``size`` bytes of space in the backlog.

        Does not wait if the overflow policy drops records.  Return False if there is still not
        enough space, or if ``size`` exceeds the limit for this severity even in an empty backlog.
        """
        if self._has_room(size, severity_number):
            return True
        if size > self._admission.limit(severity_number):
            return False
        began = monotonic()
        deadline = began + min(seconds, self.patience)
        while not self.closed and monotonic() < deadline and self._state.makes_room:
            self._notice()  # the sink's threads may not know about new records yet
            native.pause(_POLL)  # lets greenlets run if an application's thread exports spans
            if self._has_room(size, severity_number):
                break
        self.patience -= monotonic() - began
        return self._has_room(size, severity_number)

    def _put(self, portion: Batch) -> None:
        with self._lock:
            if not self.closed:
                self._backlog.put(portion)
                self._done += len(portion.items)

    def _pass_on(self, records: Sequence[LogRecord]) -> bool:
        """Pass records to the fallback sink.  Return False if no fallback sink accepts them.

        After :meth:`close`, return True and do nothing, because the caller of :meth:`close`
        counts the records as dropped.
        """
        with self._lock:
            if self.closed:
                return True
            if not self._divert(records):
                return False
            self._ledger.skipped += len(records)
            self._done += len(records)
            return True

    def _drop(self, reason: str, record: LogRecord) -> None:
        with self._lock:
            if not self.closed:
                self._ledger.overflow.add(reason, record.severity_number)
                self._done += 1
