"""SIGKILL at named points and at random moments loses no appended batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.spool import FORMAT, adopt, crash, drain, files, make_spool, put

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")

HEAD = f"""
import os, signal, sys
from pathlib import Path
from fapilog import spool as package
from fapilog.spool import Spool, SpoolOptions
from fapilog.process import files
from fapilog.spool import adopted, cursor, directory, own_store, store

def make():
    options = SpoolOptions(Path(sys.argv[1]), min_free=0, segment_bytes=4096)
    spool = Spool("otlp", {FORMAT!r}, options)
    spool.open()
    return spool

def report(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def at(module, name, count, point):
    '''Make call number ``count`` of a function die: before, after, or halfway.'''
    real, calls = getattr(module, name), []
    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == count and point == "before":
            die()
        if len(calls) == count and point == "half":
            fd, parts = arguments
            data = b"".join(parts)
            os.write(fd, data[:len(data) // 2])
            die()
        result = real(*arguments, **options)
        if len(calls) == count:
            die()
        return result
    setattr(module, name, call)
"""

APPENDING = """
spool = make()
for n in range(100):
    spool.append(b"%0500d" % n, [21 if n % 10 == 5 else 9])
    report("appended", n)
    if n > 30:
        frame = spool.read()
        report("acking", int(frame.body))
        spool.ack(frame)
        report("acked", int(frame.body))
    if n % 10 == 0:
        spool.flush()
"""

POINTS = {
    "before a write": "at(os, 'writev', 5, 'before')",
    "halfway through a write": "at(os, 'writev', 5, 'half')",
    "after a write, before append returns": "at(os, 'writev', 5, 'after')",
    "halfway through a frame after a rotation": "at(os, 'writev', 40, 'half')",
    "halfway through the header of the first segment": "at(os, 'writev', 2, 'half')",
    "after a segment was created, before its header": "at(own_store, 'create_file', 2, 'after')",
    "before a segment is created": "at(own_store, 'create_file', 3, 'before')",
    "before a sync": "at(os, 'fdatasync', 2, 'before')",
    "after a sync": "at(os, 'fdatasync', 3, 'after')",
    "before the first cursor": "at(cursor.Cursor, 'move', 1, 'before')",
    "after a settled batch, before the cursor": "at(cursor.Cursor, 'move', 7, 'before')",
    "halfway through the cursor": """
real, calls = files.SyncedFile.write_at, []
def write_at(file, offset, data):
    calls.append(1)
    if len(calls) == 5:
        real(file, offset, data[:9])
        die()
    real(file, offset, data)
files.SyncedFile.write_at = write_at
""",
    "after the cursor": "at(cursor.Cursor, 'move', 7, 'after')",
    "before a segment is deleted": "at(store.Store, '_delete', 2, 'before')",
    "after a segment was deleted": "at(store.Store, '_delete', 2, 'after')",
    "after the directory was made, before its lock": "at(Path, 'mkdir', 3, 'after')",
    "after the lock was made, before it is locked": "at(directory, 'try_lock', 2, 'before')",
    "before the directory has a cursor": "at(cursor, 'create_file', 1, 'before')",
}


def run(directory: Path, script: str) -> dict[str, list[int]]:
    """Run a script until SIGKILL; return its reported numbers by the first word of the line."""
    child = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(script), str(directory)],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    reported: dict[str, list[int]] = {"appended": [], "acking": [], "acked": []}
    for line in child.stdout.decode().splitlines():
        word, number = line.split()
        reported[word].append(int(number))
    return reported


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_this_point_nothing_appended_is_lost(tmp_path, point):
    reported = run(tmp_path, POINTS[point] + APPENDING)
    spool = adopt(tmp_path)
    found = [int(body) for body in drain(spool)]
    # The process may have been killed between an action and its report.
    last = len(reported["appended"])
    first = len(reported["acked"])
    assert found in (
        list(range(begin, end))
        for begin in {first, len(reported["acking"])}
        for end in (last, last + 1)
    )
    assert (spool.corrupt.frames, spool.corrupt.segments) == (0, 0)
    spool.close()
    assert files(tmp_path) == []


ADOPTING = """
spool = make()
found = spool.adopt()
while frame := spool.read():
    report("acking", int(frame.body))
    spool.ack(frame)
    report("acked", int(frame.body))
"""

ADOPTION_POINTS = {
    "before a directory is locked": "at(directory, 'try_lock', 3, 'before')",
    "after it is locked": "at(adopted, 'claim', 2, 'after')",
    "while segments are looked at": "at(adopted, 'scan_in_steps', 3, 'before')",
    "before the first cursor": "at(cursor.Cursor, 'move', 1, 'before')",
    "after a segment was deleted": "at(store.Store, '_delete', 1, 'after')",
    "before the cursor is deleted": "at(directory.ProcessDirectory, 'remove', 2, 'before')",
    "after the lock was deleted": "at(Path, 'rmdir', 2, 'before')",
    "after the directory was removed": "at(Path, 'rmdir', 2, 'after')",
    "when all is done": "import atexit; atexit.register(die)",
}


@pytest.mark.parametrize("point", ADOPTION_POINTS)
def test_killed_while_adopting_nothing_is_lost(tmp_path, point):
    for start in (0, 100):
        spool = make_spool(tmp_path)
        put(spool, *(f"{n:0500}" for n in range(start, start + 20)))
        crash(spool)
    reported = run(tmp_path, ADOPTION_POINTS[point] + ADOPTING)
    spool = adopt(tmp_path)
    found = [int(body) for body in drain(spool)]
    everything = [*range(20), *range(100, 120)]
    assert found == [n for n in everything if n in found], "not in order"
    missing = set(everything) - set(found)
    assert set(reported["acked"]) <= missing <= set(reported["acking"])
    assert (spool.corrupt.frames, spool.corrupt.segments) == (0, 0)
    spool.close()
    assert files(tmp_path) == []


LIVES = 300

# A fork is cheaper than an interpreter: this process forks and kills the children,
# and collects their reports.
KILLER = """
import json, random, select, time

def live(pipe, life):
    os.dup2(pipe, 1)
    spool = make()
    spool.adopt()
    number = 0
    while True:
        for _ in range(random.randint(1, 4)):
            name = life * 1_000_000 + number
            spool.append(b"%0*d" % (random.choice((10, 100, 3000)), name), [9])
            report("+", name)
            number += 1
        for _ in range(random.randint(0, 5)):
            if frame := spool.read():
                if random.random() < 0.9:
                    report("-", int(frame.body))
                    spool.ack(frame)
        if random.random() < 0.1:
            spool.sync()
        if random.random() < 0.1:
            spool.adopt()

appended, settled = [], []
for life in range(int(sys.argv[2])):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        random.seed(life)
        os.close(reading)
        live(writing, life)
    os.close(writing)
    if life % 3:  # two children of three report at least once, on a busy machine as well
        select.select([reading], [], [], 5)
    time.sleep(random.uniform(0, 0.05) if life % 2 else 0.002)
    # Read during the wait, or the child would wait for room in the pipe.
    reported = b""
    until = time.monotonic() + random.uniform(0, 0.03)
    while (left := until - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            reported += os.read(reading, 1 << 16)
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 1 << 16):
        reported += more
    os.close(reading)
    os.waitpid(child, 0)
    for line in reported.splitlines():
        (appended if line[:1] == b"+" else settled).append(int(line[2:]))
print(json.dumps([appended, settled]))
"""


@pytest.mark.slow
def test_killed_at_300_random_moments_nothing_appended_is_lost(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", HEAD + KILLER, str(tmp_path), str(LIVES)],
        stdout=subprocess.PIPE,
        timeout=110,
        check=True,
    )
    appended, settled = map(set, json.loads(child.stdout))
    assert len(appended) > LIVES
    spool = adopt(tmp_path)
    found = []
    while spool.unread_records or spool.adopt():
        found += [int(body) for body in drain(spool)]
    assert appended - settled - set(found) == set()
    assert len(found) == len(set(found)), "one process returns a batch once"
    by_life: dict[int, list[int]] = {}
    for name in found:
        by_life.setdefault(name // 1_000_000, []).append(name)
    assert all(names == sorted(names) for names in by_life.values()), "first in, first out"
    assert (spool.corrupt.frames, spool.corrupt.segments) == (0, 0)
    spool.close()
    assert files(tmp_path) == []
