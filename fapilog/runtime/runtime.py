"""Defines ``Runtime``, which connects loggers, a processing pipeline and sinks.

A process may have several runtimes, for example for tests, libraries or tenants.  Functions
such as ``fapilog.flush()`` use the default runtime in ``fapilog.runtime.default``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from typing_extensions import Self

from fapilog import native
from fapilog.diagnostics import announce, describe
from fapilog.engine import holding
from fapilog.engine.entry import offered
from fapilog.engine.hold_buffer import drop_held_for
from fapilog.engine.logger import AsyncLogger, Logger, bound_fields
from fapilog.engine.pipeline import Pipeline
from fapilog.engine.registry import LoggerRegistry
from fapilog.errors import ConfigurationError
from fapilog.native import monotonic
from fapilog.process import exit as process_exit
from fapilog.process import fork
from fapilog.record import EMPTY_RESOURCE, LogRecord, Resource, Scope
from fapilog.severity import parse_severity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from opentelemetry.sdk.resources import Resource as SDKResource
    from typing_extensions import Unpack

    from fapilog.delivery.direct_queue import DirectQueue
    from fapilog.delivery.ledger import Stats
    from fapilog.delivery.route import Route
    from fapilog.options.arguments import Arguments
    from fapilog.processors import RedactProcessor
    from fapilog.protocols import Processor, Sink
    from fapilog.settings import Settings
    from fapilog.values.exceptions import Capture

    Sinks: TypeAlias = Iterable[Sink[Any] | Route | str] | Sink[Any] | Route | str
    AnyResource: TypeAlias = Resource | SDKResource | Mapping[str, Any]

_OwnerT = TypeVar("_OwnerT", Resource, Scope)

#: The default time limit of ``flush()``, in seconds.
_FLUSH: Final = 30.0
#: The shutdown at exit gets less time if a ``flush()`` has timed out within this many seconds
#: before the exit.
_JUST_NOW: Final = 1.0
#: The minimum time limit, in seconds, of the shutdown at exit after a ``flush()`` that timed out.
_REST: Final = 1.0
#: The longest time limit: one day, in seconds.  Longer limits are reduced to it, because the
#: operating system may refuse them.
_LONGEST: Final = 86_400.0


class Runtime:
    """A logger factory with its own pipeline and sinks.

    A ``with`` statement shuts the runtime down at the end of the block.  All methods
    are thread-safe.

    Args:
        settings: the options, or None to read them from the environment and files.
        sinks: the sinks, routes or names that replace the option ``sinks``.
        processors: the functions that are called for each record, in order.
            Redaction runs after them, unless one of them is a
            ``RedactProcessor`` or the option ``redact`` is off.
        level: the lowest enabled severity, as in the option ``level``.
        resource: attributes, which override detected attributes and ``service_name``, or a
            complete resource.
        **options: other options of :class:`Settings`.  A group of options is a dict, such as
            ``console={"format": "json"}``.

    Raises:
        ConfigurationError: an option is wrong; the message names the option and the fix.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sinks: Sinks | None = None,
        processors: Sequence[Processor] | None = None,
        level: int | str | None = None,
        resource: AnyResource | None = None,
        _registry: LoggerRegistry | None = None,
        **options: Unpack[Arguments],
    ) -> None:
        from fapilog.otel import resource as resources  # noqa: PLC0415 - loads the SDK
        from fapilog.runtime.wiring import (  # noqa: PLC0415 - at configure only
            make_publisher,
            make_queues,
        )

        named: dict[str, Any] = {**options} if level is None else {**options, "level": level}
        self.settings = resolve_settings(settings, named)
        self._redactor, chain = _processors(self.settings, check_processors(processors))
        detected = resources.detect_resource(check_resource(resource), self.settings.service_name)
        self.resource = self._redact(detected)
        self._process = resources.process_attributes()
        # Redacted resources and scopes are cached, because an application has few of them.
        self._redacted = lru_cache(maxsize=1024)(self._redact)
        # The redactor of spans, which are redacted on the thread that exports them.
        self.span_redactor = self._redactor and self._redactor.separate()
        self._span_queue: DirectQueue | None = None
        self._making = native.RLock()
        #: Writes the ledger into the option ``metrics_directory``; None if the option is not set.
        self.publisher = make_publisher(self)
        queues = make_queues(self.settings, sinks, self.resource)
        self.pipeline = Pipeline(self.settings, queues, chain, self.resource)
        if self.publisher is not None:
            self.pipeline.on_step = self.publisher.notice
        #: The end time of the last flush() that timed out, and the total duration, in seconds, of
        #: this call and of the timed-out calls just before it.  ``exit_timeout`` subtracts this
        #: duration from the time limit.
        self._gave_up = (-_LONGEST, 0.0)
        #: The redactors of records and of spans, each with the numbers of the values, by rule, that
        #: it had masked before this runtime received records.
        self.redactors = [
            (redactor, redactor.counts)
            for redactor in (self._redactor, self.span_redactor)
            if redactor is not None
        ]
        self._registry = _registry or LoggerRegistry(lambda _core: None)
        self._registry.attach(self.pipeline, self.settings)
        process_exit.register(self, handle_sigterm=self.settings.handle_sigterm)
        fork.register("runtimes", in_child=self.after_fork)
        for queue in queues:
            queue.adopt_orphans()

    def get_logger(self, name: str = "", /, **bound: Any) -> Logger:
        """Return a logger called ``name``, which adds the attributes ``bound`` to its records."""
        return Logger(self._registry.core(name), bound_fields(name, bound))

    def get_async_logger(self, name: str = "", /, **bound: Any) -> AsyncLogger:
        """Return a logger called ``name`` with async methods."""
        return AsyncLogger(self._registry.core(name), bound_fields(name, bound))

    def set_level(self, level: int | str | None, logger: str = "") -> None:
        """Change the level of a logger and of its child loggers, with immediate effect.

        Args:
            level: the lowest enabled severity: a name, a ``Severity`` or a level of
                :mod:`logging`; or None to inherit the parent's level again.
            logger: the dotted name of the logger, or "" to change the default of all
                loggers.

        Raises:
            ConfigurationError: ``level`` is not a severity.
        """
        try:
            threshold = None if level is None else int(parse_severity(level))
        except Exception as error:  # noqa: BLE001 - any object may be given
            msg = f"set_level(): {describe(error)}"
            raise ConfigurationError(msg) from None
        self._registry.set_level(logger, threshold)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all records that were logged before this call are delivered or dropped.

        If a backend is down and its sink has a spool, this call does not wait for the delivery
        of records that are stored on disk.  Blocks up to ``timeout`` seconds (30 if it is None
        or not a number).

        Returns:
            False if the time limit was exceeded, else True.
        """
        began = monotonic()
        is_done = self.pipeline.flush(_time_limit("flush", timeout, _FLUSH))
        if not is_done:
            now = monotonic()
            ended, duration = self._gave_up
            before = duration if began - ended <= _JUST_NOW else 0.0
            self._gave_up = (now, before + now - began)
        return is_done

    def shutdown(self, timeout: float | None = None) -> None:
        """Deliver the accepted records, end all threads and close the sinks.

        Blocks up to ``timeout`` seconds in total.  If ``timeout`` is None or not a number,
        the option ``shutdown_timeout`` is the limit.  Records that are neither delivered nor
        on disk by then, and records that are logged later, are dropped, and :meth:`stats`
        counts them.  A second call does nothing.
        """
        deadline = monotonic() + _time_limit("shutdown", timeout, self.settings.shutdown_timeout)
        # Set before the loggers are closed.  Otherwise, the records that they drop would be
        # counted with the reason ``queue_full`` instead of ``closed``.
        self.pipeline.closed = True
        self._registry.close()
        self._end(deadline)

    def retire(self) -> None:
        """Shut down, but leave the loggers open, because another runtime uses them now.

        Blocks for at most ``settings.shutdown_timeout`` seconds.
        """
        self._end(monotonic() + self.settings.shutdown_timeout)

    def _end(self, deadline: float) -> None:
        self.pipeline.close(deadline)
        drop_held_for(self.pipeline)
        if self.publisher is not None:
            self.publisher.close()
        process_exit.unregister(self)

    def prepare_exit(self) -> None:
        """Start the threads for ``shutdown()`` before the interpreter refuses to start threads."""
        self.pipeline.start_threads()

    def stats(self) -> Stats:
        """Return the current statistics.  Does not block."""
        stats = self.pipeline.stats()
        if self._redactor is None or self.span_redactor is None:
            return stats
        sinks, queue = stats.sinks, self._span_queue
        if queue is not None and queue.name in sinks:
            of_spans = replace(sinks[queue.name], redacted=self.span_redactor.redacted)
            sinks = {**sinks, queue.name: of_spans}
        return replace(stats, sinks=sinks, redacted=self._redactor.redacted)

    def span_queue(self) -> DirectQueue:
        """Return the queue of spans; the first call makes it, and opens its sink and its spool.

        :meta private:

        Raises:
            ConfigurationError: an option, or a variable ``OTEL_EXPORTER_OTLP_*``, is wrong.
        """
        with self._making:
            if self._span_queue is None:
                from fapilog.runtime import wiring  # noqa: PLC0415 - see __init__()

                names = [queue.name for queue in self.pipeline.sending_queues()]
                queue = wiring.make_span_queue(self.settings, names)
                if self.pipeline.add_direct(queue):
                    queue.adopt_orphans()
                else:  # it only counts the spans that arrive after the shutdown
                    queue.start_close(monotonic())
                    queue.finish_close()
                self._span_queue = queue
            return self._span_queue

    @property
    def exit_timeout(self) -> float:
        """The time limit, in seconds, of the shutdown at the exit of the process.

        The limit is ``settings.shutdown_timeout``.  If a ``flush()`` has just timed out, for
        example at the end of an ASGI lifespan, its duration is subtracted from the limit, so
        that a dead backend does not delay the exit twice.
        """
        longest = self.settings.shutdown_timeout
        ended, duration = self._gave_up
        if monotonic() - ended > _JUST_NOW:
            return longest
        return max(longest - duration, min(longest, _REST))

    @property
    def has_console(self) -> bool:
        """Whether a console sink writes every record to standard output or standard error."""
        return not self.pipeline.closed and any(
            hasattr(queue.sink, "is_interactive") and queue.intake.takes_all
            for queue in self.pipeline.sending_queues()
        )

    def is_enabled(self, name: str, severity_number: int) -> bool:
        """Return whether a record of the logger ``name`` with this severity would be queued.

        Also returns True if a ``hold()`` block would buffer the record.
        """
        if not self.pipeline.sending_queues():
            return False
        threshold = self._registry.levels.threshold(name)
        return severity_number >= threshold or (
            severity_number >= holding.gate(threshold)
            and holding.taker(severity_number) is not None
        )

    def has_level(self, name: str) -> bool:
        """Return whether a level is set for the logger ``name`` or for one of its parents.

        The empty name "" means the option ``level``.
        """
        return self._registry.levels.has(name)

    def lowest_severity(self) -> int:
        """Return the lowest severity number that any logger or ``hold()`` block accepts."""
        return holding.gate(self._registry.levels.lowest)

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        """Put a record of another logging library into the queue.

        A record below the level of its logger is buffered by the current ``hold()`` block.

        Args:
            record: the record, whose values must not change after this call.
            exception: the record's exception, which the worker thread converts to attributes,
                or None.
        """
        number = record.severity_number if isinstance(record.severity_number, int) else 0
        entry = offered(self._complete, number, record, exception)
        hold = None
        if holding.floor <= number < self._registry.levels.highest:
            threshold = self._registry.levels.threshold(record.scope.name)
            if holding.gate(threshold) <= number < threshold:
                hold = holding.taker(number)
        try:
            if hold is None:
                self.pipeline.put(entry)
            else:
                hold.add(self.pipeline, entry)
        except MemoryError:
            self.pipeline.refuse(number, "no_memory")

    def _complete(self, record: LogRecord, exception: Capture | None, now: int) -> LogRecord:
        """Add the exception's attributes, missing times and the resource to ``record``.

        Runs on the worker thread.  ``now`` is the observed time in nanoseconds.
        """
        if exception is not None:
            record.attributes = {**exception.attributes(), **record.attributes}
        record.observed_timestamp = record.observed_timestamp or now
        record.timestamp = record.timestamp or record.observed_timestamp
        if record.resource is EMPTY_RESOURCE:
            record.resource = self.resource
        elif record.resource is not self.resource:
            record.resource = self._redacted(record.resource)
        if record.scope.attributes:
            record.scope = self._redacted(record.scope)
        return record

    def _redact(self, owner: _OwnerT) -> _OwnerT:
        """Return a copy of a resource or a scope with the secrets in its attributes masked."""
        if self._redactor is None:
            return owner
        return replace(owner, attributes=self._redactor.redact_mapping(owner.attributes))

    def after_fork(self) -> None:
        """Update the resource in a forked child process, which has a different process id."""
        from fapilog.otel import resource as resources  # noqa: PLC0415 - loaded by __init__()

        self._making = native.RLock()
        before, self._process = self._process, resources.process_attributes()
        self.resource = resources.of_child(self.resource, before, self._process)
        self.pipeline.resource = self.resource
        self._registry.after_fork()
        if self.publisher is not None:
            self.publisher.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _time_limit(function: str, given: Any, default: float) -> float:
    """Return the timeout ``given`` in seconds, limited to the range from 0 to one day.

    Returns ``default`` if ``given`` is None.  Returns ``default`` and writes an error to stderr
    if ``given`` is not a number.
    """
    if given is None:
        return default
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if is_number and (given >= 0 or given < 0):  # both are false for NaN
        return float(min(max(given, 0), _LONGEST))
    announce(
        f"{function} timeout",
        f"{function}(timeout) takes seconds, not {type(given).__name__}; using {default:g} s",
    )
    return default


def resolve_settings(settings: object, options: Mapping[str, Any]) -> Settings:
    """Return validated settings, in which ``options`` override ``settings``.

    Raises:
        ConfigurationError: an option is wrong, or ``settings`` is not a ``Settings`` object.
    """
    from fapilog.settings import Settings as Model  # noqa: PLC0415 - pydantic loads at configure

    if isinstance(settings, Model) and not options:
        return settings
    return Model(**named_options(settings, options))


def named_options(
    settings: object, options: Mapping[str, Any], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Merge the options that ``settings``, ``options`` and earlier calls set.

    Args:
        settings: a ``Settings`` object, or None.
        options: the options that override ``settings`` or ``before``.
        before: the options that earlier calls set.  They are used if ``settings`` is None.

    Raises:
        ConfigurationError: ``settings`` is neither None nor a ``Settings`` object.
    """
    from fapilog.options.schema import kept, nested  # noqa: PLC0415 - pydantic loads at configure
    from fapilog.settings import Settings as Model  # noqa: PLC0415 - pydantic loads at configure

    if settings is None:
        return kept(Model, before or {}, nested(options))
    if not isinstance(settings, Model):
        msg = f"settings: {settings!r} is not a Settings object; pass options by name"
        raise ConfigurationError(msg)
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return kept(Model, given, nested(options))


