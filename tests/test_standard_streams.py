"""Standard output and standard error that another library has replaced by a logger."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap

import pytest

from fapilog.diagnostics import announce
from fapilog.standard_streams import StreamLogsError, standard_stream, write_unless_it_logs
from tests.support.processes import environment

#: Each replaces sys.stdout and sys.stderr by an object whose write() logs.
REDIRECTIONS = {
    "celery": """
        from celery.utils.log import LoggingProxy
        sys.stdout = LoggingProxy(logging.getLogger("celery.redirected"), logging.WARNING)
        sys.stderr = LoggingProxy(logging.getLogger("celery.redirected"), logging.WARNING)
    """,
    "logging": """
        class Redirected:
            def write(self, text):
                logging.getLogger("redirected").warning("%s", text)
            def flush(self):
                pass
        sys.stdout, sys.stderr = Redirected(), Redirected()
    """,
    "loguru": """
        import loguru
        loguru.logger.remove()
        loguru.logger.add(sys.__stderr__, format="redirected {message}")
        class Redirected:
            def write(self, text):
                for line in text.splitlines():
                    loguru.logger.warning(line)
            def flush(self):
                pass
        sys.stdout, sys.stderr = Redirected(), Redirected()
    """,
    "fapilog": """
        class Redirected:
            def write(self, text):
                for line in text.splitlines():
                    fapilog.get_logger("redirected").warning(line)
            def flush(self):
                pass
        sys.stdout, sys.stderr = Redirected(), Redirected()
    """,
    "a write that catches every error": """
        class Redirected:
            def write(self, text):
                try:
                    logging.warning(text)
                except Exception:
                    return 0
            def flush(self):
                pass
        sys.stdout, sys.stderr = Redirected(), Redirected()
    """,
}
PROGRAM = """
import json, logging, sys
import fapilog
logging.basicConfig(stream=sys.__stderr__, format="%(name)s %(message)s")
{redirection}
fapilog.configure(sinks="console")
if {installed}:
    fapilog.install_stdlib()
log = fapilog.get_logger("app")
for number in range(3):
    log.info("line", number=number)
fapilog.flush()
stats = fapilog.stats()
fapilog.shutdown()
log.info("after the shutdown")
sys.__stdout__.write(json.dumps([stats.accepted, stats.delivered]) + chr(10))
"""


@pytest.mark.parametrize("installed", [False, True], ids=["alone", "with install_stdlib"])
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_a_standard_output_that_logs_neither_swallows_nor_doubles_a_record(
    redirection: str, installed: bool
) -> None:
    if redirection == "celery":
        pytest.importorskip("celery")
    program = PROGRAM.format(
        redirection=textwrap.dedent(REDIRECTIONS[redirection]), installed=installed
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *lines, ledger = map(json.loads, child.stdout.splitlines())
    assert [line["attributes"]["number"] for line in lines] == [0, 1, 2]
    assert ledger == [3, 3]
    # An announcement does not come back as a record either.
    assert child.stderr.splitlines() == [
        "fapilog: a record was logged after shutdown() and dropped"
    ]


class Logs:
    """A stream whose write() logs."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)
        import logging

        logging.getLogger("redirected").warning(text)

    def flush(self) -> None:
        pass


class Tee:
    """A stream of the application that logs nothing."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def test_a_stream_of_the_application_that_does_not_log_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tee = Tee()
    monkeypatch.setattr(sys, "stdout", tee)
    assert write_unless_it_logs(tee, tee.write, "text") == 4
    assert standard_stream("stdout") is tee
    assert tee.text == "text"


def test_a_stream_that_was_seen_to_log_is_replaced_by_the_original_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, original = Logs(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", original)
    with pytest.raises(StreamLogsError):
        write_unless_it_logs(stream, stream.write, "text")
    assert standard_stream("stdout") is original
    monkeypatch.setattr(sys, "__stdout__", stream)
    assert standard_stream("stdout") is None


def test_an_error_of_the_stream_stays_its_own() -> None:
    class Broken:
        def write(self, _text: str) -> None:
            raise OSError("out of ink")

    with pytest.raises(OSError, match="out of ink"):
        write_unless_it_logs(Broken(), Broken().write, "text")


def test_a_profiler_of_the_application_keeps_running() -> None:
    seen: list[str] = []
    tee = Tee()
    sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name))
    try:
        write_unless_it_logs(tee, tee.write, "text")
        still = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert still is not None
    assert "write" in seen


def test_an_announcement_does_not_become_a_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Logs())
    monkeypatch.setattr(sys, "__stderr__", original)
    announce("a subject of this test", "something is odd")
    assert original.getvalue() == "fapilog: something is odd\n"
    assert caplog.records == []
