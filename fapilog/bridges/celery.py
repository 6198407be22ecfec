"""Adapts fapilog to the records and the logging set-up of Celery.

A worker of Celery adds handlers that print records to the root logger and to ``celery.task``.
The records of tasks contain a dict with everything that their messages say.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from fapilog.bridges.doubles import NOT_SHOWN

#: The loggers to which Celery adds handlers that print; "" is the root logger.
_LOGGERS: Final = ("", "celery", "celery.task", "celery.redirected", "multiprocessing")
#: The signals that Celery sends after it has added handlers.
_SIGNALS: Final = ("after_setup_logger", "after_setup_task_logger")
_UID: Final = "fapilog"

#: The attributes that replace an entry of Celery's dict: the names that the spans of
#: opentelemetry-instrumentation-celery use, and for the duration in seconds the name of
#: OpenTelemetry's metric.  The other entries are part of the message, or of the exception, or
#: they are the task's arguments.
_NAMES: Final = {
    "id": "messaging.message.id",
    "name": "celery.task_name",
    "eta": "celery.eta",
    "runtime": "messaging.process.duration",
}


def rename_data(logger: str, attributes: dict[str, Any]) -> None:
    """Replace the attribute ``data`` of a record of Celery by attributes with standard names.

    Celery passes the arguments of the message a second time as ``extra={"data": ...}``.  Does
    nothing if ``logger``, the name of the record's logger, is not one of Celery's.
    """
    data = attributes["data"]
    if logger.partition(".")[0] == "celery" and isinstance(data, dict):
        del attributes["data"]
        for key, name in _NAMES.items():
            value = data.get(key)
            if value is not None:
                attributes.setdefault(name, value)


def hide_doubles() -> None:
    """Keep Celery's handlers from printing the records that a console sink prints.

    Does nothing if Celery has not been imported; the command ``celery`` imports it before the
    application.
    """
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        for name in _SIGNALS:
            getattr(signals, name).connect(_hide, weak=False, dispatch_uid=_UID)
        _hide()


def show_doubles() -> None:
    """Undo :func:`hide_doubles`."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        for name in _SIGNALS:
            getattr(signals, name).disconnect(dispatch_uid=_UID)
        for handler in _handlers():
            handler.removeFilter(NOT_SHOWN)


def _hide(**_: object) -> None:
    for handler in _handlers():
        handler.addFilter(NOT_SHOWN)


def _handlers() -> list[logging.Handler]:
    """Return the handlers that Celery has made and that print.

    Another class, such as the ``WatchedFileHandler`` of ``--logfile``, does not print.
    """
    return [
        handler
        for name in _LOGGERS
        for handler in logging.getLogger(name).handlers
        if type(handler) is logging.StreamHandler
        and any(kind.__module__ == "celery.utils.log" for kind in type(handler.formatter).__mro__)
    ]
