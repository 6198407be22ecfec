"""Several processes in one spool directory: adoption, its order, and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fapilog.spool import Spool
from tests.support.spool import (
    FORMAT,
    POSIX,
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

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def leave(directory: Path, started: int, *texts: str, **more: object) -> Path:
    """Return the directory of a process that started at this time and died."""
    spool = Spool("otlp", FORMAT, options(directory, **more), now_ns=lambda: started)
    spool.open()
    put(spool, *texts)
    assert spool.directory is not None
    path = spool.directory
    crash(spool)
    return path


# ---- adoption


def test_orphans_come_oldest_first_and_take_turns_with_own_batches(tmp_path):
    leave(tmp_path, 2000, "b1", "b2")
    leave(tmp_path, 999, "a1", "a2")
    spool = make_spool(tmp_path)
    put(spool, *(f"own{n}" for n in range(6)))
    assert spool.adopt() == 4
    assert (spool.adopted, spool.pending_records, spool.unread_records) == (4, 10, 10)
    frames = read_all(spool)
    assert bodies(frames)[:8] == ["a1", "own0", "a2", "own1", "b1", "own2", "b2", "own3"]
    assert [frame.is_adopted for frame in frames[:4]] == [True, False, True, False]
    for frame in frames:
        spool.ack(frame)
    assert (spool.adopted, spool.pending_records) == (4, 0)
    spool.close()
    assert files(tmp_path) == []


def test_an_adopted_directory_goes_with_its_last_batch(tmp_path):
    path = leave(tmp_path, 1, "a", "b")
    spool = adopt(tmp_path)
    first, second = read_all(spool)
    spool.ack(second)
    assert path.exists()
    spool.ack(first)
    assert not path.exists()
    spool.close()


def test_batches_that_are_not_settled_are_adopted_again(tmp_path):
    leave(tmp_path, 1, "a", "b", "c")
    for left in ("abc", "bc", "c"):
        spool = adopt(tmp_path)
        frames = read_all(spool)
        assert bodies(frames) == list(left)
        spool.ack(frames[0])
        crash(spool)
    spool = adopt(tmp_path)
    assert spool.adopted == 0
    spool.close()


def test_a_living_spool_is_not_adopted_even_in_the_same_process(tmp_path):
    one, two = make_spool(tmp_path), make_spool(tmp_path)
    put(one, "one")
    put(two, "two")
    assert (one.adopt(), two.adopt()) == (0, 0)
    one.close()
    assert two.adopt() == 1
    assert sorted(drain(two)) == ["one", "two"]
    two.close()


def test_another_wire_format_waits_for_its_own_sink(tmp_path, capsys):
    path = leave(tmp_path, 1, "old format")
    before = {file: file.read_bytes() for file in path.iterdir()}
    other = adopt(tmp_path, wire_format="another")
    assert (other.adopted, other.read(), other.adopt()) == (0, None, 0)
    assert "a wire format other than another" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    put(other, "x")
    other.close()
    spool = adopt(tmp_path)
    assert drain(spool) == ["old format"]
    spool.close()


def test_the_wire_format_is_known_without_a_segment_header(tmp_path):
    path = leave(tmp_path, 1, "x")
    (segment,) = segments(path)
    content = bytearray(segment.read_bytes())
    content[0] ^= 0xFF
    segment.write_bytes(content)
    other = adopt(tmp_path, wire_format="another")
    assert other.adopted == 0
    other.close()
    spool = adopt(tmp_path)
    assert drain(spool) == ["x"]
    spool.close()


def test_only_directories_of_the_spool_are_touched(tmp_path):
    make_spool(tmp_path).close()
    for name in ("notes", "1-2-zzzzzzzz", "quarantine", "1700000000000000000-1-0000000g"):
        (tmp_path / "otlp" / name).mkdir()
        (tmp_path / "otlp" / name / "00000001.seg").write_text("mine")
    spool = adopt(tmp_path)
    assert spool.read() is None
    spool.close()
    assert len(segments(tmp_path)) == 4


def test_a_directory_with_other_files_stays(tmp_path):
    path = leave(tmp_path, 1, "x")
    (path / "notes.txt").write_text("mine")
    spool = adopt(tmp_path)
    assert drain(spool) == ["x"]
    assert spool.adopt() == 0
    spool.close()
    assert files(path) == ["cursor", "lock", "notes.txt"]


def test_an_unfinished_directory_is_removed_and_one_that_lost_its_lock_is_read(tmp_path):
    unfinished = tmp_path / "otlp" / "5-1-00000000"
    path = leave(tmp_path, 2, "x")
    unfinished.mkdir()
    (path / "lock").unlink()
    spool = adopt(tmp_path)
    assert drain(spool) == ["x"]
    assert not unfinished.exists()
    assert not path.exists()
    spool.close()


def test_many_orphans_are_adopted_in_the_end(tmp_path):
    for number in range(150):
        leave(tmp_path, number + 1, f"{number}")
    spool = make_spool(tmp_path)
    found = []
    while spool.adopt():
        found += drain(spool)
    assert found == [str(n) for n in range(150)]
    spool.close()
    assert files(tmp_path) == []


HEAD = f"""
import os, sys, time
from pathlib import Path
from fapilog.spool import Spool, SpoolOptions

