"""Reports the ledger of the default runtime as OpenTelemetry metrics.

``configure()`` creates one :class:`LedgerMetrics` for the global meter provider.  A log call does
nothing for these metrics: when the provider collects them, callbacks read the counters that
fapilog keeps in any case.  Only the histogram of durations is recorded while records are sent, on
the sinks' threads, once per batch.

If OpenTelemetry's semantic conventions have a name for a value, the metric has this name
(https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/).  The other names begin with
``fapilog.``.
"""

from __future__ import annotations

import os
import weakref
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry import metrics as api

from fapilog import native
from fapilog.delivery.ledger import BUCKETS, INTENDED
from fapilog.diagnostics import announce, describe
from fapilog.process import fork
from fapilog.sinks.http.options import own_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TypeAlias

    from fapilog.delivery.sending_queue import SendingQueue
    from fapilog.engine.pipeline import Pipeline
    from fapilog.processors import RedactProcessor
    from fapilog.runtime.runtime import Runtime

    Attributes: TypeAlias = tuple[tuple[str, str | int], ...]
    #: The name of a metric, its attributes and the value.
    Value: TypeAlias = tuple[str, Attributes, float]
    #: The values of metrics, by name and attributes.
    Series: TypeAlias = dict[tuple[str, Attributes], float]

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]

#: The name of the instrumentation scope of all metrics.
SCOPE: Final = "fapilog"

LOG_CREATED: Final = "otel.sdk.log.created"
LOG_PROCESSED: Final = "otel.sdk.processor.log.processed"
QUEUE_SIZE: Final = "otel.sdk.processor.log.queue.size"
QUEUE_CAPACITY: Final = "otel.sdk.processor.log.queue.capacity"
EXPORTED: Final = "otel.sdk.exporter.{}.exported"
INFLIGHT: Final = "otel.sdk.exporter.{}.inflight"
DURATION: Final = "otel.sdk.exporter.operation.duration"
RECORDS: Final = "fapilog.records"
DROPPED: Final = "fapilog.dropped"
REDACTIONS: Final = "fapilog.redactions"
FAILURES: Final = "fapilog.processor.failures"
RETRIES: Final = "fapilog.retries"
RESENT: Final = "fapilog.resent"
ADOPTED: Final = "fapilog.adopted"
BACKLOG_SIZE: Final = "fapilog.backlog.size"
BACKLOG_CAPACITY: Final = "fapilog.backlog.capacity"
SPOOL_ITEMS: Final = "fapilog.spool.items"
SPOOL_SIZE: Final = "fapilog.spool.size"
SPOOL_AGE: Final = "fapilog.spool.age"
LAG: Final = "fapilog.lag"
BACKEND_DOWN: Final = "fapilog.backend.down"
BACKEND_DENIED: Final = "fapilog.backend.denied"

#: The attributes of the pipeline itself, in the metrics that name a component.
_PIPELINE: Final = (
    ("otel.component.name", "fapilog.Runtime/0"),
    ("otel.component.type", "fapilog.Runtime"),
)
#: The beginning of ``otel.component.type`` for each protocol of an OTLP sink.
_OTLP_TYPES: Final = {
    "grpc": "otlp_grpc",
    "http/protobuf": "otlp_http",
    "http/json": "otlp_http_json",
}
#: The value of ``error.type`` that the conventions require for these reasons of drops.
_ERROR_TYPES: Final = {"closed": "already_shutdown"}
#: The beginning of the wire format of sinks that send spans.  All other sinks send log records.
_SPANS: Final = "otlp-traces-"


@dataclass(frozen=True)
class Metric:
    """The definition of a metric: its name, its instrument, its unit and its description."""

    name: str
    kind: Kind
    unit: str
    description: str


