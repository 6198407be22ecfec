"""What the blocks of ``hold()`` keep: entries ready for their pipelines, within bounds.

An entry is held before any pipeline has seen it.  It is counted, as accepted,
when it is sent on or dropped, and so exactly once.
"""

from __future__ import annotations

import weakref
from collections import Counter, deque
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from fapilog import native
from fapilog.engine.entry import SEVERITY
from fapilog.native import monotonic
from fapilog.process import fork
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Approximate bytes that all holds of the process keep together at most.
BUDGET: Final = 64 * 1024 * 1024

#: What an entry takes beside its texts and values: the tuples, its place in the buffer.
_ENTRY_SIZE: Final = 300
#: What a captured exception takes: nobody can measure the summaries of its frames cheaply.
_EXCEPTION_SIZE: Final = 16_384
_MAX_PARTS: Final = 10_000
#: Rounds in which a release catches up with threads that go on logging.
_ROUNDS: Final = 100
#: Seconds between two looks through all holds for what is too old.
_SWEEP_INTERVAL: Final = 1.0


# Not a WeakSet, which cannot be copied while other threads change it.
_open: dict[int, weakref.ref[Buffer]] = {}


class Way(Protocol):
    """Where a held record goes: a pipeline, seen from here."""

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more."""
        ...

    @property
    def successor(self) -> Way | None:
        """The pipeline that has taken over the loggers of this one."""
        ...

    def put_all(self, entries: Iterable[tuple[Any, ...]]) -> None:
        """Append entries in order, or refuse and count them."""
        ...

    def refuse_all(self, reason: str, counts: Mapping[int, int]) -> None:
        """Count records that are dropped, by severity number."""
        ...


class _Held(NamedTuple):
    way: Way
    entry: tuple[Any, ...]
    size: int
    since: float


class _Budget:
    """The bytes that all holds keep.  Its lock is one that a signal handler may re-enter."""

    def __init__(self) -> None:
        self.lock = native.RLock()
        self.used = 0
        self.swept = 0.0


class Buffer:
    """What one entered block holds.  Thread-safe; no method raises.

    Attributes:
        level: lowest severity taken.
        is_open: whether the block has not been left.
        released: whether :meth:`release` was called.

    Args:
        level: lowest severity taken, its number.
        records: most entries.
        size: most bytes, about.
        seconds: longest time an entry waits.
    """

    __slots__ = (
        "__weakref__",
        "_bytes",
        "_held",
        "_lock",
        "_passing",
        "_records",
        "_seconds",
        "_size",
        "_values",
        "is_open",
        "level",
        "released",
    )

    def __init__(self, level: int, records: int, size: int, seconds: float) -> None:
        self._held: deque[_Held] = deque()
        self._bytes = 0
        self._lock = native.RLock()
        self._records = records
        self._size = size
        self._seconds = seconds
        self._passing = False
        self._values: tuple[Any, ...] = ()
        self.level = level
        self.released = False
        self.is_open = True
        _open[id(self)] = weakref.ref(self)

    def __len__(self) -> int:
        return len(self._held)

    def __bool__(self) -> bool:
        return True

    def __del__(self, forget: Any = _open.pop) -> None:
        # A block that was never left: of a generator, or a task that was dropped.
        # When the interpreter ends, globals may be gone, and nothing is held any more.
        forget(id(self), None)
        if self._held:
            self.close()

    def add(self, way: Way, entry: tuple[Any, ...], values: tuple[Any, ...]) -> None:
        """Hold an entry, or send it on where the block was released.

        Args:
            way: where it goes.
            entry: what waits.
            values: what it keeps in memory: snapshots, and an exception or None.
        """
        now = monotonic()
        # What a record shares with the one before, a context for one, counts once.
        size, self._values = _size_of(values, self._values), values
        held = _Held(way, entry, size, now)
        if _budget.used + held.size > BUDGET:
            _drop_expired(now)
        lost: list[_Held] = []
        with self._lock:
            takes = self.is_open and not self._passing and not _last(way).closed
            if takes:
                lost = self._keep(held)
        if lost:
            _drop(lost, "hold_full")
        elif not takes:
            # The block has just been left, or the pipeline is closed: that counts it itself.
            left = not self.released and not _last(way).closed
            _drop([held], "not_released") if left else _last(way).put_all((entry,))

    def release(self) -> None:
        """Send what is held, and let pass what comes."""
        with self._lock:
            if self.released or not self.is_open:
                return
            self.released = True
        # What other threads log meanwhile comes after what is held, so it is
        # held too until they have been caught up with.
        for _ in range(_ROUNDS):
            with self._lock:
                left = self._take()
                self._passing = not left
            if not left:
                return
            self._send(left)
        with self._lock:
            self._passing = True
            left = self._take()
        self._send(left)

    def close(self) -> None:
        """Take nothing more; drop what was not released."""
        _open.pop(id(self), None)
        with self._lock:
            self.is_open = False
            left = self._take()
        if self.released:
            self._send(left)
        else:
            _drop(left, "not_released")

    def drop_for(self, way: Way) -> None:
        """Drop what waits for ``way``."""
        with self._lock:
            left = self._take()
            for held in left:
                if _last(held.way) is not way:
                    self._charge(held.size)
                    self._held.append(held)
        _drop([held for held in left if _last(held.way) is way], "not_released")

    def drop_expired(self, now: float) -> None:
        """Drop what is too old."""
        with self._lock:
            lost = self._take_expired(now)
        _drop(lost, "hold_full")

    def after_fork(self) -> None:
        """Forget, in the child, what the parent is going to release or drop."""
        self._lock = native.RLock()
        self._held = deque()
        self._bytes = 0
        self._passing = self.released

    # ---- under the lock

    def _keep(self, new: _Held) -> list[_Held]:
        """Append a record, and return those that had to go for it: the oldest, or itself."""
        held, size = self._held, new.size
        lost = self._take_expired(new.since) if held else []
        if size > self._size:
            return [*lost, new]
        while held and (
            len(held) >= self._records
            or self._bytes + size > self._size
            or _budget.used + size > BUDGET
        ):
            lost.append(self._pop())
        if _budget.used + size > BUDGET:
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
        with _budget.lock:
            self._bytes += size
            _budget.used += size

    # ---- outside of it

    def _send(self, left: list[_Held]) -> None:
        now = monotonic()
        fresh = [held for held in left if now - held.since <= self._seconds]
        if len(fresh) < len(left):
            _drop([held for held in left if now - held.since > self._seconds], "hold_full")
        for way, some in _by_way(fresh).items():
            way.put_all([held.entry for held in some])


_budget = _Budget()


def _buffers() -> list[Buffer]:
    found = (reference() for reference in list(_open.values()))
    return [buffer for buffer in found if buffer is not None]


def drop_held_for(way: Way) -> None:
    """Drop what waits for a pipeline that has been closed for good."""
    for buffer in _buffers():
        buffer.drop_for(way)


def _last(way: Way) -> Way:
    while way.successor is not None:
        way = way.successor
    return way


def _by_way(left: Iterable[_Held]) -> dict[Way, list[_Held]]:
    by_way: dict[Way, list[_Held]] = {}
    for held in left:
        by_way.setdefault(_last(held.way), []).append(held)
    return by_way


def _drop(left: list[_Held], reason: str) -> None:
    for way, some in _by_way(left).items():
        way.refuse_all(reason, Counter(held.entry[SEVERITY] for held in some))


def _drop_expired(now: float) -> None:
    """Make room in the budget, at the cost of holds that nobody leaves."""
    with _budget.lock:
        if now - _budget.swept < _SWEEP_INTERVAL:
            return
        _budget.swept = now
    for buffer in _buffers():
        buffer.drop_expired(now)


def _size_of(values: tuple[Any, ...], before: tuple[Any, ...]) -> int:
    """Return about how many bytes an entry of these values takes that it does not share."""
    size = _ENTRY_SIZE
    for place, value in enumerate(values):
        if value is None or (place < len(before) and value is before[place]):
            continue
        kind = type(value)
        if kind is str:
            size += getsizeof(value)
        elif kind is dict or kind is list:
            size += _weigh(value)
        elif kind is Capture:
            size += _EXCEPTION_SIZE + len(value.message)
    return size


def _weigh(value: Any) -> int:
    """Return the bytes of a snapshot that is a container."""
    size, parts = 0, [value]
    for part in parts:  # grows meanwhile
        kind = type(part)
        if kind is str:
            size += getsizeof(part)
        elif kind is dict:
            size += getsizeof(part) + sum(map(len, part))
            parts += part.values()
        elif kind is list:
            size += getsizeof(part)
            parts += part
        elif kind is bytes or kind is int:
            size += getsizeof(part)
        if len(parts) > _MAX_PARTS:
            break
    return size


def _after_fork_in_child() -> None:
    global _budget  # noqa: PLW0603 - another thread of the parent may have held its lock
    _budget = _Budget()
    for buffer in _buffers():
        buffer.after_fork()


fork.register("hold buffers", in_child=_after_fork_in_child)
