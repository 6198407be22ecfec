"""Turns exceptions into attributes.

The thread that logs creates a :class:`Capture`, which summarises the frames and does not keep them
alive.  Later, the worker thread reads the source lines, which is slow, and formats the text as the
interpreter does.  The text does not contain the lines of ``^^^^``, because ``traceback`` would
have to parse the source for them.
"""

from __future__ import annotations

import re
import sys
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

from fapilog.values import snapshot
from fapilog.values.objects import type_name
from fapilog.values.text import without_last_word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

#: The maximum number of frames in the stack trace of each exception in a chain.
MAX_FRAMES: Final = 100
_MAX_WALK: Final = 5_000
#: The maximum number of characters in a stack trace.  If a trace is longer, its middle is removed.
MAX_TEXT: Final = 32_768
_LONGEST_LINE: Final = 4096

# True while code of an exception's class runs.  A Capture that is created during this time does
# not read its exception, because a __str__ that logs its own exception would recurse without end.
_capturing: ContextVar[bool] = ContextVar("fapilog_capturing", default=False)


class Capture:
    """The state of an exception at the time of the log call.  Thread-safe.

    Attributes:
        type_name: the name of the exception's class.
        message: the ``str`` of the exception.
        stack: the call stack of the log call if it was called with ``stack_info``, otherwise None.
    """

    __slots__ = ("_summary", "message", "stack", "type_name")

    def __init__(self, exception: BaseException) -> None:
        self.type_name = type_name(type(exception))
        self.message = "(logged while an exception was being read)"
        self.stack: Stack | None = None
        self._summary: traceback.TracebackException | None = None
        if _capturing.get():
            return
        token = _capturing.set(True)
        try:
            self._capture(exception)
        finally:
            _capturing.reset(token)

    def _capture(self, exception: BaseException) -> None:
        try:
            self.message = _shorten(str.__str__(str(exception)))
        except Exception as error:  # noqa: BLE001 - the message shows the error
            self.message = f"<str() of the exception raised {type_name(type(error))}>"
        try:
            entries, limit = _bounded(exception.__traceback__)
            self._summary = traceback.TracebackException(
                type(exception), exception, entries, limit=limit, lookup_lines=False, compact=True
            )
            _keep_notes(self._summary)
        except Exception:  # noqa: BLE001 - __cause__ or __notes__ raised; type and message remain
            self._summary = None

    def attributes(self) -> dict[str, str]:
        """Return the exception's type, message and stack trace, and the call stack if it is set.

        Never raises.  Blocks while it reads source files, so only the worker thread calls this
        method.

        Source: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-logs/
        """
        attributes = {
            "exception.type": self.type_name,
            "exception.message": self.message,
            "exception.stacktrace": self._format(),
        }
        return attributes if self.stack is None else attributes | self.stack.attributes()

    def _format(self) -> str:
        if self._summary is not None:
            try:
                for part in _parts(self._summary):
                    _forget_columns(part)
                return _shorten("".join(self._summary.format()))
            except Exception as error:  # noqa: BLE001 - code of names and notes may raise
                return f"{self.type_name}: {self.message}\n<traceback: {type_name(type(error))}>"
        return f"{self.type_name}: {self.message}"


class Stack:
    """The call stack at the time of a log call.  Immutable and thread-safe.

    Args:
        frame: the innermost frame, or None for an empty stack.
    """

    __slots__ = ("_summary",)

    def __init__(self, frame: FrameType | None) -> None:
        frames = traceback.walk_stack(frame) if frame is not None else iter(())
        self._summary = traceback.StackSummary.extract(frames, limit=MAX_FRAMES, lookup_lines=False)
        self._summary.reverse()

    def attributes(self) -> dict[str, str]:
        """Return the call stack as ``code.stacktrace``, formatted as :mod:`logging` does.

        Blocks while it reads source files, so only the worker thread calls this method.

        Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/
        """
        text = "".join(["Stack (most recent call last):\n", *self._summary.format()])
        return {"code.stacktrace": _shorten(text.rstrip("\n"))}


