"""The way into a sink's backlog: its route, encoding, and what a full backlog does.

Everything here happens on the pipeline's worker, where the records still are
records; behind it there are only encoded ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.clock import monotonic
from fapilog.delivery.backlog import ITEM_OVERHEAD, Backlog, Batch
from fapilog.delivery.overflow import Admission
from fapilog.diagnostics import announce, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog.delivery.circuit import Circuit
    from fapilog.delivery.ledger import SinkLedger
    from fapilog.delivery.options import DeliveryOptions
    from fapilog.protocols import Sink
    from fapilog.record import LogRecord
    from fapilog.routes import Route

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
        fallback: takes records for another sink instead; None without one.

    Attributes:
        closed: once True records are dropped and counted as ``shutdown``.
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
        fallback: Callable[[Sequence[LogRecord]], None] | None = None,
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

    def offer(self, records: Sequence[LogRecord]) -> None:
        """Take records, or pass them on to the fallback; never raises."""
        if self._fallback is not None and self._circuit.open_for > self._diverts_after:
            self._divert(self._fallback, records)
        else:
            self._take(records)
            self._notice()

    def _take(self, records: Sequence[LogRecord]) -> None:
        if self.closed:  # a processor came back after the deadline
            self._ledger.overflow.add_all("shutdown", [r.severity_number for r in records])
            return
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
        refused = []
        for record in records:
            size = record.size + ITEM_OVERHEAD
            number = record.severity_number
            if not self._has_room(size, number) and not self._wait(size, number, patience):
                patience = 0.0  # once for all of these
                refused.append(record)
                continue
            try:
                item = self._sink.encode(record)
            except BaseException as error:  # noqa: BLE001 - the worker outlives any sink's code
                self._ledger.overflow.add("encode_error", number)
                what = f"{self._name}: a record cannot be encoded: {kind_of(error)}"
                announce(f"encode {self._name}", what)
                continue
            self._put(Batch([item], [number], size, monotonic()))
        if refused and self._fallback is not None:
            self._divert(self._fallback, refused)
        elif refused:
            self._ledger.overflow.add_all("backlog_full", [r.severity_number for r in refused])
            announce(f"overflow {self._name}", f"{self._name}: backlog is full; records dropped")

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
        # Counted first: what was taken is never less than what is settled.
        self._ledger.taken += len(portion.items)
        self._backlog.put(portion)

    def _divert(
        self, fallback: Callable[[Sequence[LogRecord]], None], records: Sequence[LogRecord]
    ) -> None:
        fallback(records)
        self._ledger.skipped += len(records)
