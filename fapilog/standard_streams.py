"""The standard streams, even if an object that logs has replaced them.

Celery's worker and some applications put an object into ``sys.stdout`` whose ``write``
logs the text.  A record that fapilog wrote there would come back as another record, or
would vanish.  fapilog's own output goes to the process's original stream instead.
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

#: Names of logging modules.  A ``write`` that calls a function in one of them logs its text.
_LOGGING: Final = frozenset(
    {"logging", "loguru._logger", "fapilog.engine.logger", "fapilog.bridges.structlog"}
)
# Streams whose write() was seen to log.  An application has few of them.
_seen: Final[deque[object]] = deque(maxlen=8)


class StreamLogsError(Exception):
    """The ``write`` of a stream logs its text; nothing was written."""


def standard_stream(name: str) -> Any:
    """Return ``sys.stdout`` or ``sys.stderr``, unless an object that logs has replaced it.

    In that case, returns the process's original stream.  Returns None if the process has no
    such stream.  Never raises.

    Args:
        name: ``"stdout"`` or ``"stderr"``.
    """
    stream = getattr(sys, name, None)
    if not _logs(stream):
        return stream
    original = getattr(sys, f"__{name}__", None)
    return None if _logs(original) else original


def _logs(stream: object) -> bool:
    """Whether ``stream`` was seen to log, or has a logger as an attribute, like Celery's proxy."""
    if is_plain(stream):
        return False
    if any(stream is one for one in _seen):
        return True
    fields = getattr(stream, "__dict__", None)
    return type(fields) is dict and any(
        isinstance(value, (logging.Logger, logging.LoggerAdapter)) for value in [*fields.values()]
    )


def is_plain(stream: object) -> bool:
    """Whether ``stream`` is one of Python's own stream objects, or None; these never log."""
    return type(stream).__module__ in {"_io", "io", "builtins"}


def write_unless_it_logs(stream: object, write: Callable[[DataT], ResultT], data: DataT) -> ResultT:
    """Call ``write(data)``, but stop the call as soon as it begins to log.

    From then on, :func:`standard_stream` does not return ``stream``.

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

    if sys.getprofile() is not None:  # a running profiler must not be replaced
        return write(data)
    sys.setprofile(watch)  # applies to this thread only
    try:
        result = write(data)
    except Exception:
        if not has_logged:
            raise
    finally:
        sys.setprofile(None)
    if has_logged:  # write() may have caught the error and returned
        _seen.append(stream)
        msg = "its write() logs what it gets"
        raise StreamLogsError(msg)
    return result
