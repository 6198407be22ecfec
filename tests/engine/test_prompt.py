"""A log call whose record a person reads returns after the console has written it."""

from __future__ import annotations

import contextvars
import io
import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest

from fapilog import Runtime, native
from fapilog.engine.prompt import Prompt
from fapilog.protocols import BatchLimits
from fapilog.sinks import ConsoleSink, MemorySink
from tests.support.processes import environment

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs terminals of POSIX")

PROGRAM = """
import asyncio, logging, threading
import fapilog
fapilog.configure(sinks="console")
fapilog.install_stdlib()
log = fapilog.get_logger("app")

async def in_a_loop():
    log.info("line", n=4)
    print("print 5")
    await fapilog.get_async_logger("app").info("line", n=6)
    print("print 7")

log.info("line", n=0)
print("print 1")
logging.getLogger("other").warning("line", extra={"n": 2})
print("print 3")
asyncio.run(in_a_loop())
thread = threading.Thread(target=log.info, args=("line",), kwargs={"n": 8})
thread.start()
thread.join()
print("print 9")
"""


def lines_on_a_terminal(program: str) -> list[str]:
    master, slave = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=slave,
        env={**environment(), "NO_COLOR": "1"},
    )
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:
        pass  # the child has ended
    os.close(master)
    assert child.wait(60) == 0
    return shown.decode().split("\r\n")[:-1]


@POSIX
def test_print_and_log_alternate_on_a_terminal_as_the_program_does() -> None:
    lines = lines_on_a_terminal(PROGRAM)
    numbers = [line.partition("n=")[2][:1] or line[-1] for line in lines]
    assert numbers == list("0123456789")


class NotebookOutput(io.StringIO):
    """The standard output of a notebook: each text belongs to the cell of its context."""

    __module__ = "ipykernel.iostream"

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    def write(self, text: str) -> int:
        self.cells.append(cell.get())
        return super().write(text)


cell = contextvars.ContextVar("cell", default="none")


def test_a_notebook_shows_a_record_below_the_cell_that_logged_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = NotebookOutput()
    monkeypatch.setattr(sys, "stdout", output)
    with Runtime(sinks="console") as runtime:
        log = runtime.get_logger("notebook")
        for name in ("first", "second", "third"):
            cell.set(name)
            log.info(name)
            assert name in output.getvalue().splitlines()[-1]
    assert output.cells == ["first", "second", "third"]
    assert output.flushes == 0  # a kernel's flush() waits for the thread that sends
    assert "\x1b[" in output.getvalue()  # readable, as on a terminal


def test_under_a_debugger_the_record_is_written_before_the_call_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace())
    output = io.StringIO()
    with Runtime(sinks=ConsoleSink(output)) as runtime:
        runtime.get_logger("app").info("line")
        assert json.loads(output.getvalue())["body"] == "line"


def test_a_service_does_not_wait_for_its_console() -> None:
    with Runtime(sinks=ConsoleSink(io.StringIO())) as runtime:
        assert runtime.pipeline.bell is runtime.pipeline.worker


@POSIX
def test_a_container_with_a_terminal_does_not_wait_for_json_lines() -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        for chosen, waits in (("json", False), ("gcp", False), ("auto", True)):
            with Runtime(sinks=ConsoleSink(terminal, format=chosen)) as runtime:
                assert (runtime.pipeline.bell is not runtime.pipeline.worker) is waits
    os.close(master)


def test_the_batches_of_other_sinks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace())
    batches: list[int] = []

    class Remote(MemorySink):
        limits = BatchLimits(delay=60)

        def send(self, batch: Any, timeout: float) -> None:
            batches.append(len(batch))
            super().send(batch, timeout)

    with Runtime(sinks=[ConsoleSink(io.StringIO()), Remote()]) as runtime:
        for number in range(20):
            runtime.get_logger("app").info("line", number=number)
        assert batches == []
    assert batches == [20]


def test_a_sink_that_logs_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace())
    output = io.StringIO()

    def process(record: Any) -> Any:
        runtime.get_logger("processor").info("inside")
        return record

    runtime = Runtime(sinks=ConsoleSink(output), processors=[process])
    runtime.get_logger("app").info("line")
    runtime.shutdown()
    assert len(output.getvalue().splitlines()) == 1


def test_calls_do_not_wait_again_while_a_terminal_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pauses, written = 0.0, 0, False

    def pause(seconds: float) -> None:
        nonlocal now, pauses
        now += max(seconds, 0.001)
        pauses += 1

    console: Any = SimpleNamespace(
        sink=SimpleNamespace(note_caller=lambda: None),
        start_flush=lambda: 1,
        flush_done=lambda target: written,
    )
    pipeline: Any = SimpleNamespace(
        hurry=lambda: True,
        is_own_thread=lambda: False,
        entered=lambda: 1,
        has_handed=lambda target: True,
    )
    monkeypatch.setattr(native, "pause", pause)
    monkeypatch.setattr("fapilog.engine.prompt.monotonic", lambda: now)
    prompt = Prompt(pipeline, [console])
    prompt.wake()
    assert 0.25 <= now < 0.3
    once = pauses
    for _ in range(100):
        prompt.wake()
    assert pauses == once
    written = True
    prompt.wake()  # the terminal has caught up
    written = False
    prompt.wake()
    assert pauses == 2 * once
