"""Makes log records from the queue's entries, and applies the processors and the size limits.

The worker thread removes entries from the queue in groups, and prepares the records of a group
together.  If ``RedactProcessor`` is the only processor, as it is by default, it searches all
strings of a group in one step.  Most records contain no secret and need no further search.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from fapilog.delivery.ledger import LoggerCounts
from fapilog.diagnostics import announce, kind_of, place_of
from fapilog.engine.entry import BUILD, SEVERITY, build_logged
from fapilog.processors import RedactProcessor
from fapilog.processors.redact import mask_record
from fapilog.values import normalise
from fapilog.values.exceptions import Capture
from fapilog.values.normal import header_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.delivery.ledger import Drops
    from fapilog.engine.entry import Entry
    from fapilog.protocols import Processor
    from fapilog.record import LogRecord
    from fapilog.values import Limits


class Processing:
    """Applies the processors of one pipeline.  Only the pipeline's worker thread uses it.

    Attributes:
        redactor: the ``RedactProcessor``, if it is the only processor; otherwise None.
        errors: the number of exceptions that processors have raised.
        by_logger: the counts of the records that were returned, or None if they are not counted.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        limits: Limits,
        by_logger: LoggerCounts | None = None,
    ) -> None:
        self._processors = tuple(processors)
        first = self._processors[0] if len(self._processors) == 1 else None
        self.redactor = first if type(first) is RedactProcessor else None
        self.limits = limits
        self.errors = 0
        self.by_logger = by_logger

    def reset(self) -> None:
        """Set all counters to 0."""
        self.errors = 0
        self.by_logger = None if self.by_logger is None else LoggerCounts()

    def records(self, entries: Sequence[Entry], drops: Drops) -> list[LogRecord]:
        """Make and process the records of ``entries``; return the records for the sinks in order.

        The records that a processor drops, and the records that are lost because of an
        unexpected error, are counted in ``drops``.
        """
        now = time.time_ns()
        # ``records``, ``numbers`` and ``headers`` are separate lists instead of one list of
        # tuples, because the garbage collector would have to track a tuple per record.
        records: list[LogRecord] = []
        numbers: list[int] = []
        headers: list[int | None] = []
        for entry in entries:
            try:
                record = entry[BUILD](entry, now)
                # Trace ids, timestamps and event names from the application must be checked.  If
                # ``build_logged`` made the record, only its event name can come from the
                # application.
                is_ours = entry[BUILD] is build_logged and not record.event_name
                header = None if is_ours else _header_size(record)
            except BaseException as error:  # noqa: BLE001 - a hostile value must not end the worker
                count_lost(drops, [entry[SEVERITY]], error)
                continue
            records.append(record)
            numbers.append(entry[SEVERITY])
            headers.append(header)
        if self.redactor is not None:
            self.redactor.glance(records, headers, self.limits)
        finished = [
            # glance() has set ``size`` in each record that needs no change; in the other records,
            # it is 0.
            record if record.size else self._finish(record, number, drops)
            for record, number in zip(records, numbers, strict=True)
        ]
        passed = [record for record in finished if record is not None]
        if self.by_logger is not None:
            for record in passed:
                # The name is read after redaction, so it contains no secret.
                self.by_logger.add(record.scope.name, record.severity_number)
        return passed

    def _finish(self, record: LogRecord, number: int, drops: Drops) -> LogRecord | None:
        """Apply the processors and limits to ``record``; return None if the record is dropped."""
        try:
            finished = self._apply(record, drops)
            if finished is not None:
                before = finished.dropped_attributes_count
                normalise(finished, self.limits)
                _announce_discarded(finished, before)
        except BaseException as error:  # noqa: BLE001 - the error must not end the worker
            count_lost(drops, [number], error)
            return None
        return finished

    def _apply(self, record: LogRecord, drops: Drops) -> LogRecord | None:
        current: LogRecord | None = record
        # A processor may remove a secret from the record and then raise an error that contains
        # the secret.  So the original values are stored, to mask the secret in the error message.
        given = () if self.redactor else (record.body, record.attributes.copy())
        for processor in self._processors:
            try:
                current = processor(record)
            except BaseException as error:  # noqa: BLE001 - user code; masked, counted, announced
                self.errors += 1
                name = getattr(processor, "__name__", type(processor).__name__)
                values = (*given, record.body, record.attributes)
                announce(f"processor {name}", partial(self._failure, name, error, values))
                mask_record(record, f"{name} raised {kind_of(error)}")
                return record
            if current is None:
                drops.add("filtered", record.severity_number)
                return None
            record = current
        return record

    def _failure(self, name: str, error: BaseException, values: Sequence[object]) -> str:
        """Return the message about a processor's error, without the secrets in ``values``."""
        what = kind_of(error)
        try:
            found = [one for one in self._processors if isinstance(one, RedactProcessor)]
            message = Capture(error).message
            for redactor in found or [RedactProcessor()]:
                message = redactor.mask_message(message, values)
            what = f"{what}: {message}" if message else what
        except Exception:  # noqa: BLE001 - a message that cannot be redacted is not shown
            what = kind_of(error)
        return f"processor {name} raised {what:.700}{place_of(error)}; its record is masked"


def _announce_discarded(record: LogRecord, before: object) -> None:
    """Report on stderr how many attributes a limit has removed from ``record``.

    OpenTelemetry's specification asks for this message.  ``before`` is the number of attributes
    that had been dropped before the limit was applied.
    """
    count = record.dropped_attributes_count
    if isinstance(before, int) and count > before:
        announce(
            "attributes",
            f"{count - before} attributes of a record of {record.scope.name!r:.100} were "
            "discarded: they exceed the limits of a record; see attribute_count_limit",
        )


def _header_size(record: LogRecord) -> int:
    """Return the number of bytes of text in ``record`` outside its body and its attributes.

    Returns -1 if a field is invalid; ``normalise()`` must then correct the record.
    """
    record.size = 0
    try:
        return header_size(record)
    except Exception:  # noqa: BLE001 - normalise() corrects any wrong field
        return -1


def count_lost(drops: Drops, severities: Sequence[int], error: BaseException) -> None:
    """Count records that were dropped because of an unexpected error, and report the error."""
    drops.add_all("internal_error", severities)
    announce("internal", f"a record was dropped after an internal error ({kind_of(error)})")
