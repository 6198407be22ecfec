"""fapilog's own voice: short lines on stderr, each subject at most once per 30 s.

A logging library cannot log its own troubles through itself.  Everything that
is lost or degraded is counted in the ledger and announced here.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

from fapilog.clock import monotonic
from fapilog.errors import FapilogError

INTERVAL: Final = 30.0
_MAX_SUBJECTS: Final = 256
_MAX_MESSAGE: Final = 1000

# Re-entrant: a signal handler may announce something in the midst of announce().
_lock = threading.RLock()
_last: dict[str, float] = {}
_muted: dict[str, int] = {}


def announce(subject: str, message: str) -> None:
    """Write ``fapilog: message`` to stderr, at most once per 30 s and subject.

    Never raises.  Thread-safe.  Blocks only as long as writing a line to
    stderr does.  The number of lines held back is told with the next one.

    Args:
        subject: what the message is about, a short constant; messages of one
            subject share one interval.
        message: one line, of which 1000 characters count; control characters
            are escaped.
    """
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
        more = f" ({held} more like this since)" if held else ""
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:_MAX_MESSAGE])
        sys.stderr.write(f"fapilog: {text}{more}\n")
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - closed, full, an object of the application's own, no memory
        return  # there is nobody left to tell


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
    """Forget what was announced; a forked child and tests start afresh."""
    global _lock  # noqa: PLW0603 - the parent may have held it while forking
    _lock = threading.RLock()
    _last.clear()
    _muted.clear()
