"""Keeps uvicorn from printing records that a console sink prints too.

uvicorn adds printing handlers to its loggers.  After ``install_stdlib()`` its records
also reach a runtime.  If that runtime has a console sink, each record would appear
twice, so the filters in this module drop the record from uvicorn's handlers.
"""

from __future__ import annotations

import logging
from typing import Final

from fapilog.bridges.feeds import Taken

_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class _NotShown(logging.Filter):
    """Drops the records that a runtime with a console sink has taken."""

    def filter(self, record: logging.LogRecord) -> bool:
        name = record.name
        return type(name) is not Taken or not any(
            getattr(target, "has_console", False) for target in name.by
        )


class _Placing(logging.Filter):
    """Adds :class:`_NotShown` to uvicorn's own handlers, again for each record.

    uvicorn may replace its handlers at any time with ``dictConfig``, and their filters
    are lost.  ``dictConfig`` keeps the filters of loggers, so this filter is on the loggers.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - every record passes
        for name in _LOGGERS:
            for handler in logging.getLogger(name).handlers:
                if _prints_for_uvicorn(handler):
                    handler.addFilter(_not_shown)
        return True


def _prints_for_uvicorn(handler: logging.Handler) -> bool:
    """Whether ``handler`` prints and was made by uvicorn, ``fastapi run`` or gunicorn."""
    formatters = type(handler.formatter).__mro__
    is_uvicorns = any(kind.__module__ == "uvicorn.logging" for kind in formatters)
    # gunicorn sets ``_gunicorn`` on its handlers; those of other classes write to files.
    is_gunicorns = hasattr(handler, "_gunicorn") and type(handler) is logging.StreamHandler
    return is_uvicorns or is_gunicorns


_not_shown: Final = _NotShown()
_placing: Final = _Placing()


def hide_doubles() -> None:
    """Keep uvicorn's handlers from printing the records that a console sink prints."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_placing)


def show_doubles() -> None:
    """Undo :func:`hide_doubles`."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_placing)
