"""Puts records into a sink's backlog: routes and encodes them, and waits for free space.

All of this happens on the pipeline's worker.  An encoder may still be running at the deadline
of a shutdown, so the intake remembers which records the worker is processing.  A lock ensures
that each of these records is handled once: the worker puts the record into the backlog, or
:meth:`Intake.close` returns the record's severity, and the record counts as dropped.
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
    """Puts records into a backlog.  Only the pipeline's worker calls it, except ``close``.

    Args:
        state: the state of the sink's delivery.
        route: the route that selects the records.
        notice: a function that tells the sink's threads that records may be ready to send.
        divert: a function that passes records to the route's fallback.  The function returns
            False if there is no fallback, or if the fallback has closed.

    Attributes:
        takes_all: whether the route selects every record.
        closed: whether the intake refuses records, because the sink is shutting down.
        patience: the seconds that remain for all further waits for space in the backlog;
            infinite before a shutdown.
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
        # With a spool, records wait on disk during an outage.  They do not go to the fallback.
        self._diverts_after = route.fallback_after if options.spool is None else math.inf
        self.closed = False
        self.patience = math.inf
        self._lock = native.RLock()  # re-entrant: a signal handler may call shutdown()
        self._hand: Sequence[LogRecord] = ()
        self._done = 0  # how many records of _hand are already counted
        self._skipped = 0  # how many records the route excluded and nobody has counted yet

    def meant(self, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Return the records that the route sends to this sink.  Never raises."""
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
        """Remember the records that :meth:`take_in` will put into the backlog.  Never raises.

        If the intake is closed, the records count as dropped.

        Args:
            records: the records that :meth:`meant` returned.
            skipped: the number of records that :meth:`meant` left out.
        """
        with self._lock:
            self._hand, self._done, self._skipped = records, 0, skipped
            if self.closed:
                self._ledger.overflow.add_all("shutdown", self._empty_hand())

    def divert(self, records: Sequence[LogRecord]) -> bool:
        """Accept records from a sink whose route has this sink as its fallback.

        Records that :meth:`hand` has already received are ignored.

        Returns:
            False if this intake is closed, so that the other sink must handle the records.
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
        """Put the records from :meth:`hand` into the backlog, or pass them to the fallback.

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

    def close(self) -> list[int]:
        """Refuse all further records.  Return the severity numbers of the unprocessed records.

        The caller counts the unprocessed records as dropped.
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
        """Forget the records that :meth:`hand` remembers.

        Counts the records that the route excluded.  Returns the severity numbers of the
        other records that nobody has counted, for the caller to count.
        """
        self._count_skipped()
        left = [record.severity_number for record in self._hand[self._done :]]
        self._hand = ()
        return left

    def _take(self, records: Sequence[LogRecord]) -> None:
        portion = self._encode(records)
        # Below the lowest limit, records of every severity may enter, so one check is enough.
        if portion and self._backlog.pending_bytes + portion.size <= self._admission.lowest:
            self._put(portion)
        else:
            self._take_singly(records)

    def _encode(self, records: Sequence[LogRecord]) -> Batch | None:
        """Encode the records as one batch.  Return None if they must be encoded one by one."""
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
            if not self._has_room(size, number) and not self._wait(size, number, patience):
                patience = 0.0  # the remaining records of this call do not wait
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

    def _wait(self, size: int, severity_number: int, seconds: float) -> bool:
        """Wait up to ``seconds`` for ``size`` bytes of space in the backlog.

        Return False if there is still no space, or if the record can never fit.
        """
        if size > self._admission.limit(severity_number):
            return False
        began = monotonic()
        deadline = began + min(seconds, self.patience)
        while not self.closed and monotonic() < deadline and self._state.makes_room:
            self._notice()  # the threads may not know about the latest records yet
            native.sleep(_POLL)
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
        """Pass records to the fallback.  Return False if this sink must keep or drop them.

        After :meth:`close`, return True and do nothing, because the records are already counted.
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
