"""The Logs API, implemented by fapilog.

``LoggerProvider`` is what libraries and OpenTelemetry's own logging handler
find as the global provider: the records they emit are converted on their
thread and offered to the runtime that is the default at that moment.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import _logs as api
from opentelemetry._logs._internal import ProxyLoggerProvider

from fapilog.bridges import feeds
from fapilog.context import BOUND
from fapilog.diagnostics import announce
from fapilog.otel.convert import attributes_from, exception_of, from_api, severity
from fapilog.record import EMPTY_RESOURCE, Resource, Scope
from fapilog.severity import FATAL
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from fapilog.protocols import RecordTarget

#: Seconds a ``shutdown()`` that has no time limit of its own may flush.
SHUTDOWN_TIMEOUT: Final = 5.0

_MAX_LOGGERS: Final = 4096
_installing = threading.Lock()


def offer(
    target: RecordTarget,
    record: api.LogRecord | dict[str, Any],
    scope: Scope,
    resource: Resource = EMPTY_RESOURCE,
    exception: BaseException | None = None,
) -> None:
    """Convert a record and offer it to ``target`` if that takes its severity.

    Never raises.  Thread-safe.  Waits only as ``RecordTarget.offer`` does.

    Args:
        target: what is fed.
        record: the record, or the fields to make it of.
        scope: the logger it was emitted by.
        resource: the entity that produced it, by default the target's.
        exception: what the record is about, unless it carries that itself.
    """
    try:
        if isinstance(record, dict):
            record = api.LogRecord(**record)
        if not _is_enabled(target, scope.name, record.severity_number):
            return
        capture = exception_of(record) if exception is None else Capture(exception)
        converted = from_api(record, scope, resource, BOUND.get())
    except Exception as error:  # noqa: BLE001 - whatever was emitted, the caller must not suffer
        kind = type(error).__name__
        announce("otel", f"a record of {scope.name!r} could not be converted ({kind}); dropped")
        return
    target.offer(converted, capture)


def _is_enabled(target: RecordTarget, name: str, severity_number: object) -> bool:
    # By the specification a minimum severity does not hold back records of
    # unspecified severity; a logger that is off still does.
    return target.is_enabled(name, severity(severity_number) or FATAL)


class Logger(api.Logger):
    """A logger of the Logs API.  Thread-safe; no method raises."""

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
        """Offer a record, given whole or by its fields, to the pipeline.

        Values are copied before it returns.  Waits for room in the queue only
        as the overflow policy allows.

        Source: https://opentelemetry.io/docs/specs/otel/logs/api/#emit-a-logrecord
        """
        target = None if feeds.is_suppressed() else self._feed.target()
        if target is None:
            return
        # A ReadWriteLogRecord of the SDK wraps the API's.
        given = fields if record is None else getattr(record, "log_record", record)
        offer(target, given, self._scope, exception=exception)

    def enabled(
        self,
        *,
        context: Context | None = None,  # noqa: ARG002 - the API's signature
        severity_number: api.SeverityNumber | None = None,
        event_name: str | None = None,  # noqa: ARG002 - the API's signature
    ) -> bool:
        """Whether a record of this severity would be taken now.  Does not block."""
        target = None if feeds.is_suppressed() else self._feed.target()
        return target is not None and _is_enabled(target, self._scope.name, severity_number)


class LoggerProvider(api.LoggerProvider):
    """A provider of the Logs API whose records go to fapilog.

    Thread-safe.  It belongs to no runtime: while there is none, its loggers
    are disabled, and they work again with the next one.

    Args:
        target: yields what is fed, None for nothing; called for each record.
            By default the default runtime.
    """

    def __init__(self, target: Callable[[], RecordTarget | None] | None = None) -> None:
        self.feed = feeds.Feed(target)
        self._loggers: dict[tuple[str, str, str], Logger] = {}

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> Logger:
        """Return a logger; the same one for the same arguments, if it has no attributes.

        For a handler of :mod:`logging` with a record that has come in by
        ``install_stdlib()`` already, a logger that does nothing.
        """
        if self.feed.has(name):
            # Of this class, because OpenTelemetry's handler then does not even convert.
            return cast("Logger", api.NoOpLogger(name))
        if not name or not isinstance(name, str):
            announce("logger name", "a logger without a name was asked for; give a str of its own")
        key = (str(name or ""), str(version or ""), str(schema_url or ""))
        if attributes:
            return Logger(Scope(*key, attributes_from(attributes)), self.feed)
        logger = self._loggers.get(key)
        if logger is None:
            if len(self._loggers) >= _MAX_LOGGERS:
                self._loggers.clear()
            logger = self._loggers.setdefault(key, Logger(Scope(*key), self.feed))
        return logger

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the records emitted so far are delivered or given up.

        Args:
            timeout_millis: the longest wait, milliseconds.

        Returns:
            False at the time limit.
        """
        return self.feed.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Flush for up to 5 s and take no further records.

        The runtime goes on; installing the provider again revives it.
        """
        self.feed.stop()
        self.feed.flush(SHUTDOWN_TIMEOUT)


def install_provider(
    target: Callable[[], RecordTarget | None] | None = None,
) -> LoggerProvider | None:
    """Make a fapilog provider the global one, or feed ``target`` from the one installed.

    The API lets the global provider be set once, so it stays for the life of
    the process; calling this again is how it follows another target.  Does
    not block.

    Args:
        target: as for :class:`LoggerProvider`.

    Returns:
        The provider, or None when the application has set another one: that
        is announced and left alone.
    """
    with _installing:
        current = api.get_logger_provider()
        if isinstance(current, ProxyLoggerProvider):
            api.set_logger_provider(LoggerProvider(target))
            current = api.get_logger_provider()
        if isinstance(current, LoggerProvider):
            current.feed.follow(target)
            return current
    announce(
        "provider",
        f"a {type(current).__name__} is the global logger provider already; "
        "add FapilogLogRecordProcessor to it for its records",
    )
    return None
