"""Buffers the entries of a ``hold()`` block until the application releases or drops them.

An entry represents one log call.  The pipeline's statistics include an entry only after it has
left the buffer.  All buffers share the lock ``budget.lock``.  The caller of a private method
must hold this lock, unless the docstring of the method says otherwise.
"""

from __future__ import annotations

import weakref
from collections import deque
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fapilog import native
from fapilog.engine.entry import SEVERITY, held_values
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.values.exceptions import Capture, Stack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.engine.entry import Entry
    from fapilog.engine.pipeline import Pipeline

#: The approximate memory limit of all ``hold()`` buffers of the process together, in bytes.
BUDGET: Final = 64 * 1024 * 1024

#: The estimated size of an entry without its strings and values, in bytes: its tuples and its slot
#: in the buffer.
_ENTRY_SIZE: Final = 300
#: The estimated size of a captured exception, in bytes.  Measuring its frames would take too
#: long.
_EXCEPTION_SIZE: Final = 16_384
_MAX_PARTS: Final = 10_000
#: While :meth:`Buffer.release` sends entries, other threads may add more.  This is the maximum
#: number of additional rounds in which ``release`` sends those entries too.
_ROUNDS: Final = 100
#: The minimum time between two searches for expired entries in all buffers, in seconds.
_SWEEP_INTERVAL: Final = 1.0


# The buffers of all ``hold()`` blocks that have not ended, by ``id(buffer)``.  This is not a
# WeakSet, because a WeakSet cannot be copied while other threads change it.
_open: dict[int, weakref.ref[Buffer]] = {}


class _Held(NamedTuple):
    pipeline: Pipeline
    entry: Entry
    size: int
    since: float


class Budget:
    """The memory that all ``hold()`` buffers of the process use, and the lock that they share.

    The lock is re-entrant, because a finaliser or a signal handler may log, or end a ``hold()``
    block, in a thread that already holds the lock.
    """

    def __init__(self) -> None:
        self.lock = native.RLock()
        self.used = 0
        self.swept = 0.0

    def after_fork(self) -> None:
        """Discard all buffered entries in a forked child; the parent process still has them."""
        self.lock = native.RLock()
        self.used = 0
        for buffer in _buffers():
            buffer.after_fork()


budget: Final = Budget()


class Buffer:
    """The buffered entries of one ``hold()`` block.  Thread-safe; no method raises.

    Attributes:
        is_open: whether the block is still running.
        released: whether :meth:`release` has been called.

    Args:
        level: the lowest severity number of the entries that the block buffers.
        records: the maximum number of entries in the buffer.
        size: the maximum total size of the entries, in approximate bytes.
        seconds: the maximum time that an entry stays in the buffer; older entries are dropped.
    """

    def __init__(self, level: int, records: int, size: int, seconds: float) -> None:
        self._held: deque[_Held] = deque()
        self._bytes = 0
        self._records = records
        self._size = size
        self._seconds = seconds
        self._passing = False
        self._values: tuple[Any, ...] = ()
        self.level = level
        self.released = False
        self.is_open = True
        _open[id(self)] = weakref.ref(self)

    def __del__(self, forget: Any = _open.pop) -> None:
        # If a generator or a task is discarded inside its ``hold()`` block, this method ends the
        # block.
        # ``forget`` is a default argument, because the global ``_open`` may already be None when
        # the interpreter exits.
        forget(id(self), None)
        if self._held:
            self.close()

    @property
    def count(self) -> int:
        """The number of entries in the buffer."""
        return len(self._held)

    def add(self, pipeline: Pipeline, entry: Entry) -> None:
        """Buffer ``entry``, or put it into the queue of ``pipeline`` if the block was released.

        If the block has ended without a release, the entry is dropped.
        """
        values = held_values(entry)
        # An object that the previous entry also contains, such as the bound context, is not
        # measured again.
        size, self._values = _size_of(values, self._values), values
        held = _Held(pipeline, entry, size, monotonic())
        with budget.lock:
            takes = self.is_open and not self._passing and not _present(pipeline).closed
            lost = self._keep(held) if takes else []
        _drop(lost, "hold_full")
        if not takes and (self.released or _present(pipeline).closed):
            _present(pipeline).put(entry)  # a closed pipeline counts the entry as dropped
        elif not takes:
            _drop([held], "not_released")

    def release(self) -> None:
        """Put the buffered entries into the queues of their pipelines, and stop buffering.

        Blocks while a queue is full, for at most ``Pipeline.patience`` seconds if no other
        thread adds entries at the same time.
        """
        with budget.lock:
            if self.released or not self.is_open:
                return
            self.released = True
        # While this thread sends entries, other threads may add more.  Those entries are buffered
        # and sent in the next round, so that all entries stay in order.
        for rounds_left in range(_ROUNDS, -1, -1):
            with budget.lock:
                entries = self._take()
                self._passing = not entries or not rounds_left
            self._send(entries)
            if self._passing:
                return

    def close(self) -> None:
        """Send the buffered entries if :meth:`release` was called, else drop them."""
        _open.pop(id(self), None)
        with budget.lock:
            self.is_open = False
            entries = self._take()
        if self.released:
            self._send(entries)
        else:
            _drop(entries, "not_released")

    def drop_for(self, pipeline: Pipeline) -> None:
        """Drop the buffered entries that would go to the queue of ``pipeline``."""
        with budget.lock:
            entries = self._take()
            self._held.extend(held for held in entries if _present(held.pipeline) is not pipeline)
            self._charge(sum(held.size for held in self._held))
        _drop([held for held in entries if _present(held.pipeline) is pipeline], "not_released")

    def after_fork(self) -> None:
        """Discard all buffered entries in a forked child process."""
        self._held = deque()
        self._bytes = 0
        self._passing = self.released

    def _keep(self, new: _Held) -> list[_Held]:
        """Buffer the entry ``new``, and return the entries that the caller must drop.

        These are expired entries, the oldest entries if a limit is exceeded, or ``new`` itself
        if it is too large.
        """
        held, size = self._held, new.size
        lost = self._take_expired(new.since)
        if budget.used + size > BUDGET:
            lost += _take_all_expired(new.since)
        if size > self._size:
            return [*lost, new]
        while held and (
            len(held) >= self._records
            or self._bytes + size > self._size
            or budget.used + size > BUDGET
        ):
            lost.append(self._pop())
        if budget.used + size > BUDGET:
            return [*lost, new]
        self._charge(size)
        held.append(new)
        return lost

    def _take(self) -> list[_Held]:
        left = list(self._held)
        self._held.clear()
        self._charge(-self._bytes)
        return left

    def _take_expired(self, now: float) -> list[_Held]:
        lost: list[_Held] = []
        oldest = now - self._seconds
        while self._held and self._held[0].since < oldest:
            lost.append(self._pop())
        return lost

    def _pop(self) -> _Held:
        held = self._held.popleft()
        self._charge(-held.size)
        return held

    def _charge(self, size: int) -> None:
        self._bytes += size
        budget.used += size

    def _send(self, entries: list[_Held]) -> None:
        """Put entries into the queues of their pipelines, and drop expired entries.

        The caller must not hold ``budget.lock``, because this method may block.
        """
        now = monotonic()
        _drop([held for held in entries if held.since < now - self._seconds], "hold_full")
        fresh = [held for held in entries if held.since >= now - self._seconds]
        for pipeline, some in _by_pipeline(fresh).items():
            for held in some:
                pipeline.put(held.entry, deadline=now + pipeline.patience)


