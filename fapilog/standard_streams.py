"""The standard streams, even if another library has replaced them by a logger.

Celery's worker and some applications put an object into ``sys.stdout`` whose ``write``
logs the text.  A record that fapilog wrote there would come back as another record, or
would vanish.  fapilog's own output goes to the stream of the process's start instead.
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

#: The modules that a ``write`` enters when it logs.
_LOGGING: Final = frozenset(
    {"logging", "loguru._logger", "fapilog.engine.logger", "fapilog.bridges.structlog"}
)
# Objects whose write() was seen to log.  Compared by identity; an application has few.
_seen: Final[deque[object]] = deque(maxlen=8)


class StreamLogsError(Exception):
    """The ``write`` of a stream logs its text; nothing was written."""


def standard_stream(name: str) -> Any:
    """Return ``sys.stdout`` or ``sys.stderr``, or the original stream if the present one logs.

    Returns None if the process has no such stream.  Never raises.

    Args:
        name: ``"stdout"`` or ``"stderr"``.
    """
    stream = getattr(sys, name, None)
    if not _logs(stream):
        return stream
    original = getattr(sys, f"__{name}__", None)
    return None if _logs(original) else original


def _logs(stream: object) -> bool:
    """Whether ``stream`` was seen to log, or holds a logger, as Celery's proxy does."""
    if is_plain(stream):
        return False
    if any(stream is one for one in _seen):
        return True
    fields = getattr(stream, "__dict__", None)
    return type(fields) is dict and any(
        isinstance(value, (logging.Logger, logging.LoggerAdapter)) for value in [*fields.values()]
    )


def is_plain(stream: object) -> bool:
    """Whether the interpreter's own code writes to ``stream``, so that it cannot log."""
    return type(stream).__module__ in {"_io", "io", "builtins"}


def write_unless_it_logs(stream: object, write: Callable[[DataT], ResultT], data: DataT) -> ResultT:
    """Call ``write(data)``, but stop the call as soon as it begins to log.

    From then on, :func:`standard_stream` does not return ``stream``.

    Args:
        stream: the object that stands in :mod:`sys`.
        write: the method of ``stream``, or of the buffer below it.
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

    if sys.getprofile() is not None:  # a running profiler cannot be put back
        return write(data)
    sys.setprofile(watch)  # of this thread only
    try:
        result = write(data)
    except Exception:
        if not has_logged:
            raise
    finally:
        sys.setprofile(None)
    if has_logged:  # also if write() has caught the error
        _seen.append(stream)
        msg = "its write() logs what it gets"
        raise StreamLogsError(msg)
    return result
