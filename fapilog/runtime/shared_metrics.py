"""Adds up the metrics of several worker processes, so that each worker can show the sums.

Each process writes its metrics into its own file in a common directory (``mapped_file``).  A
scrape of any process adds up all files.  A file that is not locked belongs to a process that has
ended: its counters are added to the file of totals, and the file is removed.  The lock of the
directory ensures that only one process at a time does this.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import stat
import struct
import sys
from array import array
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog import native
from fapilog.diagnostics import announce, describe
from fapilog.native import monotonic
from fapilog.process import files, fork
from fapilog.runtime import mapped_file
from fapilog.runtime.mapped_file import MappedFile, entries, packed, private_values, values_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fapilog.runtime.mapped_file import Values

_LOCK: Final = "lock"
_TOTALS: Final = "totals"
#: The key of the entry in the file of totals that lists the files that it includes.  A process
#: that was killed just after it wrote the totals has left these files in the directory.
_INCLUDED: Final = "included"
#: The longest time that a scrape waits for the lock of the directory, in seconds.
_PATIENCE: Final = 2.0
_POLL: Final = 0.002
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
#: The trace id and the span id of an exemplar are stored as six numbers of 32 bits each, because a
#: 64-bit float cannot store more bits without a loss.
_WORDS: Final = struct.Struct(">6I")
_TRACE_ID: Final = 32  # hexadecimal digits
#: The number of values of one exemplar: the observed value, the ids, and the time.
_EXEMPLAR: Final = 8


class Series(NamedTuple):
    """Describes one series of a metric.  Two processes with equal series share their sum.

    Attributes:
        group: the name of the component that shows the metric, such as ``pipeline``.
        kind: ``counter``; ``histogram``; or, for gauges, ``sum`` (the sum over the living
            processes) or ``max`` (their largest value).
        name: the name of the metric, without a suffix such as ``_total``.
        text: the help text of the metric.
        labels: the names and values of the labels.
        bounds: the upper bounds of the buckets of a histogram, without infinity.
        has_exemplars: whether the buckets of a histogram have exemplars.
    """

    group: str
    kind: str
    name: str
    text: str
    labels: tuple[tuple[str, str], ...] = ()
    bounds: tuple[float, ...] = ()
    has_exemplars: bool = False

    @classmethod
    def from_key(cls, key: bytes) -> Series:
        """Return the series whose ``key()`` is ``key``."""
        group, kind, name, text, labels, bounds, has_exemplars = json.loads(key)
        pairs = tuple((label, value) for label, value in labels)
        return cls(group, kind, name, text, pairs, tuple(bounds), has_exemplars)

    def key(self) -> bytes:
        """Return the key under which the series is stored."""
        return json.dumps(self).encode()

    @property
    def size(self) -> int:
        """The number of its values; a histogram has one per bucket, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def is_kept(self) -> bool:
        """Whether the values of ended processes count."""
        return self.kind in {"counter", "histogram"}


class Exemplar(NamedTuple):
    """A value with the trace and the span in which it was observed, and the time in seconds."""

    value: float
    trace_id: str
    span_id: str
    time: float


class Cells:
    """The values of one series of this process.  Only one thread at a time may change them.

    Attributes:
        values: the counts of the buckets of a histogram, not cumulative, and the sum of the
            observed values; or the only value of a counter or a gauge.
    """

    __slots__ = ("_stored", "size", "values")

    def __init__(self, stored: Values, size: int) -> None:
        self._stored = stored
        self.size = size
        self.values = stored[:size]

    def set_exemplar(self, bucket: int, exemplar: Exemplar) -> None:
        """Set the exemplar of the bucket with the index ``bucket``."""
        at = self.size + bucket * _EXEMPLAR
        ids = _WORDS.unpack(bytes.fromhex(exemplar.trace_id + exemplar.span_id))
        numbers = array("d", (exemplar.value, *ids, exemplar.time))
        self._stored[at : at + _EXEMPLAR] = memoryview(numbers)

    def read(self) -> list[float]:
        """Return the values and the exemplars as they are stored."""
        return list(self._stored)


