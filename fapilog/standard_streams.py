"""Finds the real standard streams if an object that logs has replaced ``sys.stdout``.

Celery's worker and some applications put an object into ``sys.stdout`` or ``sys.stderr`` whose
``write`` logs the text.  If fapilog wrote a record to this object, the object would log the
record again, or the record would be lost.  Therefore fapilog writes to the process's original
stream instead.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

DataT = TypeVar("DataT")
ResultT = TypeVar("ResultT")

#: Names of modules whose functions log.  If the ``write`` of a stream calls such a function, the
#: stream logs the text.
_LOGGING: Final = frozenset(
    {"logging", "loguru._logger", "fapilog.engine.logger", "fapilog.bridges.structlog"}
)
#: The packages whose stream classes show written text below a notebook's cell.
_NOTEBOOKS: Final = frozenset({"ipykernel", "marimo"})
# The latest streams whose write() has called a function that logs.
_seen: Final[deque[object]] = deque(maxlen=8)


class StreamLogsError(Exception):
    """Raised if the ``write`` of a stream logs the text, which was therefore not written."""


def standard_stream(name: str) -> Any:
    """Return ``sys.stdout`` or ``sys.stderr``, unless an object that logs has replaced it.

    If such an object has replaced it, return the process's original stream, such as
    ``sys.__stdout__``.  Return None if the process has no such stream.  Never raises.

    Args:
        name: ``"stdout"`` or ``"stderr"``.
    """
    stream = getattr(sys, name, None)
    if not _logs(stream):
        return stream
    original = getattr(sys, f"__{name}__", None)
    return None if _logs(original) else original


def _logs(stream: object) -> bool:
    """Return whether ``stream`` logs the text that is written to it.

    This is true if :func:`write_unless_it_logs` has detected it, or if an attribute of
    ``stream`` is a logger, as in the object that Celery puts into ``sys.stdout``.
    """
    if is_plain(stream):
        return False
    if any(stream is one for one in _seen):
        return True
    fields = getattr(stream, "__dict__", None)
    return type(fields) is dict and any(
        isinstance(value, (logging.Logger, logging.LoggerAdapter)) for value in [*fields.values()]
    )


def is_plain(stream: object) -> bool:
    """Return whether ``stream`` is None or an instance of one of Python's own classes."""
    return type(stream).__module__ in {"_io", "io", "builtins"}


def is_notebook(stream: object) -> bool:
    """Return whether text that is written to ``stream`` appears below a notebook's cell."""
    return str(type(stream).__module__).partition(".")[0] in _NOTEBOOKS


def write_unless_it_logs(stream: object, write: Callable[[DataT], ResultT], data: DataT) -> ResultT:
    """Call ``write(data)``, but stop the call as soon as it calls a function that logs.

    After such a call, :func:`standard_stream` does not return ``stream``.

    Args:
        stream: the value of ``sys.stdout`` or ``sys.stderr``.
        write: the method ``write`` of ``stream``, or of its buffer.
        data: the argument of ``write``.

    Raises:
        StreamLogsError: ``write`` logs.
        Exception: any error of ``write``.
    """
    has_logged = False

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal has_logged
        if event == "call" and frame.f_globals.get("__name__") in _LOGGING:
            has_logged = True
            raise StreamLogsError

    if sys.getprofile() is not None:  # setprofile() would stop the running profiler
        return write(data)
    sys.setprofile(watch)  # this affects only the current thread
    try:
        result = write(data)
    except Exception:
        if not has_logged:
            raise
    finally:
        sys.setprofile(None)
    if has_logged:  # write() may have caught the StreamLogsError
        _seen.append(stream)
        msg = "its write() logs what it gets"
        raise StreamLogsError(msg)
    return result