METRICS: Final = (
    Metric(LOG_CREATED, "counter", "{log_record}", "Records that were logged at an enabled level."),
    Metric(
        LOG_PROCESSED,
        "counter",
        "{log_record}",
        "Records that were passed to the sinks or dropped before.",
    ),
    Metric(QUEUE_SIZE, "updowncounter", "{log_record}", "Records that wait in the queue."),
    Metric(QUEUE_CAPACITY, "updowncounter", "{log_record}", "Records that fit in the queue."),
    *(
        metric
        for signal, unit, items in (("log", "{log_record}", "Records"), ("span", "{span}", "Spans"))
        for metric in (
            Metric(
                EXPORTED.format(signal),
                "counter",
                unit,
                f"{items} that a sink has delivered, or has given up.",
            ),
            Metric(
                INFLIGHT.format(signal),
                "updowncounter",
                unit,
                f"{items} that a sink has neither delivered nor given up, in memory and on disk.",
            ),
        )
    ),
    Metric(DURATION, "histogram", "s", "Duration of sending one batch, including its retries."),
    Metric(
        RECORDS, "counter", "{log_record}", "Records that the processors passed on, by logger."
    ),
    Metric(DROPPED, "counter", "{item}", "Records and spans that fapilog dropped, by reason."),
    Metric(REDACTIONS, "counter", "{value}", "Values that redaction masked."),
    Metric(FAILURES, "counter", "{error}", "Exceptions of processors; the records were masked."),
    Metric(RETRIES, "counter", "{attempt}", "Attempts that failed and were repeated."),
    Metric(
        RESENT,
        "counter",
        "{item}",
        "Records sent again after an attempt without an answer; may be duplicates.",
    ),
    Metric(ADOPTED, "counter", "{item}", "Records adopted from the spools of earlier processes."),
    Metric(BACKLOG_SIZE, "updowncounter", "By", "Encoded bytes that wait in memory for a sink."),
    Metric(BACKLOG_CAPACITY, "updowncounter", "By", "Encoded bytes that may wait in memory."),
    Metric(SPOOL_ITEMS, "updowncounter", "{item}", "Records that wait on disk for a sink."),
    Metric(SPOOL_SIZE, "updowncounter", "By", "Bytes that wait on disk for a sink."),
    Metric(SPOOL_AGE, "gauge", "s", "Time since the oldest waiting batch was written to disk."),
    Metric(LAG, "gauge", "s", "Age of the oldest record that waits for a sink or is being sent."),
    Metric(BACKEND_DOWN, "gauge", "", "1 while the backend accepts no records, otherwise 0."),
    Metric(BACKEND_DENIED, "gauge", "", "1 while the backend refuses the credentials, else 0."),
)  # fmt: skip
_KINDS: Final = {metric.name: metric.kind for metric in METRICS}


class LedgerMetrics:
    """Reports the ledger of one runtime, or of one runtime after the other, as metrics.

    ``configure()`` does this for the default runtime and the global meter provider; use this class
    for another provider.  A provider ignores a second object, but one object can report several
    runtimes, whose values are added.  The values of counters never decrease, because the counters
    of a runtime that has shut down are kept.  In a forked child process, all counters begin at 0,
    and every point gets the attribute ``process.pid``, because the provider may still store the
    values of the parent process.  Thread-safe.

    Args:
        meter_provider: the provider that collects the metrics; by default, the global provider,
            even if the application sets it later.

    Raises:
        Exception: an error of the provider.
    """

    def __init__(self, meter_provider: api.MeterProvider | None = None) -> None:
        provider = meter_provider or api.get_meter_provider()
        self._lock = native.RLock()  # re-entrant: a signal handler may call configure()
        self._ledgers = _Ledgers()
        self._own: Attributes = ()  # the attributes of every point
        self._read: dict[str, list[api.Observation]] = {}
        self._duration: api.Histogram | None = None
        self._watched: weakref.WeakSet[SendingQueue] = weakref.WeakSet()
        meter = provider.get_meter(SCOPE, own_version())
        for metric in METRICS:
            self._create(meter, metric)
        fork.register("exporters", in_child=self.after_fork)

    def _create(self, meter: api.Meter, metric: Metric) -> None:
        if metric.kind == "histogram":
            self._duration = meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=BUCKETS,
            )
            return
        create = {
            "counter": meter.create_observable_counter,
            "updowncounter": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [partial(self._observe, metric.name)], metric.unit, metric.description)

    def follow(self, runtime: Runtime) -> None:
        """Report ``runtime``, in addition to earlier runtimes until these have shut down.

        Does not block.
        """
        with self._lock:
            self._ledgers.add(runtime)
            self._watch(runtime.pipeline)

    def _watch(self, pipeline: Pipeline) -> None:
        """Measure the durations of sending in all queues that are not measured yet."""
        for queue in pipeline.all_queues():
            if queue not in self._watched:
                self._watched.add(queue)
                queue.observers.append(partial(self._record, component_of(queue)))

    def _observe(self, name: str, _options: object) -> Iterable[api.Observation]:
        """Return the current values of the metric ``name``.  Never raises.

        A meter provider calls this function once per metric and collection.  All metrics of one
        collection are read together, so that their values fit: if a metric is read a second time,
        a new collection has begun.
        """
        try:
            with self._lock:
                if name not in self._read:
                    self._read = self._observations()
                return self._read.pop(name)
        except Exception as error:  # noqa: BLE001 - an exception would be logged, also by fapilog
            announce("metrics", f"a metric is not reported: {name}: {describe(error)}")
            return ()

    def _observations(self) -> dict[str, list[api.Observation]]:
        for runtime in self._ledgers.runtimes:
            self._watch(runtime.pipeline)  # a queue may have been added to the pipeline
        found: dict[str, list[api.Observation]] = {name: [] for name in _KINDS}
        for (name, attributes), value in self._ledgers.read().items():
            found[name].append(api.Observation(value, dict((*attributes, *self._own))))
        return found

    def _record(self, attributes: Attributes, seconds: float, failure: str) -> None:
        """Record the duration of sending one batch.  Called on a thread of a sink; never raises."""
        failures = (("error.type", failure),) if failure else ()
        try:
            if self._duration is not None:
                self._duration.record(seconds, dict((*attributes, *failures, *self._own)))
        except Exception as error:  # noqa: BLE001 - the code of any meter provider
            announce("metrics", f"a metric is not reported: {DURATION}: {describe(error)}")

    def after_fork(self) -> None:
        """Begin at 0 in a forked child process."""
        self._lock = native.RLock()  # re-entrant: a signal handler may call configure()
        self._read = {}
        self._own = (("process.pid", os.getpid()),)
        self._ledgers.after_fork()


