"""The spool in one process: order, settling, limits, and its files."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from fapilog.errors import ConfigurationError
from fapilog.spool import Spool, SpoolFullError
from tests.support.spool import (
    FORMAT,
    adopt,
    bodies,
    crash,
    drain,
    files,
    make_spool,
    options,
    put,
    read_all,
    segments,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


# ---- order


@pytest.mark.parametrize("cache_bytes", [0, 3000, 1 << 20])
def test_batches_come_out_in_the_order_they_went_in(tmp_path, cache_bytes):
    spool = make_spool(tmp_path, cache_bytes=cache_bytes)
    out = []
    for number in range(200):
        put(spool, f"{number:060}")
        if number % 3 == 0:
            frame = spool.read()
            assert frame is not None
            spool.ack(frame)
            out.append(int(frame.body))
    assert len(segments(tmp_path)) > 1
    out += map(int, drain(spool))
    assert out == list(range(200))
    assert (spool.read(), spool.pending_records, spool.pending_bytes) == (None, 0, 0)
    spool.close()


def test_a_frame_returns_everything_that_was_appended(tmp_path):
    spool = Spool("otlp", FORMAT, options(tmp_path), cache_bytes=0, now_ns=lambda: 42)
    spool.append(b"body \xff\xfaFR\0", [1, 9, 24], "not kept")
    frame = spool.read()
    assert frame is not None
    assert (frame.body, list(frame.severities)) == (b"body \xff\xfaFR\0", [1, 9, 24])
    assert (frame.sequence, frame.time_ns, frame.item, frame.is_adopted) == (1, 42, None, False)
    spool.close()


def test_a_reader_that_keeps_up_gets_the_objects_back_and_reads_no_disk(tmp_path, monkeypatch):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    items = [object() for _ in range(3)]
    for item in items:
        spool.append(b"x", [9], item)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("the disk was read"))
    assert [frame.item for frame in read_all(spool)] == items
    monkeypatch.undo()
    spool.close()


def test_the_cache_is_bounded_and_older_batches_come_from_the_disk(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=4000)
    for number in range(20):
        spool.append(b"x" * 500, [9], number)
    items = [frame.item for frame in read_all(spool)]
    assert items[:16] == [None] * 16
    assert items[-3:] == [17, 18, 19]
    spool.close()


def test_a_batch_that_is_being_sent_already_is_not_read_again(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1 << 20)
    put(spool, "a")
    sending = spool.append(b"b", [9], read=True)
    put(spool, "c")
    assert spool.unread_records == 2
    frames = read_all(spool)
    assert bodies(frames) == ["a", "c"]
    for frame in frames:
        spool.ack(frame)
    assert spool.pending_records == 1
    crash(spool)
    after = adopt(tmp_path)
    assert drain(after)[0] == "b"
    after.ack(sending)  # the frame's spool is closed
    after.close()


# ---- settling


def test_batches_settle_in_any_order_and_the_others_come_back(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *range(10))
    frames = read_all(spool)
    for index in (0, 1, 2, 5, 9):
        spool.ack(frames[index])
    assert spool.pending_records == 5
    crash(spool)
    after = adopt(tmp_path)
    found = [int(body) for body in drain(after)]
    assert found == list(range(3, 10)), "from the lowest that was not settled on, in order"
    after.close()


def test_settling_twice_or_before_reading_counts_once(tmp_path):
    spool = make_spool(tmp_path)
    first, second, third = put(spool, "a", "b", "c")
    spool.ack(second)
    spool.ack(second)
    assert (spool.pending_records, spool.unread_records) == (2, 2)
    assert drain(spool) == ["a", "c"]
    spool.ack(first)
    spool.ack(third)
    assert (spool.pending_records, spool.pending_bytes) == (0, 0)
    spool.close()
    assert files(tmp_path) == []


def test_a_settled_segment_is_deleted_even_while_an_older_one_waits(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *(f"{n:0500}" for n in range(30)))
    frames = read_all(spool)
    first, second, *_ = segments(tmp_path)
    before = spool.disk_bytes
    for frame in frames[1:]:
        spool.ack(frame)
    assert first.exists()
    assert not second.exists()
    assert spool.disk_bytes < before / 2
    spool.ack(frames[0])
    assert not first.exists()
    spool.close()
    assert files(tmp_path) == []


def test_a_spool_that_never_spools_leaves_no_directory_of_its_own(tmp_path):
    spool = make_spool(tmp_path)
    assert spool.read() is None
    spool.close()
    assert list((tmp_path / "otlp").iterdir()) == []


def test_a_closed_spool_keeps_its_batches_and_takes_no_more(tmp_path):
    spool = make_spool(tmp_path)
    frames = put(spool, "a", "b")
    spool.close()
    spool.close()
    assert (spool.pending_records, spool.read(), spool.unread_records) == (2, None, 0)
    assert spool.adopt() == 0
    with pytest.raises(SpoolFullError, match="closed"):
        put(spool, "c")
    spool.ack(frames[0])  # too late: another process may own the directory now
    after = adopt(tmp_path)
    assert (after.adopted, drain(after)) == (2, ["a", "b"])
    after.close()


def test_nothing_is_appended_to_the_files_of_an_earlier_run(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "old")
    crash(spool)
    (old,) = segments(tmp_path)
    before = old.read_bytes()
    after = adopt(tmp_path)
    put(after, "new")
    assert old.read_bytes() == before
    assert len(segments(tmp_path)) == 2
    after.close()


# ---- limits


def append_for_ever(spool):
    while True:
        put(spool, f"{spool.pending_records:0500}")


def test_the_cap_refuses_a_batch_and_settling_makes_room(tmp_path):
    spool = make_spool(tmp_path, max_bytes=20_000)
    with pytest.raises(SpoolFullError, match="max_bytes"):
        append_for_ever(spool)
    taken = spool.pending_records
    assert taken > 20
    assert sum(path.stat().st_size for path in segments(tmp_path)) == spool.disk_bytes <= 20_000
    for _ in range(12):
        frame = spool.read()
        assert frame is not None
        spool.ack(frame)
    put(spool, "there is room again")
    assert len(drain(spool)) == taken - 12 + 1
    spool.close()


def test_a_full_spool_that_is_settled_takes_the_next_batch(tmp_path):
    spool = make_spool(tmp_path, max_bytes=4096)
    for number in range(50):
        put(spool, f"{number:0900}")
        assert drain(spool) == [f"{number:0900}"]
    spool.close()


def test_adopted_bytes_count_to_the_cap(tmp_path):
    spool = make_spool(tmp_path, max_bytes=20_000)
    put(spool, *("x" * 500 for _ in range(30)))
    crash(spool)
    after = adopt(tmp_path, max_bytes=20_000)
    with pytest.raises(SpoolFullError):
        put(after, *("x" * 500 for _ in range(30)))
    assert drain(after)[:30] == ["x" * 500] * 30
    put(after, *("x" * 500 for _ in range(30)))
    after.close()


def test_settled_bytes_of_the_own_segment_make_room_beside_adopted_ones(tmp_path):
    dead, spool = (make_spool(tmp_path, max_bytes=20_000) for _ in range(2))
    put(dead, *("x" * 1000 for _ in range(15)))
    crash(dead)
    put(spool, *("x" * 1000 for _ in range(3)))
    drain(spool)
    assert spool.adopt() == 15
    put(spool, "x" * 800)
    assert spool.disk_bytes < 18_000
    crash(spool)


def test_orphans_without_room_are_left_and_still_count_to_the_cap(tmp_path):
    crashed = [make_spool(tmp_path, max_bytes=20_000) for _ in range(4)]
    for spool in crashed:
        put(spool, *("x" * 500 for _ in range(25)))
    for spool in crashed:
        crash(spool)
    after = make_spool(tmp_path, max_bytes=20_000)
    assert after.adopt() == 50
    assert after.disk_bytes > 4 * 25 * 500
    with pytest.raises(SpoolFullError):
        put(after, "no")
    assert len(drain(after)) == 50
    assert after.adopt() == 50
    assert len(drain(after)) == 50
    after.close()
    assert files(tmp_path) == []


def test_free_space_is_kept(tmp_path, monkeypatch):
    free = 10_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    spool = make_spool(tmp_path, min_free=1_000_000)
    put(spool, "a")
    free = 1_000_000
    with pytest.raises(SpoolFullError, match="min_free"):
        put(spool, "b")
    free = 2_000_000
    put(spool, "c")
    assert drain(spool) == ["a", "c"]
    spool.close()


def test_a_batch_larger_than_a_segment_has_its_own(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "a", "b" * 100_000, "c")
    assert len(segments(tmp_path)) == 3
    assert drain(spool) == ["a", "b" * 100_000, "c"]
    spool.close()


def test_a_batch_larger_than_a_frame_is_refused_and_the_next_is_not(tmp_path):
    spool = make_spool(tmp_path)
    with pytest.raises(SpoolFullError, match="frame"):
        spool.append(bytes(64 << 20), [9])
    put(spool, "fits")
    assert drain(spool) == ["fits"]
    spool.close()


def test_numbers_that_are_not_severities_do_not_stop_a_batch(tmp_path):
    spool = make_spool(tmp_path)
    spool.append(b"x", [9, -1, 10**9, 24])
    frame = spool.read()
    assert frame is not None
    assert list(frame.severities) == [9, 0, 0, 24]
    crash(spool)


# ---- the directory


@pytest.mark.parametrize("name", ["otlp", "my sink/1", "..", ".x", "größe", "a%2Fb", "CON"])
def test_any_sink_name_is_a_directory_below_the_chosen_one(tmp_path, name):
    spool = make_spool(tmp_path, name=name)
    put(spool, "x")
    (path,) = tmp_path.iterdir()
    assert spool.directory is not None
    assert spool.directory.parent == path
    crash(spool)
    other = adopt(tmp_path, name=name + "2")
    assert other.adopted == 0
    other.close()
    after = adopt(tmp_path, name=name)
    assert drain(after) == ["x"]
    after.close()


@pytest.mark.parametrize(
    ("name", "wire_format"), [("", "x"), ("n" * 300, "x"), ("n", ""), ("n", "x" * 49)]
)
def test_names_that_cannot_be_used_fail_at_start(tmp_path, name, wire_format):
    with pytest.raises(ConfigurationError):
        make_spool(tmp_path, name=name, wire_format=wire_format)


@POSIX
def test_everything_is_for_the_owner_alone(tmp_path):
    root = tmp_path / "a" / "b"
    previous = os.umask(0)
    try:
        spool = make_spool(root)
        put(spool, "x")
    finally:
        os.umask(previous)
    assert spool.directory is not None
    for directory in (root.parent, root, root / "otlp", spool.directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    found = list(spool.directory.iterdir())
    assert {path.name for path in found} == {"lock", "cursor", "00000001.seg"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    spool.close()


@POSIX
def test_a_directory_with_lax_permissions_is_made_private(tmp_path):
    (tmp_path / "otlp").mkdir(mode=0o755)
    make_spool(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "otlp").stat().st_mode) == 0o700


@POSIX
@pytest.mark.parametrize("what", ["link", "dangling link", "file"])
def test_a_link_or_file_in_place_of_the_directory_fails_at_start(tmp_path, what):
    (tmp_path / "elsewhere").mkdir()
    if what == "file":
        (tmp_path / "otlp").write_text("mine")
    else:
        (tmp_path / "otlp").symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
    with pytest.raises(ConfigurationError, match=r"spool\.directory"):
        make_spool(tmp_path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@POSIX
def test_the_chosen_directory_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "disk")
    spool = make_spool(tmp_path / "spool")
    put(spool, "x")
    crash(spool)
    after = adopt(tmp_path / "spool")
    assert drain(after) == ["x"]
    after.close()


def test_a_relative_directory_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spool = make_spool(Path("spool"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    put(spool, "x")
    crash(spool)
    assert len(segments(tmp_path / "spool")) == 1


@POSIX
def test_a_directory_that_somebody_removed_is_created_again(tmp_path, capsys):
    spool = make_spool(tmp_path)
    put(spool, "a", "b")
    old = spool.directory
    assert old is not None
    for path in old.iterdir():
        path.unlink()
    old.rmdir()
    spool.flush()  # notices the loss
    put(spool, "c", "d")
    assert spool.directory != old
    assert "may not survive" in capsys.readouterr().err
    while spool.mend():
        pass
    assert (spool.corrupt.records, spool.pending_records) == (0, 4)
    crash(spool)
    after = adopt(tmp_path)
    assert sorted(drain(after)) == ["a", "b", "c", "d"]
    after.close()


def test_the_time_of_the_oldest_unread_batch_is_at_most_one_batch_too_early(tmp_path):
    times = iter([1, 10, 20, 30, 500, 600])  # the first is that of the directory
    spool = Spool("otlp", FORMAT, options(tmp_path), now_ns=lambda: next(times))
    assert spool.unread_since_ns == 0
    for _ in range(3):
        spool.append(b"x" * 1500, [9])  # two batches fit in a file
    assert spool.unread_since_ns == 10
    assert spool.read() is not None
    assert spool.unread_since_ns == 10  # between the first and the second batch
    assert spool.read() is not None
    assert spool.unread_since_ns == 30
    assert spool.read() is not None
    assert spool.unread_since_ns == 0
    spool.append(b"y", [9])  # in the same file
    assert spool.unread_since_ns == 500
    spool.append(b"z", [9], read=True)
    assert spool.unread_since_ns == 500
    spool.close()
    assert spool.unread_since_ns == 0
