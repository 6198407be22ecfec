"""A runtime: a logger registry, a pipeline and sinks with their own settings.

A process may have several runtimes (for tests, libraries or tenants).  The
functions of ``fapilog`` use the default runtime of ``fapilog.runtime.default``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from typing_extensions import Self

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

#: Default time limit of ``flush()``, in seconds.
_FLUSH: Final = 30.0
#: A failed ``flush()`` that ended at most this many seconds ago reduces the exit timeout.
_JUST_NOW: Final = 1.0
#: The minimum, in seconds, to which a failed ``flush()`` can reduce the exit timeout.
_REST: Final = 1.0
#: The longest time limit: one day, in seconds.  It replaces longer limits and infinity,
#: which the operating system may refuse.
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
        resource: the attributes that override the detected ones and ``service_name``,
            or a complete resource.
        **options: other options of :class:`Settings`.  An option of a group is
            written ``console={"format": "json"}``.

    Raises:
        ConfigurationError: an option is wrong; the message names it and the fix.
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
        from fapilog.runtime.wiring import make_queues  # noqa: PLC0415 - at configure only

        named: dict[str, Any] = {**options} if level is None else {**options, "level": level}
        self.settings = resolve_settings(settings, named)
        self._redactor, chain = _processors(self.settings, check_processors(processors))
        detected = resources.detect_resource(check_resource(resource), self.settings.service_name)
        self.resource = self._redact(detected)
        self._process = resources.process_attributes()
        # Cached, because an application has few resources and scopes.  The cache compares
        # them by identity.
        self._redacted = lru_cache(maxsize=1024)(self._redact)
        queues = make_queues(self.settings, sinks, self.resource)
        self.pipeline = Pipeline(self.settings, queues, chain, self.resource)
        #: The time when the last failed flush() ended, and the total seconds of it and of the
        #: failed calls just before it.  The exit waits for less time after a failed flush().
        self._gave_up = (-_LONGEST, 0.0)
        self._registry = _registry or LoggerRegistry(lambda _core: None)
        self._registry.attach(self.pipeline, self.settings)
        process_exit.register(self, handle_sigterm=self.settings.handle_sigterm)
        fork.register("runtimes", in_child=self.after_fork)
        for queue in queues:
            queue.adopt_orphans()

    def get_logger(self, name: str = "", /, **bound: Any) -> Logger:
        """Return the logger of ``name``, whose records carry the ``bound`` fields."""
        return Logger(self._registry.core(name), bound_fields(name, bound))

    def get_async_logger(self, name: str = "", /, **bound: Any) -> AsyncLogger:
        """Return the logger of ``name`` for coroutines."""
        return AsyncLogger(self._registry.core(name), bound_fields(name, bound))

    def set_level(self, level: int | str | None, logger: str = "") -> None:
        """Immediately change the level of a logger and of the loggers below it.

        Args:
            level: the severity: a name, a ``Severity`` or a level of :mod:`logging`; or
                None to inherit the parent's level again.
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
        """Wait until every sink has settled the records that were logged before this call.

        Blocks up to ``timeout`` seconds (30 if it is None or not a number).

        Returns:
            False if the time limit passed first.
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

        Blocks up to ``timeout`` seconds in total (the option ``shutdown_timeout``
        if it is None or not a number).  Records that remain undelivered, and
        records that are logged later, are dropped and counted.  A second call
        does nothing.
        """
        deadline = monotonic() + _time_limit("shutdown", timeout, self.settings.shutdown_timeout)
        self.pipeline.closed = True  # set first, because closed loggers read this
        self._registry.close()
        self._end(deadline)

    def retire(self) -> None:
        """Shut down after another runtime has received this runtime's loggers.

        Unlike :meth:`shutdown`, leaves the loggers open.
        """
        self._end(monotonic() + self.settings.shutdown_timeout)

    def _end(self, deadline: float) -> None:
        self.pipeline.close(deadline)
        drop_held_for(self.pipeline)
        process_exit.unregister(self)

    def prepare_exit(self) -> None:
        """Start the threads for ``shutdown()``, because an ending interpreter cannot do so."""
        self.pipeline.start_threads()

    def stats(self) -> Stats:
        """Return the present ledger.  Does not block."""
        stats = self.pipeline.stats()
        return stats if self._redactor is None else replace(stats, redacted=self._redactor.redacted)

    @property
    def exit_timeout(self) -> float:
        """The longest duration of the shutdown when the process ends, in seconds.

        The duration of a ``flush()`` that has just failed, for example at the end of an
        ASGI lifespan, is subtracted, so that a dead backend does not delay the exit twice.
        """
        longest = self.settings.shutdown_timeout
        ended, duration = self._gave_up
        if monotonic() - ended > _JUST_NOW:
            return longest
        return max(longest - duration, min(longest, _REST))

    @property
    def has_console(self) -> bool:
        """Whether a sink shows every record on standard output or standard error."""
        return not self.pipeline.closed and any(
            hasattr(queue.sink, "is_interactive") and queue.intake.takes_all
            for queue in self.pipeline.sending_queues()
        )

    # ---- RecordTarget: the interface for bridges

    def is_enabled(self, name: str, severity_number: int) -> bool:
        """Whether a record of the logger ``name`` at this severity would be accepted or held."""
        if not self.pipeline.sending_queues():
            return False
        threshold = self._registry.levels.threshold(name)
        return severity_number >= threshold or (
            severity_number >= holding.gate(threshold)
            and holding.taker(severity_number) is not None
        )

    def lowest_severity(self) -> int:
        """Return the lowest severity number that any logger or hold accepts."""
        return holding.gate(self._registry.levels.lowest)

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        """Put a record of a bridge into the queue or, below its logger's level, into a hold.

        Args:
            record: the record, whose values must be snapshots.
            exception: a captured exception that the worker turns into attributes, or None.
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
        """Add the exception, missing times and the resource to an offered record.

        Runs on the worker.  ``now`` is the observed time in nanoseconds.
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
        """Update the resource in a forked child, whose process attributes differ."""
        from fapilog.otel import resource as resources  # noqa: PLC0415 - loaded by __init__()

        before, self._process = self._process, resources.process_attributes()
        self.resource = resources.of_child(self.resource, before, self._process)
        self.pipeline.resource = self.resource
        self._registry.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _time_limit(function: str, given: Any, default: float) -> float:
    """Return the timeout ``given`` to a function, between 0 and one day.

    Returns ``default`` for None.  Any other value that is not a number of seconds is
    announced, and ``default`` is used.
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
        ConfigurationError: an option is wrong, or ``settings`` has another type.
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
        settings: the settings, or None.
        options: the options that override ``settings`` or ``before``.
        before: the options that earlier calls set.  They are used if ``settings`` is None.

    Raises:
        ConfigurationError: ``settings`` has another type.
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
    """Return the processors as a tuple.

    Raises:
        ConfigurationError: ``given`` is not a list, or an item is not callable, a class
            or a coroutine function.
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
    # Redaction also runs at the end, because processors after ``own`` may add secrets.
    return own, [*given] if isinstance(given[-1], Redactor) else [*given, own]
