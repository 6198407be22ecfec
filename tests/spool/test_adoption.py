"""Adoption of directories of any size in short steps."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog.spool import Spool
from fapilog.spool.cursor import read_place
from tests.delivery.test_spooling import DurableScripted, Make, make, records  # noqa: F401 - a fixture
from tests.spool.test_taken import no_drops, wait_until
from tests.support.spool import (
    FORMAT,
    POSIX,
    adopt,
    bodies,
    crash,
    drain,
    make_spool,
    options,
    put,
    read_all,
    segments,
)

ONE_SEGMENT = {"segment_bytes": 1 << 20}


def test_the_age_of_adopted_batches_is_known_before_they_are_read(tmp_path):
    leave(tmp_path, "a", "b", started=40)
    leave(tmp_path, "c", started=30)
    spool = adopt(tmp_path)
    assert spool.unread_since_ns == 30
    assert sorted(drain(spool)) == ["a", "b", "c"]
    assert spool.unread_since_ns == 0
    spool.close()


def leave(directory: Path, *texts: Any, started: int = 1, **more: Any) -> Path:
    """Return the directory of a process that spooled these texts and died."""
    spool = Spool("otlp", FORMAT, options(directory, **more), now_ns=lambda: started)
    spool.open()
    put(spool, *texts)
    path = spool.directory
    assert path is not None
    crash(spool)
    return path


def steps(spool: Spool, most: int) -> int:
    """Adopt in at most so many steps; return the number of steps."""
    spool.look_for_orphans()
    for count in range(1, most + 1):
        if not spool.adopt_step():
            return count
    return most


class Reads:
    """Counts the bytes that are read, and checks that a lock is free during each read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lock: Any = None) -> None:
        self.bytes = 0
        self._real = os.read
        self._lock = lock
        monkeypatch.setattr(os, "read", self._read)

    def _read(self, fd: int, size: int) -> bytes:
        assert self._lock is None or not self._lock.locked()
        data = self._real(fd, size)
        self.bytes += len(data)
        return data


# ---- steps


def test_batches_can_be_read_during_the_scan(tmp_path):
    path = leave(tmp_path, *range(1000), **ONE_SEGMENT)
    spool = make_spool(tmp_path)
    steps(spool, 2)
    assert 0 < spool.adopted < 1000
    first = drain(spool)
    assert first == [str(n) for n in range(len(first))]
    assert spool.read() is None
    assert path.exists(), "the rest of it is still to come"
    while spool.adopt_step():
        pass
    assert (spool.adopted, spool.corrupt.frames) == (1000, 0)
    assert drain(spool) == [str(n) for n in range(len(first), 1000)]
    assert not path.exists()
    spool.close()


@POSIX
def test_the_disk_is_read_without_the_lock(tmp_path, monkeypatch):
    for started in range(1, 4):
        leave(tmp_path, *range(100), started=started)
    spool = make_spool(tmp_path)
    lock = threading.Lock()
    reads = Reads(monkeypatch, lock)
    spool.look_for_orphans()
    while spool.adopt_step(lock):
        pass
    assert reads.bytes > 0
    monkeypatch.undo()
    assert spool.adopted == 300
    spool.close()


def test_processes_that_live_for_a_few_steps_deliver_everything_in_the_end(tmp_path):
    leave(tmp_path, *range(5000), **ONE_SEGMENT)
    found: list[str] = []
    lives = 0
    while segments(tmp_path):
        spool = make_spool(tmp_path)
        steps(spool, 4)
        found += drain(spool)
        spool.close()
        lives += 1
        assert lives < 15, "what was delivered is not looked through once more"
    assert found == [str(n) for n in range(5000)]


def test_a_large_directory_does_not_hold_up_the_others(tmp_path):
    large = leave(tmp_path, "large", started=1)
    (large / "00000002.seg").write_bytes(random.Random(1).randbytes(64 << 20))
    leave(tmp_path, "small", started=2)
    spool = make_spool(tmp_path)
    spool.look_for_orphans()
    found: list[str] = []
    while spool.adopt_step() and len(found) < 2:
        found += drain(spool)
    assert found == ["large", "small"]
    spool.close()


