"""Set-up without a home, a working directory or metadata: it works, or one error says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog import ConfigurationError, Runtime
from fapilog.sinks import FileSink

Run = Callable[..., tuple[str, str]]

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX working directory")

#: Configures fapilog in a directory that is then deleted, or that the process cannot search.
DELETED = "import os, tempfile; here = tempfile.mkdtemp(); os.chdir(here); os.rmdir(here)\n"
UNSEARCHABLE = """
import os, tempfile, fapilog
os.chdir(tempfile.mkdtemp())
fapilog.configure(sinks="console")  # loads the modules, which another user may not read
fapilog.shutdown()
os.chmod(".", 0)
if os.geteuid() == 0:
    os.setuid(65534)
fapilog.configure()
"""
#: Makes the metadata of every package invisible, as PyInstaller and zipapp do.
NO_METADATA = """
import importlib.machinery, importlib.metadata
importlib.machinery.PathFinder.find_distributions = lambda *_, **__: iter(())
importlib.metadata.MetadataPathFinder.find_distributions = lambda *_, **__: iter(())
"""
LOG = "import fapilog; fapilog.get_logger('t').info('hello'); fapilog.flush(9)\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script, and return what it writes to standard output and to standard error."""
    return partial(run_in, tmp_path / "script.py")


def run_in(file: Path, script: str, **environment: str) -> tuple[str, str]:
    # With -c, Python 3.13 cannot import compiled modules in a deleted directory.
    file.write_text(script)
    done = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.stdout, done.stderr


@posix
@pytest.mark.parametrize("directory", [DELETED, UNSEARCHABLE], ids=["deleted", "unsearchable"])
def test_records_go_to_the_console_without_a_usable_working_directory(
    run: Run, directory: str
) -> None:
    out, err = run(directory + LOG)
    assert '"body":"hello"' in out
    assert err == ""


@posix
def test_a_relative_path_in_a_deleted_directory_is_named_and_the_console_gets_the_records(
    run: Run,
) -> None:
    out, err = run(DELETED + LOG + "print(fapilog.stats())", FAPILOG_SINKS="file:app.jsonl")
    assert err == (
        "fapilog: FAPILOG_SINKS: path='app.jsonl' of sink 'file': the working directory is not "
        "usable (No such file or directory); use an absolute path; logging to the console instead\n"
    )
    assert '"body":"hello"' in out
    assert "accepted 1 = delivered 1" in out


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"sinks": "file:~nobody-has-this-name/app.jsonl"}, "path='~nobody"),
        ({"sinks": "file", "file": {"path": "~nobody-has-this-name/a"}}, "option 'file.path': "),
        (
            {"sinks": "otlp", "spool": {"directory": "~nobody-has-this-name/spool"}},
            "spool.directory='~nobody",
        ),
    ],
)
def test_a_home_that_is_not_known_is_an_error_with_the_option(options: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="the home directory is not known") as caught:
        Runtime(**options)
    assert name in str(caught.value)


def test_a_home_directory_stands_for_the_tilde_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "expanduser", lambda self: tmp_path / self.name)
    with Runtime(sinks=[FileSink("~/own.jsonl"), "file:~/named.jsonl"]) as runtime:
        runtime.get_logger("t").info("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named.jsonl", "own.jsonl"]


@pytest.mark.parametrize("sink", ["otlp:http://localhost:9", "loki:http://localhost:9"])
def test_packages_without_metadata_work(run: Run, sink: str) -> None:
    script = (
        f"{NO_METADATA}import fapilog\nfapilog.configure(sinks=[{sink!r}, 'console'], "
        "shutdown_timeout=0.2)\nfapilog.get_logger('t').info('hello'); fapilog.flush(0.2)"
    )
    out, err = run(script, OTEL_RESOURCE_ATTRIBUTES="team=a")
    assert '"body":"hello"' in out
    for attribute in ('"team":"a"', '"process.pid":', '"host.name":'):
        assert attribute in out
    assert "not installed" not in err


def test_the_first_log_call_goes_to_the_console_whatever_the_sink_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        msg = "no such device"
        raise RuntimeError(msg)

    monkeypatch.setattr("fapilog.sinks.MemorySink", broken)
    monkeypatch.setenv("FAPILOG_SINKS", "memory")
    monkeypatch.setenv("FAPILOG_ROUTES__MEMORY__LEVEL", "warn")
    monkeypatch.setenv("FAPILOG_OVERFLOW", "spill")
    fapilog.get_logger("t").info("hello")
    fapilog.flush(5)
    captured = capsys.readouterr()
    assert '"hello"' in captured.out
    assert "RuntimeError: no such device; logging to the console instead" in captured.err
    assert fapilog.stats().delivered == 1


def test_the_first_log_call_goes_to_the_console_whatever_the_consoles_names_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_CONSOLE__NAMES", "bdy=message")
    monkeypatch.setenv("FAPILOG_CONSOLE__RESOURCE", "false")
    monkeypatch.setenv("FAPILOG_REDACT_FIELDS", "iban")
    fapilog.get_logger("t").info("hello", iban="DE00")
    fapilog.flush(5)
    captured = capsys.readouterr()
    assert '"body":"hello","attributes":{"iban":"[REDACTED]"},"scope":{"name":"t"}}' in captured.out
    assert captured.err == (
        "fapilog: FAPILOG_CONSOLE__NAMES: sink 'console': names: the format 'json' has no field "
        "'bdy'; did you mean 'body'?; logging to the console instead\n"
    )
    assert fapilog.stats().delivered == 1
