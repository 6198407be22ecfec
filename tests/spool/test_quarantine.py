"""The quarantine keeps refused batches within its cap and gives them out again."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.errors import PermanentError
from fapilog.spool import Quarantine
from fapilog.spool.quarantine import QuarantineFile, Refused, list_files
from fapilog.spool.survey import purge_quarantine, survey
from tests.delivery.test_spooling import DurableScripted
from tests.support.queues import close, records, wait_settled
from tests.support.spool import (
    BROKEN,
    FORMAT,
    FULL,
    POSIX,
    ROOT,
    adopt,
    failing,
    failing_once,
    options,
    small_disk,
)


def make(directory: Path, **more) -> Quarantine:
    clocks = {"monotonic": more.pop("monotonic")} if "monotonic" in more else {}
    return Quarantine("otlp", FORMAT, options(directory, **more), **clocks)


def held(directory: Path) -> list[Refused]:
    """Return all batches in quarantine, the oldest file first."""
    return [refused for path in list_files(directory / "otlp") for refused in QuarantineFile(path)]


def texts(directory: Path) -> list[str]:
    return [refused.body.decode() for refused in held(directory)]


def test_a_refused_batch_is_kept_with_its_reason_and_time(tmp_path):
    quarantine = Quarantine("otlp", FORMAT, options(tmp_path), now_ns=lambda: 42)
    assert quarantine.add(b"batch \xff", [9, 17], "HTTP 400: größer 😀")
    assert held(tmp_path) == [Refused(42, "HTTP 400: größer 😀", b"\x09\x11", b"batch \xff", 1)]


def test_nothing_is_made_before_the_first_batch(tmp_path):
    make(tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


def test_batches_stay_in_order_and_share_a_file(tmp_path):
    quarantine = make(tmp_path)
    for number in range(50):
        assert quarantine.add(f"{number}".encode(), [9], "no")
    assert texts(tmp_path) == [str(n) for n in range(50)]
    assert len(list_files(tmp_path / "otlp")) == 1


def test_a_file_is_left_when_it_is_large(tmp_path):
    quarantine = make(tmp_path)
    for _ in range(5):
        assert quarantine.add(b"x" * 400_000, [9], "no")
    assert len(list_files(tmp_path / "otlp")) == 3
    assert len(held(tmp_path)) == 5


@POSIX
def test_it_is_private(tmp_path):
    previous = os.umask(0)
    try:
        make(tmp_path / "spool").add(b"x", [9], "no")
    finally:
        os.umask(previous)
    for path in (tmp_path / "spool").rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_no_file_stays_open(tmp_path):
    make(tmp_path).add(b"x", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    with QuarantineFile(path):
        pass  # nobody held the lock


def test_a_long_reason_and_wrong_severities_do_not_stop_it(tmp_path):
    assert make(tmp_path).add(b"x", [9, 10**6], "n" * 100_000)
    (refused,) = held(tmp_path)
    assert refused.reason == "n" * 1000
    assert list(refused.severities) == [9, 0]


def test_a_lone_surrogate_in_a_reason_does_not_stop_it(tmp_path):
    assert make(tmp_path).add(b"x", [9], "bad \ud800")
    assert [refused.reason for refused in held(tmp_path)] == ["bad ?"]


def test_the_spool_does_not_take_the_quarantine_for_an_orphan(tmp_path):
    make(tmp_path).add(b"x", [9], "no")
    spool = adopt(tmp_path)
    assert spool.read() is None
    spool.close()
    assert texts(tmp_path) == ["x"]


# ---- limits


def test_processes_share_the_cap(tmp_path, capsys):
    one, two = (make(tmp_path, quarantine_bytes=10_000) for _ in range(2))
    added = 0
    while one.add(b"x" * 1000, [9], "no"):
        added += 1
    assert 7 <= added <= 9
    assert not two.add(b"x" * 1000, [9], "no")
    assert "quarantine_bytes" in capsys.readouterr().err
    assert sum(path.stat().st_size for path in list_files(tmp_path / "otlp")) <= 10_000
    assert len(held(tmp_path)) == added


def test_room_that_was_made_is_used(tmp_path):
    now = 0.0
    quarantine = Quarantine(
        "otlp", FORMAT, options(tmp_path, quarantine_bytes=5000), monotonic=lambda: now
    )
    assert quarantine.add(b"x" * 4500, [9], "no")
    assert not quarantine.add(b"x" * 4500, [9], "no")
    for path in list_files(tmp_path / "otlp"):
        path.unlink()
    now += 10
    assert quarantine.add(b"x" * 4500, [9], "no")


def test_without_room_nothing_is_kept(tmp_path):
    assert not make(tmp_path, quarantine_bytes=0).add(b"x", [9], "no")
    assert held(tmp_path) == []


def test_a_batch_too_large_for_a_frame_is_refused(tmp_path):
    assert not make(tmp_path, quarantine_bytes=1 << 30).add(bytes(64 << 20), [9], "no")


@POSIX
def test_a_failed_write_keeps_nothing_and_harms_nothing(tmp_path, monkeypatch, capsys):
    quarantine = make(tmp_path)
    assert quarantine.add(b"before", [9], "no")
    for stuck in (False, True):
        with monkeypatch.context() as patched:
            failing_once(
                patched, "writev", FULL, before=lambda real, fd, parts: real(fd, [parts[0][:9]])
            )
            if stuck:
                failing_once(patched, "ftruncate", BROKEN)
            assert not quarantine.add(b"refused", [9], "no")
        assert quarantine.add(b"after", [9], "no")
    assert "no room in quarantine" in capsys.readouterr().err
    assert texts(tmp_path) == ["before", "after", "after"]


@POSIX
def test_a_failed_sync_is_announced_and_the_batch_is_kept(tmp_path, monkeypatch, capsys):
    quarantine = make(tmp_path, sync="always")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing(BROKEN), raising=False)
        assert quarantine.add(b"a", [9], "no")
    assert "may not survive a power failure" in capsys.readouterr().err
    assert quarantine.add(b"b", [9], "no")
    assert texts(tmp_path) == ["a", "b"]
    assert len(list_files(tmp_path / "otlp")) == 2


@ROOT
def test_a_disk_that_cannot_be_written_gives_false(tmp_path, capsys):
    with small_disk(tmp_path / "disk", "ro") as path:
        assert not make(path).add(b"x", [9], "no")
    assert "Read-only" in capsys.readouterr().err


# ---- several at once


def test_threads_may_add_at_once(tmp_path):
    quarantine = make(tmp_path)
    threads = [
        threading.Thread(
            target=lambda name=name: [
                quarantine.add(f"{name}{n}".encode(), [9], "no") for n in range(50)
            ]
        )
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(tmp_path)) == sorted(f"{name}{n}" for name in "abcd" for n in range(50))


ADDING = f"""
import os, sys
from pathlib import Path
from fapilog.spool import Quarantine, SpoolOptions
quarantine = Quarantine("otlp", {FORMAT!r}, SpoolOptions(Path(sys.argv[1]), min_free=0))
for n in range(100):
    assert quarantine.add(f"{{sys.argv[2]}}{{n}}".encode(), [9], "no")
