"""Defines ``ExporterSink``, which sends records through an OpenTelemetry SDK log exporter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource as SDKResource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fapilog.context import suppressed
from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError, PermanentError, RetryableError, SendError
from fapilog.protocols import BatchLimits, Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs.export import LogRecordExporter

    from fapilog.record import LogRecord, Resource, Scope

_SEVERITIES: Final = tuple(api.SeverityNumber(number) for number in range(25))
# An OpenTelemetry context without a span, used for every record.  To a record without a context,
# OpenTelemetry would add the ids of the span that is active on fapilog's worker thread.
_NO_SPAN: Final = trace.set_span_in_context(trace.INVALID_SPAN, Context())

# An exporter that raises one of these errors cannot encode the batch; a retry would fail again.
_DEFECTS: Final = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


@dataclass(frozen=True)
class _Truncated(ReadableLogRecord):
    """An SDK log record that also contains the number of attributes that fapilog dropped."""

    dropped: int = 0

    @property
    def dropped_attributes(self) -> int:
        return self.dropped


class ExporterSink(Sink[ReadableLogRecord]):
    """Delivers records to a ``LogRecordExporter`` of the OpenTelemetry SDK.

    An exporter usually retries failed requests itself, so fapilog does not retry a batch
    after ``attempts`` failed exports.  An export that raises ``OSError`` is not counted as
    failed: fapilog retries the batch in the same way as for its other sinks.  The sink cannot
    interrupt an export; only the exporter's time limit can end it.

    Args:
        exporter: an instance of the exporter.  Only one thread calls the exporter, and
            ``close`` shuts it down.
        name: the sink's name in statistics and diagnostic messages.  The default is the name
            of the exporter's class.
        limits: the limits of a batch: the number of records, the size in bytes, and the delay.
            None means the defaults of ``BatchLimits``.
        attempts: the number of failed exports after which a batch is not retried, at least 1.
        timeout: the time limit for the exporter's flush when the sink closes, in seconds.
    """

    def __init__(
        self,
        exporter: LogRecordExporter,
        *,
        name: str | None = None,
        limits: BatchLimits | None = None,
        attempts: int = 3,
        timeout: float = 5.0,
    ) -> None:
        self._exporter = exporter
        self.name = name or type(exporter).__name__
        self.limits = limits or BatchLimits()
        self._attempts = attempts
        self._timeout = timeout
        self._failing: tuple[ReadableLogRecord | None, int] = (None, 0)

    def open(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: an option is wrong.
        """
        missing = [m for m in ("export", "shutdown") if not callable(getattr(self._exporter, m, 0))]
        if missing:
            msg = (
                f"ExporterSink: exporter has no {missing[0]}(); "
                "pass an instance of an opentelemetry.sdk._logs.export.LogRecordExporter"
            )
            raise ConfigurationError(msg)
        if self._attempts < 1 or self._timeout <= 0:
            msg = "ExporterSink: attempts must be at least 1 and timeout above 0 seconds"
            raise ConfigurationError(msg)

    def encode(self, record: LogRecord) -> ReadableLogRecord:
        """Convert the record to the SDK's log record type.

        The exporter must not change the lists and mappings inside the record, because they
        are shared with the other sinks.
        """
        made = api.LogRecord(
            timestamp=record.timestamp,
            observed_timestamp=record.observed_timestamp,
            context=_NO_SPAN,
            severity_text=record.severity_text,
            severity_number=_SEVERITIES[record.severity_number],
            body=record.body,
            attributes=dict(record.attributes),
            event_name=record.event_name or None,
        )
        if record.trace_id:
            made.trace_id = int(record.trace_id, 16)
            made.span_id = int(record.span_id or "0", 16)
            made.trace_flags = trace.TraceFlags(record.trace_flags)
        resource, scope = _resource(record.resource), _scope(record.scope)
        if record.dropped_attributes_count:
            return _Truncated(made, resource, scope, dropped=record.dropped_attributes_count)
        return ReadableLogRecord(made, resource, scope)

    def send(self, batch: Sequence[ReadableLogRecord], timeout: float) -> None:  # noqa: ARG002 - see the class
        """Export a batch.  Blocks until the exporter returns.

        Raises:
            RetryableError: the exporter raised ``OSError``, or the export failed in another
                way and the number of failures of this batch is below ``attempts``.
            PermanentError: the export of this batch has failed ``attempts`` times, or the
                exporter raised an error such as ``TypeError``, which means that it cannot
                encode the batch.
            SendError: the exporter raised this error, which is passed on unchanged.
        """
        try:
            with suppressed():
                result: Any = self._exporter.export(batch)
        except SendError:
            raise
        except OSError as error:
            raise RetryableError(_describe(error)) from error
        except _DEFECTS as error:
            raise PermanentError(_describe(error)) from error
        except Exception as error:
            raise self._failure(batch[0], _describe(error)) from error
        # Compare only the name of the result, because older exporters return a member of
        # another enumeration.  An exporter that returns None has succeeded.
        if getattr(result, "name", "") == "FAILURE":
            raise self._failure(batch[0], "the exporter reported FAILURE")
        self._failing = (None, 0)

    def _failure(self, head: ReadableLogRecord, message: str) -> SendError:
        failing, count = self._failing
        count = count + 1 if failing is head else 1
        if count < self._attempts:
            self._failing = (head, count)
            return RetryableError(message)
        self._failing = (None, 0)
        return PermanentError(f"{message}, {count} times")

    def close(self) -> None:
        """Flush the exporter with the time limit ``timeout``, and shut it down."""
        flush = getattr(self._exporter, "force_flush", None)  # new in OpenTelemetry SDK 1.40
        with suppressed():
            try:
                if flush is not None:
                    flush(int(self._timeout * 1000))
            except Exception as error:  # noqa: BLE001 - shutdown() must be called anyway
                announce(f"close {self.name}", f"{self.name}: flush failed: {_describe(error)}")
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def _resource(resource: Resource) -> SDKResource:
    return SDKResource(dict(resource.attributes), resource.schema_url)


@lru_cache(maxsize=4096)
def _scope(scope: Scope) -> InstrumentationScope:
    return InstrumentationScope(scope.name, scope.version, scope.schema_url, dict(scope.attributes))


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
