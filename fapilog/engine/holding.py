"""Holds: records below a logger's threshold that wait for whether they will be wanted.

``with hold():`` marks the running context.  A logger whose threshold refuses a
record asks here who takes it, and until a process makes its first hold no
threshold is lowered: so nothing of this costs a call anything.
"""

from __future__ import annotations

import os
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final

from typing_extensions import Self

from fapilog import native
from fapilog.context import reset_latest
from fapilog.engine.hold_buffer import Buffer
from fapilog.options.checks import FINITE_SECONDS, severity, whole
from fapilog.severity import OFF

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeAlias

#: A block, and the one around it.
_Node: TypeAlias = "tuple[Buffer, _Node | None]"

#: Lowest severity that any hold of this process takes; OFF before the first one.
floor: int = OFF
_ONE_OR_MORE: Final = whole(1)
_followers: list[Callable[[], object]] = []
_BLOCK: Final[ContextVar[_Node | None]] = ContextVar("fapilog_hold", default=None)
# Of all holds, because it has to be replaced in a forked child.
_counting = native.RLock()


def follow(callback: Callable[[], object]) -> None:
    """Have ``callback`` called whenever :data:`floor` is lowered: thresholds follow it."""
    _followers.append(callback)


def gate(threshold: int) -> int:
    """Return the severity from which a logger of this threshold has to look at a call.

    A logger that is off stays off.
    """
    return threshold if threshold >= OFF else min(threshold, floor)


def taker(number: int) -> Buffer | None:
    """Return the innermost block around the caller that takes this severity, if there is one."""
    node = _BLOCK.get()
    while node is not None:
        buffer, node = node
        if buffer.is_open and number >= buffer.level:
            return buffer
    return None


def reset_floor(level: int = OFF) -> None:
    """Have an earlier floor again: for tests.  Loggers follow when they are next attached."""
    global floor  # noqa: PLW0603 - one for the process
    floor = level


class hold:  # noqa: N801 - used as a function, as bind is: with hold(...)
    """Hold back records below the threshold until it is known whether they are wanted.

    Inside the block - in this context, and in tasks and threads that copied
    it - a record below its logger's threshold, but at or above ``level``, is
    held instead of being disabled; one at or above the threshold goes its
    normal way.  :meth:`release` sends what is held; leaving the block drops
    the rest, counted as ``not_released``.  This holds for ``Logger`` and
    ``AsyncLogger``, and for records of bridges and of the Logs API.  A logger
    whose level is ``off`` stays off.

    Beyond a bound the oldest records are dropped, counted as ``hold_full``.
    All holds of a process keep at most 64 MiB together.

    In a block within a block the innermost one that takes the severity has
    the record; neither releases or drops the other's.

    The first hold of a process lowers what loggers look at, for good: from
    then on a disabled call costs a look at the context, and where
    ``install_stdlib`` follows the levels, those of :mod:`logging` are opened
    down to ``level``.

    Does not block; thread-safe.

    Args:
        level: lowest severity that is held.
        records: how many are held.
        size: their approximate bytes in memory.
        seconds: how long one is held.

    Raises:
        ConfigurationError: an option is wrong; names it and the fix.
    """

    __slots__ = ("_buffer", "_depth", "_options", "_tokens")

    def __init__(
        self,
        level: int | str = "DEBUG",
        *,
        records: int = 1000,
        size: int = 1_048_576,
        seconds: float = 60.0,
    ) -> None:
        number = severity("level", level, "hold()")
        _ONE_OR_MORE.check("records", records, "hold()")
        _ONE_OR_MORE.check("size", size, "hold()")
        FINITE_SECONDS.check("seconds", seconds, "hold()")
        self._options = (number, records, size, float(seconds))
        self._buffer: Buffer | None = None
        self._depth = 0
        self._tokens: list[Token[_Node | None]] = []
        if number < floor:
            _lower_floor(number)

    @property
    def released(self) -> bool:
        """Whether :meth:`release` was called in the block."""
        return self._buffer is not None and self._buffer.released

    def __len__(self) -> int:
        """Return how many records are held now."""
        return 0 if self._buffer is None else len(self._buffer)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        # Threads and tasks may share this object; the last of them ends the block.
        with _counting:
            if not self._depth or self._buffer is None:
                self._buffer = Buffer(*self._options)
            self._depth += 1
            buffer = self._buffer
        self._tokens.append(_BLOCK.set((buffer, _around())))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reset_latest(_BLOCK, self._tokens)
        with _counting:
            self._depth -= 1
            # Another thread may begin a new block, with a new buffer, from here on.
            ended = None if self._depth else self._buffer
            if ended is not None:
                self._tokens.clear()
        if ended is not None:
            ended.close()

    def release(self) -> None:
        """Send what is held, in order and with the time of each event; later records pass at once.

        Does nothing outside the block, or a second time.  May wait for room in
        a full queue, for all records together as long as one log call may, and
        never in a thread that runs an event loop.  Thread-safe; never raises.
        """
        if self._buffer is not None:
            self._buffer.release()


def _around() -> _Node | None:
    """Return the innermost block around the caller that has not been left."""
    node = _BLOCK.get()
    while node is not None and not node[0].is_open:
        node = node[1]
    return node


def _lower_floor(level: int) -> None:
    global floor  # noqa: PLW0603 - one for the process, and never raised again
    floor = level
    for callback in _followers:
        callback()


def _after_fork_in_child() -> None:
    global _counting  # noqa: PLW0603 - another thread of the parent may have held it
    _counting = native.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
