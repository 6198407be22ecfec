import errno
import io
import json
import logging
import os
import re
import struct
import subprocess
import sys
import threading

import pytest

if sys.platform != "win32":
    import fcntl
    import termios

from fapilog import Runtime
from fapilog.errors import ConfigurationError, PermanentError, RetryableError
from fapilog.record import LogRecord, Scope
from fapilog.sinks import console
from fapilog.sinks.console import ConsoleSink
from tests.support.records import TIME

COLOUR = re.compile("\x1b\\[[0-9;]*m")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs pipes and terminals of POSIX")
DEV_FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture(autouse=True)
def neutral_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def record(body="order placed", severity=9, scope="shop.orders", **attributes):
    attributes = {name.replace("__", "."): value for name, value in attributes.items()}
    return LogRecord(TIME, TIME, severity, "", body, attributes, scope=Scope(scope))


def emit(sink, *records, timeout=5.0):
    sink.send([sink.encode(one) for one in records], timeout)


def bodies(output):
    return [json.loads(line)["body"] for line in output.splitlines()]


class Pipe:
    """A pipe: its reading end is a descriptor, its writing end a text stream."""

    def __init__(self, blocking=True):
        self.fd, write_fd = os.pipe()
        os.set_blocking(write_fd, blocking)
        self.stream = os.fdopen(write_fd, "w", encoding="utf-8")

    def read_all(self):
        chunks = []
        while chunk := os.read(self.fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks)

    def drain(self):
        """Read the bytes that are in the pipe now."""
        os.set_blocking(self.fd, False)
        chunks = []
        try:
            while chunk := os.read(self.fd, 65536):
                chunks.append(chunk)
        except BlockingIOError:
            pass
        return b"".join(chunks)

    def close(self):
        os.close(self.fd)
        self.stream.close()


@pytest.fixture
def pipe():
    if os.name != "posix":
        pytest.skip("needs pipes of POSIX")
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def terminal():
    """Yield a terminal as a text stream, and a function that reads its output."""
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as file:
        yield file, lambda: os.read(master, 65536).decode().replace("\r\n", "\n")
    os.close(master)


# -- streams --------------------------------------------------------------------


def test_records_go_to_standard_output_as_json_by_default(capsys):
    sink = ConsoleSink()
    sink.open()
    emit(sink, record("one"), record("two"))
    captured = capsys.readouterr()
    assert bodies(captured.out) == ["one", "two"]
    assert captured.err == ""


def test_a_stream_by_name_is_looked_up_at_every_use(capsys, monkeypatch):
    sink = ConsoleSink("stderr")
    emit(sink, record("before"))
    elsewhere = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", elsewhere)
        emit(sink, record("redirected"))
    emit(sink, record("after"))
    assert bodies(capsys.readouterr().err) == ["before", "after"]
    assert bodies(elsewhere.getvalue()) == ["redirected"]


def test_text_binary_and_file_streams_are_written_to(tmp_path):
    text, binary = io.StringIO(), io.BytesIO()
    with (
        (tmp_path / "text").open("w", encoding="utf-8") as text_file,
        (tmp_path / "raw").open("wb") as binary_file,
    ):
        for target in (text, binary, text_file, binary_file):
            emit(ConsoleSink(target), record("é"))
        lines = {
            text.getvalue().encode(),
            binary.getvalue(),
            (tmp_path / "text").read_bytes(),
            (tmp_path / "raw").read_bytes(),
        }
    assert len(lines) == 1
    assert bodies(lines.pop()) == ["é"]


def test_an_object_that_only_has_write_is_a_text_stream():
    class Collector:
        def __init__(self):
            self.written = []

        def write(self, text):
            self.written.append(text)

    collector = Collector()
    emit(ConsoleSink(collector), record("one"), record("two"))
    assert bodies("".join(collector.written)) == ["one", "two"]
    assert len(collector.written) == 1  # one write per batch


