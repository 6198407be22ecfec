"""Somebody deletes, cuts or replaces files of a spool that is in use."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fapilog.process.files import UPDATE, open_file, try_lock
from fapilog.spool import Spool, SpoolFullError
from fapilog.spool.directory import LOCK
from fapilog.spool.survey import survey
from tests.delivery.test_spooling import DurableScripted, Make, make, records  # noqa: F401 - a fixture
from tests.spool.test_processes import open_files
from tests.support.spool import (
    POSIX,
    adopt,
    bodies,
    crash,
    drain,
    failing,
    make_spool,
    options,
    put,
    read_all,
    segments,
)

pytestmark = POSIX  # other systems do not delete open files


def mend(spool: Spool) -> None:
    spool.check()
    while spool.mend():
        pass


def numbers(found: list[str]) -> list[int]:
    return sorted(map(int, found))


def remove(directory: Path) -> None:
    """Remove as much of a directory as possible while its process writes to it."""
    shutil.rmtree(directory, ignore_errors=True)


def truncate(directory: Path, size: int = 0) -> None:
    for path in segments(directory):
        os.truncate(path, size)


TAKEN: dict[str, Callable[[Path], object]] = {
    "everything": remove,
    "the sink's directory": lambda path: remove(path / "otlp"),
    "the segments": lambda path: list(map(Path.unlink, segments(path))),
    "their content": truncate,
    "half of their content": lambda path: truncate(path, 2000),
}


# ---- what is written again


@pytest.mark.parametrize("what", TAKEN)
def test_batches_in_memory_are_written_again(tmp_path, what, capsys):
    directory = tmp_path / "spool"
    spool = make_spool(directory, cache_bytes=1 << 20)
    put(spool, *(f"{n:0100}" for n in range(100)))
    TAKEN[what](directory)
    put(spool, *(f"{n:0100}" for n in range(100, 120)))
    assert not spool.is_whole
    mend(spool)
    assert (spool.is_whole, spool.pending_records, spool.corrupt.records) == (True, 120, 0)
    assert spool.disk_bytes == sum(path.stat().st_size for path in segments(directory))
    assert "were deleted or cut by somebody else" in capsys.readouterr().err
    crash(spool)
    after = adopt(directory)
    assert numbers(drain(after)) == list(range(120))
    after.close()
    assert segments(directory) == []


def test_a_deleted_file_is_read_as_long_as_it_is_open(tmp_path):
    spool = make_spool(tmp_path, segment_bytes=1 << 20)
    put(spool, *range(1000))
    shutil.rmtree(tmp_path / "otlp")
    mend(spool)
    assert (spool.pending_records, spool.corrupt.records) == (1000, 0)
    assert bodies(read_all(spool)) == [str(n) for n in range(1000)]
    crash(spool)


@pytest.mark.parametrize("what", TAKEN)
def test_batches_that_cannot_be_read_any_more_are_counted(tmp_path, what, capsys):
    directory = tmp_path / "spool"
    spool = make_spool(directory, cache_bytes=3000)
    put(spool, *(f"{n:0100}" for n in range(200)))
    spool.flush()  # closes the full segments
    TAKEN[what](directory)
    mend(spool)
    lost, left = spool.corrupt.records, spool.pending_records
    assert (lost + left, spool.unread_records) == (200, left)
    assert 0 < left < 200
    assert "records are lost with" in capsys.readouterr().err
    crash(spool)
    after = adopt(directory)
    assert len(drain(after)) == left
    after.close()


def test_one_segment_that_was_deleted_costs_only_its_own_batches(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *(f"{n:01000}" for n in range(12)))
    spool.flush()
    _, second, *_ = segments(tmp_path)
    second.unlink()
    mend(spool)
    found = numbers(drain(spool))
    assert spool.corrupt.records == 12 - len(found) == 3
    assert found == [0, 1, 2, *range(6, 12)]
    assert spool.pending_records == 0
    spool.close()


def test_batches_that_were_given_out_are_no_longer_on_disk_and_settle_once(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    put(spool, "a", "b", "c")
    first = spool.read()
    assert first is not None
    shutil.rmtree(tmp_path / "otlp")
    mend(spool)
    assert (first.is_lost, spool.pending_records) == (True, 2)
    spool.ack(first)
    spool.ack(first)
    assert (spool.pending_records, spool.corrupt.records) == (2, 0)
    assert drain(spool) == ["b", "c"]
    spool.close()


def test_settled_batches_are_not_written_again(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    frames = put(spool, *"abcdef")
    for frame in (frames[1], frames[4]):
        spool.ack(frame)
    assert bodies([frame for frame in [spool.read()] if frame]) == ["a"]
    shutil.rmtree(tmp_path / "otlp")
    mend(spool)
    assert bodies(read_all(spool)) == ["c", "d", "f"]
    crash(spool)


def test_a_file_in_the_place_of_a_segment_is_left_alone(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    put(spool, "a", "b")
    (segment,) = segments(tmp_path)
    segment.rename(tmp_path / "away")
    segment.write_text("mine" * 1000)
    mend(spool)
    assert drain(spool) == ["a", "b"]
    spool.close()
    assert segment.read_text() == "mine" * 1000


def test_a_directory_in_the_place_of_the_spools_is_left_alone(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    put(spool, "a", "b")
    old = spool.directory
    assert old is not None
    old.rename(tmp_path / "away")
    old.mkdir()
    (old / "cursor").write_text("mine")
    mend(spool)
    assert drain(spool) == ["a", "b"]
    spool.close()
    assert (old / "cursor").read_text() == "mine"


def test_while_the_disk_takes_nothing_the_rest_can_be_read_and_is_counted_in_the_end(
    tmp_path, monkeypatch
):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    put(spool, *"abc")
    shutil.rmtree(tmp_path / "otlp")
    spool.check()
    with monkeypatch.context() as patched:
        patched.setattr("fapilog.spool.options.Space.check", failing(SpoolFullError("no room")))
        for _ in range(3):
            with pytest.raises(SpoolFullError):
                spool.mend()
        assert (spool.pending_records, spool.unread_records, spool.is_whole) == (3, 3, False)
        frame = spool.read()
        assert frame is not None
        assert (frame.body, frame.is_lost) == (b"a", True)
        spool.close()
    assert (spool.pending_records, spool.corrupt.records) == (0, 2)


def test_an_adopted_directory_that_is_deleted_is_counted(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "a", "b", "c")
    crash(spool)
    spool = adopt(tmp_path)
    first = spool.read()
    assert first is not None
    shutil.rmtree(first.store.directory.path)
    mend(spool)
    assert (spool.corrupt.records, spool.corrupt.adopted, spool.pending_records) == (2, 2, 0)
    spool.ack(first)
    assert (spool.read(), spool.pending_records) == (None, 0)
    spool.close()


def test_a_forked_child_keeps_no_lost_frames(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "a")
    shutil.rmtree(tmp_path / "otlp")
    spool.check()
    spool.after_fork()
    assert (spool.pending_records, open_files(tmp_path)) == (0, [])
    spool.close()


# ---- lock and cursor


def test_a_living_directory_without_its_lock_file_is_not_adopted(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "a")
    assert spool.directory is not None
    (spool.directory / LOCK).unlink()
    other = adopt(tmp_path)
    assert (other.adopted, other.read()) == (0, None)
    (report,) = survey(tmp_path)
    assert report.directories[0].is_alive
    spool.check()
    assert (spool.directory / LOCK).exists(), "for releases that know no other lock"
    assert other.adopt() == 0
    crash(spool)
    assert other.adopt() == 1
    assert drain(other) == ["a"]
    other.close()


def test_a_directory_locked_only_by_its_lock_file_is_not_adopted(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "a")
    path = spool.directory
    assert path is not None
    crash(spool)
    fd = open_file(path / LOCK, UPDATE)
    assert try_lock(fd)
    other = adopt(tmp_path)
    assert other.adopted == 0
    assert survey(tmp_path)[0].directories[0].is_alive
    os.close(fd)
    assert other.adopt() == 1
    other.close()


def test_a_file_system_that_locks_no_directories_is_locked_by_the_file(tmp_path, monkeypatch):
    import fcntl

    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    spool = make_spool(tmp_path)
    put(spool, "a")
    other = adopt(tmp_path)
    assert other.adopted == 0
    crash(spool)
    assert other.adopt() == 1
    other.close()


def test_a_deleted_cursor_is_written_again(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *"abc")
    frame = spool.read()
    assert frame is not None
    spool.ack(frame)
    (cursor,) = tmp_path.rglob("cursor")
    cursor.unlink()
    spool.check()
    crash(spool)
    after = adopt(tmp_path)
    assert drain(after) == ["b", "c"]
    after.close()


# ---- a whole delivery


@pytest.mark.parametrize("mode", ["overflow", "always"])
@pytest.mark.parametrize("what", TAKEN)
def test_spooled_records_are_on_disk_when_flush_and_close_say_so(
    tmp_path,
    make: Make,  # noqa: F811
    what: str,
    mode: str,
) -> None:
    sink = DurableScripted(name="otlp")
    sink.is_up.clear()
    queue = make(sink, mode, spool={"segment_bytes": 4096})
    queue.offer(records(0, 2000))
    wait_until(lambda: flushed(queue))
    TAKEN[what](tmp_path)
    queue.offer(records(2000, 100))
    wait_until(lambda: flushed(queue))
    assert on_disk(tmp_path) == 2100
    TAKEN[what](tmp_path)
    deadline = time.monotonic() + 5
    queue.start_close(deadline)
    queue.finish_close()
    stats = queue.state.stats(lambda: 2100, no_drops())
    assert (stats.spooled, stats.dropped, stats.pending) == (2100, 0, 0)
    found = adopt(tmp_path, wire_format=sink.wire_format)
    texts = [text for frame in read_all(found) for text in frame.body.decode().split("\n")]
    assert {*map(int, texts)} == set(range(2100))
    found.close()


def test_lost_records_are_drops_in_the_ledger(tmp_path, make: Make) -> None:  # noqa: F811
    sink = DurableScripted(name="otlp")
    spool = Spool("otlp", sink.wire_format, options(tmp_path))
    for number in range(100):
        spool.append(b"%0100d" % number, [9])
    crash(spool)
    sink.is_up.clear()
    queue = make(sink, "always")
    queue.offer(records(0, 10))
    wait_until(lambda: queue.state.stats(lambda: 10, no_drops()).adopted == 100 and flushed(queue))
    remove(tmp_path / "otlp")
    wait_until(lambda: queue.state.stats(lambda: 10, no_drops()).dropped > 0)
    sink.is_up.set()
    wait_until(
        lambda: queue.state.stats(lambda: 10, no_drops()).pending == 0 and not queue.state.spooled
    )
    stats = queue.state.stats(lambda: 10, no_drops())
    assert stats.accepted == 110 == stats.delivered + stats.dropped
    assert stats.drops["spool_damaged"] == {"UNKNOWN": stats.dropped}
    assert flushed(queue)


def no_drops() -> Any:
    from fapilog.delivery.ledger import Drops

    return Drops()


def flushed(queue: Any) -> bool:
    return bool(queue.flush_done(queue.start_flush()))


def on_disk(directory: Path) -> int:
    return sum(one.records for sink in survey(directory) for one in sink.directories)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