def _bounded(entries: TracebackType | None) -> tuple[TracebackType | None, int]:
    """Return the first traceback entry to read, and the ``limit`` for ``traceback``.

    If the traceback has fewer than 5,000 entries, the limit is negative and selects the innermost
    :data:`MAX_FRAMES` entries.  A longer traceback usually belongs to an exception object that was
    raised many times.  Each raise adds entries at the beginning, so a positive limit selects the
    newest entries.
    """
    first, ahead = entries, entries
    for walked in range(_MAX_WALK):
        if ahead is None:
            return first, -MAX_FRAMES
        ahead = ahead.tb_next
        if walked >= MAX_FRAMES and first is not None:
            first = first.tb_next
    return entries, MAX_FRAMES


def _keep_notes(summary: traceback.TracebackException) -> None:
    """Replace the ``__notes__`` of all exceptions with snapshots.

    The original notes may be any objects.
    """
    for one in _parts(summary):
        notes = getattr(one, "__notes__", None)  # Python 3.10 has no notes
        if notes is not None:
            one.__notes__ = snapshot(notes)  # type: ignore[attr-defined,unused-ignore]


def _forget_columns(summary: traceback.TracebackException) -> None:
    """Remove the column numbers, so that ``traceback`` prints no lines of ``^^^^``."""
    if sys.version_info >= (3, 11):
        for frame in summary.stack:
            frame.colno = frame.end_colno = None


def _parts(summary: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield the summaries of an exception, its causes, its contexts and its group's members."""
    waiting = [summary]
    while waiting:
        one = waiting.pop()
        yield one
        groups = getattr(one, "exceptions", None) or ()
        waiting += [part for part in (one.__cause__, one.__context__, *groups) if part is not None]


def resolve(exc_info: object) -> BaseException | None:
    """Return the exception to which an ``exc_info`` argument refers.

    Args:
        exc_info: an exception, a ``sys.exc_info()`` tuple, or any other object.
            An object that is truthy, or whose ``bool()`` raises, refers to the
            exception that is being handled.
    """
    if issubclass(type(exc_info), BaseException):
        return cast("BaseException", exc_info)
    if type(exc_info) is tuple:
        found = exc_info[1] if len(exc_info) > 1 else None
        return found if issubclass(type(found), BaseException) else None
    try:
        wanted = bool(exc_info)
    except Exception:  # noqa: BLE001 - an array, for example, is neither true nor false
        wanted = True
    return sys.exc_info()[1] if wanted else None


def _shorten(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    head = without_last_word(text[: MAX_TEXT // 4])
    tail = _without_first_lines(text[MAX_TEXT // 4 - MAX_TEXT :])
    if _sign(text, head.rfind("\n") + 1, len(text) - len(tail)):
        # The text that is removed from the middle may contain the name of a secret whose value is
        # in the tail.  Redaction does not recognise the value without the name, so the tail must
        # begin with the first line of a frame.
        frame = _frame(tail)
        tail = tail[frame.start() :] if frame else ""
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n… ({left_out} characters left out)\n{tail}"


# Finds a separator that can occur between a secret's name and its value.
_sign: Final = re.compile(r"""[=:%\\]|--|["'],""").search
_frame: Final = re.compile(r'''^[ |]{0,99}  File "''', re.MULTILINE).search


def _without_first_lines(tail: str) -> str:
    """Remove the first two lines of a string whose beginning was cut off.

    These lines may contain half of a secret, or a secret whose name was cut off, which redaction
    would not recognise.  If a line is longer than 4,096 characters, only its first 4,096
    characters are removed.
    """
    start = 0
    for _ in range(2):
        found = tail.find("\n", start, start + _LONGEST_LINE)
        if found < 0:
            return tail[start + _LONGEST_LINE :]
        start = found + 1
    return tail[start:]
