"""What servers log of requests by themselves, left out where it is a second copy.

Filters on the servers' loggers: a logger keeps its filters through
``dictConfig``, so it does not matter whether the server configures logging
before or after.  They look at each record, and touch nothing that belongs to
an application without this package, nor anything once fapilog is shut down.
"""

from __future__ import annotations

import logging
from typing import Final
from weakref import WeakSet

import fapilog
from fapilog.severity import FATAL
from fapilog_fastapi.completion import LOGGER
from fapilog_fastapi.exchange import CURRENT
from fapilog_fastapi.failures import is_logged

#: Lines of uvicorn about a WebSocket's handshake come from its error logger.
_HANDSHAKE: Final = '%s - "WebSocket %s"'

_log: Final = fapilog.get_logger(LOGGER)


def _is_silent() -> bool:
    """Whether fapilog is shut down, or off, so that the server's line is the only one."""
    return not _log.is_enabled(FATAL)


class _AccessFilter(logging.Filter):
    """Drops access lines of requests that get a completion record, or are left out."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - where it is logged counts
        serving = CURRENT.get()
        return serving is None or not serving.hides_access_log or _is_silent()


class _ErrorFilter(_AccessFilter):
    """Drops stack traces that have been logged, and access lines about WebSockets."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and is_logged(record.exc_info[1]):
            return _is_silent()
        if isinstance(record.msg, str) and record.msg.startswith(_HANDSHAKE):
            return super().filter(record)
        return True


_FILTERS: Final = {
    "uvicorn.access": _AccessFilter(),
    "uvicorn.error": _ErrorFilter(),
    "hypercorn.access": _AccessFilter(),
    "hypercorn.error": _ErrorFilter(),
}


# The middlewares that are in use; what keeps one alive is its application.
_users: Final[WeakSet[object]] = WeakSet()


def install(user: object) -> None:
    """Put the filters on the servers' loggers for a middleware.  Twice is the same as once."""
    _users.add(user)
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).addFilter(server_filter)


def release(user: object) -> None:
    """Take the filters away with the last middleware that is in use."""
    _users.discard(user)
    if not _users:
        uninstall()


def uninstall() -> None:
    """Take the filters away, whoever uses them."""
    _users.clear()
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).removeFilter(server_filter)