def _buffers() -> list[Buffer]:
    found = (reference() for reference in list(_open.values()))
    return [buffer for buffer in found if buffer is not None]


def drop_held_for(pipeline: Pipeline) -> None:
    """Drop the buffered entries of a closed pipeline, unless its loggers use a new pipeline."""
    if pipeline.successor is None:
        for buffer in _buffers():
            buffer.drop_for(pipeline)


def _present(pipeline: Pipeline) -> Pipeline:
    """Return the latest pipeline that has replaced ``pipeline``, or else ``pipeline`` itself."""
    while pipeline.successor is not None:
        pipeline = pipeline.successor
    return pipeline


def _by_pipeline(entries: Iterable[_Held]) -> dict[Pipeline, list[_Held]]:
    by_pipeline: dict[Pipeline, list[_Held]] = {}
    for held in entries:
        by_pipeline.setdefault(_present(held.pipeline), []).append(held)
    return by_pipeline


def _drop(entries: list[_Held], reason: str) -> None:
    for pipeline, some in _by_pipeline(entries).items():
        pipeline.refuse_all(reason, [held.entry[SEVERITY] for held in some])


def _take_all_expired(now: float) -> list[_Held]:
    """Remove the expired entries from all buffers and return them.

    Returns an empty list if the previous search was less than a second ago.
    """
    if now - budget.swept < _SWEEP_INTERVAL:
        return []
    budget.swept = now
    return [held for buffer in _buffers() for held in buffer._take_expired(now)]  # noqa: SLF001 - the caller is a Buffer


def _size_of(values: tuple[Any, ...], before: tuple[Any, ...]) -> int:
    """Return the approximate size of an entry in bytes.

    Args:
        values: the values of the entry, from :func:`held_values`.
        before: the values of the previous entry.  An object that is at the same position in
            ``before`` and ``values`` is not measured again.
    """
    size = _ENTRY_SIZE
    for place, value in enumerate(values):
        if value is None or (place < len(before) and value is before[place]):
            continue
        if type(value) is Capture:
            size += _EXCEPTION_SIZE + len(value.message)
        elif type(value) is Stack:
            size += _EXCEPTION_SIZE
        else:
            size += _weigh(value)
    return size


def _weigh(value: Any) -> int:
    """Return the approximate size of ``value`` in bytes, including the items of containers."""
    size, parts = 0, [value]
    for part in parts:  # the loop appends a container's items to ``parts``
        size += getsizeof(part)
        if type(part) is dict:
            size += sum(map(len, part))
            parts += part.values()
        elif type(part) is list:
            parts += part
        if len(parts) > _MAX_PARTS:
            break
    return size


fork.register("holds", in_child=budget.after_fork)
