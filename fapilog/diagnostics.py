"""fapilog's own voice: short lines on stderr, each subject at most once per 30 s.

A logging library cannot report its own problems through itself.  Everything
that is lost or degraded is counted in the ledger and announced here.  An
announcement never waits for whoever reads standard error: a supervisor that
does not read its pipe would stop the application otherwise.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from typing import Any, Final

from fapilog import native
from fapilog.errors import FapilogError
from fapilog.native import monotonic

INTERVAL: Final = 30.0
_MAX_SUBJECTS: Final = 256
_MAX_MESSAGE: Final = 1000

#: Bytes of a line: what fits into a pipe at all fits whole, never mixed with other lines.
_MAX_LINE: Final = 4096

# Re-entrant: a signal handler may interrupt announce() and announce something itself.
_lock = native.RLock()
_last: dict[str, float] = {}
_muted: dict[str, int] = {}
_unwritten = 0


class _Thread(threading.local):
    """Whether this thread is writing to an object that stands for standard error."""

    writes = False


_thread: Final = _Thread()


def announce(subject: str, message: str) -> None:
    """Write ``fapilog: message`` to stderr, at most once per 30 s and subject.

    Never raises.  Thread-safe.  Does not block, unless ``sys.stderr`` is an
    object without a file descriptor whose ``write`` does.  A line for which
    there is no room is dropped; the next line says how many were, and how many
    lines of its own subject were held back.

    Args:
        subject: what the message is about, a short constant; messages of one
            subject share one interval.
        message: one line, of which 1000 characters count; control characters
            are escaped.
    """
    global _unwritten
    try:
        now = monotonic()
        with _lock:
            if now - _last.get(subject, -INTERVAL) < INTERVAL:
                _muted[subject] = _muted.get(subject, 0) + 1
                return
            if subject not in _last and len(_last) >= _MAX_SUBJECTS:
                return
            _last[subject] = now
            held = _muted.pop(subject, 0)
            missed, _unwritten = _unwritten, 0
        written = False
        try:
            written = _write(_line(message, held, missed))
        finally:
            if not written:
                _keep_counts(subject, held, missed)
    except Exception:  # noqa: BLE001 - closed, an object of the application's own, no memory
        return  # there is no other place to report it


def _line(message: str, held: int, missed: int) -> str:
    more = f" ({held} more like this since)" if held else ""
    if missed:
        more += f" ({missed} earlier lines were dropped: nobody read standard error)"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:_MAX_MESSAGE])
    return f"fapilog: {text}{more}\n"


def _keep_counts(subject: str, held: int, missed: int) -> None:
    """Keep for the next line what a line that was dropped should have said."""
    global _unwritten  # noqa: PLW0603 - the count of the one standard error
    with _lock:
        _unwritten += missed + 1
        if held:
            _muted[subject] = _muted.get(subject, 0) + held


def _write(line: str) -> bool:
    """Write a line to standard error; False if there was no room for it at this moment."""
    stream = sys.stderr
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, TypeError, ValueError):  # None, closed, or an object without
        return _write_to_object(stream, line)
    if sys.platform == "win32":  # there is no way to ask for room, and consoles take text
        return _write_to_object(stream, line)
    data = line.encode("utf-8", "backslashreplace")
    if len(data) > _MAX_LINE:
        data = data[: _MAX_LINE - 1].decode("utf-8", "ignore").encode() + b"\n"
    try:
        if stat.S_ISREG(mode):
            return os.write(descriptor, data) == len(data)
        return _write_at_once(descriptor, data)
    except BlockingIOError:
        return False


def _write_at_once(descriptor: int, data: bytes) -> bool:
    """Write to a pipe, a socket or a terminal that may have no room.

    Other processes share the descriptor's flags, so it stays a blocking one.
    Linux takes the wish not to wait with the call.  Terminals and old kernels
    do not know that, but a terminal or a pipe can be opened once more.
    Elsewhere poll() says whether a line fits, unless another process takes
    the room at that moment.
    """
    try:
        return os.pwritev(descriptor, [data], -1, os.RWF_NOWAIT) == len(data)
    except BlockingIOError:
        raise
    except (AttributeError, OSError):
        pass  # not on this system, or not with such a descriptor
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
    """Write to the application's own object; what it logs or announces meanwhile is left out."""
    if stream is None or _thread.writes:
        return False
    _thread.writes = True
    try:
        stream.write(line)
        stream.flush()
    finally:
        _thread.writes = False
    return True


def describe(error: BaseException) -> str:
    """Return what an error says; of a foreign one its type too.  Never raises."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the application's own code; the type remains
        message = ""
    if isinstance(error, FapilogError) and message:
        return message
    return f"{kind_of(error)}: {message}" if message else kind_of(error)


def kind_of(error: BaseException) -> str:
    """Return the name of an error's type, where its words might hold a secret.  Never raises."""
    # By type's own descriptor: a metaclass may define another __name__.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def reset() -> None:
    """Forget all announcements, in a forked child and in tests."""
    global _lock, _unwritten  # noqa: PLW0603 - the parent may have held the lock while forking
    _lock = native.RLock()
    _unwritten = 0
    _last.clear()
    _muted.clear()
