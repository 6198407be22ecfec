"""Writes fapilog's own messages to stderr, at most one line per subject every 30 seconds.

The next line of a subject says how many lines were suppressed since the previous one, and the end
of the process writes these numbers too.

A logging library cannot log its own problems, such as lost records, so this module reports them.
If standard error is a pipe that is full because another process, such as a supervisor, does not
read it, messages are dropped, so that the application does not block.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.errors import FapilogError
from fapilog.native import monotonic
from fapilog.standard_streams import (
    StreamLogsError,
    is_notebook,
    is_plain,
    standard_stream,
    write_unless_it_logs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 30.0
_MAX_SUBJECTS: Final = 256
_MAX_MESSAGE: Final = 1000
#: The maximum number of lines that ``announce_suppressed()`` writes.
_MAX_SUPPRESSED: Final = 20

#: The maximum number of bytes in a line.  A write of this size to a pipe is atomic: Linux does
#: not mix it with the writes of other processes.
_MAX_LINE: Final = 4096

# The lock is re-entrant, because announce() may be interrupted by a finaliser or a signal handler
# that also calls announce().
_lock = native.RLock()
_last: dict[str, float] = {}
_muted: dict[str, int] = {}
_texts: dict[str, str] = {}  # the latest message of each subject
_unwritten = 0


# ``_thread.writes`` is True while the current thread calls the ``write`` of a stream object.
_thread: Final = threading.local()


def announce(subject: str, message: str | Callable[[], str], count: int = 1) -> None:
    """Write ``fapilog: message`` to stderr, at most once per subject every 30 seconds.

    Never raises.  Thread-safe.  Does not block, unless ``sys.stderr`` is an
    object without a file descriptor whose ``write`` blocks.  If standard error
    cannot accept the line immediately, the line is dropped.  The next line reports how many
    lines were dropped, and the sum of the counts of all messages of the same subject that were not
    written because less than 30 seconds had passed since the previous line.  In a notebook, the
    line also appears below the running cell.

    Args:
        subject: the topic of the message, a short constant.  At most one line per subject is
            written every 30 seconds.
        message: the text of one line; it is truncated to 1000 characters, and
            control characters are escaped.  A function that returns the text is
            called only if the line is written.
        count: the number of records that the message is about, or 1.
    """
    global _unwritten
    try:
        now = monotonic()
        with _lock:
            if now - _last.get(subject, -INTERVAL) < INTERVAL:
                _muted[subject] = _muted.get(subject, 0) + count
                return
            if subject not in _last and len(_last) >= _MAX_SUBJECTS:
                return
            _last[subject] = now
            held = _muted.pop(subject, 0)
            missed, _unwritten = _unwritten, 0
        written = False
        try:
            text = message if isinstance(message, str) else message()
            _texts[subject] = text[:_MAX_MESSAGE]
            written = _write(_line(text, held, missed))
        finally:
            if not written:
                _keep_counts(subject, held, missed)
    except Exception:  # noqa: BLE001 - a closed stream, the application's stream, no memory
        return  # an error of this function itself cannot be reported


def announce_suppressed() -> None:
    """Write each message that has been suppressed since its last line, with its count.

    Called at the end of the process, because no later line would contain the counts.  At most 20
    lines are written, those with the highest counts.  Never raises, and blocks only if
    :func:`announce` blocks.
    """
    global _unwritten
    with _lock:
        missed, counts = 0, sorted(_muted.items(), key=lambda item: -item[1])
        _muted.clear()
        if counts:
            missed, _unwritten = _unwritten, 0
    for subject, count in counts[:_MAX_SUPPRESSED]:
        try:
            if subject in _texts:
                _write(_line(_texts[subject], count, missed))
                missed = 0
        except Exception:  # noqa: BLE001, PERF203 - as in announce()
            return


def _line(message: str, held: int, missed: int) -> str:
    more = f" ({held} more like this since)" if held else ""
    if missed:
        more += f" ({missed} earlier lines were dropped: nobody read standard error)"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:_MAX_MESSAGE])
    return f"fapilog: {text}{more}\n"


def _keep_counts(subject: str, held: int, missed: int) -> None:
    """Update the counters after a line could not be written.

    The line contained two numbers, which a later line must report.  ``held`` is the number of
    earlier messages that were not written, because less than 30 seconds had passed since the
    previous line of the same subject.  ``missed`` is the number of earlier lines that
    could not be written.
    """
    global _unwritten  # noqa: PLW0603 - a process has one standard error
    with _lock:
        _unwritten += missed + 1
        if held:
            _muted[subject] = _muted.get(subject, 0) + held


def _write(line: str) -> bool:
    """Write a line to standard error; return False if the line cannot be written now."""
    stream = standard_stream("stderr")
    descriptor = _descriptor_of(stream)
    is_shown = is_notebook(stream) and _write_to_notebook(stream, line)
    if descriptor is None:
        return is_shown or _write_to_object(stream, line)
    # In a notebook, the descriptor leads to the terminal or the log file of the notebook's server.
    # It gets the line too, because no cell shows the lines that are written at the kernel's end.
    return _write_to_descriptor(descriptor, line) or is_shown


def _descriptor_of(stream: Any) -> int | None:
    """Return the file descriptor of ``stream``, or None if ``stream.write`` must be called."""
    if sys.platform == "win32":  # Windows cannot tell whether a write would block
        return None
    try:
        descriptor: int = stream.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, TypeError, ValueError):  # the stream has no file descriptor
        return None
    return descriptor


def _write_to_descriptor(descriptor: int, line: str) -> bool:
    """Write a line; return False if a write would block."""
    data = line.encode("utf-8", "backslashreplace")
    if len(data) > _MAX_LINE:
        data = data[: _MAX_LINE - 1].decode("utf-8", "ignore").encode() + b"\n"
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.write(descriptor, data) == len(data)
        return _write_at_once(descriptor, data)
    except BlockingIOError:
        return False


def _write_to_notebook(stream: Any, line: str) -> bool:
    """Show a line below the notebook's running cell; return False if this is not possible.

    The stream sends the line a moment later by itself.  Its ``flush`` is not called, because it
    may wait for up to 10 seconds.
    """
    if getattr(_thread, "writes", False):
        return False
    _thread.writes = True
    try:
        stream.write(line)
    except Exception:  # noqa: BLE001 - the kernel has closed the stream; its descriptor remains
        return False
    finally:
        _thread.writes = False
    return True


def _write_at_once(descriptor: int, data: bytes) -> bool:
    """Write to a pipe, a socket or a terminal without waiting until another process reads.

    Returns False or raises BlockingIOError if the write would have to wait.  The descriptor
    is not switched to non-blocking mode, because other processes share its flags.  On Linux,
    the flag ``RWF_NOWAIT`` prevents the wait.  Terminals and old kernels do not support the
    flag, so a terminal or a pipe is then opened a second time, in non-blocking mode.  On other
    systems, poll() tests whether the descriptor is writable; the write can only wait if another
    process writes after this test.
    """
    try:
        return os.pwritev(descriptor, [data], -1, os.RWF_NOWAIT) == len(data)
    except BlockingIOError:
        raise
    except (AttributeError, OSError):
        pass  # the system or the descriptor does not support RWF_NOWAIT
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0)) and os.write(descriptor, data) == len(data)
    try:
        return os.write(own, data) == len(data)
    finally:
        os.close(own)


def _write_to_object(stream: Any, line: str) -> bool:
    """Call ``stream.write(line)``; return False if the line is dropped.

    If this ``write`` calls announce(), the second line is dropped, to prevent a recursion.
    """
    if stream is None or getattr(_thread, "writes", False):
        return False
    _thread.writes = True
    try:
        if is_plain(stream):
            stream.write(line)
        else:
            write_unless_it_logs(stream, stream.write, line)
        stream.flush()
    except StreamLogsError:
        stream = None
    finally:
        _thread.writes = False
    # If the stream logs the text that is written to it, write to the process's original standard
    # error instead.
    return stream is not None or _write(line)


def describe(error: BaseException) -> str:
    """Return the message of an error, preceded by its type's name unless it is a FapilogError.

    Never raises.
    """
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the application's code; the type is still known
        message = ""
    if isinstance(error, FapilogError) and message:
        return message
    return f"{kind_of(error)}: {message}" if message else kind_of(error)


def kind_of(error: BaseException) -> str:
    """Return the name of an error's type, without the message, which may contain a secret.

    Never raises.
    """
    # A metaclass may define ``__name__``; this returns the real name of the class.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def place_of(error: BaseException) -> str:
    """Return the file and line of application code that raised an error.

    An example is `` (/app/logs.py:12)``.

    Call it in the function of fapilog that called the application's function and caught its
    error.  The result is the innermost line in the file of the application's function, even if
    this line calls a library that raised the error.  The result is "" if the traceback
    contains only the function that caught the error.
    """
    entry = error.__traceback__ and error.__traceback__.tb_next
    place, file = "", None
    while entry is not None:
        frame = entry.tb_frame
        name = frame.f_code.co_filename
        if file is None and str(frame.f_globals.get("__name__")).partition(".")[0] != "fapilog":
            file = name
        if file in {None, name}:
            place = f" ({name}:{entry.tb_lineno})"
        entry = entry.tb_next
    return place


def reset() -> None:
    """Reset all counters and intervals.  Forked child processes and tests call this function."""
    global _lock, _unwritten  # noqa: PLW0603 - the parent may have held the lock while forking
    _lock = native.RLock()
    _unwritten = 0
    _last.clear()
    _muted.clear()
    _texts.clear()
