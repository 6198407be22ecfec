"""The exporter of spans for an OpenTelemetry SDK, with the delivery that log records have.

An SDK's span processor calls the exporter with spans that have ended.  The exporter converts,
bounds and redacts them, and puts them into the queue of spans of a runtime.  From there on,
backlog, retries, circuit, spool, quarantine and ledger are those of a sink for records.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace import export as sdk

from fapilog.context import suppressed
from fapilog.diagnostics import announce, describe, kind_of
from fapilog.engine.pipeline import may_wait
from fapilog.native import monotonic
from fapilog.otel.convert import attributes_from, from_sdk_resource, from_sdk_scope
from fapilog.process import exit as process_exit
from fapilog.process.give_way import give_way
from fapilog.processors.redact import RedactProcessor, mask_record
from fapilog.record import LogRecord, Resource, Scope, span_hex, trace_hex
from fapilog.runtime import default
from fapilog.severity import INFO
from fapilog.span import Link, Span
from fapilog.values import Limits, normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link as SDKLink
    from opentelemetry.trace import SpanContext

    from fapilog.delivery.direct_queue import DirectQueue
    from fapilog.runtime.runtime import Runtime

#: The bounds of one span, and of each of its events and links.  The SDK has already applied its
#: own limits on their numbers (OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and others).
_LIMITS: Final = Limits(attributes=1 << 14)
#: The number of spans that are converted and encoded without a pause for other threads.
_SLICE: Final = 64
_NO_LIST: Final[tuple[Any, ...]] = ()
_SUCCESS: Final = sdk.SpanExportResult.SUCCESS
_FAILURE: Final = sdk.SpanExportResult.FAILURE

_PartT = TypeVar("_PartT", bound=LogRecord)


class SpanExporter(sdk.SpanExporter):
    """Exports spans through a runtime, as ``OTEL_TRACES_EXPORTER=fapilog_otlp`` does.

    The spans go to an OTLP backend, which ``OTEL_EXPORTER_OTLP_TRACES_*`` and
    ``OTEL_EXPORTER_OTLP_*`` configure.  The runtime's options for redaction, backlog, retries,
    spool and shutdown apply to spans, too, and ``fapilog.stats().sinks["traces"]`` counts them.
    If nothing is configured, the first export configures fapilog from the environment.

    Thread-safe.  No method raises.

    Args:
        runtime: the runtime that delivers the spans; by default, the runtime that is the
            default runtime when spans are exported.

    Raises:
        ConfigurationError: an option, or a variable ``OTEL_EXPORTER_OTLP_*``, is wrong.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._target: Callable[[], Runtime | None] = (
            default.target if runtime is None else lambda: runtime
        )
        self._cleaner: _Cleaner | None = None
        self._is_shut_down = False
        _check_options(runtime or default.get_runtime())
        process_exit.before_delivery(_flush_processors)

    def export(self, spans: Sequence[ReadableSpan]) -> sdk.SpanExportResult:
        """Convert and redact spans, and put them into the runtime's queue.

        Sends nothing itself.  If the backlog is full, spans are dropped and counted.  With a
        spool, or with ``sink_overflow="block"``, the call first waits for space, for at most
        ``block_timeout`` and never in a thread that runs an event loop.

        Returns:
            SUCCESS if the runtime owns all spans, so that it delivers or counts each.  FAILURE
            if some spans were dropped, which the ledger counts.
        """
        is_whole, began = True, monotonic()
        with suppressed():
            for start in range(0, len(spans), _SLICE):
                if start:
                    give_way()
                part = spans[start : start + _SLICE]
                try:
                    is_whole &= self._export(part, began)
                except Exception as error:  # noqa: BLE001 - an SDK must not stop; announced
                    announce("spans", f"{len(part)} spans are lost: {describe(error)}")
                    is_whole = False
        return _SUCCESS if is_whole else _FAILURE

    def _export(self, spans: Sequence[ReadableSpan], began: float) -> bool:
        """Put spans into the queue.  Return False if some spans were dropped.

        ``began`` is the ``monotonic()`` time when the export began to wait for space.
        """
        runtime = self._target()
        while runtime is not None:
            queue = runtime.span_queue()
            before = queue.state.ledger.overflow.total
            converted, lost = self._converted(spans, runtime.span_redactor)
            left = runtime.settings.block_timeout - (monotonic() - began)
            if self._is_shut_down or not queue.put(converted, left if may_wait() else 0.0):
                following = self._target()
                if not self._is_shut_down and following is not runtime:
                    runtime = following  # configure() has replaced the runtime
                    continue
                _refuse(queue, converted)
            if lost:
                queue.refuse("internal_error", [INFO] * lost)
            return queue.state.ledger.overflow.total == before
        return False  # the runtime cannot be made, which has been announced

    def _converted(
        self, spans: Sequence[ReadableSpan], redactor: RedactProcessor | None
    ) -> tuple[list[Span], int]:
        """Convert spans.  Return them, and the number of spans that cannot be converted."""
        cleaner = self._cleaner
        if cleaner is None or cleaner.redactor is not redactor:
            cleaner = self._cleaner = _Cleaner(redactor)
        converted = []
        for span in spans:
            try:
                converted.append(_convert(span, cleaner))
            except Exception as error:  # noqa: BLE001, PERF203 - counted; the other spans are sent
                announce("span", f"a span cannot be converted: {kind_of(error)}; it is dropped")
        return converted, len(spans) - len(converted)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the spans and records that the runtime accepted before are settled.

        The SDK's own span processors do not call this method in their ``force_flush()``.

        Returns:
            False if ``timeout_millis`` has passed first.
        """
        runtime = default.get_runtime() if self._target is default.target else self._target()
        return runtime is None or runtime.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Refuse further spans.  Does not block: the runtime delivers the accepted spans."""
        self._is_shut_down = True