def test_a_batch_comes_after_what_was_printed_before(pipe):
    print("printed", file=pipe.stream)
    emit(ConsoleSink(pipe.stream), record())
    assert pipe.drain().startswith(b"printed\n{")


def test_the_stream_stays_open_after_close(pipe):
    sink = ConsoleSink(pipe.stream)
    emit(sink, record())
    sink.close()
    print("still here", file=pipe.stream, flush=True)
    assert pipe.drain().endswith(b"still here\n")


def test_a_sink_goes_on_after_a_fork(pipe):
    sink = ConsoleSink(pipe.stream)
    emit(sink, record("parent"))
    sink.after_fork()
    emit(sink, record("child"))
    assert bodies(pipe.drain()) == ["parent", "child"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stream": "stdlog"}, "stream"),
        ({"stream": 3}, "stream"),
        ({"format": "xml"}, "format"),
        ({"color": "yes"}, "color"),
        ({"tracebacks": "long"}, "tracebacks"),
        ({"names": "body=message"}, "names"),
        ({"resource": "no"}, "resource"),
    ],
)
def test_a_wrong_option_is_named_with_the_fix(options, named):
    with pytest.raises(ConfigurationError, match=rf"{named}=.*: use "):
        ConsoleSink(**options).open()


# -- failures -------------------------------------------------------------------


@POSIX
def test_a_reader_that_is_gone_is_permanent():
    pipe = Pipe()
    os.close(pipe.fd)
    with pytest.raises(PermanentError, match="Broken pipe"):
        emit(ConsoleSink(pipe.stream), record())
    pipe.stream.close()


def test_a_closed_stream_is_permanent():
    file = io.StringIO()
    sink = ConsoleSink(file)
    file.close()
    with pytest.raises(PermanentError, match="closed"):
        emit(sink, record())


def test_a_stream_open_for_reading_only_is_permanent(tmp_path):
    (tmp_path / "in").write_text("")
    with (tmp_path / "in").open() as file, pytest.raises(PermanentError):
        emit(ConsoleSink(file), record())


