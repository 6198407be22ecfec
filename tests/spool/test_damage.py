"""Damaged segments and segments of later releases: everything else is still read."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.spool.format import (
    FRAME_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
)
from tests.support.spool import (
    adopt,
    bodies,
    crash,
    drain,
    make_spool,
    put,
    read_all,
    segments,
)

BODIES = ["first", "second, longer", "third", "4"]
ENDS = [SEGMENT_HEADER_SIZE]
for _body in BODIES:
    ENDS.append(ENDS[-1] + FRAME_HEADER_SIZE + 1 + len(_body))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A segment of four frames, as bytes."""
    directory = tmp_path_factory.mktemp("whole")
    spool = make_spool(directory)
    put(spool, *BODIES)
    crash(spool)
    data = segments(directory)[0].read_bytes()
    assert len(data) == ENDS[-1]
    return data


def plant(directory: Path, *contents: bytes, name: str = "otlp") -> Path:
    """The directory of a dead process with these segments."""
    path = directory / name / "1700000000000000000-1-00000000"
    path.mkdir(parents=True)
    (directory / name).chmod(0o700)
    (path / "lock").touch()
    for number, content in enumerate(contents, 1):
        (path / f"{number:08}.seg").write_bytes(content)
    return path


def read_planted(directory: Path, *contents: bytes) -> tuple[list[str], int]:
    """Return the bodies read from these segments, and the number of damaged frames."""
    path = plant(directory, *contents)
    spool = adopt(directory)
    found = drain(spool)
    damaged = spool.corrupt.frames
    spool.close()
    assert not path.exists(), "what is done with must not be found again"
    return found, damaged


def frame_at(offset: int) -> int:
    """Return the index of the frame that holds a byte; -1 for the segment's header."""
    return sum(end <= offset for end in ENDS) - 1


def test_a_segment_cut_off_anywhere_gives_all_whole_frames_and_no_alarm(whole, tmp_path):
    for size in range(len(whole)):
        found, damaged = read_planted(tmp_path / str(size), whole[:size])
        assert found == BODIES[: sum(end <= size for end in ENDS[1:])], size
        assert damaged == 0, size


def test_any_flipped_byte_costs_at_most_the_frame_it_is_in(whole, tmp_path):
    for offset in range(len(whole)):
        for flip in (0x01, 0xFF):
            damaged_segment = bytearray(whole)
            damaged_segment[offset] ^= flip
            found, damaged = read_planted(tmp_path / f"{offset}-{flip}", bytes(damaged_segment))
            hit = frame_at(offset)
            assert found == [body for index, body in enumerate(BODIES) if index != hit], offset
            assert damaged == (hit >= 0), offset


def test_a_damaged_segment_does_not_hide_those_around_it(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *(f"{n:01000}" for n in range(12)))
    crash(spool)
    _, middle, *_ = segments(tmp_path)
    middle.write_bytes(b"\xff" * middle.stat().st_size)
    spool = adopt(tmp_path)
    found = [int(body) for body in drain(spool)]
    assert found == [0, 1, 2, *range(6, 12)]
    assert spool.corrupt.segments == 1
    spool.close()


# The search reads chunks of 64 KiB, and a header may lie in two chunks.
@pytest.mark.parametrize("gap", [1, 20, FRAME_HEADER_SIZE + 6, *range(65_532, 65_539), 200_000])
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\xff\xfaFR"])
def test_bytes_inserted_between_frames_cost_no_later_frame(whole, tmp_path, gap, filler):
    middle = ENDS[2]
    content = whole[:middle] + (filler * gap)[:gap] + whole[middle:]
    assert read_planted(tmp_path, content)[0] == BODIES


@pytest.mark.parametrize("begin", range(ENDS[1], ENDS[3], 7))
def test_bytes_lost_in_the_middle_cost_only_the_frames_they_are_of(whole, tmp_path, begin):
    end = begin + 30
    found, damaged = read_planted(tmp_path, whole[:begin] + whole[end:])
    hit = set(range(frame_at(begin), frame_at(end - 1) + 1))
    assert found == [body for index, body in enumerate(BODIES) if index not in hit]
    assert damaged >= 1


@pytest.mark.parametrize("missing", [20, 200])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_frame_that_lost_bytes_does_not_swallow_the_next(tmp_path, loaded, missing):
    spool = make_spool(tmp_path / "a")
    put(spool, "first", "x" * 1000, "third", "fourth")
    crash(spool)
    content = segments(tmp_path / "a")[0].read_bytes()
    middle = content.index(b"x" * 1000) + 500
    cut = content[:middle] + content[middle + missing :]
    if loaded:  # only reading finds the damage, not counting
        spool = make_spool(tmp_path / "b")
        put(spool, "first", "x" * 1000, "third", "fourth")
        segments(tmp_path / "b")[0].write_bytes(cut)
        assert drain(spool) == ["first", "third", "fourth"]
        spool.close()
        return
    assert read_planted(tmp_path / "b", cut) == (["first", "third", "fourth"], 1)


