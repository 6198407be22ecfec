"""fapilog's sinks as exporters of an OpenTelemetry SDK.

For applications that keep the SDK's own processors: records that reach the
exporter are converted, redacted and sent by a sink on the SDK's thread.  The
classes without arguments are entry points, so ``OTEL_LOGS_EXPORTER`` can name
them; the pipeline, with its queue and its ledger, is not involved.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from fapilog.context import BOUND, SUPPRESSED
from fapilog.delivery.retry import RetryPolicy
from fapilog.delivery.send_size import SendSize
from fapilog.diagnostics import announce, describe
from fapilog.errors import ConfigurationError, NoAnswerError, RetryableError, TooLargeError
from fapilog.native import monotonic
from fapilog.otel.convert import from_api, from_sdk_resource, from_sdk_scope
from fapilog.process import fork
from fapilog.processors.redact import RedactProcessor, mask_record, redactor_of
from fapilog.record import Resource, Scope
from fapilog.values import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord

    from fapilog.protocols import Sink
    from fapilog.record import AnyValue, LogRecord

#: Path of the file that the exporter ``fapilog_file`` writes.
FILE_PATH_VARIABLE: Final = "FAPILOG_FILE__PATH"

_RETRY: Final = RetryPolicy(initial=0.5, maximum=5.0)
_SUCCESS: Final = LogRecordExportResult.SUCCESS
_FAILURE: Final = LogRecordExportResult.FAILURE


class SinkExporter(LogRecordExporter):
    """Exports through a sink, with fapilog's redaction.

    ``export`` does not raise and may be called from several threads; they
    take turns.  A batch is retried until ``timeout`` is over, and then lost,
    as the SDK has it: what is lost is announced on stderr.

    Args:
        sink: opened here, closed by ``shutdown``.
        timeout: seconds one ``export`` may take, retries included.
        redact: masks secrets; by default what the options ``redact``,
            ``redact_fields`` and ``redact_allow`` ask for, from the
            environment and files.

    Raises:
        ConfigurationError: an option of the sink, or of redaction, is wrong.
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
        # By identity: one redacted resource and scope for each source.
        self._resource = lru_cache(maxsize=64)(self._redact_resource)
        self._scope = lru_cache(maxsize=4096)(self._redact_scope)
        self._stopped = threading.Event()
        self._size = SendSize()
        self._renew_locks()
        fork.register("exporters", in_child=self.after_fork)

    def _renew_locks(self) -> None:
        self._turn = threading.RLock()
        self._exporting = False

    def after_fork(self) -> None:
        """Forget the locks and connections of the parent; called in the child."""
        stopped, self._stopped = self._stopped.is_set(), threading.Event()
        if stopped:
            self._stopped.set()
        self._renew_locks()
        self._sink.after_fork()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Convert, redact and send a batch.  Blocks up to ``timeout`` seconds.

        Returns:
            FAILURE when records of the batch were lost other than by the
            backend's own choice.
        """
        deadline = monotonic() + self._timeout
        if not self._turn.acquire(timeout=self._timeout):
            return self._lost(len(batch), "the previous export is still going on")
        try:
            if self._exporting or self._stopped.is_set():
                why = "it was logged by the export itself" if self._exporting else "shut down"
                return self._lost(len(batch), why)
            self._exporting = True
            bound = BOUND.set(SUPPRESSED)
            try:
                return self._export(batch, deadline)
            finally:
                BOUND.reset(bound)
                self._exporting = False
        finally:
            self._turn.release()

    def _export(self, batch: Sequence[ReadableLogRecord], deadline: float) -> LogRecordExportResult:
        encoded = [entry for readable in batch if (entry := self._encode(readable)) is not None]
        sent = [self._deliver(items, deadline) for items in self._batches(encoded)]
        return _SUCCESS if len(encoded) == len(batch) and all(sent) else _FAILURE

    def _encode(self, readable: ReadableLogRecord) -> tuple[Any, int] | None:
        """Return what the sink makes of a record, and its size in bytes."""
        try:
            record = self._convert(readable)
            return self._sink.encode(record), record.size
        except Exception as error:  # noqa: BLE001 - hostile values or a sink's code; announced
            self._lost(1, f"it cannot be encoded ({type(error).__name__})")
            return None

    def _batches(self, encoded: list[tuple[Any, int]]) -> Iterator[list[Any]]:
        """Yield what is to be sent in batches of the size the sink wants."""
        limits = self._sink.limits
        items: list[Any] = []
        room = limits.size
        for item, size in encoded:
            if items and (len(items) >= limits.count or size > room):
                yield items
                items, room = [], limits.size
            items.append(item)
            room -= size
        if items:
            yield items

    def _convert(self, readable: ReadableLogRecord) -> LogRecord:
        scope = self._scope(from_sdk_scope(readable.instrumentation_scope))
        resource = self._resource(from_sdk_resource(readable.resource))
        record = from_api(readable.log_record, scope, resource)
        record.dropped_attributes_count = readable.dropped_attributes
        try:
            if self._redact is not None:
                record = self._redact(record)
        except Exception as error:  # noqa: BLE001 - a record is never let through raw
            announce("redact", f"redaction raised {type(error).__name__}; record masked")
            mask_record(record, f"redaction raised {type(error).__name__}")
        normalise(record)
        return record

    def _redact_resource(self, resource: Resource) -> Resource:
        return Resource(self._masked(resource.attributes), resource.schema_url)

    def _redact_scope(self, scope: Scope) -> Scope:
        return Scope(scope.name, scope.version, scope.schema_url, self._masked(scope.attributes))

    def _masked(self, attributes: Mapping[str, AnyValue]) -> Mapping[str, AnyValue]:
        return attributes if self._redact is None else self._redact.redact_mapping(attributes)

    def _deliver(self, items: list[Any], deadline: float) -> bool:
        """Send a batch, in parts that the backend takes in time; True when all arrived."""
        parts, attempt, arrived = [items], 0, True  # the next part is the last one
        while parts:
            part = parts.pop()
            if len(part) > self._size.most:
                parts += _halves(part)
                continue
            try:
                self._attempt(part, deadline)
                attempt = 0
            except RetryableError as error:
                attempt += 1
                wait = _RETRY.delay(attempt, error.retry_after)
                if monotonic() + wait < deadline and not self._stopped.wait(wait):
                    parts.append(part)
                else:
                    arrived = self._gave_up(part, error)
            except Exception as error:  # noqa: BLE001 - any sink's code; announced
                if isinstance(error, TooLargeError) and len(part) > 1:
                    parts += _halves(part)
                else:
                    arrived = self._gave_up(part, error)
        return arrived

    def _attempt(self, items: list[Any], deadline: float) -> None:
        began = monotonic()
        try:
            outcome = self._sink.send(items, max(deadline - began, 0.001))
        except NoAnswerError:
            self._size.shrink(len(items), monotonic() - began)
            raise
        self._size.grow(len(items), monotonic() - began)
        if outcome is not None and outcome.rejected:
            self._lost(outcome.rejected, outcome.message)
        elif outcome is not None and outcome.message:
            announce(f"warning {self._sink.name}", f"{self._sink.name}: {outcome.message}")

    def _gave_up(self, items: list[Any], error: Exception) -> bool:
        self._lost(len(items), describe(error))
        return False

    def _lost(self, count: int, why: str) -> LogRecordExportResult:
        name = self._sink.name
        announce(f"export {name}", f"{name}: {count} records lost: {why}")
        return _FAILURE

    def shutdown(self) -> None:
        """End a running export's retries and close the sink.

        Waits for an export in progress up to ``timeout`` seconds; a second
        call does nothing.
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
        """Wait for an export in progress; nothing is kept beyond it.

        Args:
            timeout_millis: the longest wait, milliseconds.

        Returns:
            False at the time limit.
        """
        done = self._turn.acquire(timeout=timeout_millis / 1000)
        if done:
            self._turn.release()
        return done