if sys.argv[2] == "fork":
    pid = os.fork()
    if pid == 0:
        quarantine.after_fork()
        assert quarantine.add(b"child", [9], "no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert quarantine.add(b"parent", [9], "no")
"""


@POSIX
def test_processes_and_their_children_share_it(tmp_path):
    children = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", ADDING, str(tmp_path), name])
        for name in ("a", "b", "fork")
    ]
    assert [child.wait(60) for child in children] == [0] * 3
    found = texts(tmp_path)
    expected = [f"{name}{n}" for name in ("a", "b", "fork") for n in range(100)]
    assert sorted(found) == sorted([*expected, "child", "parent"])


# ---- out again


def test_settled_batches_leave_and_the_others_stay(tmp_path):
    quarantine = make(tmp_path)
    for text in ("a", "b", "c", "d"):
        quarantine.add(text.encode(), [9, 17], f"reason of {text}")
    before = held(tmp_path)
    (path,) = list_files(tmp_path / "otlp")
    with QuarantineFile(path) as file:
        for refused in file:
            if refused.body in (b"a", b"c"):
                file.settle(refused)
    assert held(tmp_path) == [before[1], before[3]]
    with QuarantineFile(path) as file:
        for refused in file:
            file.settle(refused)
    assert not path.exists()
    assert quarantine.add(b"e", [9], "no")
    assert texts(tmp_path) == ["e"]


def settle_one_and_stop(path: Path) -> None:
    with QuarantineFile(path) as file:
        file.settle(next(iter(file)))
        raise KeyboardInterrupt


def test_an_error_during_a_replay_keeps_the_batches_that_are_not_settled(tmp_path):
    quarantine = make(tmp_path)
    quarantine.add(b"a", [9], "no")
    quarantine.add(b"b", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    with pytest.raises(KeyboardInterrupt):
        settle_one_and_stop(path)
    assert texts(tmp_path) == ["b"]


def test_adding_goes_on_while_a_file_is_emptied(tmp_path):
    quarantine = make(tmp_path)
    quarantine.add(b"a", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    with QuarantineFile(path) as file:
        assert quarantine.add(b"b", [9], "no")
        for refused in file:
            file.settle(refused)
    assert texts(tmp_path) == ["b"]


def test_two_cannot_empty_a_file_at_once(tmp_path):
    make(tmp_path).add(b"a", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    with QuarantineFile(path), pytest.raises(BlockingIOError), QuarantineFile(path):
        pass


def test_a_file_cut_off_by_a_crash_or_damaged_gives_the_rest(tmp_path):
    quarantine = make(tmp_path)
    for text in ("first", "second", "third"):
        quarantine.add(text.encode(), [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    assert texts(tmp_path) == ["first", "second"]
    path.write_bytes(content.replace(b"second", b"sEcond"))
    assert texts(tmp_path) == ["first", "third"]
    assert QuarantineFile(path).scan().damaged_frames == 1


def test_a_file_without_a_readable_header_is_kept_until_all_is_settled(tmp_path):
    quarantine = make(tmp_path)
    quarantine.add(b"a", [9], "no")
    quarantine.add(b"b", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    content = path.read_bytes()
    path.write_bytes(b"x" + content[1:])
    with QuarantineFile(path) as file:
        file.settle(next(iter(file)))
    assert texts(tmp_path) == ["a", "b"]
    with QuarantineFile(path) as file:
        for refused in file:
            file.settle(refused)
    assert not path.exists()


def test_the_copy_of_a_killed_replay_does_no_harm(tmp_path):
    quarantine = make(tmp_path)
    quarantine.add(b"a", [9], "no")
    quarantine.add(b"b", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    path.with_name(path.name + ".new").write_bytes(b"half")
    assert texts(tmp_path) == ["a", "b"]
    with QuarantineFile(path) as file:
        file.settle(next(iter(file)))
    assert texts(tmp_path) == ["b"]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_purging_deletes_it_all(tmp_path):
    make(tmp_path).add(b"a", [9], "no")
    make(tmp_path).add(b"b", [9], "no")
    (report,) = survey(tmp_path)
    assert sum(found.records for found in report.quarantine) == 2
    assert len(list(purge_quarantine(report))) == 2
    assert held(tmp_path) == []


def test_an_empty_file_holds_nothing(tmp_path):
    make(tmp_path).add(b"a", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    path.write_bytes(b"")
    assert texts(tmp_path) == []


@POSIX
def test_a_disk_too_full_to_begin_a_file_leaves_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        failing_once(patched, "writev", FULL)
        assert not make(tmp_path).add(b"a", [9], "no")
    assert list_files(tmp_path / "otlp") == []


@POSIX
def test_a_disk_too_full_to_rewrite_a_file_keeps_it_as_it_was(tmp_path, monkeypatch):
    quarantine = make(tmp_path)
    quarantine.add(b"a", [9], "no")
    quarantine.add(b"b", [9], "no")
    (path,) = list_files(tmp_path / "otlp")
    file = QuarantineFile(path)
    with monkeypatch.context() as patched:
        failing_once(patched, "writev", FULL)
        with pytest.raises(OSError, match="No space"), file:
            file.settle(next(iter(file)))
    assert texts(tmp_path) == ["a", "b"]
    assert list(path.parent.iterdir()) == [path]


@POSIX
def test_a_file_that_another_process_has_emptied_is_gone(tmp_path, monkeypatch):
    make(tmp_path).add(b"a", [9], "no")
    (path,) = list_files(tmp_path / "otlp")

    def emptied(_fd):
        path.unlink()
        path.write_bytes(b"another file")
        return True

    monkeypatch.setattr("fapilog.spool.quarantine.try_lock", emptied)
    with pytest.raises(FileNotFoundError), QuarantineFile(path):
        pass


# ---- a directory that somebody else deletes


def delete(directory: Path, what: str) -> None:
    """Delete the quarantine, the sink's directory, or the whole spool."""
    shutil.rmtree(
        {
            "quarantine": directory / "spool/otlp/quarantine",
            "sink": directory / "spool/otlp",
            "spool": directory / "spool",
        }[what]
    )


@pytest.mark.parametrize("what", ["quarantine", "sink", "spool"])
@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_batch_is_kept_although_the_directory_was_deleted(tmp_path, what, seconds):
    now = 0.0
    quarantine = make(tmp_path / "spool", monotonic=lambda: now)
    assert quarantine.add(b"first", [9, 17], "no")
    delete(tmp_path, what)
    now += seconds
    assert quarantine.add(b"second", [9], "no")
    assert texts(tmp_path / "spool") == ["second"]
    assert quarantine.take_lost() == [9, 17]
    assert quarantine.take_lost() == []


def test_records_that_went_with_their_directory_are_reported_without_another_batch(tmp_path):
    quarantine = make(tmp_path / "spool")
    assert quarantine.add(b"x", [9], "no")
    assert quarantine.take_lost() == []
    delete(tmp_path, "spool")
    assert quarantine.take_lost() == [9]


def test_records_that_were_replayed_or_purged_are_not_lost(tmp_path):
    quarantine = make(tmp_path)
    assert quarantine.add(b"x", [9], "no")
    (report,) = survey(tmp_path)
    assert list(purge_quarantine(report))
    assert quarantine.take_lost() == []
    assert quarantine.add(b"y", [9], "no")
    assert quarantine.take_lost() == []


def test_a_child_reports_nothing_of_its_parent_as_lost(tmp_path):
    quarantine = make(tmp_path / "spool")
    assert quarantine.add(b"x", [9], "no")
    quarantine.after_fork()
    delete(tmp_path, "spool")
    assert quarantine.take_lost() == []


def test_the_ledger_counts_records_of_a_deleted_quarantine_as_dropped(tmp_path, capsys):
    sink = DurableScripted(PermanentError("400 no"), PermanentError("400 no"))
    queue = SendingQueue(sink, options=DeliveryOptions(quarantine=make(tmp_path / "spool")))
    queue.offer(records(3))
    wait_settled(queue)
    assert queue.state.ledger.quarantined == 3
    delete(tmp_path, "spool")
    queue.offer(records(2))
    wait_settled(queue)
    close(queue)
    ledger = queue.state.ledger
    assert (ledger.quarantined, ledger.rejected, ledger.drops.total) == (2, 0, 3)
    assert "3 refused records are lost" in capsys.readouterr().err
    close(queue)
    assert ledger.drops.total == 3
    assert len(held(tmp_path / "spool")) == 1