def check_processors(given: object) -> tuple[Processor, ...]:
    """Return the processors ``given`` as a tuple.

    Raises:
        ConfigurationError: ``given`` is not iterable, or contains a class, a coroutine
            function or an object that is not callable.
    """
    fix = "pass a list of functions (record) -> record"
    if given is None:
        return ()
    if callable(given) or not isinstance(given, Iterable):
        msg = f"processors: {given!r} is not a list; {fix}"
        raise ConfigurationError(msg)
    processors = tuple(given)
    for processor in processors:
        if not callable(processor) or isinstance(processor, type):
            msg = f"processors: {processor!r} is not callable; {fix}"
            raise ConfigurationError(msg)
        if inspect.iscoroutinefunction(processor):
            msg = f"processors: {processor!r} is a coroutine function; {fix}"
            raise ConfigurationError(msg)
    return processors


def check_resource(given: Any) -> AnyResource | None:
    """Return the given resource, or a copy of the given attributes.

    Raises:
        ConfigurationError: ``given`` is neither a mapping nor a resource.
    """
    if given is None or hasattr(given, "attributes"):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, Mapping):
        msg = f"resource: {given!r} is neither a mapping of attributes nor a resource"
        raise ConfigurationError(msg)
    return dict(given)


def _processors(
    settings: Settings, given: Sequence[Processor]
) -> tuple[RedactProcessor | None, list[Processor]]:
    from fapilog.processors import RedactProcessor as Redactor  # noqa: PLC0415 - at configure only
    from fapilog.processors.redact import redactor_of  # noqa: PLC0415 - at configure only

    own = next((p for p in given if isinstance(p, Redactor)), None)
    if own is None:
        own = redactor_of(settings)
        return own, [*given, own] if own else [*given]
    # Redaction runs again at the end, because processors after ``own`` may add secrets.
    return own, [*given] if isinstance(given[-1], Redactor) else [*given, own]
