"""Holds: records below a logger's level wait until the application releases or drops them.

``with hold():`` stores its buffer in the running context.  For a record below its level, a
logger asks :func:`taker` for the buffer that takes the record.  Before a process creates its
first hold, loggers do not ask, so holds add no cost to a disabled call.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final

from typing_extensions import Self

from fapilog.context import announce_unentered, reset_latest
from fapilog.engine.hold_buffer import Buffer, budget
from fapilog.options.checks import FINITE_SECONDS, severity, whole
from fapilog.severity import OFF

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

#: A block's buffer, and the node of the enclosing block or None.
_Node: TypeAlias = "tuple[Buffer, _Node | None]"

#: The lowest severity number that any hold of this process takes; OFF before the first hold.
floor: int = OFF
_ONE_OR_MORE: Final = whole(1)
_followers: list[Callable[[], object]] = []
_BLOCK: Final[ContextVar[_Node | None]] = ContextVar("fapilog_hold", default=None)


def follow(callback: Callable[[], object]) -> None:
    """Call ``callback`` whenever :data:`floor` becomes lower."""
    _followers.append(callback)


def gate(threshold: int) -> int:
    """Return the severity number below which a logger ignores calls.

    This is the lower of ``threshold``, the logger's level, and :data:`floor`.  A logger whose
    level is ``off`` stays off.
    """
    return threshold if threshold >= OFF else min(threshold, floor)


def taker(number: int) -> Buffer | None:
    """Return the buffer of the innermost block that takes severity ``number``, or None."""
    node = _BLOCK.get()
    while node is not None:
        buffer, node = node
        if buffer.is_open and number >= buffer.level:
            return buffer
    return None


def reset_floor(level: int = OFF) -> None:
    """Set :data:`floor`, for tests.

    A logger uses the new floor when it is next attached to a pipeline.
    """
    global floor  # noqa: PLW0603 - one per process
    floor = level


class hold:  # noqa: N801 - used like a function: with hold(...)
    """Hold records below the logger's level until the application releases or drops them.

    The block applies to the running context, and to tasks and threads that copy it.
    Inside the block, a record below its logger's level, but at or above the
    hold's ``level``, is held instead of being discarded.  A record at or above
    the logger's level is logged as usual.  :meth:`release` sends the held
    records.  If the block ends without a release, its records are dropped and counted as
    ``not_released``.  A hold takes records of ``Logger`` and ``AsyncLogger``, of bridges
    and of the Logs API.  A logger whose level is ``off`` stays off.

    If ``records``, ``size`` or ``seconds`` is exceeded, the oldest records are dropped and
    counted as ``hold_full``.  All holds of a process together keep at most 64 MiB.

    In nested blocks, a record is held by the innermost block whose ``level`` is at
    or below the record's severity.  A block never releases or drops the records of
    another block.

    The first hold of a process lowers the loggers' thresholds permanently.
    After that, a disabled call costs one lookup in the context.  If
    ``install_stdlib()`` was called without a level, the hold also lowers the levels
    of :mod:`logging` to ``level``.

    Does not block; thread-safe.

    Args:
        level: the lowest severity that is held: a name, a ``Severity`` or a level of
            :mod:`logging`.
        records: the largest number of held records.
        size: the approximate limit of the held records' memory, in bytes.
        seconds: the longest time for which a record is held.

    Raises:
        ConfigurationError: an option is wrong; the error names the option and the fix.
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
        """Whether :meth:`release` has been called in the block."""
        return self._buffer is not None and self._buffer.released

    def __len__(self) -> int:
        """Return the number of records that are held now."""
        return 0 if self._buffer is None else self._buffer.count

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        # Threads and tasks may share this object; the block ends when the last of them leaves.
        with budget.lock:
            if not self._depth or self._buffer is None:
                self._buffer = Buffer(*self._options)
            self._depth += 1
            buffer = self._buffer
        around = _BLOCK.get()
        while around is not None and not around[0].is_open:
            around = around[1]
        self._tokens.append(_BLOCK.set((buffer, around)))
        return self

    def __exit__(self, *_: object) -> None:
        reset_latest(_BLOCK, self._tokens)
        with budget.lock:
            self._depth -= 1
            # The buffer is read under the lock, because another thread may begin a new block.
            ended = None if self._depth else self._buffer
            if ended is not None:
                self._tokens.clear()
        if ended is not None:
            ended.close()

    def __del__(self) -> None:
        if getattr(self, "_buffer", False) is None:
            announce_unentered("hold")

    def release(self) -> None:
        """Send the held records in order, with their original times; later records are not held.

        Does nothing outside the block, or at a second call.  May wait for space in a full
        queue: for all records together no longer than one log call may wait, and
        never in a thread that runs an event loop.  Thread-safe; never raises.
        """
        if self._buffer is not None:
            self._buffer.release()


def _lower_floor(level: int) -> None:
    global floor  # noqa: PLW0603 - one floor per process, which never rises
    floor = level
    for callback in _followers:
        callback()
