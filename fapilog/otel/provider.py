"""fapilog's implementation of the Logs API.

Libraries and OpenTelemetry's logging handler get their loggers from ``LoggerProvider``, the
global provider.  A logger converts each record on the thread that emits the record, and
offers it to a runtime.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import _logs as api
from opentelemetry._logs._internal import ProxyLoggerProvider

from fapilog.bridges import feeds
from fapilog.bridges.event import stand_in
from fapilog.context import BOUND
from fapilog.diagnostics import announce, describe
from fapilog.otel.convert import attributes_from, exception_of, from_api, severity
from fapilog.record import EMPTY_RESOURCE, Resource, Scope
from fapilog.severity import FATAL, INFO
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from fapilog.protocols import RecordTarget

#: The time limit in seconds for the flush when a provider or processor is shut down.
SHUTDOWN_TIMEOUT: Final = 5.0

_MAX_LOGGERS: Final = 4096


def offer(
    target: RecordTarget,
    record: api.LogRecord | dict[str, Any],
    scope: Scope,
    resource: Resource = EMPTY_RESOURCE,
    exception: BaseException | None = None,
) -> None:
    """Convert a record and offer it to ``target``, if the target accepts its severity.

    Never raises.  Thread-safe.  May wait for space in the queue; see ``RecordTarget.offer``.

    Args:
        target: the runtime that gets the record.
        record: the record, or a dict of its fields.
        scope: the scope of the emitting logger.
        resource: the record's resource; by default, the target's resource.
        exception: the exception to report; by default, the record's exception.
    """
    try:
        if isinstance(record, dict):
            record = _record_of(record)
        if not _is_enabled(target, scope.name, record.severity_number):
            return
        capture = exception_of(record) if exception is None else Capture(exception)
        converted = from_api(record, scope, resource, BOUND.get())
    except Exception as error:  # noqa: BLE001 - no emitted value may raise into the caller
        converted, capture = stand_in(scope.name, INFO, error, scope), None
    target.offer(converted, capture)


def _record_of(fields: dict[str, Any]) -> api.LogRecord:
    """Make a record from ``fields``.  If that fails, omit unknown fields and the context."""
    try:
        return api.LogRecord(**fields)
    except Exception as error:  # noqa: BLE001 - an unknown field, or a context of another type
        announce("otel fields", f"emit() ignores a field of a record: {describe(error):.200}")
        record = api.LogRecord()
        known = vars(record).keys() - {"context"}
        vars(record).update({name: fields[name] for name in known & fields.keys()})
        return record


def _is_enabled(target: RecordTarget, name: str, severity_number: object) -> bool:
    # The specification exempts records without a severity from a minimum severity, so they
    # count as FATAL here.  Only the level "off" disables them.
    return target.is_enabled(name, severity(severity_number) or FATAL)


class Logger(api.Logger):
    """A logger of the Logs API whose records go to fapilog.  Thread-safe.  No method raises."""

    def __init__(self, scope: Scope, feed: feeds.Feed) -> None:
        super().__init__(scope.name, scope.version, scope.schema_url, scope.attributes)
        self._scope = scope
        self._feed = feed

    def emit(
        self,
        record: api.LogRecord | None = None,
        *,
        exception: BaseException | None = None,
        **fields: Any,
    ) -> None:
        """Offer ``record``, or a record made from ``fields``, to the target.

        If ``exception`` is given, it replaces the record's own exception.  May wait for space
        in the queue; see ``RecordTarget.offer``.

        Source: https://opentelemetry.io/docs/specs/otel/logs/api/#emit-a-logrecord
        """
        target = None if feeds.is_suppressed() else self._feed.target()
        if target is None:
            return
        # If the record is the SDK's ReadWriteLogRecord, unwrap the record of the API.
        given = fields if record is None else getattr(record, "log_record", record)
        offer(target, given, self._scope, exception=exception)

    def enabled(
        self,
        *,
        context: Context | None = None,  # noqa: ARG002 - the API's signature
        severity_number: api.SeverityNumber | None = None,
        event_name: str | None = None,  # noqa: ARG002 - the API's signature
    ) -> bool:
        """Whether the target accepts records of this severity.  Does not block."""
        target = None if feeds.is_suppressed() else self._feed.target()
        return target is not None and _is_enabled(target, self._scope.name, severity_number)


class LoggerProvider(api.LoggerProvider):
    """A provider of the Logs API whose records go to fapilog.

    Thread-safe.  The provider's loggers are disabled while there is no target.

    Args:
        target: the function that returns the target of a record, or None to
            drop the record.  By default, every record goes to the default runtime.
    """

    def __init__(self, target: Callable[[], RecordTarget | None] | None = None) -> None:
        self.feed = feeds.Feed(target)
        self._logger = lru_cache(_MAX_LOGGERS)(lambda *key: Logger(Scope(*key), self.feed))

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> Logger:
        """Return a logger.  Without ``attributes``, equal arguments return the same logger."""
        if self.feed.has(name):
            # The name is marked: fapilog already has the record from install_stdlib().  So
            # OpenTelemetry's handler must not emit the record again.
            return cast("Logger", api.NoOpLogger(name))
        if not name or not isinstance(name, str):
            announce("logger name", "get_logger() was called without a name; give a non-empty str")
        key = (str(name or ""), str(version or ""), str(schema_url or ""))
        if attributes:
            return Logger(Scope(*key, attributes_from(attributes)), self.feed)
        return self._logger(*key)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until earlier records are settled, or return False after ``timeout_millis``."""
        return self.feed.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Refuse records until :func:`install_provider` is called, and flush for up to 5 s."""
        self.feed.follow(feeds.no_target)
        self.feed.flush(SHUTDOWN_TIMEOUT)


def install_provider(
    target: Callable[[], RecordTarget | None] | None = None,
) -> LoggerProvider | None:
    """Set fapilog's provider as the global provider, or change its target if it is already set.

    The global provider can be set only once, so it stays until the process ends.
    If the application has set another provider, a message on stderr says so.  Does not
    block, because ``configure()`` holds its lock during this call.

    Args:
        target: the function that returns the target, as in :class:`LoggerProvider`.

    Returns:
        The provider, or None if the application has set another provider.
    """
    current = api.get_logger_provider()
    if isinstance(current, ProxyLoggerProvider):
        api.set_logger_provider(LoggerProvider(target))
        current = api.get_logger_provider()
    if isinstance(current, LoggerProvider):
        current.feed.follow(target)
        return current
    announce(
        "provider",
        f"the global logger provider is already a {type(current).__name__}; "
        "add a FapilogLogRecordProcessor to it to get its records",
    )
    return None