def test_a_process_without_the_stream_is_permanent(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(PermanentError, match="does not have this stream"):
        emit(ConsoleSink(), record())


def test_records_that_a_given_stream_would_log_are_refused_and_counted(caplog):
    class Logs:
        def write(self, text):
            logging.getLogger("redirected").warning(text)

    runtime = Runtime(sinks=[ConsoleSink(Logs())])
    runtime.get_logger("app").info("order placed")
    runtime.shutdown()
    assert runtime.stats().rejected == 1
    assert caplog.records == []


def test_whatever_a_file_object_raises_becomes_a_send_error():
    class Broken:
        def write(self, text):
            raise RuntimeError("out of ink")

    with pytest.raises(PermanentError, match="out of ink"):
        emit(ConsoleSink(Broken()), record())


@DEV_FULL
def test_a_full_disk_is_retryable_and_nothing_is_left_in_the_streams_buffer():
    with open("/dev/full", "w") as full:
        sink = ConsoleSink(full)
        with pytest.raises(RetryableError, match="No space left"):
            emit(sink, record())
        full.flush()  # would raise if the line were still in the buffer


@POSIX
@pytest.mark.parametrize(("blocking", "size"), [(True, 900), (False, 900), (False, 9000)])
def test_a_reader_that_does_not_read_ends_the_attempt_and_a_retry_goes_on(blocking, size):
    pipe = Pipe(blocking)
    sink = ConsoleSink(pipe.stream)
    batch = [sink.encode(record(f"{n} {'x' * size}")) for n in range(200)]
    received = b""
    attempts = 0
    while True:
        attempts += 1
        try:
            sink.send(batch, 0.01)
            break
        except RetryableError:
            received += pipe.drain()
    received += pipe.drain()
    assert attempts > 1
    assert received == b"".join(batch)  # every line once and complete
    pipe.close()


@POSIX
def test_a_line_cut_short_is_finished_even_if_its_batch_is_given_up():
    pipe = Pipe(blocking=False)
    sink = ConsoleSink(pipe.stream)
    with pytest.raises(RetryableError):
        emit(sink, record("x" * 200_000), timeout=0.01)
    received = pipe.drain()
    assert received
    emptied = threading.Event()

    def read_on():
        nonlocal received
        while not emptied.is_set():
            received += pipe.drain()

    reader = threading.Thread(target=read_on)
    reader.start()
    emit(sink, record("next"))
    emptied.set()
    reader.join()
    received += pipe.drain()
    assert bodies(received) == ["x" * 200_000, "next"]
    pipe.close()


class ShortWriter(io.RawIOBase):
    """Accepts a few bytes per call, and fails on request."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)
        self.taken = b""

    def writable(self):
        return True

    def write(self, data):
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return None
        taken = bytes(data[:answer])
        self.taken += taken
        return len(taken)


def test_short_writes_are_carried_on():
    writer = ShortWriter(1, 2, 3)
    sink = ConsoleSink(writer)
    emit(sink, record("one"), record("two"))
    assert bodies(writer.taken) == ["one", "two"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), None], ids=["full", "no room"])
def test_a_failure_after_any_byte_leaves_no_line_torn_or_doubled(failure):
    sink = ConsoleSink(io.StringIO())
    batch = [sink.encode(record(text)) for text in ("one", "two", "three")]
    for cut in range(len(b"".join(batch)) - 5):
        writer = ShortWriter(cut, failure, 5, failure)
        sink = ConsoleSink(writer)
        for _ in range(2):
            with pytest.raises(RetryableError):
                sink.send(batch, 1.0)
        sink.send(batch, 1.0)
        assert bodies(writer.taken) == ["one", "two", "three"]


@POSIX
def test_a_broken_pipe_at_exit_leaves_the_program_as_it_was(tmp_path):
    code = (
        "import sys\n"
        "from fapilog.sinks import ConsoleSink\n"
        "from fapilog.record import LogRecord\n"
        "from fapilog.errors import PermanentError\n"
        "sink = ConsoleSink()\n"
        "sys.stdin.read()\n"
        "try: sink.send([sink.encode(LogRecord(body='x'))], 1.0)\n"
        "except PermanentError: sys.exit(7)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for end in (child.stdout, child.stdin):
        assert end is not None
        end.close()
    child.stdin = child.stdout = None  # communicate() would use them
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 7
    assert errors == b""


@POSIX
def test_lines_of_processes_that_share_a_pipe_are_never_mixed():
    code = (
        "import select, sys\n"
        "from fapilog.sinks import ConsoleSink\n"
        "from fapilog.record import LogRecord\n"
        "sink = ConsoleSink()\n"
        "longest = select.PIPE_BUF - 250\n"
        "for start in range(0, 400, 40):\n"
        "    records = [LogRecord(body=f'{sys.argv[1]}:{start + n}:' + 'x' * (n * longest // 40))\n"
        "               for n in range(40)]\n"
        "    sink.send([sink.encode(one) for one in records], 60.0)\n"
    )
    read_fd, write_fd = os.pipe()
    children = [
        subprocess.Popen([sys.executable, "-c", code, name], stdout=write_fd) for name in "abc"
    ]
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as reader:
        lines = reader.read().splitlines()
    assert [child.wait(60) for child in children] == [0, 0, 0]
    seen = [tuple(json.loads(line)["body"].split(":")[:2]) for line in lines]
    assert sorted(seen) == sorted((name, str(n)) for name in "abc" for n in range(400))


# -- encodings ------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "shift_jis", "utf-16-le", "cp037"])
def test_json_says_the_same_in_every_encoding(tmp_path, encoding):
    with (tmp_path / "out").open("w", encoding=encoding) as file:
        emit(ConsoleSink(file, format="json"), record("é 日本 👍", name="ünï"))
    line = json.loads((tmp_path / "out").read_text(encoding))
    assert line["body"] == "é 日本 👍"
    assert line["attributes"] == {"name": "ünï"}


def test_what_an_encoding_lacks_is_escaped_on_a_terminal(tmp_path):
    with (tmp_path / "out").open("w", encoding="latin-1") as file:
        emit(ConsoleSink(file, format="pretty"), record("é 日\nbelow"))
    text = (tmp_path / "out").read_text("latin-1")
    assert "  é \\u65e5 " in text
    assert text.endswith("\n    | below\n")


def test_a_stream_with_an_encoding_of_its_own_gets_utf_8():
    class Odd(io.StringIO):
        encoding = "no such encoding"

    odd = Odd()
    emit(ConsoleSink(odd), record("é"))
    assert bodies(odd.getvalue()) == ["é"]


# -- terminals ------------------------------------------------------------------


@POSIX
def test_a_terminal_gets_readable_lines_with_colours(terminal):
    file, shown = terminal
    emit(ConsoleSink(file), record(order__id=1234))
    text = shown()
    assert "\x1b[32mINFO \x1b[0m" in text
    assert COLOUR.sub("", text).endswith(
        "  INFO   order placed                      order.id=1234 shop.orders\n"
    )


@POSIX
@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_the_environment_decides_on_colours(terminal, monkeypatch, environment, is_coloured):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file, shown = terminal
    emit(ConsoleSink(file), record())
    assert ("\x1b[" in shown()) is is_coloured


def test_force_color_colours_what_is_no_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    plain, coloured = io.StringIO(), io.StringIO()
    emit(ConsoleSink(plain, format="auto"), record())
    emit(ConsoleSink(coloured, format="pretty"), record())
    assert bodies(plain.getvalue()) == ["order placed"]
    assert "\x1b[" in coloured.getvalue()


def test_the_colour_option_goes_over_the_environment(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    coloured, plain = io.StringIO(), io.StringIO()
    emit(ConsoleSink(coloured, format="pretty", color=True), record())
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR")
    emit(ConsoleSink(plain, format="pretty", color=False), record())
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[" not in plain.getvalue()


@POSIX
def test_lines_are_broken_at_the_terminals_present_width(terminal, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    file, shown = terminal
    sink = ConsoleSink(file, color=False)
    text = "a message of several words that does not fit into sixty columns"

    def resize(columns):
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(file.fileno(), termios.TIOCSWINSZ, size)

    resize(60)
    emit(sink, record(text, order=1234))
    narrow = shown().splitlines()
    resize(200)
    emit(sink, record(text, order=1234))
    wide = shown().splitlines()
    monkeypatch.setenv("COLUMNS", "60")
    emit(sink, record(text, order=1235))
    assert [len(line) <= 60 for line in narrow] == [True, True]
    assert len(wide) == 1
    assert len(shown().splitlines()) == 2


@POSIX
def test_a_terminal_can_have_json(terminal):
    file, shown = terminal
    emit(ConsoleSink(file, format="json"), record())
    assert bodies(shown()) == ["order placed"]


@POSIX
def test_a_terminal_that_hung_up_is_permanent():
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as file:
        sink = ConsoleSink(file)
        line = sink.encode(record())
        os.close(master)
        with pytest.raises(PermanentError):
            sink.send([line], 1.0)


@POSIX
def test_pipes_are_written_in_portions_no_other_process_can_split(monkeypatch, pipe):
    monkeypatch.setattr(console, "_PIPE_BUF", 512)
    sizes = []

    class Spy(console.OutputStream):
        def _write(self, data):
            sizes.append(len(data))
            super()._write(data)

    output = Spy(pipe.stream)
    lines = [b"x" * 199 + b"\n"] * 5
    output.write_lines(lines, 1.0)
    assert [size for size in sizes if size] == [400, 400, 200]
    assert pipe.drain() == b"".join(lines)
