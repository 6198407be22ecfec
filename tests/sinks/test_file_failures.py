import errno
import json
import os
import subprocess
import sys

import pytest

from fapilog.errors import RetryableError
from fapilog.process.files import open_file, try_lock
from tests.support.files import POSIX, bodies, emit, encoded, file_sinks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.jsonl"


@pytest.fixture
def make(path):
    with file_sinks(path) as make_sink:
        yield make_sink


def failing_write(monkeypatch, *answers):
    """Make calls of os.write accept that many bytes, or raise; later calls work."""
    real, left = os.write, list(answers)

    def write(fd, data):
        answer = left.pop(0) if left else None
        if isinstance(answer, int):
            return real(fd, data[:answer])
        if answer is not None:
            raise answer
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_short_writes_are_carried_on(make, path, monkeypatch):
    sink = make()
    failing_write(monkeypatch, 1, 2, 3)
    emit(sink, "one", "two")
    assert bodies(path) == ["one", "two"]


def test_a_full_disk_after_any_byte_leaves_every_line_once(tmp_path, monkeypatch, make):
    batch = encoded(make(), "one", "two", "three")
    size = len(b"".join(batch))
    whole = {body: batch[i].rstrip() for i, body in enumerate(["one", "two", "three"])}
    for cut in range(0, size, 7):
        sink = make(tmp_path / f"{cut}.jsonl")
        with monkeypatch.context() as patched:
            failing_write(patched, cut, FULL)
            with pytest.raises(RetryableError, match="No space left"):
                sink.send(batch, 5.0)
        sink.send(batch, 5.0)
        lines = (tmp_path / f"{cut}.jsonl").read_bytes().splitlines()
        assert [line for line in lines if line in whole.values()] == list(whole.values())
        assert len(lines) <= 4  # and at most one incomplete line


def test_a_line_that_lacks_only_its_newline_is_not_repeated(make, path, monkeypatch):
    sink = make()
    batch = encoded(sink, "one", "two")
    with monkeypatch.context() as patched:
        failing_write(patched, len(b"".join(batch)) - 1, FULL)
        with pytest.raises(RetryableError):
            sink.send(batch, 5.0)
    sink.send(batch, 5.0)
    assert path.read_bytes() == b"".join(batch)


def test_a_batch_given_up_on_does_not_harm_the_next(make, path, monkeypatch):
    sink = make()
    with monkeypatch.context() as patched:
        failing_write(patched, 5, FULL)
        with pytest.raises(RetryableError):
            emit(sink, "given up")
    emit(sink, "next")
    torn, line = path.read_text().splitlines()
    assert len(torn) == 5
    assert json.loads(line)["body"] == "next"


def test_an_otlp_batch_cut_short_is_written_anew(make, path, monkeypatch):
    sink = make(format="otlp")
    batch = encoded(sink, "one", "two")
    with monkeypatch.context() as patched:
        failing_write(patched, 20, FULL)
        with pytest.raises(RetryableError):
            sink.send(batch, 5.0)
    sink.send(batch, 5.0)
    torn, line = path.read_text().splitlines()
    assert len(torn) == 20
    assert len(json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) == 2


@POSIX
def test_a_real_limit_of_the_file_size_is_retryable(path):
    code = (
        "import resource, sys\n"
        "from fapilog.sinks import FileSink\n"
        "from fapilog.record import LogRecord\n"
        "from fapilog.errors import RetryableError\n"
        "sink = FileSink(sys.argv[1])\n"
        "sink.open()\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "batch = [sink.encode(LogRecord(body=n)) for n in range(20)]\n"
        "try: sink.send(batch, 5.0)\n"
        "except RetryableError as error: print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "sink.send(batch, 5.0)\n"
        "sink.close()\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, timeout=60, text=True
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert "File too large" in child.stdout
    lines = path.read_text().splitlines()
    whole = [json.loads(line)["body"] for line in lines if line.endswith("}")]
    assert whole == list(range(20))
    assert len(lines) == 21


@POSIX
def test_a_lock_another_process_keeps_ends_the_attempt(make, path):
    sink = make()
    fd = open_file(path)
    assert try_lock(fd)
    batch = encoded(sink, "one")
    with pytest.raises(RetryableError, match="lock"):
        sink.send(batch, 0.01)
    os.close(fd)
    sink.send(batch, 5.0)
    assert bodies(path) == ["one"]


@POSIX
def test_a_file_system_without_locks_is_written_without(make, path, monkeypatch):
    def unsupported(fd, operation):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    emit(make(), "one")
    assert bodies(path) == ["one"]


@POSIX
def test_a_descriptor_closed_by_someone_else_is_replaced(make, path):
    sink = make()
    emit(sink, "one")
    os.close(sink._fd)
    batch = encoded(sink, "two")
    with pytest.raises(RetryableError):
        sink.send(batch, 5.0)
    sink.send(batch, 5.0)
    assert bodies(path) == ["one", "two"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_lock_of_its_own(make, path):
    sink = make()
    emit(sink, "parent")
    parents = sink._fd
    kept = os.dup(parents)  # the parent's open file, which the parent goes on using
    assert try_lock(kept)
    sink.after_fork()
    batch = encoded(sink, "child")
    with pytest.raises(RetryableError):
        sink.send(batch, 0.01)
    os.close(kept)
    sink.send(batch, 5.0)
    assert bodies(path) == ["parent", "child"]
