"""fapilog's implementation of the OpenTelemetry Logs API.

Libraries and OpenTelemetry's logging handler get their loggers from the global logger provider,
which is a ``LoggerProvider`` of this module.  A logger converts each record on the thread that
emits the record, and puts the converted record into the queue of a ``fapilog.Runtime``.
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

#: The time limit, in seconds, of the flush when a logger provider or a log record processor is
#: shut down.
SHUTDOWN_TIMEOUT: Final = 5.0

_MAX_LOGGERS: Final = 4096


def offer(
    target: RecordTarget,
    record: api.LogRecord | dict[str, Any],
    scope: Scope,
    resource: Resource = EMPTY_RESOURCE,
    exception: BaseException | None = None,
) -> None:
    """Convert a record and put it into the queue of ``target``.

    Does nothing if ``target`` does not accept the record's severity.  Never raises.  Thread-safe.
    May wait for space in the queue; see ``fapilog.protocols.RecordTarget.offer``.

    Args:
        target: the runtime that receives the record.
        record: the record, or a dict of its fields.
        scope: the scope of the logger that emits the record.
        resource: the record's resource; by default, the target's resource.
        exception: the exception that the record reports; by default, the exception in ``record``.
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
    """Return a record with the given fields.

    If the constructor of ``LogRecord`` raises an exception, unknown fields are omitted, and so is
    ``context``, which may have a wrong type.
    """
    try:
        return api.LogRecord(**fields)
    except Exception as error:  # noqa: BLE001 - an unknown field, or a context of another type
        announce("otel fields", f"emit() ignores a field of a record: {describe(error):.200}")
        record = api.LogRecord()
        known = vars(record).keys() - {"context"}
        vars(record).update({name: fields[name] for name in known & fields.keys()})
        return record


def _is_enabled(target: RecordTarget, name: str, severity_number: object) -> bool:
    # According to the specification, a minimum severity does not apply to records without a
    # severity.  Such records are treated as FATAL records, so only the level "off" disables them.
    return target.is_enabled(name, severity(severity_number) or FATAL)


class Logger(api.Logger):
    """A logger of the Logs API that passes records to fapilog.  Thread-safe.

    No method raises.
    """

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
        """Pass ``record``, or a record made from ``fields``, to fapilog.

        ``exception`` replaces the exception in ``record``.  May wait for space in the queue; see
        ``fapilog.protocols.RecordTarget.offer``.

        Source: https://opentelemetry.io/docs/specs/otel/logs/api/#emit-a-logrecord
        """
        target = None if feeds.is_suppressed() else self._feed.target()
        if target is None:
            return
        # An SDK ReadWriteLogRecord contains the record of the API in ``log_record``.
        given = fields if record is None else getattr(record, "log_record", record)
        offer(target, given, self._scope, exception=exception)

    def enabled(
        self,
        *,
        context: Context | None = None,  # noqa: ARG002 - the API's signature
        severity_number: api.SeverityNumber | None = None,
        event_name: str | None = None,  # noqa: ARG002 - the API's signature
    ) -> bool:
        """Return whether fapilog accepts records of this severity.  Does not block."""
        target = None if feeds.is_suppressed() else self._feed.target()
        return target is not None and _is_enabled(target, self._scope.name, severity_number)


class LoggerProvider(api.LoggerProvider):
    """A logger provider of the Logs API that passes records to fapilog.

    Thread-safe.  The provider's loggers are disabled while ``target`` returns None.

    Args:
        target: a function that is called for each record and returns the ``fapilog.Runtime`` that
            receives the record, or None to drop the record.  By default, the default runtime
            receives all records.
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
        """Return a logger.

        Calls with equal arguments return the same logger if ``attributes`` is empty.
        """
        if self.feed.has(name):
            # OpenTelemetry's logging handler calls this method for a record that fapilog already
            # received through install_stdlib().  The handler must not emit the record again.  The
            # logger name of such a record is an instance of Taken, a subclass of str.
            return cast("Logger", api.NoOpLogger(name))
        if not name or not isinstance(name, str):
            announce("logger name", "get_logger() was called without a name; give a non-empty str")
        key = (str(name or ""), str(version or ""), str(schema_url or ""))
        if attributes:
            return Logger(Scope(*key, attributes_from(attributes)), self.feed)
        return self._logger(*key)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all earlier records are delivered, dropped or stored on disk.

        Return False if this takes longer than ``timeout_millis``.
        """
        return self.feed.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Drop all records until :func:`install_provider` is called, and flush for up to 5 s."""
        self.feed.follow(feeds.no_target)
        self.feed.flush(SHUTDOWN_TIMEOUT)


def install_provider(
    target: Callable[[], RecordTarget | None] | None = None,
) -> LoggerProvider | None:
    """Set fapilog's logger provider as the global provider.

    The global provider can be set only once, so it stays until the process ends.  If fapilog's
    provider is already set, only ``target`` is replaced.  If the application has set another
    provider, a message is written to stderr.  Does not block, because ``configure()`` holds a lock
    while it calls this function.

    Args:
        target: the function that returns the runtime for a record, as in :class:`LoggerProvider`.

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
