import errno
import json
import os
import subprocess
import sys
import time

import pytest

from tests.support.files import POSIX, bodies, emit, encoded, file_sinks, rotated


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.jsonl"


@pytest.fixture
def make(path):
    with file_sinks(path) as make_sink:
        yield make_sink


def test_a_file_rotates_before_it_would_be_too_large(make, path):
    sink = make(max_bytes=1000)
    for number in range(30):
        emit(sink, number)
    files = [*rotated(path), path]
    assert len(files) > 2
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert bodies(*files) == list(range(30))


def test_a_large_batch_is_spread_over_files(make, path):
    sink = make(max_bytes=1000)
    emit(sink, *range(30))
    files = [*rotated(path), path]
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert bodies(*files) == list(range(30))


def test_a_line_longer_than_the_limit_has_a_file_to_itself(make, path):
    sink = make(max_bytes=1000)
    emit(sink, "a", "x" * 5000, "b")
    assert [len(bodies(file)) for file in [*rotated(path), path]] == [1, 1, 1]


def test_a_file_rotates_with_the_first_record_of_a_period(make, path):
    now = time.time() // 3600 * 3600 + 60
    sink = make(rotate_every="hour", clock=lambda: now)
    emit(sink, "this hour")
    os.utime(path, (now, now))
    emit(sink, "this hour too")
    assert rotated(path) == []
    now += 3600
    emit(sink, "next hour")
    emit(sink, "next hour too")
    (first,) = rotated(path)
    assert bodies(first) == ["this hour", "this hour too"]
    assert bodies(path) == ["next hour", "next hour too"]


def test_a_file_of_an_earlier_period_rotates_after_a_restart(make, path):
    path.write_text('{"body":"yesterday"}\n')
    yesterday = time.time() - 86400
    os.utime(path, (yesterday, yesterday))
    emit(make(rotate_every="day"), "today")
    (first,) = rotated(path)
    assert bodies(first) == ["yesterday"]
    assert bodies(path) == ["today"]


def test_rotated_files_are_compressed_and_expire(make, path):
    sink = make(max_bytes=1000, compress="gzip", keep_count=3)
    for number in range(100):
        emit(sink, number)
    sink.close()
    files = rotated(path)
    assert [file.suffix for file in files] == [".gz"] * 3
    kept = bodies(*files, path)
    assert kept == list(range(kept[0], 100))


def test_opening_tidies_what_the_last_run_left(make, path):
    (old := path.with_name("app-20261123T101500.000000Z.jsonl")).write_text('{"body":1}\n')
    make(compress="gzip").close()
    assert not old.exists()
    assert bodies(*rotated(path)) == [1]


def test_files_with_a_common_prefix_are_left_alone(make, tmp_path):
    options = {"max_bytes": 500, "keep_count": 1}
    app, web = make(tmp_path / "app.jsonl", **options), make(tmp_path / "app-web.jsonl")
    emit(web, *range(50))
    other = make(tmp_path / "app-web.jsonl", max_bytes=2000)
    for number in range(10):
        emit(other, number)
    before = rotated(tmp_path / "app-web.jsonl")
    assert before
    for number in range(20):
        emit(app, number)
    app.close()
    assert rotated(tmp_path / "app-web.jsonl") == before
    own = [file for file in rotated(tmp_path / "app.jsonl") if "web" not in file.name]
    assert len(own) == 1


def test_a_rotation_that_fails_is_announced_and_the_file_goes_on(make, path, monkeypatch, capsys):
    sink = make(max_bytes=500)
    emit(sink, "one")

    def refused(self, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "rename", refused)
        for number in range(10):
            emit(sink, number)
    assert rotated(path) == []
    assert bodies(path) == ["one", *range(10)]
    assert capsys.readouterr().err.count("cannot rotate") == 1


