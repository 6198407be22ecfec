"""fapilog's pipeline as a log record processor of the OpenTelemetry SDK.

The processor is for applications that keep the SDK's ``LoggerProvider``.  It converts each
record of that provider on the thread that emits the record, and offers it to a runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk._logs import LogRecordProcessor

from fapilog.bridges import feeds
from fapilog.otel.convert import from_sdk_resource, from_sdk_scope
from fapilog.otel.provider import SHUTDOWN_TIMEOUT, offer

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord

    from fapilog.protocols import RecordTarget


class FapilogLogRecordProcessor(LogRecordProcessor):
    """Offers the records of an SDK provider, with the provider's resource, to fapilog.

    Thread-safe.  No method raises.  Processors that the provider calls after this one
    cannot change the offered record.

    Args:
        target: the runtime that gets the records; by default, the runtime that is
            the default runtime when a record is emitted.
    """

    def __init__(self, target: RecordTarget | None = None) -> None:
        self._feed = feeds.Feed.of(target)
        feeds.Passing.watched = True

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Offer a record to the target, unless the target already has the record.

        Drops records that are logged during a delivery.  May wait for space in the queue; see
        ``RecordTarget.offer``.
        """
        target = None if feeds.is_suppressed() else self._feed.target()
        if target is None:
            return
        scope = from_sdk_scope(log_record.instrumentation_scope)
        if feeds.is_passing(target, scope.name, log_record.log_record.timestamp):
            return
        offer(target, log_record.log_record, scope, from_sdk_resource(log_record.resource))

    def shutdown(self) -> None:
        """Refuse further records, and flush for up to 5 s.  The runtime keeps running."""
        self._feed.follow(feeds.no_target)
        self._feed.flush(SHUTDOWN_TIMEOUT)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until earlier records are settled, or return False after ``timeout_millis``."""
        return self._feed.flush(timeout_millis / 1000)
