"""A log record processor of the OpenTelemetry SDK that passes records to fapilog.

The processor is for applications that keep the SDK's ``LoggerProvider``.  The processor converts
each record of that provider on the thread that emits the record, and puts the converted record
into the queue of a ``fapilog.Runtime``.
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
    """Passes the records of an SDK logger provider to fapilog, with the provider's resource.

    Thread-safe.  No method raises.  The processor copies each record, so processors that the
    provider calls later cannot change the record in fapilog.

    Args:
        target: the ``fapilog.Runtime`` that receives the records.  If it is None, each record goes
            to the runtime that is the default when the record is emitted.
    """

    def __init__(self, target: RecordTarget | None = None) -> None:
        self._feed = feeds.Feed.of(target)
        feeds.Passing.watched = True

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Pass a record to fapilog, unless fapilog already received it through :mod:`logging`.

        Drops a record if it is logged by the code that sends records for fapilog or the SDK,
        because sending this record would produce another record, without end.  May wait for space
        in the queue; see ``fapilog.protocols.RecordTarget.offer``.
        """
        target = None if feeds.is_suppressed() else self._feed.target()
        if target is None:
            return
        scope = from_sdk_scope(log_record.instrumentation_scope)
        if feeds.is_passing(target, scope.name, log_record.log_record.timestamp):
            return
        offer(target, log_record.log_record, scope, from_sdk_resource(log_record.resource))

    def shutdown(self) -> None:
        """Drop all later records, and flush the runtime for up to 5 seconds.

        The runtime itself keeps running.
        """
        self._feed.follow(feeds.no_target)
        self._feed.flush(SHUTDOWN_TIMEOUT)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all earlier records are delivered, dropped or stored on disk.

        Return False if this takes longer than ``timeout_millis``.
        """
        return self._feed.flush(timeout_millis / 1000)
