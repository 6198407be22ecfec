"""Connects fapilog to the signals of Celery.

The receivers of the signals configure logging in a worker instead of Celery, and bind the name
and the id of a task to all records that are logged while the task runs.  Celery's own record
about the end of a task gets the task's state and duration, so it is the completion record.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from celery import current_app, signals, states
from celery.app import trace
from celery.utils.log import LoggingProxy
from click.core import ParameterSource

from fapilog.bridges import stdlib
from fapilog.bridges.patching import SetupLock
from fapilog.context import bind

if TYPE_CHECKING:
    from collections.abc import Callable

_UID: Final = "fapilog worker"
#: The maximum length, in characters, of an unfinished line that is kept.
_MAX_LINE: Final = 8192
_logger: Final = logging.getLogger("celery.app.trace")

#: The states that belong to the messages of ``celery.app.trace``.  A failure has the same message
#: as an internal error.
_STATES: Final = {
    trace.LOG_SUCCESS.strip(): states.SUCCESS,
    trace.LOG_RETRY.strip(): states.RETRY,
    trace.LOG_FAILURE.strip(): states.FAILURE,
    trace.LOG_IGNORED.strip(): states.IGNORED,
    trace.LOG_REJECTED.strip(): states.REJECTED,
}


class _Lines(LoggingProxy):  # type: ignore[misc]  # Celery has no types
    """A replacement for a standard stream that logs each line that a task prints.

    Celery's own replacement logs each part that ``print`` writes, such as the space between two
    arguments.
    """

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__(logger, level)
        self._unfinished = threading.local()

    def write(self, data: Any) -> int:
        """Log the complete lines of the current thread, and keep the rest."""
        *lines, rest = f"{self._rest()}{data}".split("\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], ""
        self._unfinished.text = rest
        for line in lines:
            super().write(line)
        return len(data)

    def flush(self) -> None:
        """Log the unfinished line of the current thread."""
        rest, self._unfinished.text = self._rest(), ""
        super().write(rest)

    def _rest(self) -> str:
        return getattr(self._unfinished, "text", "")


def _redirect(app: Any, level: Any) -> None:
    app.log.redirect_stdouts(level)
    made: Any = sys.stdout
    for name in ("stdout", "stderr"):
        setattr(sys, name, _Lines(made.logger, made.loglevel))


class _Run(NamedTuple):
    """One run of a task.

    Attributes:
        task_id: the id of the task; a retry has the same id.
        fields: the fields that are bound during the run.
        began: the start, a time read from ``monotonic()``.
        outer: the run of the task that called this task directly, or None.
    """

    task_id: str
    fields: bind
    began: float
    outer: _Run | None


_current: Final[ContextVar[_Run | None]] = ContextVar("fapilog_celery_run", default=None)


class _Completion(logging.Filter):
    """A filter that passes every record, and adds attributes to those about the end of a task."""

    def filter(self, record: logging.LogRecord) -> bool:
        state = _STATES.get(str(record.msg).strip())
        run = _current.get()
        if state is not None and run is not None:
            vars(record)["celery.state"] = state
            vars(record)["messaging.process.duration"] = monotonic() - run.began
        return True


class _Worker:
    """The receivers of Celery's signals.

    Args:
        set_level: a function that changes the level of the default runtime.
    """

    def __init__(self, set_level: Callable[[int], None]) -> None:
        self._set_level = set_level

    def setup_logging(self, loglevel: int, logfile: str | None, **_: object) -> None:
        stdlib.install()
        if _is_chosen(loglevel):
            self._set_level(loglevel)
        if logfile:
            logging.getLogger("celery").warning(
                "Celery's option --logfile is not used; add the file to fapilog's sinks: "
                "FAPILOG_SINKS=console,file:%s",
                logfile,
            )

    def celeryd_after_setup(self, instance: Any, **_: object) -> None:
        # Celery itself does this only if setup_logging has no receivers.
        if instance.redirect_stdouts:
            _redirect(instance.app, instance.redirect_stdouts_level)

    def worker_process_init(self, **_: object) -> None:
        # Celery has replaced the streams again, or not yet, if it has spawned this process.
        if os.environ.get("CELERY_LOG_REDIRECT") and not isinstance(sys.stdout, _Lines):
            _redirect(current_app, os.environ.get("CELERY_LOG_REDIRECT_LEVEL"))

    def task_prerun(self, task: Any, task_id: str, **_: object) -> None:
        request = task.request
        fields = {"messaging.message.id": task_id, "celery.task_name": task.name}
        queue = (request.delivery_info or {}).get("routing_key")
        if queue:
            fields["messaging.destination.name"] = queue
        if request.retries:
            fields["celery.retries"] = request.retries
        run = _Run(task_id, bind(**fields), monotonic(), _current.get())
        _current.set(run)
        run.fields.__enter__()

    def task_postrun(self, task_id: str, **_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Lines):
                stream.flush()
        run = _current.get()
        if run is not None and run.task_id == task_id:
            run.fields.__exit__()
            _current.set(run.outer)


_SIGNALS: Final = (
    "setup_logging",
    "celeryd_after_setup",
    "worker_process_init",
    "task_prerun",
    "task_postrun",
)
_completion: Final = _Completion()
_lock: Final = SetupLock()
_installed: _Worker | None = None


def install(set_level: Callable[[int], None]) -> None:
    """Connect the receivers.  A second call has no effect.  Thread-safe; does not block.

    Args:
        set_level: a function that changes the level of the default runtime.
    """
    global _installed  # noqa: PLW0603 - uninstall() undoes it
    with _lock:
        if _installed is not None:
            return
        _installed = _Worker(set_level)
        for name in _SIGNALS:
            receiver = getattr(_installed, name)
            getattr(signals, name).connect(receiver, weak=False, dispatch_uid=_UID)
        _logger.addFilter(_completion)


def uninstall() -> None:
    """Undo :func:`install`, if it was called.  Thread-safe; does not block."""
    global _installed  # noqa: PLW0603 - set by install()
    with _lock:
        _installed = None
        for name in _SIGNALS:
            getattr(signals, name).disconnect(dispatch_uid=_UID)
        _logger.removeFilter(_completion)


def installed() -> bool:
    """Return whether the receivers are connected."""
    return _installed is not None


def _is_chosen(level: int) -> bool:
    """Return whether the user has chosen the level of the worker.

    A worker without ``--loglevel`` gets the default of this option, WARNING.
    """
    command = click.get_current_context(silent=True)
    if command is None or "loglevel" not in command.params:
        return level != logging.WARNING
    return command.get_parameter_source("loglevel") is not ParameterSource.DEFAULT
