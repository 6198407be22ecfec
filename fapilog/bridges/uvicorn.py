"""Keeps uvicorn's own lines off a console that shows them already.

uvicorn adds handlers to its loggers.  After ``install_stdlib()`` its records
also reach a runtime, whose console sink would show each of them a second time.
"""

from __future__ import annotations

import logging
from typing import Final

from fapilog.bridges.feeds import Taken

_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class _NotShown(logging.Filter):
    """Drops the records that a runtime has taken and shows on its console."""

    def filter(self, record: logging.LogRecord) -> bool:
        name = record.name
        return type(name) is not Taken or not any(
            getattr(target, "has_console", False) for target in name.by
        )


class _Placing(logging.Filter):
    """Puts :class:`_NotShown` on uvicorn's own handlers, which uvicorn may make at any time.

    The filter of a logger survives ``dictConfig``; that of a handler does not.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - every record passes
        for name in _LOGGERS:
            for handler in logging.getLogger(name).handlers:
                if _prints_for_uvicorn(handler):
                    handler.addFilter(_not_shown)
        return True


def _prints_for_uvicorn(handler: logging.Handler) -> bool:
    """Whether uvicorn, the command ``fastapi run`` or gunicorn has made a handler that prints."""
    formatters = type(handler.formatter).__mro__
    is_uvicorns = any(kind.__module__ == "uvicorn.logging" for kind in formatters)
    # gunicorn marks its handlers; the others write to files.
    is_gunicorns = hasattr(handler, "_gunicorn") and type(handler) is logging.StreamHandler
    return is_uvicorns or is_gunicorns


_not_shown: Final = _NotShown()
_placing: Final = _Placing()


def hide_doubles() -> None:
    """Hide uvicorn's own line of each record that a console sink shows."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_placing)


def show_doubles() -> None:
    """Undo :func:`hide_doubles`."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_placing)
