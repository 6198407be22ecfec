from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

if sys.platform != "win32":
    import termios
    import tty

import pytest

from fapilog import diagnostics
from fapilog.diagnostics import announce, announce_suppressed, describe
from tests.faults.processes import full_pipe
from tests.support.ports import free_port
from tests.support.processes import environment, receiving


def test_an_announcement_in_the_midst_of_another_is_no_deadlock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(dict[str, float]):
        """Announce again while the table is read, as a signal handler might."""

        def get(self, key: str, default: float = 0.0) -> float:  # type: ignore[override]
            if key == "outer":
                announce("inner", "from a signal handler")
            return super().get(key, default)

    monkeypatch.setattr(diagnostics, "_last", Interrupted())
    thread = threading.Thread(target=announce, args=("outer", "interrupted"), daemon=True)
    thread.start()
    thread.join(10)
    assert capsys.readouterr().err.splitlines() == [
        "fapilog: from a signal handler",
        "fapilog: interrupted",
    ]


def test_a_stderr_that_fails_in_its_own_way_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def write(self, _text: str) -> int:
            raise LookupError

    monkeypatch.setattr(sys, "stderr", Broken())
    announce("subject", "lost")


def test_subjects_are_remembered_up_to_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2 * diagnostics._MAX_SUBJECTS):
        announce(f"subject {number}", "x")
    assert len(capsys.readouterr().err.splitlines()) == diagnostics._MAX_SUBJECTS
    assert len(diagnostics._last) + len(diagnostics._muted) == diagnostics._MAX_SUBJECTS


def test_an_error_is_described_whatever_its_own_code_does() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(SilentError()) == "SilentError"
    assert describe(OSError()) == "OSError"
    assert describe(OSError("disk full")) == "OSError: disk full"


# ---- standard error that nobody reads

