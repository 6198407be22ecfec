from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

if sys.platform != "win32":
    import tty

import pytest

from fapilog import diagnostics
from fapilog.diagnostics import announce, describe


def test_an_announcement_in_the_midst_of_another_is_no_deadlock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(dict[str, float]):
        """As if a signal handler ran while the table is looked at."""

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


# ---- a standard error that nobody reads

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
        for size in (4096, 1) * 5:  # a terminal passes on what it has, and has room again
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