def test_closing_during_a_scan_leaves_the_rest_for_the_next_process(tmp_path):
    leave(tmp_path, *range(1000), **ONE_SEGMENT)
    spool = make_spool(tmp_path)
    steps(spool, 2)
    frames = read_all(spool)
    spool.ack(frames[0])
    spool.close()
    spool.close()
    after = adopt(tmp_path)
    assert drain(after) == [str(n) for n in range(1, 1000)]
    after.close()


# ---- where the last process was


def settle(directory: Path, count: int) -> Path:
    """Return the directory of a dead process whose first batches are settled."""
    spool = adopt(directory)
    for frame in [spool.read() for _ in range(count)]:
        assert frame is not None
        spool.ack(frame)
        path = frame.store.directory.path
    crash(spool)
    return path


def test_settled_batches_are_not_scanned_again(tmp_path, monkeypatch):
    leave(tmp_path, *("x" * 1000 for _ in range(1000)), segment_bytes=2 << 20)
    path = settle(tmp_path, 900)
    place = read_place(path)
    assert (place.floor, place.segment) == (901, 1)
    spool = make_spool(tmp_path)
    reads = Reads(monkeypatch)
    assert spool.adopt() == 100
    assert reads.bytes < segments(tmp_path)[0].stat().st_size / 2
    monkeypatch.undo()
    assert len(drain(spool)) == 100
    spool.close()


@pytest.mark.parametrize("offset", [1, 90, 200, 10**9, (1 << 64) - 1])
def test_a_place_that_cannot_be_is_not_believed(tmp_path, offset):
    from zlib import crc32

    leave(tmp_path, *range(10))
    path = settle(tmp_path, 4)
    place = read_place(path)
    data = struct.pack("<QQQ", place.generation, place.segment, offset)
    with (path / "cursor").open("r+b") as file:
        file.seek((0, 512)[place.generation % 2] + 24)
        file.write(data + struct.pack("<I", crc32(data)))
    assert read_place(path).offset == offset
    spool = adopt(tmp_path)
    assert drain(spool) == list("456789")
    spool.close()


def test_a_cursor_that_an_earlier_release_moved_counts_without_a_place(tmp_path):
    from zlib import crc32

    leave(tmp_path, *range(10))
    path = settle(tmp_path, 4)
    generation = read_place(path).generation + 2
    data = struct.pack("<4sQQ", b"FPC1", generation, 7)
    with (path / "cursor").open("r+b") as file:
        file.seek((0, 512)[generation % 2])
        file.write(data + struct.pack("<I", crc32(data)))
    assert read_place(path)[1:] == (7, 0, 0)
    spool = adopt(tmp_path)
    assert drain(spool) == list("6789")
    spool.close()


# ---- huge and hostile files


@pytest.fixture
def sparse(tmp_path) -> Iterator[Path]:
    """A segment of two batches with a hole of 10 GiB between them, and a second segment."""
    leave(tmp_path, "before", "after")
    (segment,) = segments(tmp_path)
    data = segment.read_bytes()
    second = data.index(b"\xff\xfaFR", 100)
    with segment.open("r+b") as file:
        file.truncate(second)
        file.seek((10 << 30) + 7)
        file.write(data[second:])
        file.truncate(20 << 30)
    if segment.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("needs a file system with sparse files")
    yield tmp_path
    segment.unlink(missing_ok=True)


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="needs SEEK_DATA")
def test_holes_of_a_sparse_segment_are_neither_read_nor_counted(sparse, monkeypatch, capsys):
    reads = Reads(monkeypatch)
    spool = adopt(sparse, max_bytes=1 << 20)
    assert (spool.adopted, spool.corrupt.frames) == (2, 1)
    assert spool.disk_bytes < 1 << 20, "there is room for this process's own"
    put(spool, "own")
    assert sorted(drain(spool)) == ["after", "before", "own"]
    assert reads.bytes < 20 << 20
    monkeypatch.undo()
    spool.close()
    assert segments(sparse) == []


@POSIX
def test_a_long_gap_is_not_searched_again_by_the_reader(tmp_path, monkeypatch):
    leave(tmp_path, "before", "after")
    (segment,) = segments(tmp_path)
    data = segment.read_bytes()
    second = data.index(b"\xff\xfaFR", 100)
    garbage = random.Random(1).randbytes(8 << 20)
    segment.write_bytes(data[:second] + garbage + data[second:])
    spool = adopt(tmp_path)
    reads = Reads(monkeypatch)
    assert drain(spool) == ["before", "after"]
    assert reads.bytes < 1 << 20
    monkeypatch.undo()
    spool.close()


