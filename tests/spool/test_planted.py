"""The spool with links, other owners, missing permissions and a failing disk."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from fapilog.errors import ConfigurationError
from fapilog.spool import Spool
from tests.support.spool import (
    BROKEN,
    FORMAT,
    POSIX,
    ROOT,
    adopt,
    bodies,
    crash,
    drain,
    failing,
    failing_once,
    files,
    make_spool,
    options,
    put,
    read_all,
    segments,
    small_disk,
)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_fails_at_start(tmp_path):
    path = tmp_path / "read only"
    path.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match=r"spool\.directory=.*denied"):
        make_spool(path)


@ROOT
def test_a_read_only_file_system_fails_at_start(tmp_path):
    with (
        small_disk(tmp_path / "disk", "ro") as path,
        pytest.raises(ConfigurationError, match=r"spool\.directory=.*Read-only"),
    ):
        make_spool(path)


@ROOT
def test_a_disk_that_becomes_read_only_refuses_batches_and_breaks_nothing(tmp_path, capsys):
    with small_disk(tmp_path / "disk") as directory:
        spool = make_spool(directory)
        put(spool, "a", "b")
        crash(spool)
        subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        spool = Spool("otlp", FORMAT, options(directory))
        assert spool.adopt() == 0
        with pytest.raises(OSError, match="Read-only"):
            put(spool, "c")
        assert spool.read() is None
        spool.close()
        assert "is not adopted" in capsys.readouterr().err
        subprocess.run(["mount", "-o", "remount,rw", str(directory)], check=True)
        spool = adopt(directory)
        assert drain(spool) == ["a", "b"]
        spool.close()


@POSIX
def test_a_file_system_without_locks_fails_at_start(tmp_path, monkeypatch):
    def unsupported(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(ConfigurationError, match="No locks available"):
        make_spool(tmp_path)


@ROOT
def test_a_directory_of_another_user_is_not_used(tmp_path, capsys):
    spool = make_spool(tmp_path)
    put(spool, "planted")
    path = spool.directory
    assert path is not None
    crash(spool)
    os.chown(path, 12345, -1)
    spool = adopt(tmp_path)
    assert spool.read() is None
    spool.close()
    assert "belongs to user 12345" in capsys.readouterr().err
    os.chown(tmp_path / "otlp", 12345, -1)
    with pytest.raises(ConfigurationError, match="belongs to user 12345"):
        make_spool(tmp_path)


@POSIX
@pytest.mark.parametrize("what", ["link", "pipe", "directory"])
def test_a_planted_segment_is_neither_followed_nor_deleted(tmp_path, what):
    spool = make_spool(tmp_path / "spool")
    put(spool, "real")
    directory = spool.directory
    assert directory is not None
    crash(spool)
    planted = directory / "00000002.seg"
    secret = tmp_path / "secret"
    secret.write_bytes(segments(tmp_path / "spool")[0].read_bytes())
    if what == "link":
        planted.symlink_to(secret)
    elif what == "pipe":
        os.mkfifo(planted)
    else:
        planted.mkdir()
    spool = adopt(tmp_path / "spool")
    assert drain(spool) == ["real"]
    assert spool.corrupt.segments == 1
    spool.close()
    assert secret.exists()
    assert os.path.lexists(planted)


@POSIX
def test_a_linked_process_directory_is_not_adopted(tmp_path):
    spool = make_spool(tmp_path / "a")
    put(spool, "x")
    directory = spool.directory
    assert directory is not None
    crash(spool)
    make_spool(tmp_path / "b").close()
    (tmp_path / "b" / "otlp" / directory.name).symlink_to(directory)
    spool = adopt(tmp_path / "b")
    assert (spool.adopted, spool.read()) == (0, None)
    spool.close()
    assert directory.exists()


@POSIX
def test_a_linked_cursor_or_lock_is_not_written_through(tmp_path):
    for name in ("cursor", "lock"):
        root = tmp_path / name
        spool = make_spool(root)
        put(spool, "x")
        directory = spool.directory
        assert directory is not None
        crash(spool)
        victim = tmp_path / f"victim of {name}"
        victim.write_text("precious")
        (directory / name).unlink()
        (directory / name).symlink_to(victim)
        spool = adopt(root)
        drain(spool)
        spool.close()
        assert victim.read_text() == "precious"


@POSIX
def test_too_many_open_files_cost_no_record(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    put(spool, "a", "b")
    with monkeypatch.context() as patched:
        failing_once(patched, "open", OSError(errno.EMFILE, "Too many open files"))
        assert spool.read() is None
    assert (spool.corrupt.records, spool.unread_records) == (0, 2)
    assert drain(spool) == ["a", "b"]
    spool.close()


@POSIX
def test_a_cursor_that_cannot_be_written_is_told_and_costs_duplicates_only(
    tmp_path, monkeypatch, capsys
):
    spool = make_spool(tmp_path)
    put(spool, "a", "b")
    frame = spool.read()
    assert frame is not None
    with monkeypatch.context() as patched:
        failing_once(patched, "writev", BROKEN)
        spool.ack(frame)
    assert spool.pending_records == 1
    assert "may be delivered twice" in capsys.readouterr().err
    crash(spool)
    spool = adopt(tmp_path)
    assert drain(spool) == ["a", "b"]
    spool.close()


@POSIX
def test_after_a_cursor_could_not_be_synced_another_one_is_written(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    put(spool, *"abc")
    (cursor,) = tmp_path.rglob("cursor")
    before = cursor.stat().st_ino
    first, second, third = read_all(spool)
    spool.ack(first)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(BROKEN), raising=False)
        spool.flush()
    keep = cursor.open("rb")  # keeps its inode from being used again
    spool.ack(second)
    assert cursor.stat().st_ino != before
    keep.close()
    crash(spool)
    spool = adopt(tmp_path)
    assert bodies(read_all(spool)) == [third.body.decode()]
    spool.close()


@POSIX
def test_a_segment_that_cannot_be_deleted_does_not_come_back(tmp_path, monkeypatch, capsys):
    spool = make_spool(tmp_path)
    put(spool, *("x" * 3000 for _ in range(3)))
    frames = read_all(spool)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing(BROKEN))
        spool.ack(frames[0])
    assert "cannot delete" in capsys.readouterr().err
    for frame in frames[1:]:
        spool.ack(frame)
    crash(spool)
    spool = adopt(tmp_path)
    assert (spool.adopted, spool.read()) == (0, None)
    spool.close()
    assert files(tmp_path) == []


def test_a_file_in_place_of_a_process_directory_is_left_alone(tmp_path, capsys):
    make_spool(tmp_path).close()
    planted = tmp_path / "otlp" / "1700000000000000000-1-00000000"
    planted.write_text("mine")
    spool = adopt(tmp_path)
    assert (spool.adopted, spool.adopt()) == (0, 0)
    spool.close()
    assert planted.read_text() == "mine"
    assert capsys.readouterr().err.count("is not adopted: not a directory") == 1


def test_a_sink_directory_that_cannot_be_listed_breaks_nothing(tmp_path, capsys):
    spool = make_spool(tmp_path)
    (tmp_path / "otlp").rmdir()
    (tmp_path / "otlp").write_text("mine")
    assert spool.adopt() == 0
    assert "is not adopted" in capsys.readouterr().err
    spool.close()


@POSIX
def test_an_orphan_that_cannot_be_listed_is_given_back(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    put(spool, "x")
    crash(spool)
    with monkeypatch.context() as patched:
        patched.setattr("fapilog.spool.adopted.list_segments", failing(BROKEN))
        spool = adopt(tmp_path)
        assert spool.adopted == 0
    other = adopt(tmp_path)
    assert drain(other) == ["x"]
    other.close()
    spool.close()


def test_a_directory_that_can_never_be_locked_fails_at_start(tmp_path, monkeypatch):
    monkeypatch.setattr("fapilog.spool.directory.try_lock", lambda _fd: False)
    with pytest.raises(ConfigurationError, match="keep removing"):
        make_spool(tmp_path)


@POSIX
def test_a_directory_that_cannot_be_removed_is_announced_and_delays_nothing(
    tmp_path, monkeypatch, capsys
):
    spool = make_spool(tmp_path)
    put(spool, "x")
    drain(spool)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", failing(BROKEN))
        spool.close()
    assert "cannot remove" in capsys.readouterr().err
    spool = adopt(tmp_path)
    assert spool.adopted == 0
    spool.close()
    assert files(tmp_path) == []


@POSIX
@pytest.mark.parametrize(("number", "is_announced"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_directories_causes_no_announcement(
    tmp_path, monkeypatch, capsys, number, is_announced
):
    spool = make_spool(tmp_path)
    put(spool, "x")
    monkeypatch.setattr(os, "fsync", failing(OSError(number, "no")))
    if not hasattr(os, "fdatasync"):
        pytest.skip("fsync syncs the files, too")
    spool.flush()
    assert ("may not survive" in capsys.readouterr().err) is is_announced
    monkeypatch.undo()
    crash(spool)