def test_zeros_after_a_power_failure_are_no_alarm(whole, tmp_path):
    assert read_planted(tmp_path / "tail", whole + bytes(10_000)) == (BODIES, 0)
    assert read_planted(tmp_path / "all", bytes(10_000), whole) == (BODIES, 0)
    assert read_planted(tmp_path / "empty", b"", whole) == (BODIES, 0)


def test_lengths_that_lie_are_not_believed(whole, tmp_path):
    """A correct checksum over a wrong length must cost neither the file nor memory."""
    header = bytearray(whole[ENDS[1] : ENDS[1] + FRAME_HEADER_SIZE])
    for length in (0, 1, 10_000, (64 << 20) + 1, 0xFFFFFFFF):
        header[32:36] = struct.pack("<I", length)
        header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
        content = whole[: ENDS[1]] + bytes(header) + whole[ENDS[1] + FRAME_HEADER_SIZE :]
        found, damaged = read_planted(tmp_path / str(length), content)
        assert found == [BODIES[0], *BODIES[2:]]
        assert damaged == 1


@pytest.mark.skipif(os.name != "posix", reason="needs sparse files")
def test_no_lie_makes_it_read_more_than_a_frame_at_once(whole, tmp_path, monkeypatch):
    header = bytearray(whole[ENDS[1] : ENDS[1] + FRAME_HEADER_SIZE])
    header[32:36] = struct.pack("<I", 100 << 20)
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    path = plant(tmp_path, whole[: ENDS[1]] + bytes(header))
    os.truncate(path / "00000001.seg", 200 << 20)
    real, sizes = os.read, []

    def read(fd, size):
        sizes.append(size)
        return real(fd, size)

    monkeypatch.setattr(os, "read", read)
    spool = adopt(tmp_path)
    assert drain(spool) == BODIES[:1]
    assert max(sizes) <= 1 << 16
    spool.close()


def test_a_frame_inside_a_body_does_not_count(whole, tmp_path):
    spool = make_spool(tmp_path / "a")
    inner = whole[ENDS[0] : ENDS[1]]
    spool.append(inner * 3, [9])
    put(spool, "after")
    crash(spool)
    (segment,) = segments(tmp_path / "a")
    content = bytearray(segment.read_bytes())
    content[SEGMENT_HEADER_SIZE + FRAME_HEADER_SIZE] ^= 1  # the severity, a part of the payload
    assert read_planted(tmp_path / "b", bytes(content)) == (["after"], 1)


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_survived(tmp_path_factory, content):
    path = plant(tmp_path_factory.mktemp("any"), content)
    spool = adopt(path.parents[1])
    assert drain(spool) == []
    spool.close()


def test_a_file_that_is_not_a_segment_is_left_alone_and_counted(whole, tmp_path, capsys):
    path = plant(tmp_path, b"notes of the user" * 100, whole)
    spool = adopt(tmp_path)
    assert drain(spool) == BODIES
    assert (spool.corrupt.segments, spool.corrupt.frames) == (1, 0)
    assert [one.name for one in path.glob("*.seg")] == ["00000001.seg"]
    assert spool.adopt() == 0, "and it is not looked at again"
    assert spool.corrupt.segments == 1
    spool.close()
    assert "is not a segment" in capsys.readouterr().err


def test_frames_damaged_after_they_were_counted_are_given_back(tmp_path, capsys):
    spool = make_spool(tmp_path)
    put(spool, *BODIES)
    crash(spool)
    spool = adopt(tmp_path)
    assert (spool.adopted, spool.pending_records) == (4, 4)
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[ENDS[2] - 1] ^= 1
    segment.write_bytes(content)
    assert drain(spool) == [BODIES[0], *BODIES[2:]]
    assert (spool.pending_records, spool.pending_bytes, spool.unread_records) == (0, 0, 0)
    assert (spool.corrupt.frames, spool.corrupt.records) == (1, 1)
    assert "1 frames with 1 records" in capsys.readouterr().err
    spool.close()


def test_own_frames_that_got_damaged_are_given_back(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *BODIES)
    (segment,) = segments(tmp_path)
    with segment.open("r+b") as file:
        file.seek(ENDS[1])
        file.write(b"oops" * 5)
    frames = read_all(spool)
    assert bodies(frames) == [BODIES[0], *BODIES[2:]]
    assert (spool.corrupt.records, spool.pending_records) == (1, 3)
    put(spool, "more")
    assert drain(spool) == ["more"]
    for frame in frames:
        spool.ack(frame)
    assert spool.pending_records == 0
    spool.close()
    assert segments(tmp_path) == []


