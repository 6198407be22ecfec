import gzip
import os
import stat
import threading

import pytest

from fapilog.process.files import open_file, try_lock
from fapilog.sinks.rotation import Archive, Retention, Rotation

NOW = 1_795_428_900.123456  # 2026-11-23T10:15:00.123456Z
HOUR = 3600
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files and locks")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.jsonl"


def archive(path, compress=False, now=NOW, **keep):
    return Archive(path, compress=compress, retention=Retention(**keep), clock=lambda: now)


def status(size, mtime=NOW):
    return os.stat_result((0o100600, 1, 1, 1, 0, 0, size, mtime, mtime, mtime))


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def rotated(path, *stamps, text="x\n", ending=""):
    made = []
    for stamp in stamps:
        made.append(path.with_name(f"{path.stem}-20261123T{stamp}.000000Z{path.suffix}{ending}"))
        made[-1].write_text(text)
    return made


# -- when -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "incoming", "is_due"),
    [(0, 500, False), (60, 40, False), (60, 41, True), (200, 1, True)],
)
def test_a_file_is_due_before_it_would_pass_its_size(size, incoming, is_due):
    assert Rotation(max_bytes=100).is_due(status(size), incoming, NOW) is is_due


def test_a_file_is_due_in_the_first_write_of_a_period():
    rotation = Rotation(every=HOUR)
    in_this_hour, in_last_hour = NOW - 14 * 60, NOW - 16 * 60
    assert not rotation.is_due(status(5, in_this_hour), 1, NOW)
    assert rotation.is_due(status(5, in_last_hour), 1, NOW)
    assert not rotation.is_due(status(0, in_last_hour), 1, NOW)


def test_days_are_those_of_utc():
    rotation = Rotation(every=86400)
    midnight = NOW // 86400 * 86400
    assert rotation.is_due(status(5, midnight - 1), 1, midnight + 1)
    assert not rotation.is_due(status(5, midnight + 1), 1, midnight + 86399)


def test_a_file_server_whose_clock_is_behind_causes_one_rotation_not_many():
    rotation = Rotation(every=HOUR)
    behind = status(5, NOW - HOUR)
    assert rotation.is_due(behind, 1, NOW)
    rotation.last_write = NOW
    assert not rotation.is_due(behind, 1, NOW + 1)
    assert rotation.is_due(behind, 1, NOW + HOUR)


def test_a_clock_set_back_causes_no_rotation():
    assert not Rotation(every=HOUR).is_due(status(5, NOW), 1, NOW - 5 * HOUR)


def test_without_limits_a_file_is_never_due():
    assert not Rotation().is_due(status(1 << 40, 0), 1 << 30, NOW)


# -- names ------------------------------------------------------------------------


def test_rotated_files_are_named_by_time_and_never_replace_one(path):
    first = archive(path).new_path()
    assert first.name == "app-20261123T101500.123456Z.jsonl"
    first.touch()
    second = archive(path).new_path()
    second.with_name(second.name + ".gz").touch()
    third = archive(path).new_path()
    assert sorted([third, second, first]) == [first, second, third]
    assert len({first, second, third}) == 3


@POSIX
def test_a_link_that_leads_nowhere_is_not_replaced_either(path):
    taken = archive(path).new_path()
    taken.symlink_to("nowhere")
    assert archive(path).new_path() != taken


@pytest.mark.parametrize("name", ["app", "app.log.jsonl", ".hidden", "a+b (1).log", "ünï.log"])
def test_any_file_name_finds_its_own_rotated_files(tmp_path, name):
    rotating = archive(tmp_path / name)
    made = rotating.new_path()
    made.touch()
    assert [file.path for file in rotating.files()] == [made]


@POSIX
def test_only_regular_files_of_exactly_our_form_count(path, tmp_path):
    stamp = "20261123T101500.123456Z"
    ours = [f"app-{stamp}.jsonl", f"app-{stamp}.jsonl.gz"]
    foreign = [
        "app.jsonl",
        f"app-web-{stamp}.jsonl",
        f"app-{stamp}",
        f"app-{stamp}.jsonl.bak",
        f"app-{stamp}.jsonl.gz.bak",
        f"app-{stamp}.json",
        f"appx{stamp}.jsonl",
        f"web-app-{stamp}.jsonl",
        "app-20261123.jsonl",
        "app-2026112xT101500.123456Z.jsonl",
        f"app-{stamp}1.jsonl",
    ]
    for name in ours + foreign:
        (tmp_path / name).write_text("x")
    (tmp_path / f"app-{stamp[:-2]}7Z.jsonl").mkdir()
    (tmp_path / f"app-{stamp[:-2]}8Z.jsonl").symlink_to(tmp_path / "app.jsonl")
    before = names(tmp_path)
    assert [file.path.name for file in archive(path).files()] == ours
    archive(path, count=0).tidy()
    assert names(tmp_path) == sorted(set(before) - set(ours))


# -- retention --------------------------------------------------------------------


def test_the_newest_files_are_kept(path, tmp_path):
    rotated(path, "080000", "100000")
    rotated(path, "090000", ending=".gz")
    archive(path, count=2).tidy()
    assert names(tmp_path) == [
        "app-20261123T090000.000000Z.jsonl.gz",
        "app-20261123T100000.000000Z.jsonl",
    ]


def test_files_are_kept_for_their_age(path, tmp_path):
    rotated(path, "081459", "081501")
    archive(path, age=2 * HOUR).tidy()
    assert names(tmp_path) == ["app-20261123T081501.000000Z.jsonl"]


