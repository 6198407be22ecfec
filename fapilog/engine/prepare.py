"""From the queue's entries to records ready for the sinks: built, processed, made normal.

A slice is taken together.  Where redaction is all that is done, which is the
default, most records are known at a glance to need no change.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fapilog.diagnostics import announce, kind_of
from fapilog.engine.entry import BUILD, SEVERITY, build_logged
from fapilog.processors import RedactProcessor
from fapilog.processors.redact import mask_record
from fapilog.values import normalise
from fapilog.values.normal import header_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.delivery.ledger import Drops
    from fapilog.engine.entry import Entry
    from fapilog.protocols import Processor
    from fapilog.record import LogRecord
    from fapilog.values import Limits


class Processing:
    """The processors of one pipeline; its worker alone uses it.

    Attributes:
        redactor: the one processor there is, if that is a ``RedactProcessor``.
        limits: bounds of one record.
        errors: how often a processor has raised.

    Args:
        processors: called in order for each record.
        limits: bounds of one record.
    """

    def __init__(self, processors: Sequence[Processor], limits: Limits) -> None:
        self._processors = tuple(processors)
        first = self._processors[0] if len(self._processors) == 1 else None
        self.redactor = first if type(first) is RedactProcessor else None
        self.limits = limits
        self.errors = 0

    def records(self, entries: Sequence[Entry], drops: Drops) -> list[LogRecord]:
        """Return the records of ``entries`` for the sinks, in order.

        Args:
            entries: of the queue.
            drops: counts those that were filtered out, and those that broke.
        """
        now = time.time_ns()
        # Lists side by side: tuples would be one more object a record for the garbage collector.
        records: list[LogRecord] = []
        numbers: list[int] = []
        headers: list[int] = []
        for entry in entries:
            try:
                record = entry[BUILD](entry, now)
                # Nobody has touched the ids and times of a record that a logger makes.
                is_ours = entry[BUILD] is build_logged and not record.event_name
                header = 0 if is_ours else _header_size(record)
            except BaseException as error:  # noqa: BLE001 - the worker outlives hostile values
                count_lost(drops, [entry[SEVERITY]], error)
                continue
            records.append(record)
            numbers.append(entry[SEVERITY])
            headers.append(header)
        if self.redactor is not None:
            self.redactor.glance(records, headers, self.limits)
        finished = [
            # What has a size needs no change.
            record if record.size else self._finish(record, number, drops)
            for record, number in zip(records, numbers, strict=True)
        ]
        return [record for record in finished if record is not None]

    def _finish(self, record: LogRecord, number: int, drops: Drops) -> LogRecord | None:
        """Return a record processed and made normal; None where that was its end."""
        try:
            finished = self._apply(record, drops)
            if finished is not None:
                before = finished.dropped_attributes_count
                normalise(finished, self.limits)
                _announce_discarded(finished, before)
        except BaseException as error:  # noqa: BLE001 - as above
            count_lost(drops, [number], error)
            return None
        return finished

    def _apply(self, record: LogRecord, drops: Drops) -> LogRecord | None:
        current: LogRecord | None = record
        for processor in self._processors:
            try:
                current = processor(record)
            except BaseException as error:  # noqa: BLE001 - user code; masked, counted, announced
                self.errors += 1
                name = getattr(processor, "__name__", type(processor).__name__)
                kind = kind_of(error)
                announce(f"processor {name}", f"processor {name} raised {kind}; record masked")
                mask_record(record, f"{name} raised {kind}")
                return record
            if current is None:
                drops.add("filtered", record.severity_number)
                return None
            record = current
        return record


def _announce_discarded(record: LogRecord, before: object) -> None:
    """Report attributes that a limit has cost a record, as OpenTelemetry's specification asks."""
    count = record.dropped_attributes_count
    if isinstance(before, int) and count > before:
        announce(
            "attributes",
            f"{count - before} attributes of a record of {record.scope.name!r:.100} were "
            "discarded: it has more or larger ones than the limits allow; see "
            "attribute_count_limit",
        )


def _header_size(record: LogRecord) -> int:
    """Return :func:`header_size` of a record from elsewhere; -1 asks for a closer look."""
    record.size = 0
    try:
        return header_size(record)
    except Exception:  # noqa: BLE001 - whatever is wrong, normalise() puts it right
        return -1


def count_lost(drops: Drops, severities: Sequence[int], error: BaseException) -> None:
    """Count and announce records that an error inside fapilog has cost."""
    drops.add_all("internal_error", severities)
    announce("internal", f"a record was dropped: {kind_of(error)}")