ANNOUNCE = """
import sys
from fapilog import diagnostics
for number in range(5):
    diagnostics.announce(f"subject {number}", "lost " + "x" * 900)
print(diagnostics._unwritten, flush=True)
sys.stdin.readline()
diagnostics.announce("read", "somebody reads now")
print(diagnostics._unwritten)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes and terminals")
@pytest.mark.parametrize("make", ["pipe", "terminal", "socket"])
def test_an_announcement_does_not_wait_for_whoever_reads(make: str) -> None:
    if make == "terminal":
        reader, writer = os.openpty()
        tty.setraw(writer)
    elif make == "socket":
        ours, theirs = socket.socketpair()
        reader, writer = ours.detach(), theirs.detach()
    else:
        reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        for size in (4096, 1) * 5:  # a terminal that passes its output on has room again
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"-" * size)
            time.sleep(0.02)
        os.set_blocking(writer, True)
        with subprocess.Popen(
            [sys.executable, "-c", ANNOUNCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
        ) as child:
            assert child.stdin
            assert child.stdout
            watchdog = threading.Timer(30, child.kill)
            watchdog.start()
            try:
                assert child.stdout.readline() == "5\n"
                os.set_blocking(reader, False)
                with contextlib.suppress(BlockingIOError):
                    while os.read(reader, 65_536):
                        pass
                child.stdin.write("\n")
                child.stdin.flush()
                assert child.stdout.readline() == "0\n"
                seen = os.read(reader, 65_536).decode()
            finally:
                watchdog.cancel()
                child.kill()
    finally:
        os.close(reader)
        os.close(writer)
    assert seen.lstrip("-") == (
        "fapilog: somebody reads now (5 earlier lines were dropped: nobody read standard error)\n"
    )


def test_a_stderr_whose_write_announces_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class Logging:
        def write(self, text: str) -> int:
            written.append(text)
            announce("nested", "from write()")
            return len(text)

        def flush(self) -> None:
            announce("nested too", "from flush()")

    monkeypatch.setattr(sys, "stderr", Logging())
    announce("outer", "once")
    assert written == ["fapilog: once\n"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX pipe")
def test_a_long_announcement_is_one_line_that_a_pipe_takes_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "w", encoding="utf-8") as write:
        monkeypatch.setattr(sys, "stderr", write)
        announce("long", "\N{GRINNING FACE}" * 2000)
        line = os.read(read.fileno(), 65_536)
    assert len(line) <= 4096
    assert line.decode().startswith("fapilog: \N{GRINNING FACE}")
    assert line.endswith(b"\n")


# ---- counts, and objects that replace standard error


def test_lines_written_at_one_moment_say_once_how_many_were_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = threading.Barrier(2)
    lines = []

    def write(line: str) -> bool:
        both.wait(10)
        lines.append(line)
        return True

    monkeypatch.setattr(diagnostics, "_unwritten", 3)
    monkeypatch.setattr(diagnostics, "_write", write)
    threads = [threading.Thread(target=announce, args=(f"{n}", "x")) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum("3 earlier lines were dropped" in line for line in lines) == 1
    assert diagnostics._unwritten == 0


def test_a_dropped_line_hands_its_count_of_held_lines_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    lines: list[str] = []
    monkeypatch.setattr(diagnostics, "monotonic", lambda: now)
    monkeypatch.setattr(diagnostics, "_write", lambda _line: True)
    for _ in range(8):
        announce("subject", "first")
    now += 31
    monkeypatch.setattr(diagnostics, "_write", lambda _line: False)
    announce("subject", "dropped")
    now += 31

    def write(line: str) -> bool:
        lines.append(line)
        return True

    monkeypatch.setattr(diagnostics, "_write", write)
    announce("subject", "last")
    (line,) = lines
    assert "(7 more like this since)" in line
    assert "(1 earlier lines were dropped" in line


def test_an_object_whose_fileno_is_none_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement for standard error like that of Celery."""
    written: list[str] = []

    class Proxy:
        def fileno(self) -> None:
            return None

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Proxy())
    announce("subject", "through the proxy")
    assert written == ["fapilog: through the proxy\n"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX descriptors")
@pytest.mark.parametrize("make", ["pipe", "terminal", "socket"])
def test_the_descriptor_that_processes_share_stays_a_blocking_one(
    make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if make == "socket":
        ours, theirs = socket.socketpair()
        reader, writer = ours.detach(), theirs.detach()
    else:
        reader, writer = os.openpty() if make == "terminal" else os.pipe()
    socket.setdefaulttimeout(5.0)  # makes each new socket object non-blocking
    try:
        with open(writer, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            announce("subject", "shared")
            assert os.get_blocking(writer)
            assert b"fapilog: shared" in os.read(reader, 4096)
    finally:
        socket.setdefaulttimeout(None)
        os.close(reader)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_a_stopped_terminal_stops_no_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the terminal's output, as Ctrl-S does."""
    reader, writer = os.openpty()
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        termios.tcflow(writer, termios.TCOOFF)
        thread = threading.Thread(target=announce, args=("subject", "stopped"), daemon=True)
        thread.start()
        thread.join(10)
        is_stuck = thread.is_alive()
        termios.tcflow(writer, termios.TCOON)
    os.close(reader)
    assert not is_stuck
    assert diagnostics._unwritten == 1


# ---- an application whose standard error nobody reads

LOGS = """
import json, signal, sys, time
import fapilog
from fapilog import diagnostics
from fapilog.sinks import OTLPSink

ending, healthy, dead = sys.argv[1:]
fapilog.configure(
    sinks=[OTLPSink(healthy, name="healthy"), OTLPSink(dead, name="dead")],
    shutdown_timeout=2.0, retry_initial=0.1,
)
log = fapilog.get_logger("script")
longest, n = 0.0, 0
until = time.monotonic() + 30
while n < 200 or (not diagnostics._unwritten and time.monotonic() < until):
    began = time.monotonic()
    log.info(f"line {n}")
    longest = max(longest, time.monotonic() - began)
    n += 1
    time.sleep(0.005)
print(json.dumps({"count": n, "longest": longest, "unwritten": diagnostics._unwritten}), flush=True)
if ending == "shutdown":
    fapilog.shutdown(2.0)
elif ending == "SIGTERM":
    # Short ones: a signal that comes just before a blocking call is handled after it.
    for _ in range(600): time.sleep(0.1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes and signals")
@pytest.mark.parametrize("ending", ["shutdown", "exit", "SIGTERM"])
def test_an_application_whose_stderr_nobody_reads_logs_delivers_and_ends(ending: str) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with receiving() as ids, full_pipe() as writer:
        command = [sys.executable, "-c", LOGS, ending, ids.url, dead]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=writer, text=True, env=environment()
        ) as child:
            assert child.stdout
            watchdog = threading.Timer(90, child.kill)
            watchdog.start()
            try:
                told = json.loads(child.stdout.readline())
                began = time.monotonic()
                if ending == "SIGTERM":
                    child.send_signal(signal.SIGTERM)
                code = child.wait()
                took = time.monotonic() - began
            finally:
                watchdog.cancel()
                child.kill()
        ids.assert_each_once(f"line {n}" for n in range(told["count"]))
    assert code == (-signal.SIGTERM if ending == "SIGTERM" else 0)
    assert told["unwritten"] > 0  # an announcement was made and did not wait
    assert told["longest"] < 5
    assert took < 30


# ---- notebooks


class NotebookError(io.StringIO):
    """The ``sys.stderr`` of a notebook's kernel, whose descriptor leads to the server's log."""

    __module__ = "ipykernel.iostream"

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation
        return self._descriptor

    def flush(self) -> None:
        raise AssertionError("a flush may wait for ten seconds")


def test_a_notebook_shows_an_announcement_below_the_cell_and_in_the_log_of_its_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    with log.open("w") as file:
        stream = NotebookError(file.fileno())
        monkeypatch.setattr(sys, "stderr", stream)
        announce("subject", "records are lost")
    assert stream.getvalue() == "fapilog: records are lost\n"
    assert log.read_text() == ("" if sys.platform == "win32" else stream.getvalue())


def test_a_notebook_without_a_descriptor_shows_an_announcement_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = NotebookError(None)
    monkeypatch.setattr(sys, "stderr", stream)
    announce("subject", "records are lost")
    assert stream.getvalue() == "fapilog: records are lost\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no descriptor to write to")
def test_the_log_of_the_server_has_the_announcements_of_a_kernels_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    with log.open("w") as file:
        stream = NotebookError(file.fileno())
        stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        announce("subject", "records are lost")
    assert log.read_text() == "fapilog: records are lost\n"


def test_the_end_of_the_process_writes_what_was_suppressed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(25):
        announce(f"subject {number}", f"{number} records lost", count=7)
        for _ in range(number):
            announce(f"subject {number}", lambda: "is not called", count=2)
    capsys.readouterr()
    announce_suppressed()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "fapilog: 24 records lost (48 more like this since)"
    announce_suppressed()
    assert capsys.readouterr().err == ""


LOSES = """
import sys, fapilog
fapilog.configure(sinks="console")
log = fapilog.get_logger("job")
log.info("first")
fapilog.flush(30)
sys.stdin.readline()
for n in range(50):
    log.info("row", n=n)
    fapilog.flush(30)
print(fapilog.stats().rejected, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")
def test_a_program_whose_output_nobody_reads_says_how_many_records_are_lost() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOSES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        child.stdout.readline()
        child.stdout.close()
        child.stdin.write("\n")
        child.stdin.close()
        first, rejected, last = child.stderr.read().splitlines()
        child.wait(60)
    assert first.startswith("fapilog: console: 1 records lost: ")
    assert last == f"{first} ({int(rejected) - 1} more like this since)"
    assert int(rejected) == 50