WRITER = """
import sys
from fapilog.sinks import FileSink
from fapilog.record import LogRecord
sink = FileSink(sys.argv[1], max_bytes=20_000, compress="gzip")
sink.open()
for start in range(0, 2000, 25):
    bodies = [f"{sys.argv[2]}:{start + n}" for n in range(25)]
    sink.send([sink.encode(LogRecord(body=body)) for body in bodies], 60.0)
sink.close()
"""


@POSIX
def test_processes_that_share_a_rotating_file_lose_and_repeat_nothing(make, path):
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abcd"
    ]
    assert [child.wait(110) for child in children] == [0] * 4
    make(compress="gzip").close()  # compresses the files that the children left
    files = [*rotated(path), path]
    assert len(files) > 20
    assert all(file.suffix == ".gz" for file in files[:-1])
    found = bodies(*files)
    assert sorted(found) == sorted(f"{name}:{n}" for name in "abcd" for n in range(2000))
    for name in "abcd":  # each process's records are in order over all files
        own = [body for body in found if body.startswith(name)]
        assert own == [f"{name}:{n}" for n in range(2000)]


FORKING = """
import os, sys
from fapilog.sinks import FileSink
from fapilog.record import LogRecord
sink = FileSink(sys.argv[1], max_bytes=500, compress="gzip")
sink.open()
def emit(name):
    for n in range(50):
        sink.send([sink.encode(LogRecord(body=f"{name}:{n}"))], 60.0)
    sink.close()
child = os.fork()
if child == 0:
    sink.after_fork()
    emit("child")
    os._exit(0)
emit("parent")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_forked_child_share_the_file(make, path):
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(path)]
    assert subprocess.run(command, timeout=60).returncode == 0
    make(compress="gzip").close()
    files = [*rotated(path), path]
    assert all(file.suffix == ".gz" for file in files[:-1])
    assert sorted(bodies(*files)) == sorted(
        f"{p}:{n}" for p in ("parent", "child") for n in range(50)
    )


ROTATING_AT_EXIT = """
import os, sys, fapilog
from fapilog.sinks import FileSink
fapilog.configure(sinks=[FileSink(sys.argv[1], max_bytes=4000, compress="gzip")])
log = fapilog.get_logger()
child = os.fork()
for n in range(100): log.info(f"{'parent' if child else 'child'}:{n}")
if child:
    fapilog.shutdown()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_rotates_while_it_exits_writes_each_line_once(make, path):
    command = [sys.executable, "-W", "ignore", "-c", ROTATING_AT_EXIT, str(path)]
    assert subprocess.run(command, timeout=60).returncode == 0
    make(compress="gzip").close()
    assert sorted(bodies(*rotated(path), path)) == sorted(
        f"{p}:{n}" for p in ("parent", "child") for n in range(100)
    )


def test_lines_that_are_out_are_not_repeated_after_an_error_of_any_kind(make, path, monkeypatch):
    sink = make(max_bytes=700)
    lines = encoded(sink, *map(str, range(6)))

    def fail():
        monkeypatch.undo()
        raise RuntimeError

    monkeypatch.setattr(sink._archive, "wake", fail)
    with pytest.raises(RuntimeError):
        sink.send(lines, 5.0)
    sink.send(lines, 5.0)
    assert bodies(*rotated(path), path) == [str(n) for n in range(6)]


@POSIX
def test_a_killed_process_leaves_at_most_one_line_cut_short_and_no_lock(make, path):
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER.replace("2000", "10**9"), str(path), "a"]
    )
    while not path.exists() or not rotated(path):
        assert child.poll() is None
    child.kill()
    child.wait(60)
    sink = make(compress="gzip")
    emit(sink, "after")
    sink.close()
    *lines, last = path.read_bytes().splitlines()
    assert json.loads(last)["body"] == "after"
    if lines and not lines[-1].endswith(b"}}"):  # the system ends the write at a page boundary
        *lines, _torn = lines
        path.write_bytes(b"\n".join([*lines, last]))
    found = bodies(*rotated(path), path)
    assert found == [*(f"a:{n}" for n in range(len(found) - 1)), "after"]