@dataclass
class _Ledgers:
    """The ledgers of the runtimes that one ``LedgerMetrics`` reports.

    Attributes:
        runtimes: the runtimes that have not shut down, and the newest runtime.
        past: the final counters of earlier runtimes.
        highest: the highest values of all counters so far.
        redactors: the redactors of ``runtimes``, by id.  Several runtimes may share a redactor.
    """

    runtimes: list[Runtime] = field(default_factory=list)
    past: Series = field(default_factory=lambda: defaultdict(int))
    highest: Series = field(default_factory=dict)
    redactors: dict[int, _Redactor] = field(default_factory=dict)

    def add(self, runtime: Runtime) -> None:
        self._retire()
        if runtime in self.runtimes:
            return
        self.runtimes.append(runtime)
        for redactor, before in runtime.redactors:
            self.redactors.setdefault(id(redactor), _Redactor(redactor, before))

    def read(self) -> Series:
        """Return the current values of all metrics."""
        self._retire()
        series: Series = defaultdict(int, self.past)
        for name, attributes, value in self._values():
            key = (name, attributes)
            is_gauge = _KINDS[name] == "gauge"
            series[key] = max(series[key], value) if is_gauge else series[key] + value
        for key, value in series.items():
            if _KINDS[key[0]] == "counter":
                self.highest[key] = max(value, self.highest.get(key, 0))
        # A counter of the ledger may decrease: temporarily while another thread changes it, or
        # because another program has deleted the quarantine.
        series.update(self.highest)
        return series

    def _values(self) -> Iterator[Value]:
        for runtime in self.runtimes:
            yield from _of_pipeline(runtime.pipeline)
            for queue in runtime.pipeline.all_queues():
                yield from _of_queue(queue)
        for redactor in self.redactors.values():
            yield from redactor.values()

    def _retire(self) -> None:
        """Move the counters of runtimes that have shut down to ``past``, except the newest."""
        ended = [runtime for runtime in self.runtimes[:-1] if runtime.pipeline.ended]
        if not ended:
            return
        left = [runtime for runtime in self.runtimes if runtime not in ended]
        used = {id(redactor) for runtime in left for redactor, _ in runtime.redactors}
        unused = self.redactors.keys() - used
        retired = _Ledgers(ended, redactors={key: self.redactors.pop(key) for key in unused})
        self.runtimes = left
        for name, attributes, value in retired._values():
            if _KINDS[name] == "counter":
                self.past[name, attributes] += value

    def after_fork(self) -> None:
        del self.runtimes[:-1]
        self.past.clear()
        self.highest.clear()
        self.redactors = {}
        for runtime in self.runtimes:
            for redactor, _ in runtime.redactors:
                self.redactors[id(redactor)] = _Redactor(redactor, redactor.counts)