class Merged:
    """The sums of the series of several processes, by key."""

    def __init__(self) -> None:
        self.series: dict[bytes, Series] = {}
        self.stored: dict[bytes, list[float]] = {}

    def add(self, key: bytes, stored: list[float], *, is_alive: bool = True) -> None:
        """Add what one process has stored.

        Args:
            key: the key of the series.
            stored: the values and exemplars.
            is_alive: whether the process is alive; if not, its gauges are omitted.
        """
        series = self.series.get(key)
        if series is None:
            series = Series.from_key(key)
        if not (is_alive or series.is_kept):
            return
        self.series[key] = series
        before = self.stored.get(key)
        if before is None:
            self.stored[key] = stored
            return
        combine = max if series.kind == "max" else add
        size = series.size
        before[:size] = map(combine, before[:size], stored[:size])
        for at in range(size, len(stored), _EXEMPLAR):
            if stored[at + _EXEMPLAR - 1] > before[at + _EXEMPLAR - 1]:
                before[at : at + _EXEMPLAR] = stored[at : at + _EXEMPLAR]

    def exemplars(self, key: bytes) -> list[Exemplar | None]:
        """Return the exemplar of each bucket of a histogram; None for a bucket without one."""
        series, stored = self.series[key], self.stored[key]
        if not series.has_exemplars:
            return [None] * (series.size - 1)
        places = range(series.size, len(stored), _EXEMPLAR)
        return [_exemplar(stored[at : at + _EXEMPLAR]) for at in places]


def _exemplar(stored: list[float]) -> Exemplar | None:
    value, *words, time = stored
    if not time:
        return None
    ids = _WORDS.pack(*map(int, words)).hex()
    return Exemplar(value, ids[:_TRACE_ID], ids[_TRACE_ID:], time)