def test_an_age_before_the_epoch_keeps_everything(path, tmp_path):
    rotated(path, "081459")
    archive(path, age=1e12).tidy()
    assert len(names(tmp_path)) == 1


def test_files_are_kept_up_to_a_sum_of_bytes(path, tmp_path):
    rotated(path, "080000", "090000", "100000", text="x" * 100)
    archive(path, size=250).tidy()
    assert len(names(tmp_path)) == 2
    archive(path, size=99).tidy()
    assert names(tmp_path) == []


def test_without_retention_nothing_is_deleted(path, tmp_path):
    rotated(path, "080000", "090000")
    archive(path).tidy()
    assert len(names(tmp_path)) == 2


# -- compression ------------------------------------------------------------------


@POSIX
def test_a_rotated_file_is_compressed_with_its_permissions(path, tmp_path):
    (file,) = rotated(path, "080000", text="line\n" * 200_000)
    file.chmod(0o640)
    archive(path, compress=True).tidy()
    (only,) = tmp_path.iterdir()
    assert only.name == "app-20261123T080000.000000Z.jsonl.gz"
    assert gzip.decompress(only.read_bytes()) == b"line\n" * 200_000
    assert stat.S_IMODE(only.stat().st_mode) == 0o640


def test_the_next_start_finishes_what_a_crash_left(path, tmp_path):
    (cut_short,) = rotated(path, "080000", text="kept\n")
    cut_short.with_name(cut_short.name + ".gz.tmp").write_bytes(b"half a file")
    (not_removed,) = rotated(path, "090000", text="kept too\n")
    not_removed.with_name(not_removed.name + ".gz").write_bytes(gzip.compress(b"kept too\n"))
    archive(path, compress=True).tidy()
    assert {file.name: gzip.decompress(file.read_bytes()) for file in tmp_path.iterdir()} == {
        "app-20261123T080000.000000Z.jsonl.gz": b"kept\n",
        "app-20261123T090000.000000Z.jsonl.gz": b"kept too\n",
    }


@POSIX
def test_a_file_another_process_compresses_is_left_to_it(path, tmp_path):
    (file,) = rotated(path, "080000")
    fd = open_file(file)
    assert try_lock(fd)
    partial = file.with_name(file.name + ".gz.tmp")
    partial.write_bytes(b"being written")
    archive(path, compress=True).tidy()
    assert names(tmp_path) == sorted([file.name, partial.name])
    os.close(fd)
    archive(path, compress=True).tidy()
    assert names(tmp_path) == [file.name + ".gz"]


def test_a_full_disk_is_announced_and_still_makes_room(path, tmp_path, monkeypatch, capsys):
    rotated(path, "070000", "080000", "090000")

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip.GzipFile, "write", no_space)
    archive(path, compress=True, count=1).tidy()
    assert names(tmp_path) == ["app-20261123T090000.000000Z.jsonl"]
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_directory_that_is_gone_is_announced_not_raised(tmp_path, capsys):
    archive(tmp_path / "gone" / "app.jsonl", count=1).tidy()
    assert "gone" in capsys.readouterr().err


# -- the thread -------------------------------------------------------------------


def archive_threads():
    return [thread for thread in threading.enumerate() if thread.name == "fapilog-archive"]


def test_files_are_tidied_on_a_thread_that_close_ends(path, tmp_path):
    rotating = archive(path, compress=True)
    rotated(path, "080000")
    rotating.wake()
    rotated(path, "090000")
    rotating.wake()
    (thread,) = archive_threads()
    rotating.close()
    thread.join(30)
    assert archive_threads() == []
    assert all(name.endswith(".gz") for name in names(tmp_path))
    rotating.close()


def test_a_rotation_goes_on_without_a_thread_that_is_refused(path, tmp_path, monkeypatch, capsys):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    rotated(path, "080000")
    rotating = archive(path, compress=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        rotating.wake()
        rotating.close()
    assert "can't start new thread" in capsys.readouterr().err
    rotating.wake()
    rotating.close()
    assert all(name.endswith(".gz") for name in names(tmp_path))


def test_with_nothing_to_do_there_is_no_thread(path):
    rotating = archive(path)
    rotating.wake()
    assert archive_threads() == []
    rotating.close()


def test_without_a_thread_rotated_files_wait_for_the_next_start(path, tmp_path, monkeypatch):
    """Python 3.12 refuses threads at the end of the interpreter."""
    rotated(path, "080000")
    rotating = archive(path, compress=True)

    def refused(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refused)
    rotating.wake()
    rotating.close()
    assert [name.endswith(".gz") for name in names(tmp_path)] == [False]
    monkeypatch.undo()
    following = archive(path, compress=True)
    following.wake()
    following.close()
    assert [name.endswith(".gz") for name in names(tmp_path)] == [True]


def test_close_does_not_wait_for_a_compression_that_takes_too_long(
    path, tmp_path, monkeypatch, capsys
):
    (file,) = rotated(path, "080000")
    monkeypatch.setattr("fapilog.sinks.rotation._CLOSE_WAIT", 0.0)
    writing, may_end = threading.Event(), threading.Event()
    write = gzip.GzipFile.write

    def wait(self, data):
        writing.set()
        assert may_end.wait(30)
        return write(self, data)

    monkeypatch.setattr(gzip.GzipFile, "write", wait)
    rotating = archive(path, compress=True)
    rotating.wake()
    assert writing.wait(30)
    (thread,) = archive_threads()
    rotating.close()
    assert "takes too long; the next start finishes it" in capsys.readouterr().err
    may_end.set()
    thread.join(30)
    assert names(tmp_path) == [file.name + ".gz"]
