"""Drops the servers' own records about requests that fapilog already logs.

The module adds filters to the servers' loggers.  The server may call ``dictConfig`` at
any time, because that does not remove the filters of loggers.  The filters drop no
record of an application without this package, and no record after fapilog is shut down.
"""

from __future__ import annotations

import logging
from typing import Final
from weakref import WeakSet

import fapilog
from fapilog_fastapi.completion import LOGGER
from fapilog_fastapi.exchange import CURRENT
from fapilog_fastapi.failures import is_logged

#: uvicorn logs a WebSocket's handshake with its error logger, in this format.
_HANDSHAKE: Final = '%s - "WebSocket %s"'

_log: Final = fapilog.get_logger(LOGGER)


def _is_silent() -> bool:
    """Whether fapilog is shut down or off, so only the server logs the request."""
    return not _log.is_enabled("FATAL")


class _AccessFilter(logging.Filter):
    """Drops access lines of requests that have a completion record or are excluded."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the context decides
        serving = CURRENT.get()
        return serving is None or not serving.hides_access_log or _is_silent()


class _ErrorFilter(_AccessFilter):
    """Drops exceptions that fapilog has logged, and access lines of WebSockets."""

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


# The middleware objects in use.  The set is weak, so that it does not keep them alive.
_users: Final[WeakSet[object]] = WeakSet()


def install(user: object) -> None:
    """Add the filters to the servers' loggers for a middleware; a second call does nothing."""
    _users.add(user)
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).addFilter(server_filter)


def release(user: object) -> None:
    """Remove the filters if ``user`` was the last middleware in use."""
    _users.discard(user)
    if _users:
        return
    for name, server_filter in _FILTERS.items():
        logging.getLogger(name).removeFilter(server_filter)