def test_headers_that_nothing_confirms_cost_no_more_than_the_file(tmp_path, monkeypatch):
    """Each header announces a long body, which consists of zeros and a few other bytes."""
    from zlib import crc32

    path = leave(tmp_path, "x")
    (segment,) = segments(tmp_path)
    head = segment.read_bytes()[:80]
    frames = b""
    for number in range(2000):
        fields = (b"\xff\xfaFR", 0, number + 2, 1, 1, 1, 3 << 20, 0)
        header = struct.pack("<4sIQQIIII", *fields)
        frames += header + struct.pack("<I", crc32(header))
    (path / "00000002.seg").write_bytes(head + frames + bytes(4 << 20) + b"end")
    size = (path / "00000002.seg").stat().st_size
    reads = Reads(monkeypatch)
    spool = adopt(tmp_path)
    assert reads.bytes < 3 * size + (160 << 20)
    monkeypatch.undo()
    assert bodies(read_all(spool)) == ["x"]
    crash(spool)


@POSIX
def test_a_segment_that_cannot_be_read_to_its_end_is_kept(tmp_path, monkeypatch):
    leave(tmp_path, *("x" * 3000 for _ in range(600)), segment_bytes=4 << 20)
    real, broken = os.read, []

    def read(fd: int, size: int) -> bytes:
        if os.lseek(fd, 0, os.SEEK_CUR) > 1 << 20:
            broken.append(fd)
            raise OSError(5, "Input/output error")
        return real(fd, size)

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", read)
        spool = adopt(tmp_path)
        assert broken
        assert 0 < spool.adopted < 600
        assert spool.corrupt.segments == 1
        delivered = len(drain(spool))
    spool.close()
    assert len(segments(tmp_path)) == 1, "what could not be read is still there"
    after = adopt(tmp_path)
    assert len(drain(after)) == 600 - delivered
    after.close()


# ---- a whole delivery


def test_the_end_does_not_wait_for_a_scan(
    tmp_path,
    make: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scan that never ends delays neither the process's own records nor its end."""

    def for_ever(*_arguments: Any, **_options: Any) -> Iterator[None]:
        while True:
            time.sleep(0.001)
            yield

    sink = DurableScripted(name="otlp")
    spool = Spool("otlp", sink.wire_format, options(tmp_path))
    put(spool, "left")
    crash(spool)
    monkeypatch.setattr("fapilog.spool.adopted.scan_in_steps", for_ever)
    queue = make(sink)
    queue.offer(records(0, 10))
    wait_until(lambda: queue.state.stats(lambda: 10, no_drops()).delivered == 10)
    began = time.monotonic()
    queue.start_close(began + 1)
    queue.finish_close()
    assert time.monotonic() - began < 10
    assert queue.state.stats(lambda: 10, no_drops()).pending == 0
    assert len(segments(tmp_path)) == 1


def test_many_small_frames_are_delivered_beside_the_own_records(
    tmp_path,
    make: Make,  # noqa: F811
) -> None:
    sink = DurableScripted(name="otlp")
    spool = Spool("otlp", sink.wire_format, options(tmp_path, segment_bytes=1 << 20))
    put(spool, *range(20_000))
    crash(spool)
    queue = make(sink)
    queue.offer(records(20_000, 10))
    wait_until(lambda: queue.state.stats(lambda: 10, no_drops()).delivered == 20_010, 60)
    stats = queue.state.stats(lambda: 10, no_drops())
    assert (stats.accepted, stats.adopted, stats.spooled, stats.pending) == (20_010, 20_000, 0, 0)


def test_more_directories_than_can_be_taken_over_at_a_time_follow_soon(tmp_path):
    for number in range(70):
        leave(tmp_path, number, started=number + 1)
    spool = make_spool(tmp_path)
    assert spool.look_for_orphans()
    while spool.adopt_step():
        pass
    found = drain(spool)
    assert len(found) < 70
    assert not spool.look_for_orphans()
    while spool.adopt_step():
        pass
    assert [*found, *drain(spool)] == [str(n) for n in range(70)]
    spool.close()