def make():
    options = SpoolOptions(Path(sys.argv[1]), min_free=0, segment_bytes=4096)
    spool = Spool("otlp", {FORMAT!r}, options)
    spool.open()
    return spool

def put(spool, *texts):
    for text in texts:
        spool.append(text.encode(), [9])

def tell(text):
    os.write(1, (text + "\\n").encode())

def drain(spool):
    while frame := spool.read():
        tell(frame.body.decode())
        spool.ack(frame)

def wait():
    '''Until the test closes standard input.'''
    while os.read(0, 1): pass
"""


def start(directory: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD + textwrap.dedent(script), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


@pytest.fixture
def child(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Yield a living process that has spooled two batches."""
    process = start(tmp_path, 'spool = make(); put(spool, "a", "b"); tell("ready"); wait()')
    with process:
        assert lines(process, 1) == ["ready"]
        yield process
        process.kill()


def test_a_living_process_is_left_alone_and_a_killed_one_adopted(tmp_path, child):
    spool = adopt(tmp_path)
    assert spool.adopted == 0
    child.kill()
    child.wait()
    assert spool.adopt() == 2
    assert drain(spool) == ["a", "b"]
    spool.close()


def test_processes_that_adopt_at_once_return_every_batch_once(tmp_path):
    for number in range(30):
        leave(tmp_path, number + 1, *(f"{number}.{n}" for n in range(5)))
    script = """
    tell("ready"); wait(); spool = make()
    while spool.adopt(): drain(spool)
    spool.close()
    """
    adopters = [start(tmp_path, script) for _ in range(4)]
    for process in adopters:
        assert lines(process, 1) == ["ready"]
    for process in adopters:
        assert process.stdin is not None
        process.stdin.close()
    found = []
    for process in adopters:
        with process:
            assert process.stdout is not None
            found += process.stdout.read().split()
        assert process.returncode == 0
    spool = adopt(tmp_path)  # directories that one process skipped because another one held them
    found += drain(spool)
    spool.close()
    assert sorted(found) == sorted(f"{number}.{n}" for number in range(30) for n in range(5))
    assert files(tmp_path) == []


def test_processes_may_begin_and_end_while_another_adopts(tmp_path):
    writer = start(
        tmp_path,
        """
        for n in range(300):
            spool = make()
            put(spool, f"{n}")
            spool.close()
        """,
    )
    found: list[str] = []
    spool = make_spool(tmp_path)
    with writer:
        while writer.poll() is None:
            spool.adopt()
            found += drain(spool)
    assert writer.returncode == 0
    while spool.adopt():
        found += drain(spool)
    assert sorted(map(int, found)) == list(range(300))
    spool.close()
    assert files(tmp_path) == []


