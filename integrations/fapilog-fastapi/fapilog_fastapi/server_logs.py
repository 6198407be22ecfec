"""Drops the log records of uvicorn and hypercorn about requests that fapilog logs.

The module adds filters to the loggers of these servers.  The filters stay in place when the
server calls ``logging.config.dictConfig``.  They do not drop records of applications without
this package, or records after fapilog was shut down.
"""

from __future__ import annotations

import logging
from typing import Final
from weakref import WeakSet

import fapilog
from fapilog_fastapi.completion import LOGGER
from fapilog_fastapi.exchange import CURRENT
from fapilog_fastapi.failures import is_logged

#: The format with which uvicorn's error logger reports the handshake of a WebSocket.
_HANDSHAKE: Final = '%s - "WebSocket %s"'

_log: Final = fapilog.get_logger(LOGGER)


def _is_silent() -> bool:
    """Return whether fapilog is shut down or disabled, so that only the server logs requests."""
    return not _log.is_enabled("FATAL")


class _AccessFilter(logging.Filter):
    """Drops access-log records of requests that have a completion record or are excluded."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the context decides
        serving = CURRENT.get()
        return serving is None or not serving.hides_access_log or _is_silent()


class _ErrorFilter(_AccessFilter):
    """Drops records of exceptions that fapilog has logged, and of WebSocket handshakes."""

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


# The middleware objects in use; the weak references do not keep them alive.
_users: Final[WeakSet[object]] = WeakSet()


def install(user: object) -> None:
    """Add the filters of this module to the loggers of uvicorn and hypercorn.

    ``user`` is a middleware object.  A second call for the same object does nothing.
    """
    _users.add(user)
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).addFilter(server_filter)


def release(user: object) -> None:
    """Remove the filters if ``user`` was the last middleware object in use."""
    _users.discard(user)
    if _users:
        return
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).removeFilter(server_filter)
