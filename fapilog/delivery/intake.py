"""The way into a sink's backlog: its route, encoding, and what a full backlog does.

Everything here happens on the pipeline's worker, where the records still are
records; behind it there are only encoded ones.  An encoder may still be at work
at the deadline of a shutdown.  So the intake knows what the worker holds, and
counts each record under one lock: either the worker brings it in, or
:meth:`Intake.close` counts it as dropped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.delivery.backlog import ITEM_OVERHEAD, Backlog, Batch
from fapilog.delivery.overflow import Admission
from fapilog.diagnostics import announce, kind_of
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog.delivery.circuit import Circuit
    from fapilog.delivery.ledger import SinkLedger
    from fapilog.delivery.options import DeliveryOptions
    from fapilog.delivery.route import Route
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord

_POLL: Final = 0.001


class Intake:
    """Puts records into a backlog.  The pipeline's worker alone uses it.

    Args:
        sink: encodes.
        name: of the sink, in announcements.
        backlog: where portions go.
        ledger: counts what does not get in.
        options: how full the backlog may be, and what happens then.
        route: which records are meant for the sink; its ``sink`` is not looked at.
        circuit: tells how long the backend has not answered.
        notice: tells the sink's threads that there may be work.
        makes_room: whether it is worth waiting for room in the backlog now.
        fallback: takes records for another sink instead, and returns False once
            that is closed; None without one.

    Attributes:
        closed: once True, nothing is brought in or counted any more.
        patience: seconds that may still be waited for room, in all.
    """

    def __init__(
        self,
        sink: Sink[Any],
        name: str,
        backlog: Backlog,
        *,
        ledger: SinkLedger,
        options: DeliveryOptions,
        route: Route,
        circuit: Circuit,
        notice: Callable[[], object],
        makes_room: Callable[[], bool],
        fallback: Callable[[Sequence[LogRecord]], bool] | None = None,
    ) -> None:
        self._sink = sink
        self._name = name
        self._backlog = backlog
        self._ledger = ledger
        self._options = options
        self._admission = Admission(options.capacity, options.overflow, options.protect)
        self._route = route
        self._takes_all = route.takes_all
        self._circuit = circuit
        self._notice = notice
        self._makes_room = makes_room
        self._fallback = fallback
        # With a spool an outage fills the disk first, in order.
        self._diverts_after = route.fallback_after if options.spool is None else math.inf
        self.closed = False
        self.patience = math.inf
        self._lock = native.RLock()  # a signal handler may close while a record is counted
        self._hand: Sequence[LogRecord] = ()
        self._done = 0  # records of the hand that are counted
        self._skipped = 0  # records of the slice that are not in the hand, to be counted

    def meant(self, records: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Return those that are meant for the sink.  Never raises."""
        return records if self._takes_all else [one for one in records if self._takes(one)]

    def _takes(self, record: LogRecord) -> bool:
        try:
            return self._route.takes(record)
        except BaseException as error:  # noqa: BLE001 - the worker outlives the application's code
            what = f"route to {self._name}: {kind_of(error)}; the record is sent"
            announce(f"route {self._name}", what)
            return True

    def hand(self, records: Sequence[LogRecord], skipped: int = 0) -> None:
        """Give the worker what :meth:`take_in` is to bring in.  Never raises.

        Args:
            records: what :meth:`meant` returned of a slice.
            skipped: how many of the slice it left out.
        """
        with self._lock:
            if not self.closed:
                self._hand, self._done, self._skipped = records, 0, skipped
                return
            self._ledger.skipped += skipped
            numbers = [record.severity_number for record in records]
            self._ledger.overflow.add_all("shutdown", numbers)

    def divert(self, records: Sequence[LogRecord]) -> bool:
        """Add what another sink cannot take to the hand, once; False when closed."""
        with self._lock:
            if self.closed:
                return False
            known = {id(record) for record in self._hand}
            new = [record for record in records if id(record) not in known]
            self._hand = [*self._hand, *new]
            self._skipped -= len(new)
            return True

    def take_in(self) -> None:
        """Bring in what is in the hand, or pass it on to the fallback."""
        with self._lock:
            if self.closed:
                return
            self._ledger.skipped += self._skipped
            self._skipped = 0
        records = self._hand
        if not records:
            return
        if self._fallback is not None and self._circuit.open_for > self._diverts_after:
            self._refuse(records)
        else:
            self._take(records)
            self._notice()
        self._hand = ()

    def close(self) -> list[int]:
        """Bring nothing in any more; return the severities of what the worker still holds.

        The caller counts those.
        """
        with self._lock:
            self.closed = True
            self._ledger.skipped += self._skipped
            self._skipped = 0
            return self._empty_hand()

    def lose(self, error: BaseException) -> None:
        """Count what is left in the hand as lost by an error."""
        with self._lock:
            self._ledger.skipped += self._skipped
            self._skipped = 0
            left = self._empty_hand()
            self._ledger.overflow.add_all("internal_error", left)
        if left:
            announce("internal", f"a record was dropped: {kind_of(error)}")

    def _empty_hand(self) -> list[int]:
        left = [record.severity_number for record in self._hand[self._done :]]
        self._hand = ()
        return left

    def _take(self, records: Sequence[LogRecord]) -> None:
        portion = self._encode(records)
        # One look for all; near the limit each record gets its own.
        if portion and self._backlog.pending_bytes + portion.size <= self._admission.lowest:
            self._put(portion)
        else:
            self._take_singly(records)

    def _encode(self, records: Sequence[LogRecord]) -> Batch | None:
        """Return the records as one portion; None when each needs a look of its own."""
        size = sum([record.size for record in records]) + ITEM_OVERHEAD * len(records)
        if not self._backlog.fits_a_batch(len(records), size):
            return None
        encode = self._sink.encode
        try:
            items = [encode(record) for record in records]
        except BaseException:  # noqa: BLE001 - _take_singly finds, counts and announces it
            return None
        severities = [record.severity_number for record in records]
        return Batch(items, severities, size, monotonic())

    def _take_singly(self, records: Sequence[LogRecord]) -> None:
        patience = self._options.block_timeout
        for record in records:
            size = record.size + ITEM_OVERHEAD
            number = record.severity_number
            if not self._has_room(size, number) and not self._wait(size, number, patience):
                patience = 0.0  # once for all of these
                self._refuse([record])
                continue
            try:
                item = self._sink.encode(record)
            except BaseException as error:  # noqa: BLE001 - the worker outlives any sink's code
                self._drop("encode_error", [record])
                what = f"{self._name}: a record cannot be encoded: {kind_of(error)}"
                announce(f"encode {self._name}", what)
                continue
            self._put(Batch([item], [number], size, monotonic()))

    def _has_room(self, size: int, severity_number: int) -> bool:
        return self._backlog.pending_bytes + size <= self._admission.limit(severity_number)

    def _wait(self, size: int, severity_number: int, seconds: float) -> bool:
        """Wait for room; False when the time is over, or there never will be."""
        if size > self._admission.limit(severity_number):
            return False
        began = monotonic()
        deadline = began + min(seconds, self.patience)
        while not self.closed and monotonic() < deadline and self._makes_room():
            self._notice()  # of what was put before this record
            native.sleep(_POLL)
            if self._has_room(size, severity_number):
                break
        # Each sink has a patience of its own: one that is down uses up no other's.
        self.patience -= monotonic() - began
        return self._has_room(size, severity_number)

    def _put(self, portion: Batch) -> None:
        with self._lock:
            if not self.closed:
                # Counted first: what was taken is never less than what is settled.
                self._ledger.taken += len(portion.items)
                self._backlog.put(portion)
                self._done += len(portion.items)

    def _refuse(self, records: Sequence[LogRecord]) -> None:
        """Pass records on to the fallback; without one, drop them."""
        with self._lock:
            if self.closed:
                return
            if self._fallback is not None and self._fallback(records):
                self._ledger.skipped += len(records)
                self._done += len(records)
                return
        self._drop("backlog_full", records)
        announce(f"overflow {self._name}", f"{self._name}: backlog is full; records dropped")

    def _drop(self, reason: str, records: Sequence[LogRecord]) -> None:
        with self._lock:
            if not self.closed:
                self._ledger.overflow.add_all(reason, [r.severity_number for r in records])
                self._done += len(records)
