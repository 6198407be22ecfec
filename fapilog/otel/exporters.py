"""Makes fapilog's sinks usable as log exporters of an OpenTelemetry SDK.

The exporters are for applications that keep the SDK's own processors.  An exporter converts and
redacts records, and sends them through a sink, on the SDK's export thread.  The classes whose
constructors take no arguments are entry points, so the variable ``OTEL_LOGS_EXPORTER`` can select
them.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from fapilog.context import BOUND, SUPPRESSED
from fapilog.delivery.backlog import Backlog, Batch
from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.sender import Delivery, SendSize, send_until_settled
from fapilog.diagnostics import announce, describe
from fapilog.errors import ConfigurationError
from fapilog.native import monotonic
from fapilog.otel.convert import from_api, from_sdk_resource, from_sdk_scope
from fapilog.process import fork
from fapilog.processors.redact import RedactProcessor, mask_record, redactor_of
from fapilog.values import normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord

    from fapilog.protocols import Outcome, Sink
    from fapilog.record import LogRecord, Resource, Scope

#: The environment variable with the path of the file that :class:`FileExporter` writes.
FILE_PATH_VARIABLE: Final = "FAPILOG_FILE__PATH"

_RETRY: Final = RetryPolicy(initial=0.5, maximum=5.0, unknown_attempts=1)
_SUCCESS: Final = LogRecordExportResult.SUCCESS
_FAILURE: Final = LogRecordExportResult.FAILURE


class SinkExporter(LogRecordExporter):
    """Redacts log records of the SDK and exports them through a sink of fapilog.

    A batch is retried for up to ``timeout`` seconds and then discarded, as the SDK specifies.
    Lost records are reported on stderr.  Thread-safe.

    Args:
        sink: the sink.  The constructor opens the sink, and ``shutdown`` closes the sink.
        timeout: the maximum duration of ``export``, including retries, in seconds.
        redact: the processor that masks secrets.  By default, the settings ``redact``,
            ``redact_fields`` and ``redact_allow`` from environment variables and configuration
            files apply.

    Raises:
        ConfigurationError: an option of the sink or of redaction is invalid.
    """

    def __init__(
        self, sink: Sink[Any], *, timeout: float = 10.0, redact: RedactProcessor | None = None
    ) -> None:
        sink.open()
        self._sink = sink
        self._timeout = timeout
        if redact is None:
            from fapilog.settings import Settings  # noqa: PLC0415 - pydantic loads here

            redact = redactor_of(Settings())
        self._redact = redact
        # Redacted copies of resources and scopes are cached, because encoders compare resources
        # and scopes by identity.
        self._resource = lru_cache(maxsize=64)(self._with_masked_attributes)
        self._scope = lru_cache(maxsize=4096)(self._with_masked_attributes)
        self._size = SendSize()
        self._renew_locks()
        fork.register("exporters", in_child=self.after_fork)

    def _renew_locks(self) -> None:
        self._stopped = threading.Event()
        self._turn = threading.RLock()
        self._exporting = False

    def after_fork(self) -> None:
        """Replace the locks and connections that a forked child has inherited from its parent."""
        was_stopped = self._stopped.is_set()
        self._renew_locks()
        if was_stopped:
            self._stopped.set()
        self._sink.after_fork()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Convert, redact and send a batch.  Blocks up to ``timeout`` seconds.  Never raises.

        Returns:
            FAILURE if records were lost, otherwise SUCCESS.  If the backend accepts the batch but
            rejects some of the records, the result is still SUCCESS.
        """
        delivery = _Export(self._sink, self._size, self._stopped, monotonic() + self._timeout)
        if not self._turn.acquire(timeout=self._timeout):
            delivery.lose(len(batch), "the previous export is still running")
            return _FAILURE
        try:
            if self._exporting:
                delivery.lose(len(batch), "the export itself logged them")
            elif self._stopped.is_set():
                delivery.lose(len(batch), "the exporter is shut down")
            else:
                self._export(batch, delivery)
        finally:
            self._turn.release()
        return _FAILURE if delivery.lost else _SUCCESS

    def _export(self, batch: Sequence[ReadableLogRecord], delivery: _Export) -> None:
        self._exporting = True
        bound = BOUND.set(SUPPRESSED)
        try:
            backlog = Backlog(self._sink.limits)
            for readable in batch:
                self._encode(readable, backlog, delivery)
            while part := backlog.take():
                part.parts = [part]
                send_until_settled(part, delivery)
                delivery.lose(sum(map(len, part.parts)), delivery.problem)
        finally:
            BOUND.reset(bound)
            self._exporting = False

    def _encode(self, readable: ReadableLogRecord, backlog: Backlog, delivery: _Export) -> None:
        try:
            record = self._convert(readable)
            backlog.put(Batch([self._sink.encode(record)], [record.severity_number], record.size))
        except Exception as error:  # noqa: BLE001 - hostile values or a sink's code; announced
            delivery.lose(1, f"the record cannot be encoded ({type(error).__name__})")

    def _convert(self, readable: ReadableLogRecord) -> LogRecord:
        scope: Scope = self._scope(from_sdk_scope(readable.instrumentation_scope))
        resource: Resource = self._resource(from_sdk_resource(readable.resource))
        record = from_api(readable.log_record, scope, resource)
        record.dropped_attributes_count = readable.dropped_attributes
        try:
            if self._redact is not None:
                record = self._redact(record)
        except Exception as error:  # noqa: BLE001 - no record may pass without redaction
            announce("redact", f"redaction raised {type(error).__name__}; record masked")
            mask_record(record, f"redaction raised {type(error).__name__}")
        normalise(record)
        return record

    def _with_masked_attributes(self, source: Any) -> Any:
        if self._redact is None:
            return source
        return replace(source, attributes=self._redact.redact_mapping(source.attributes))

    def shutdown(self) -> None:
        """Stop the retries of a running export, and close the sink.

        Blocks up to ``timeout`` seconds, until the running export has ended.
        """
        if self._stopped.is_set():
            return
        self._stopped.set()
        if not self._turn.acquire(timeout=self._timeout):
            announce(f"close {self._sink.name}", f"{self._sink.name}: still sending at shutdown")
            return
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 - any sink's code; announced
            kind = type(error).__name__
            announce(f"close {self._sink.name}", f"{self._sink.name}: close failed: {kind}")
        finally:
            self._turn.release()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until a running export has ended, or return False after ``timeout_millis``."""
        done = self._turn.acquire(timeout=timeout_millis / 1000)
        if done:
            self._turn.release()
        return done


class _Export(Delivery):
    """Delivers the records of one ``export`` call until a deadline or until ``shutdown``.

    Attributes:
        lost: the number of lost records, not including records that the backend rejected from an
            accepted batch.
        problem: a description of the latest failed attempt.  If records are still undelivered when
            the deadline or ``shutdown`` ends the export, ``problem`` is reported as the reason.
    """

    def __init__(
        self, sink: Sink[Any], size: SendSize, stopped: threading.Event, deadline: float
    ) -> None:
        super().__init__(sink, sink.name, _RETRY)
        self.size = size
        self._stopped = stopped
        self._deadline = deadline
        self.lost = 0
        self.problem = ""

    def wait(self, seconds: float) -> bool:
        if seconds <= 0:
            return True
        return monotonic() + seconds < self._deadline and not self._stopped.wait(seconds)

    def time_limit(self) -> float:
        return max(self._deadline - monotonic(), 0.001)

    def fail(self, error: BaseException, attempt: int) -> None:  # noqa: ARG002
        self.problem = describe(error)

    def accept(self, batch: Batch, outcome: Outcome) -> None:
        batch.parts.pop(0)
        self.announce_outcome(outcome)

    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        batch.parts.pop(0)
        self.lose(len(part), describe(error))

    def lose(self, count: int, why: str) -> None:
        if count:
            self.lost += count
            self.announce_lost(count, why)


class OTLPExporter(SinkExporter):
    """Exports records over OTLP; selected by ``OTEL_LOGS_EXPORTER=fapilog_otlp``.

    The variables ``OTEL_EXPORTER_OTLP_*`` contain the options.
    """

    def __init__(self) -> None:
        from fapilog.sinks.otlp.sink import OTLPSink  # noqa: PLC0415 - one exporter loads one sink

        super().__init__(OTLPSink())


class ConsoleExporter(SinkExporter):
    """Writes records to the console; selected by ``OTEL_LOGS_EXPORTER=fapilog_console``."""

    def __init__(self) -> None:
        from fapilog.sinks.console import ConsoleSink  # noqa: PLC0415 - one exporter loads one sink

        super().__init__(ConsoleSink())


class FileExporter(SinkExporter):
    """Writes records to a file; selected by ``OTEL_LOGS_EXPORTER=fapilog_file``.

    The variable ``FAPILOG_FILE__PATH`` contains the path of the file.

    Raises:
        ConfigurationError: ``FAPILOG_FILE__PATH`` is not set.
    """

    def __init__(self) -> None:
        from fapilog.sinks.file import FileSink  # noqa: PLC0415 - one exporter loads one sink

        path = os.environ.get(FILE_PATH_VARIABLE)
        if not path:
            msg = f"{FILE_PATH_VARIABLE} is not set: give the path of the file for fapilog_file"
            raise ConfigurationError(msg)
        super().__init__(FileSink(path))


class LokiExporter(SinkExporter):
    """Sends records to Loki; selected by ``OTEL_LOGS_EXPORTER=fapilog_loki``.

    The variables ``FAPILOG_LOKI__*`` contain the options.

    Raises:
        ConfigurationError: an option is invalid, or ``FAPILOG_LOKI__URL`` is not set.
    """

    def __init__(self) -> None:
        from fapilog.settings import Settings  # noqa: PLC0415 - one exporter loads one sink
        from fapilog.sinks.factory import sink_of  # noqa: PLC0415

        sink = sink_of("loki", Settings())
        assert sink is not None  # noqa: S101 - for the type checker; only "none" has no sink
        super().__init__(sink)
