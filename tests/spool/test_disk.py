"""The spool on disks that are full, slow, read-only or broken."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from fapilog.spool import SpoolFullError
from tests.support.spool import (
    BROKEN,
    FULL,
    POSIX,
    ROOT,
    adopt,
    crash,
    drain,
    failing,
    failing_once,
    files,
    make_spool,
    put,
    segments,
    small_disk,
)

# ---- full


def is_taken(spool, body) -> bool:
    with contextlib.suppress(OSError):
        put(spool, body)
        return True
    return False


@ROOT
def test_a_real_full_disk_refuses_batches_and_loses_none(tmp_path, monkeypatch):
    # As if other processes filled the disk between the check and the write.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    with small_disk(tmp_path / "disk") as directory:
        fill_and_empty(directory)


def fill_and_empty(directory):
    spool = make_spool(directory, segment_bytes=64 << 10)
    taken = [number for number in range(1000) if is_taken(spool, f"{number:05000}")]
    assert 100 < len(taken) < 210
    assert spool.pending_records == len(taken)
    for _ in range(100):
        frame = spool.read()
        assert frame is not None
        spool.ack(frame)
    put(spool, "there is room again")
    crash(spool)
    spool = adopt(directory)
    *found, last = drain(spool)
    assert [int(body[-4:]) for body in found] == taken[100:]
    assert last == "there is room again"
    assert spool.corrupt.frames == 0
    spool.close()
    assert files(directory) == []


@POSIX
def test_a_real_limit_of_the_file_size_costs_nothing_but_the_batch(tmp_path):
    code = """if True:
        import resource, sys
        from pathlib import Path
        from fapilog.spool import Spool, SpoolOptions
        spool = Spool("otlp", "test-lines", SpoolOptions(Path(sys.argv[1]), min_free=0))
        spool.append(b"first" * 100, [9])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try: spool.append(b"refused" * 100, [9])
        except OSError as error: print(error.strerror)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        spool.append(b"second", [9])
        print(spool.pending_records)
    """
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert (child.stdout, child.stderr) == ("File too large\n2\n", "")
    spool = adopt(tmp_path)
    assert drain(spool) == ["first" * 100, "second"]
    assert spool.corrupt.frames == 0
    spool.close()


@POSIX
@pytest.mark.parametrize("stuck", [False, True])
def test_a_write_cut_short_at_any_byte_costs_only_its_batch(tmp_path, monkeypatch, stuck):
    size = 44 + 1 + len("refused")
    for cut in range(size):
        directory = tmp_path / str(cut)
        spool = make_spool(directory)
        put(spool, "before")

        def write_a_part(real, fd, parts, cut=cut):
            real(fd, [b"".join(parts)[:cut]])

        with monkeypatch.context() as patched:
            failing_once(patched, "writev", FULL, before=write_a_part)
            if stuck:  # cutting the file fails, too
                failing_once(patched, "ftruncate", BROKEN)
            with pytest.raises(OSError, match="No space"):
                put(spool, "refused")
        put(spool, "after")
        assert len(segments(directory)) == 1 + stuck
        crash(spool)
        spool = adopt(directory)
        assert drain(spool) == ["before", "after"]
        assert spool.corrupt.frames == 0
        spool.close()


@POSIX
def test_a_short_write_is_carried_on(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: real(fd, [b"".join(parts)[:10]]))
    put(spool, "a" * 100, "b")
    monkeypatch.undo()
    assert drain(spool) == ["a" * 100, "b"]
    spool.close()


@POSIX
def test_a_disk_too_full_for_a_new_segment_recovers(tmp_path, monkeypatch):
    spool = make_spool(tmp_path)
    with monkeypatch.context() as patched:
        failing_once(patched, "writev", FULL)  # the write of the segment's header
        with pytest.raises(OSError, match="No space"):
            put(spool, "refused")
    put(spool, "taken")
    assert len(segments(tmp_path)) == 1
    assert drain(spool) == ["taken"]
    spool.close()
    assert files(tmp_path) == []


@POSIX
def test_batches_that_failed_do_not_count_to_the_cap(tmp_path, monkeypatch):
    spool = make_spool(tmp_path, max_bytes=4096)
    for _ in range(20):
        with monkeypatch.context() as patched:
            failing_once(patched, "writev", FULL)
            with pytest.raises(OSError, match="No space"):
                put(spool, "x" * 900)
    put(spool, "x" * 900)
    with pytest.raises(SpoolFullError):
        put(spool, *("x" * 900 for _ in range(5)))
    crash(spool)


# ---- syncing


@pytest.fixture
def synced(monkeypatch):
    """The names of the synced files, in order."""
    names: list[str] = []
    real = os.fsync

    def fdatasync(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        names.append(path.rsplit("/", 1)[1])
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync, raising=False)
    return names


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


@LINUX
def test_syncing_follows_the_interval(tmp_path, synced):
    now = 100.0
    spool = make_spool(tmp_path, sync_interval=0.5, clock=lambda: now)
    put(spool, "a")
    spool.sync()
    assert synced == []
    now += 0.5
    spool.sync()
    assert synced == ["00000001.seg", "cursor"]
    now += 0.5
    spool.sync()
    assert len(synced) == 2, "there was nothing new"
    drain(spool)
    put(spool, "b")
    now += 0.4
    spool.sync()
    assert len(synced) == 2
    spool.flush()
    assert len(synced) == 4
    crash(spool)


@LINUX
def test_a_fatal_record_is_synced_at_once(tmp_path, synced):
    spool = make_spool(tmp_path)
    spool.append(b"x", [9, 17, 20])
    assert synced == []
    spool.append(b"x", [9, 21, 9])
    assert synced[0] == "00000001.seg"
    crash(spool)


@LINUX
def test_with_always_every_append_is_synced(tmp_path, synced):
    spool = make_spool(tmp_path, sync="always")
    put(spool, *range(5))
    assert synced.count("00000001.seg") == 5
    crash(spool)


@LINUX
def test_sealed_segments_are_synced_and_closed_by_the_next_sync(tmp_path, synced):
    spool = make_spool(tmp_path)
    put(spool, "x" * 3000, "x" * 3000)
    assert synced == []
    spool.flush()
    assert synced[:2] == ["00000001.seg", "00000002.seg"]
    put(spool, *("x" * 3000 for _ in range(20)))
    assert len(synced) > 10, "a caller that never syncs does not pile up open files"
    crash(spool)


@LINUX
def test_a_full_segment_does_not_wait_for_the_interval(tmp_path, synced):
    spool = make_spool(tmp_path, sync_interval=3600, clock=lambda: 100.0)
    put(spool, "x" * 3000)
    spool.sync()
    assert synced == []
    put(spool, "x" * 3000)
    spool.sync()
    assert synced[0] == "00000001.seg"
    known = len(synced)
    spool.sync()
    assert len(synced) == known
    crash(spool)


@POSIX
def test_after_a_failed_sync_the_segment_gets_nothing_more_and_is_not_synced_again(
    tmp_path, monkeypatch, capsys
):
    spool = make_spool(tmp_path)
    put(spool, "a")
    (first,) = segments(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(BROKEN), raising=False)
        spool.flush()
    assert "may not survive a power failure: Input/output error" in capsys.readouterr().err
    before = first.read_bytes()
    put(spool, "b")
    assert first.read_bytes() == before
    assert len(segments(tmp_path)) == 2
    inode = first.stat().st_ino
    again = []
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "fdatasync", lambda fd: again.append(os.fstat(fd).st_ino), raising=False
        )
        spool.flush()
    assert inode not in again
    assert again
    crash(spool)
    spool = adopt(tmp_path)
    assert drain(spool) == ["a", "b"]
    spool.close()


SYNCING = """
import sys
from pathlib import Path
from fapilog.spool import Spool, SpoolOptions
spool = Spool("otlp", "test-lines", SpoolOptions(Path(sys.argv[1]), min_free=0, sync="always"))
for n in range(5):
    spool.append(b"%d" % n, [9])
print(sorted(p.name for p in spool.directory.glob("*.seg")))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kernel_that_cannot_sync_is_told_of_and_loses_nothing(tmp_path):
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e"]
    command += ["inject=fdatasync:error=EIO:when=3", sys.executable, "-c", SYNCING, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, timeout=100, text=True, check=False)
    if "ptrace" in child.stderr:
        pytest.skip(f"strace may not trace here: {child.stderr}")
    assert child.returncode == 0, child.stderr
    assert child.stdout == "['00000001.seg', '00000002.seg']\n"
    assert "Input/output error" in child.stderr
    spool = adopt(tmp_path)
    assert drain(spool) == list("01234")
    spool.close()


def test_syncing_beside_everything_else_disturbs_nothing(tmp_path):
    spool = make_spool(tmp_path, cache_bytes=2000)
    stop = threading.Event()
    errors = []

    def flush():
        try:
            while not stop.is_set():
                spool.flush()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    out = []
    for number in range(2000):
        put(spool, f"{number:0400}")
        if number % 2:
            out += [int(body) for body in drain(spool)]
    stop.set()
    thread.join()
    assert errors == []
    assert out == list(range(2000))
    spool.close()
    assert files(tmp_path) == []