# ---- forks

FORKING = """
spool = make()
spool.adopt()
put(spool, "parent")
pid = os.fork()
if pid == 0:
    spool.after_fork()
    put(spool, "child")
    tell("ready")
    wait()
    os._exit(0)
tell(str(pid))
os.waitpid(pid, 0)
"""


@FORK
def test_a_parent_is_adopted_when_it_dies_though_its_child_lives(tmp_path):
    leave(tmp_path, 1, "adopted by the parent")
    parent = start(tmp_path, FORKING)
    with parent:
        told = lines(parent, 2)
        pid = int(next(word for word in told if word != "ready"))
        spool = adopt(tmp_path)
        assert spool.adopted == 0
        parent.kill()
        parent.wait()
        assert spool.adopt() == 2
        assert drain(spool) == ["adopted by the parent", "parent"]
        os.kill(pid, signal.SIGKILL)
    while not spool.adopt():
        pass  # waits for the kernel to remove it, up to pytest's time limit
    assert drain(spool) == ["child"]
    spool.close()
    assert files(tmp_path) == []


@FORK
def test_a_child_touches_nothing_of_its_parent(tmp_path):
    leave(tmp_path, 1, "adopted")
    spool = adopt(tmp_path)
    frames = put(spool, "a", "b", "c")
    first = spool.read()
    assert first is not None
    own = spool.directory
    assert own is not None
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    copies = [os.dup(fd) for fd in open_files(tmp_path)]  # the parent's descriptors
    spool.after_fork()
    assert (spool.pending_records, spool.unread_records, spool.adopted) == (0, 0, 0)
    assert [spool.directory] == [None]
    for frame in (first, *frames):
        spool.ack(frame)
    assert (spool.read(), spool.adopt()) == (None, 0), "the locks are still the parent's"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    put(spool, "child")
    assert spool.directory not in {own, None}
    assert drain(spool) == ["child"]
    spool.close()
    for fd in copies:
        os.close(fd)
    spool = adopt(tmp_path)
    assert drain(spool) == ["adopted", "a", "b", "c"]
    spool.close()


def open_files(directory: Path) -> list[int]:
    """Return this process's descriptors of files in a directory."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(f"{directory}{os.sep}"):
            found.append(int(name))
    return found


@FORK
@POSIX
def test_a_fork_while_another_thread_syncs_leaves_the_child_working(tmp_path):
    script = """
    import signal, threading
    spool = make()
    def flush():
        while True: spool.flush(); time.sleep(0.001)
    threading.Thread(target=flush, daemon=True).start()
    for n in range(20):
        put(spool, f"parent {n}")
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            spool.after_fork()
            put(spool, f"child {n}")
            spool.flush()
            spool.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    with start(tmp_path, script) as process:
        assert process.wait(100) == 0
    spool = adopt(tmp_path)
    assert sorted(drain(spool)) == sorted(
        f"{who} {n}" for who in ("child", "parent") for n in range(20)
    )
    spool.close()


@POSIX
def test_a_fork_during_an_adoption_keeps_no_lock(tmp_path, monkeypatch):
    leave(tmp_path, 1, "x")
    spool = make_spool(tmp_path)

    def fork_here(found, floor, *, settled):
        spool.after_fork()  # as the child does
        raise OSError("the child ends the adoption here")

    with monkeypatch.context() as patched:
        patched.setattr("fapilog.spool.adopted.scan_in_steps", fork_here)
        spool.adopt()
    assert open_files(tmp_path) == []
    spool.close()


@POSIX
def test_no_descriptor_is_left_open(tmp_path):
    leave(tmp_path, 1, *("x" * 1000 for _ in range(10)))
    assert open_files(tmp_path) == []
    spool = adopt(tmp_path)
    put(spool, *("x" * 1000 for _ in range(20)))
    drain(spool)
    spool.flush()
    assert len(open_files(tmp_path)) <= 4, "directory, lock, cursor, and the segment written to"
    spool.close()
    assert open_files(tmp_path) == []