class _Redactor:
    """A redactor, and the numbers of the values that it had masked before its runtime existed."""

    def __init__(self, redactor: RedactProcessor, before: Mapping[str, int]) -> None:
        self._redactor = redactor
        self._before = before

    def values(self) -> Iterator[Value]:
        for rule, count in self._redactor.counts.items():
            if count > self._before[rule]:
                yield REDACTIONS, (("fapilog.rule", rule),), count - self._before[rule]


def component_of(queue: SendingQueue) -> Attributes:
    """Return the attributes that identify a sink in its metrics.

    ``otel.component.name`` is the sink's name in the statistics.  ``otel.component.type`` is the
    name that the conventions have for an exporter over OTLP, or the name of the sink's class.
    """
    sink: Any = queue.sink
    kind = f"{type(sink).__module__}.{type(sink).__qualname__}"
    if str(getattr(sink, "wire_format", "")).startswith("otlp-"):
        protocol = getattr(getattr(sink, "options", None), "protocol", None)
        if protocol in _OTLP_TYPES:
            kind = f"{_OTLP_TYPES[protocol]}_{_signal_of(queue)}_exporter"
    return ("otel.component.name", queue.name), ("otel.component.type", kind)


def _signal_of(queue: SendingQueue) -> str:
    wire_format = str(getattr(queue.sink, "wire_format", ""))
    return "span" if wire_format.startswith(_SPANS) else "log"


def _of_pipeline(pipeline: Pipeline) -> Iterator[Value]:
    progress = pipeline.progress()
    refused = sum(progress.refused.values())
    failed: dict[str, int] = defaultdict(int)
    for drops in (progress.refused, progress.dropped):
        for (reason, severity), count in drops.items():
            yield DROPPED, _drop(_PIPELINE, reason, severity), count
            if reason not in INTENDED:
                failed[_ERROR_TYPES.get(reason, reason)] += count
    yield LOG_CREATED, (), refused + progress.processed + progress.in_hand + progress.waiting
    yield LOG_PROCESSED, _PIPELINE, refused + progress.processed - sum(failed.values())
    for reason, count in failed.items():
        yield LOG_PROCESSED, (*_PIPELINE, ("error.type", reason)), count
    if not pipeline.ended:
        yield QUEUE_SIZE, _PIPELINE, progress.waiting
        yield QUEUE_CAPACITY, _PIPELINE, pipeline.admission.capacity
    yield FAILURES, (), pipeline.processing.errors
    by_logger = pipeline.processing.by_logger
    for (name, severity), count in by_logger.snapshot().items() if by_logger else ():
        yield RECORDS, (("fapilog.logger", name), ("fapilog.severity", severity)), count


def _of_queue(queue: SendingQueue) -> Iterator[Value]:
    state, ledger, component = queue.state, queue.state.ledger, component_of(queue)
    signal = _signal_of(queue)
    failed: dict[str, int] = defaultdict(int)
    for drops in (ledger.overflow, ledger.drops):
        for (reason, severity), count in drops.snapshot().items():
            yield DROPPED, _drop(component, reason, severity), count
            failed[reason] += count
    spool = state.spool
    if spool is not None and spool.corrupt.records:
        failed["spool_damaged"] += spool.corrupt.records
        yield DROPPED, _drop(component, "spool_damaged", "UNKNOWN"), spool.corrupt.records
    failed["rejected"] += ledger.rejected
    failed["quarantined"] += ledger.quarantined
    exported = EXPORTED.format(signal)
    yield exported, component, ledger.delivered
    for reason, count in failed.items():
        if count:
            yield exported, (*component, ("error.type", reason)), count
    yield INFLIGHT.format(signal), component, state.unsettled
    for name, value in _of_sending(queue):
        yield name, component, value
    if spool is not None:
        yield ADOPTED, component, spool.adopted
        yield SPOOL_ITEMS, component, state.spooled
        yield SPOOL_SIZE, component, spool.pending_bytes
        yield SPOOL_AGE, component, state.spool_age


def _of_sending(queue: SendingQueue) -> Iterator[tuple[str, float]]:
    state = queue.state
    yield RETRIES, state.ledger.retries
    yield RESENT, state.ledger.resent
    yield BACKLOG_SIZE, state.backlog.pending_bytes
    yield BACKLOG_CAPACITY, state.options.capacity
    yield LAG, state.lag
    yield BACKEND_DOWN, int(state.circuit.opened_at is not None)
    yield BACKEND_DENIED, int(state.circuit.access_denied)


def _drop(component: Attributes, reason: str, severity: str) -> Attributes:
    return (*component, ("fapilog.reason", reason), ("fapilog.severity", severity))