def _halves(items: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the items in two parts, the one to send first at the end."""
    middle = len(items) // 2
    return items[middle:], items[:middle]


class OTLPExporter(SinkExporter):
    """``OTEL_LOGS_EXPORTER=fapilog_otlp``: OTLP, by the ``OTEL_EXPORTER_OTLP_*`` variables."""

    def __init__(self) -> None:
        from fapilog.sinks.otlp.sink import OTLPSink  # noqa: PLC0415 - one exporter loads one sink

        super().__init__(OTLPSink())


class ConsoleExporter(SinkExporter):
    """``OTEL_LOGS_EXPORTER=fapilog_console``: lines on the console."""

    def __init__(self) -> None:
        from fapilog.sinks.console import ConsoleSink  # noqa: PLC0415 - one exporter loads one sink

        super().__init__(ConsoleSink())


class FileExporter(SinkExporter):
    """``OTEL_LOGS_EXPORTER=fapilog_file``: the file named by ``FAPILOG_FILE__PATH``.

    Raises:
        ConfigurationError: the variable is not set.
    """

    def __init__(self) -> None:
        from fapilog.sinks.file import FileSink  # noqa: PLC0415 - one exporter loads one sink

        path = os.environ.get(FILE_PATH_VARIABLE)
        if not path:
            msg = f"{FILE_PATH_VARIABLE} is not set: the exporter fapilog_file needs a file's path"
            raise ConfigurationError(msg)
        super().__init__(FileSink(path))


class LokiExporter(SinkExporter):
    """``OTEL_LOGS_EXPORTER=fapilog_loki``: Loki, by the ``FAPILOG_LOKI__*`` variables.

    Raises:
        ConfigurationError: an option is wrong, or ``FAPILOG_LOKI__URL`` is not set.
    """

    def __init__(self) -> None:
        from fapilog.settings import Settings  # noqa: PLC0415 - for this exporter alone
        from fapilog.sinks.factory import sink_of  # noqa: PLC0415

        sink = sink_of("loki", Settings())
        assert sink is not None  # noqa: S101 - for the type checker: only "none" is none
        super().__init__(sink)