def _check_options(runtime: Runtime | None) -> None:
    """Make the queue of spans of an open runtime, or else only check the variables.

    Raises:
        ConfigurationError: an option or a variable is wrong.
    """
    if runtime is not None and not runtime.pipeline.closed:
        runtime.span_queue()
        return
    from fapilog.sinks.otlp.sink import OTLPSpanSink  # noqa: PLC0415 - only without a runtime

    sink = OTLPSpanSink()
    sink.open()
    sink.close()


def _flush_processors(seconds: float) -> None:
    """Let the processors of the global tracer provider export the spans that wait in them.

    Called before the runtimes deliver for the last time.  Blocks up to ``seconds``, or longer if
    the ending interpreter refuses to start a thread.  Never raises.
    """
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return

    def flush() -> None:
        try:
            provider.force_flush(int(seconds * 1000))
        except Exception as error:  # noqa: BLE001 - any processor's code; announced
            announce("flush spans", f"the SDK's spans were not flushed: {describe(error)}")

    thread = threading.Thread(target=flush, name="fapilog-exit", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        flush()
    else:
        thread.join(seconds)


def _refuse(queue: DirectQueue, spans: Sequence[Span]) -> None:
    queue.refuse("closed", [span.severity_number for span in spans])
    announce("closed spans", f"{len(spans)} spans were exported after a shutdown and dropped")


class _Cleaner:
    """Redacts and bounds the parts of spans, for one runtime.

    Args:
        redactor: the redactor of spans, or None if redaction is disabled.
    """

    def __init__(self, redactor: RedactProcessor | None) -> None:
        self.redactor = redactor
        # Cached, because encoders compare resources and scopes by identity.
        self.resource = lru_cache(maxsize=64)(self._resource)
        self.scope = lru_cache(maxsize=4096)(self._scope)

    def clean(self, part: _PartT) -> _PartT:
        """Mask the secrets of a span, an event or a link, and bound it, in place."""
        if self.redactor is not None:
            try:
                # The method of the class, because a subclass may return another record.
                RedactProcessor.__call__(self.redactor, part)
            except Exception as error:  # noqa: BLE001 - nothing may pass without redaction
                announce("redact", f"redaction raised {type(error).__name__}; record masked")
                mask_record(part, f"redaction raised {type(error).__name__}")
        normalise(part, _LIMITS)
        return part

    def _resource(self, resource: Resource) -> Resource:
        return Resource(self._masked(resource.attributes), resource.schema_url)

    def _scope(self, scope: Scope) -> Scope:
        if not scope.attributes:
            return scope
        attributes = self._masked(scope.attributes)
        return Scope(scope.name, scope.version, scope.schema_url, attributes)

    def _masked(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        return attributes if self.redactor is None else self.redactor.redact_mapping(attributes)


def _convert(span: ReadableSpan, cleaner: _Cleaner) -> Span:
    """Return the span of the SDK as one of fapilog, redacted and bounded, with its size.

    Raises:
        Exception: the object is not a span of the SDK.
    """
    context: Any = span.get_span_context()
    parent, status = span.parent, span.status
    events = [cleaner.clean(_event(event)) for event in span.events or _NO_LIST]
    links = [cleaner.clean(_link(link)) for link in span.links or _NO_LIST]
    made = Span(
        span.name,
        trace_id=trace_hex(context.trace_id),
        span_id=span_hex(context.span_id),
        start=span.start_time or 0,
        end=span.end_time or span.start_time or 0,
        kind=span.kind.value + 1,  # OTLP begins with an unspecified kind
        status=status.status_code.value,
        description=status.description,
        attributes=attributes_from(span.attributes),
        trace_flags=context.trace_flags,
        trace_state=_trace_state(context),
        parent_id=span_hex(parent.span_id) if parent else "",
        has_remote_parent=bool(parent and parent.is_remote),
        events=events,
        links=links,
        scope=cleaner.scope(from_sdk_scope(span.instrumentation_scope)),
        resource=cleaner.resource(from_sdk_resource(span.resource)),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
    )
    cleaner.clean(made)
    made.size += sum([part.size for part in events]) + sum([part.size for part in links])
    return made


def _event(event: Event) -> LogRecord:
    return LogRecord(
        timestamp=event.timestamp,
        event_name=event.name,
        attributes=attributes_from(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: SDKLink) -> Link:
    context = link.context
    return Link(
        trace_hex(context.trace_id),
        span_hex(context.span_id),
        context.trace_flags,
        _trace_state(context),
        is_remote=context.is_remote,
        attributes=attributes_from(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
    )


def _trace_state(context: SpanContext) -> str:
    header = ",".join([f"{key}={value}" for key, value in (context.trace_state or {}).items()])
    return header.encode("utf-8", "backslashreplace").decode()