def test_a_segment_that_vanishes_is_counted_and_the_next_is_read(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *(f"{n:01000}" for n in range(10)))
    first, *rest = segments(tmp_path)
    assert rest
    first.unlink()
    found = [int(body) for body in drain(spool)]
    assert found == list(range(10 - len(found), 10))
    assert spool.corrupt.records == 10 - len(found) > 0
    assert spool.pending_records == 0
    spool.close()


@pytest.mark.parametrize("damage", ["both", "first", "second", "gone", "short"])
def test_a_damaged_cursor_costs_duplicates_at_most(tmp_path, damage):
    spool = make_spool(tmp_path)
    put(spool, *range(10))
    for _ in range(4):
        frame = spool.read()
        assert frame is not None
        spool.ack(frame)
    crash(spool)
    (cursor,) = tmp_path.rglob("cursor")
    content = bytearray(cursor.read_bytes())
    for offset, slots in ((5, ("both", "first")), (517, ("both", "second"))):
        if damage in slots:
            content[offset] ^= 0xFF
    cursor.write_bytes(content)
    if damage == "gone":
        cursor.unlink()
    if damage == "short":
        os.truncate(cursor, 3)
    spool = adopt(tmp_path)
    found = [int(body) for body in drain(spool)]
    # One slot is one write older than the other.
    assert found == list(range(10 - len(found), 10))
    assert len(found) == 10 if damage in ("both", "gone", "short") else 6 <= len(found) <= 7
    spool.close()


def test_a_batch_that_was_given_out_is_skipped_after_damage(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, "damaged")
    sending = spool.append(b"being sent", [9], read=True)
    put(spool, "next")
    (segment,) = segments(tmp_path)
    with segment.open("r+b") as file:
        file.seek(SEGMENT_HEADER_SIZE + 5)
        file.write(b"oops")
    assert drain(spool) == ["next"]
    assert (spool.corrupt.records, spool.pending_records) == (1, 1)
    spool.ack(sending)
    assert spool.pending_records == 0
    spool.close()
    assert segments(tmp_path) == []


def test_the_cache_is_used_again_after_damage(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=1200)
    for number, body in enumerate(["a", "b", "c"]):
        spool.append(body.encode(), [9], number)
    (segment,) = segments(tmp_path)
    with segment.open("r+b") as file:
        file.seek(SEGMENT_HEADER_SIZE + 5)
        file.write(b"oops")
    assert [(frame.body, frame.item) for frame in read_all(spool)] == [(b"b", None), (b"c", 2)]
    crash(spool)


def test_a_segment_cut_off_after_it_was_counted_is_given_back(tmp_path):
    spool = make_spool(tmp_path)
    put(spool, *(f"{n:0100}" for n in range(10)))
    crash(spool)
    spool = adopt(tmp_path)
    (segment,) = segments(tmp_path)
    os.truncate(segment, 600)
    found = [int(body) for body in drain(spool)]
    assert found == [0, 1, 2]
    assert (spool.corrupt.records, spool.pending_records) == (7, 0)
    spool.close()
    assert segments(tmp_path) == []


def test_a_segment_header_of_a_wrong_length_costs_no_frame(whole, tmp_path):
    header = bytearray(whole[:SEGMENT_HEADER_SIZE] + bytes(20))
    header[10:12] = struct.pack("<H", 100)
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    assert read_planted(tmp_path, bytes(header) + whole[SEGMENT_HEADER_SIZE:])[0] == BODIES


@pytest.mark.skipif(os.name != "posix", reason="os.read is called by name")
def test_a_disk_that_gives_a_few_bytes_at_a_time_is_read(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    put(spool, *BODIES)
    crash(spool)
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 7)))
    spool = adopt(tmp_path)
    assert drain(spool) == BODIES
    spool.close()


# ---- other releases


def test_a_later_format_is_left_alone_and_the_rest_is_read(whole, tmp_path, capsys):
    header = bytearray(whole[:SEGMENT_HEADER_SIZE])
    header[8:10] = struct.pack("<H", 99)
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    later = bytes(header) + whole[SEGMENT_HEADER_SIZE:]
    path = plant(tmp_path, whole, later)
    spool = adopt(tmp_path)
    assert drain(spool) == BODIES
    assert (spool.corrupt.segments, spool.adopt()) == (1, 0)
    spool.close()
    assert "format version 99" in capsys.readouterr().err
    assert [one.name for one in path.glob("*.seg")] == ["00000002.seg"]
    assert (path / "00000002.seg").read_bytes() == later
