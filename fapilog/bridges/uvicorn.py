"""Keeps uvicorn from printing the records that a console sink prints."""

from __future__ import annotations

import logging
from typing import Final

from fapilog.bridges.doubles import NOT_SHOWN

_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class _Placing(logging.Filter):
    """A filter that passes every record, and first adds ``NOT_SHOWN`` to uvicorn's handlers.

    uvicorn may replace its handlers at any time with ``dictConfig``, and then their filters
    are lost.  ``dictConfig`` does not remove the filters of loggers, so this filter is
    installed on uvicorn's loggers.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - every record passes
        for name in _LOGGERS:
            for handler in logging.getLogger(name).handlers:
                if _prints_for_uvicorn(handler):
                    handler.addFilter(NOT_SHOWN)
        return True


def _prints_for_uvicorn(handler: logging.Handler) -> bool:
    """Return whether ``handler`` prints and was made by uvicorn, ``fastapi run`` or gunicorn."""
    formatters = type(handler.formatter).__mro__
    is_uvicorns = any(kind.__module__ == "uvicorn.logging" for kind in formatters)
    # gunicorn sets ``_gunicorn`` on all its handlers, but only a StreamHandler prints.  A
    # FileHandler, which is a subclass, does not print.
    is_gunicorns = hasattr(handler, "_gunicorn") and type(handler) is logging.StreamHandler
    return is_uvicorns or is_gunicorns


_placing: Final = _Placing()


def hide_doubles() -> None:
    """Keep uvicorn's handlers from printing the records that a console sink prints."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_placing)


def show_doubles() -> None:
    """Undo :func:`hide_doubles`."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_placing)