class SharedMetrics:
    """The metrics of this process, and the sums of the metrics of all processes.

    Thread-safe.  After start-up, no method raises; errors are written to stderr.

    Args:
        directory: the directory that the processes share.  It is created if it is missing.

    Raises:
        OSError: the directory cannot be created, belongs to another user, or other users may
            write to it.

    Attributes:
        forks: the number of forks after which this process is a child.  Cells that were created
            before a fork belong to the parent.
    """

    def __init__(self, directory: Path) -> None:
        check_directory(directory)
        self._directory = directory
        self.forks = -1
        self.after_fork()
        fork.register("exporters", in_child=self.after_fork)

    def after_fork(self) -> None:
        """Forget the parent's file in a forked child; the child gets its own file."""
        if self.forks >= 0 and self._file is not None:
            self._file.abandon()
        self.forks += 1
        self._file: MappedFile | None = None
        self._cells: dict[bytes, Cells] = {}
        self._changing = native.Lock()
        self._adding = native.Lock()
        self._reading = native.Lock()

    def cells(self, series: Series) -> Cells:
        """Return the cells of a series of this process, which are created at the first call.

        Blocks briefly while the file grows.  If it cannot grow, the other processes do not see
        the series.
        """
        key = series.key()
        exemplars = len(series.bounds) + 1 if series.has_exemplars else 0
        count = series.size + exemplars * _EXEMPLAR
        if not self._adding.acquire(timeout=_PATIENCE):
            # A shutdown in a signal handler has interrupted this method in the same thread.
            return Cells(private_values(count), series.size)
        try:
            found = self._cells.get(key)
            if found is None:
                found = self._cells[key] = Cells(self._store(key, count), series.size)
            return found
        finally:
            self._adding.release()

    def increase(self, cells: Cells, change: Iterable[float]) -> None:
        """Add ``change`` to the values of ``cells``, which several threads may change.

        Does nothing if a signal handler has interrupted this method in the same thread.
        """
        if self._changing.acquire(timeout=_PATIENCE):
            try:
                for place, one in enumerate(change):
                    if one:
                        cells.values[place] += one
            finally:
                self._changing.release()

    def _store(self, key: bytes, count: int) -> Values:
        try:
            if self._file is None:
                self._file = MappedFile(self._directory)
                # Otherwise, if nobody scraped, files of ended processes would accumulate.  An
                # exiting interpreter refuses to start the thread; the next process does the work.
                with contextlib.suppress(RuntimeError):
                    native.start_thread(self._compact_if_free, "fapilog-metrics-totals")
            return self._file.add(key, count)
        except (OSError, MemoryError) as error:
            announce(
                "metrics not shared",
                f"some metrics of this process are not shared: {describe(error)}",
            )
            return private_values(count)

    def collect(self, group: str | None = None) -> Merged | None:
        """Return the sums of the series of one group, or of all, over all processes.

        Blocks while another process or thread collects, at most 2 seconds.

        Returns:
            None if the directory cannot be read.  A sum without the other processes would look
            as if the counters had been reset.
        """
        merged = Merged()
        prefix = b"" if group is None else _prefix(group)
        with self._reading:
            try:
                with self._locked(_PATIENCE) as is_locked:
                    if is_locked:
                        self._compact()
                    self._read(merged, prefix)
            except (OSError, ValueError) as error:  # ValueError: a file is damaged
                announce(
                    "metrics omitted",
                    f"the metrics of all processes are omitted: {describe(error)}",
                )
                return None
        return merged

    def _read(self, merged: Merged, prefix: bytes) -> None:
        with self._adding:
            own = list(self._cells.items())
        for key, cells in own:
            if key.startswith(prefix):
                merged.add(key, cells.read())
        totals, included = self._totals()
        for key, stored in totals.items():
            if key.startswith(prefix):
                merged.add(key, stored, is_alive=False)
        for path in self._paths():
            if path.name not in included and not self._is_own(path):
                with _mapped(path) as data:
                    for key, start, end in entries(data):
                        if key.startswith(prefix):
                            merged.add(key, values_in(data, start, end))

    def _is_own(self, path: Path) -> bool:
        return self._file is not None and path == self._file.path

    def _paths(self) -> list[Path]:
        suffix = mapped_file.SUFFIX
        return [path for path in self._directory.iterdir() if path.name.endswith(suffix)]

    def _totals(self) -> tuple[dict[bytes, list[float]], set[str]]:
        """Return the sums of ended processes, and the names of the files that they include."""
        try:
            data = (self._directory / _TOTALS).read_bytes()
        except FileNotFoundError:
            return {}, set()
        found = {key: values_in(data, start, end) for key, start, end in entries(data)}
        included = [key for key in found if key.startswith(_prefix(_INCLUDED))]
        for key in included:
            del found[key]
        return found, {name for key in included for name in json.loads(key)[1:]}

    @contextlib.contextmanager
    def _locked(self, patience: float) -> Iterator[bool]:
        """Lock the directory; the value is False if this was not possible within ``patience``."""
        try:
            fd = files.create_file(self._directory / _LOCK, files.UPDATE)
        except FileExistsError:
            fd = files.open_file(self._directory / _LOCK, files.UPDATE)
        try:
            deadline = monotonic() + patience
            while not (is_locked := files.try_lock(fd)) and monotonic() < deadline:
                native.sleep(_POLL)
            yield is_locked
        finally:
            files.unlock(fd)  # not only closed: a child may have been forked meanwhile
            files.close_file(fd)

    def _compact_if_free(self) -> None:
        try:
            with self._locked(0.0) as is_locked:
                if is_locked:
                    self._compact()
        except OSError as error:
            announce(
                "metrics not added",
                f"the metrics of ended processes are not added up: {describe(error)}",
            )

    def _compact(self) -> None:
        """Move the counters of ended processes to the file of totals, and remove their files.

        The caller has locked the directory.
        """
        ended: list[tuple[Path, int]] = []
        try:
            for path in self._paths():
                with contextlib.suppress(FileNotFoundError):
                    fd = files.open_file(path, files.UPDATE)
                    if files.try_lock(fd):
                        ended.append((path, fd))
                    else:
                        files.close_file(fd)
            if ended:
                self._include([path for path, _ in ended])
        finally:
            for _, fd in ended:
                files.unlock(fd)
                files.close_file(fd)

    def _include(self, paths: list[Path]) -> None:
        totals, included = self._totals()
        merged = Merged()
        for key, stored in totals.items():
            merged.add(key, stored)
        for path in paths:
            if path.name not in included:
                with _mapped(path) as data:
                    for key, start, end in entries(data):
                        merged.add(key, values_in(data, start, end), is_alive=False)
        names: list[tuple[bytes, list[float]]] = [
            (json.dumps([_INCLUDED, path.name]).encode(), []) for path in paths
        ]
        new = self._directory / f"{_TOTALS}.new"
        new.touch(0o600)
        new.write_bytes(packed([*names, *merged.stored.items()]))
        new.replace(self._directory / _TOTALS)
        for path in paths:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Map the file ``path``; a file that is missing or empty has no content."""
    try:
        fd = files.open_file(path)
    except FileNotFoundError:
        yield b""
        return
    try:
        if not os.fstat(fd).st_size:
            yield b""
            return
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            yield data
    finally:
        files.close_file(fd)


def _prefix(group: str) -> bytes:
    return json.dumps([group])[:-1].encode() + b","


def check_directory(directory: Path) -> None:
    """Create ``directory`` with mode 0700 if it is missing, and check who may write to it.

    Raises:
        OSError: the directory cannot be created, belongs to another user, or other users may
            write to it; or the platform is Windows.
    """
    if sys.platform == "win32":
        msg = "not supported on Windows, where a locked file cannot be read"
        raise OSError(msg)
    files.make_directories(directory)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        msg = f"{directory} belongs to user {status.st_uid}"
        raise PermissionError(msg)
    if status.st_mode & _OTHERS_MAY_WRITE:
        msg = f"other users may write to {directory}; use chmod 700"
        raise PermissionError(msg)


_open: Final[dict[Path, SharedMetrics]] = {}


def shared_in(directory: Path) -> SharedMetrics:
    """Return the ``SharedMetrics`` of this process for ``directory``.  Thread-safe.

    Raises:
        OSError: see :class:`SharedMetrics`.
    """
    path = directory.absolute()
    found = _open.get(path)
    if found is None:
        found = _open.setdefault(path, SharedMetrics(path))
    return found
