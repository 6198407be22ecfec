"""Passes the events of structlog to fapilog.

``StructlogProcessor`` is the last processor of a structlog configuration.  It replaces the
renderer, so the values of an event are not formatted as text.  ``install`` configures
structlog completely.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from fapilog.bridges import event_dict as event_dicts
from fapilog.bridges import feeds
from fapilog.bridges.event import Event, take
from fapilog.bridges.patching import SetupLock

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from types import FrameType

    from structlog.typing import Processor

    from fapilog.protocols import RecordTarget

_OWN: Final = ("structlog", "fapilog")


class StructlogProcessor:
    """The last processor of a structlog configuration, which passes each event to fapilog.

    The value of ``event`` becomes the body, and the other values in the event dict become
    typed attributes, except for the following values.  ``exc_info`` becomes the
    ``exception.*`` attributes, even if ``format_exc_info`` or ``dict_tracebacks`` has formatted
    it.  ``stack`` becomes the attribute ``code.stacktrace``, ``timestamp`` becomes the time,
    ``logger`` or the wrapped logger's name becomes the instrumentation scope, and
    ``otel.event.name`` becomes the event name.  The severity comes from ``level``
    or the method's name.  The trace and span ids come from the active span, also in
    asynchronous methods such as ``ainfo``.

    structlog never calls the wrapped logger, which may be of any kind.
    Thread-safe.  Blocks only if ``RecordTarget.offer`` blocks.

    Args:
        runtime: the runtime that gets the records; by default the default
            runtime at the time of each event.
    """

    def __init__(self, runtime: RecordTarget | None = None) -> None:
        self.feed = feeds.Feed.of(runtime)

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> NoReturn:
        """Convert the event to a record, and pass the record to the runtime.

        Raises:
            DropEvent: always, so that structlog stops processing the event.
        """
        # An earlier processor may have converted the event dict to text.
        fields = dict(event_dict) if isinstance(event_dict, Mapping) else {"event": event_dict}
        name = fields.get("logger")
        if not isinstance(name, str) or not name:
            name = getattr(logger, "name", "")
        if not isinstance(name, str):
            name = ""
        number, text = event_dicts.level_of(method_name, fields)

        def describe() -> Event:
            return event_dicts.event_of(fields, name, number, text)

        take(self.feed, name, number, describe)
        raise structlog.DropEvent


class NamedLogger:
    """The logger object that structlog wraps after ``install``.  It only stores a name.

    Attributes:
        name: the argument of ``structlog.get_logger``, or the name of the
            module that first used the logger.
    """

    __slots__ = ("name",)

    def __init__(self, *args: Any) -> None:
        self.name = args[0] if args and isinstance(args[0], str) else _calling_module()


def _calling_module() -> str:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as structlog's own factory does
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _OWN:
            return name
        frame = frame.f_back
    return ""


_lock = SetupLock()
# The processors that install() has configured, and structlog's previous configuration.
_installed: tuple[list[Processor], dict[str, Any] | None] | None = None


def install(
    processors: Sequence[Processor] = (), *, cache_logger_on_first_use: bool = False
) -> None:
    """Configure structlog to log through fapilog's default runtime.

    Each event contains structlog's context variables, and the stack if the log call has the
    argument ``stack_info=True``.  The levels that are configured in fapilog apply.  A second
    call replaces the processors of the first call.  Thread-safe; does not block.

    Args:
        processors: structlog processors that run before ``StructlogProcessor``.
        cache_logger_on_first_use: structlog's option of the same name.  True is
            faster, but loggers that were used before ``uninstall()`` still log to fapilog
            after it.
    """
    global _installed  # noqa: PLW0603 - uninstall() undoes it
    with _lock:
        before = _before()
        chain: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            *processors,
            StructlogProcessor(),
        ]
        structlog.configure(
            processors=chain,
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
            logger_factory=NamedLogger,
            cache_logger_on_first_use=cache_logger_on_first_use,
        )
        _installed = (chain, before)


def uninstall() -> None:
    """Restore the configuration that :func:`install` replaced.

    Does nothing if ``install`` was not called, or if other code has configured
    structlog since then.  Thread-safe; does not block.
    """
    global _installed  # noqa: PLW0603 - set by install()
    with _lock:
        if _installed is not None and _is_in_force():
            before = _installed[1]
            structlog.reset_defaults()
            if before is not None:
                structlog.configure(**before)
        _installed = None


def _is_in_force() -> bool:
    return _installed is not None and structlog.get_config()["processors"] is _installed[0]


def _before() -> dict[str, Any] | None:
    """Return structlog's configuration from before ``install``, or None if there was none."""
    if _installed is not None and _is_in_force():
        return _installed[1]
    return structlog.get_config() if structlog.is_configured() else None
