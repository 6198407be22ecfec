"""Implements ``hold()``, which buffers records below a logger's level until they are released.

``with hold():`` stores a ``Buffer`` in a context variable.  For a log call below its level, a
logger calls :func:`taker`, which returns the buffer for the record, or None.  Loggers omit this
step until the process creates its first ``hold`` object, so that disabled log calls have no
additional cost until then.
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

#: The buffer of a ``hold()`` block, and the node of the enclosing ``hold()`` block or None.
_Node: TypeAlias = "tuple[Buffer, _Node | None]"

#: The lowest ``level`` of all ``hold`` objects that this process has created; OFF if it has not
#: created any.
floor: int = OFF
_ONE_OR_MORE: Final = whole(1)
_followers: list[Callable[[], object]] = []
_BLOCK: Final[ContextVar[_Node | None]] = ContextVar("fapilog_hold", default=None)


def follow(callback: Callable[[], object]) -> None:
    """Register a function that is called whenever :data:`floor` becomes lower."""
    _followers.append(callback)


def gate(threshold: int) -> int:
    """Return the severity number below which a logger ignores log calls.

    ``threshold`` is the logger's level.  The result is the lower value of ``threshold`` and
    :data:`floor`.  If the level is ``off``, the result is ``threshold``.
    """
    return threshold if threshold >= OFF else min(threshold, floor)


def taker(number: int) -> Buffer | None:
    """Return the buffer of the innermost ``hold()`` block that buffers severity ``number``.

    Returns None if no block buffers this severity.
    """
    node = _BLOCK.get()
    while node is not None:
        buffer, node = node
        if buffer.is_open and number >= buffer.level:
            return buffer
    return None


def reset_floor(level: int = OFF) -> None:
    """Reset :data:`floor` to ``level`` in a test.

    A logger reads the new value the next time that it is attached to a pipeline.
    """
    global floor  # noqa: PLW0603 - one per process
    floor = level


class hold:  # noqa: N801 - used like a function: with hold(...)
    """Buffers records below the logger's level until the application releases or drops them.

    Use it as a context manager: ``with hold() as buffered:``.  The block applies to the current
    context of ``contextvars``, and to tasks and threads that copy this context.  Inside the
    block, a record below its logger's level, but at or above ``level``, is buffered instead of
    being discarded.  A record at or above the logger's level is logged as usual.  The method
    :meth:`release` sends the buffered records.  If the block ends without a release, its
    records are dropped, for the reason ``not_released`` in the statistics.  The block buffers
    records of ``Logger`` and ``AsyncLogger``, of other logging libraries whose records fapilog
    receives, and of OpenTelemetry's Logs API.  A logger whose level is ``off`` stays off.

    If ``records``, ``size`` or ``seconds`` is exceeded, the oldest records are dropped, for the
    reason ``hold_full`` in the statistics.  All blocks of a process together buffer at most 64
    MiB.

    If blocks are nested, the innermost block whose ``level`` is at or below the record's
    severity buffers the record.  A block never releases or drops the records of another block.

    After a process has created its first ``hold`` object, every disabled log call at or above
    ``level`` costs a lookup of a context variable, even outside the block.  If
    ``install_stdlib()`` was called without a level, ``hold`` also lowers the level of the
    :mod:`logging` logger of that call, by default the root logger, to ``level``.

    Does not block; thread-safe.

    Args:
        level: the lowest severity that the block buffers: a name, a ``Severity`` or a level of
            :mod:`logging`.
        records: the maximum number of buffered records.
        size: the approximate limit of the memory for the buffered records, in bytes.
        seconds: the maximum time that a record stays in the buffer, in seconds.

    Raises:
        ConfigurationError: an option is wrong; the error contains the name of the option and
            advice.
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
        """Whether :meth:`release` has been called in the current block."""
        return self._buffer is not None and self._buffer.released

    def __len__(self) -> int:
        """Return the number of buffered records."""
        return 0 if self._buffer is None else self._buffer.count

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        # Several threads and tasks may use this object in a ``with`` statement at the same time.
        # The block ends when the last of them leaves the statement.
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
            # The lock is needed to read ``_buffer``, because another thread may start a new block
            # and replace the buffer.
            ended = None if self._depth else self._buffer
            if ended is not None:
                self._tokens.clear()
        if ended is not None:
            ended.close()

    def __del__(self) -> None:
        if getattr(self, "_buffer", False) is None:
            announce_unentered("hold")

    def release(self) -> None:
        """Send the buffered records in order, with their original times, and stop buffering.

        Does nothing outside the block, or if it was called in this block before.  May wait for
        space in a full queue.  The total wait is not longer than that of a single log call, and
        there is no wait in a thread that runs an event loop.  Thread-safe; never raises.
        """
        if self._buffer is not None:
            self._buffer.release()


def _lower_floor(level: int) -> None:
    global floor  # noqa: PLW0603 - one floor per process, which never rises
    floor = level
    for callback in _followers:
        callback()
