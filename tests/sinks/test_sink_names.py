"""Sinks by name: the names, the errors about wrong ones, and opening all sinks or none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog import ConfigurationError, Runtime, Settings
from fapilog.sinks.factory import make_sinks
from tests.support.sinks import ScriptedSink


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As if the file belonged to the application; tests/options/test_found_files.py has the other cases.
    monkeypatch.setattr("fapilog.options.found.belongs_to_application", lambda _path: True)
    return tmp_path


def error_of(given: Any = None, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Runtime(sinks=given, **options)
    return str(caught.value)


class Sequenced(ScriptedSink):
    """Notes when it is opened and closed, in a list that all sinks share."""

    def __init__(self, name: str, notes: list[str], error: Exception | None = None) -> None:
        super().__init__(name=name)
        self.notes = notes
        self.error = error

    def open(self) -> None:
        if self.error is not None:
            raise self.error
        self.notes.append(f"open {self.name}")

    def close(self) -> None:
        self.notes.append(f"close {self.name}")


# ---- the source of a wrong name


def test_a_misspelt_name_is_told_with_the_variable_and_what_was_meant(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "memory,consle")
    assert error_of() == "FAPILOG_SINKS: 'consle' is not known; did you mean 'console'?"


def test_a_misspelt_name_is_told_with_the_key_and_the_file(folder):
    (folder / "fapilog.toml").write_text("sinks = ['flie:/tmp/x']")
    assert error_of() == "key 'sinks' in fapilog.toml: 'flie' is not known; did you mean 'file'?"


def test_a_misspelt_argument_is_told_as_the_option(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "memory")
    assert error_of("consle").startswith("option 'sinks': 'consle' is not known")
    assert error_of(settings=Settings(sinks="consle")).startswith("option 'sinks': 'consle' is")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("stdout", "did you mean 'console:stdout'?"),
        ("stderr", "did you mean 'console:stderr'?"),
        ("app.log", "did you mean 'file:app.log'?"),
        ("/var/log/app.jsonl", "did you mean 'file:/var/log/app.jsonl'?"),
        ("console.log", "did you mean 'file:console.log'?"),
        ("logs/app", "did you mean 'file:logs/app'?"),
        ("collector:4317", "for an address write otlp:http://HOST:PORT"),
    ],
)
def test_a_stream_a_path_and_an_address_are_answered_with_their_names(name, hint, monkeypatch):
    kind = name.partition(":")[0]
    assert error_of(name) == f"option 'sinks': {kind!r} is not known; {hint}"
    monkeypatch.setenv("FAPILOG_SINKS", name)
    assert error_of() == f"FAPILOG_SINKS: {kind!r} is not known; {hint}"


def test_a_stream_object_and_a_path_object_are_answered_with_their_names():
    assert error_of(Path("app.log")).endswith("is not a sink; write 'file:app.log'")
    for given in (sys.stderr, [sys.stdout]):
        assert "write 'console:stdout' or 'console:stderr', or give ConsoleSink(stream)" in (
            error_of(given)
        )
    with pytest.raises(ConfigurationError, match="ConsoleSink"):
        fapilog.configure(sinks=sys.stderr)


def test_a_misspelt_fallback_is_told_with_its_variable(monkeypatch):
    monkeypatch.setenv("FAPILOG_ROUTES__CONSOLE__FALLBACK", "memry")
    assert error_of().startswith("FAPILOG_ROUTES__CONSOLE__FALLBACK: 'memry' is not known")


def test_what_is_found_wrong_when_a_sink_opens_is_placed_too(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "console:stdrr")
    assert error_of().startswith("FAPILOG_SINKS: sink 'console': stream='stdrr': use")
    monkeypatch.setenv("FAPILOG_SINKS", "file:app.gz")
    assert error_of().startswith("FAPILOG_SINKS: path='app.gz' of sink 'file': use")
    monkeypatch.setenv("FAPILOG_SINKS", "file")
    monkeypatch.setenv("FAPILOG_FILE__PATH", "app.gz")
    assert error_of().startswith("FAPILOG_FILE__PATH: path='app.gz' of sink 'file': use")


@pytest.mark.parametrize(
    ("variables", "option"),
    [
        ({"FAPILOG_SINKS": "file", "FAPILOG_FILE__PATH": "app.gz"}, "file.path"),
        ({"FAPILOG_SINKS": "file:app.gz"}, "sinks"),
        (
            {"FAPILOG_SINKS": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "soon"},
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ],
)
def test_the_error_has_the_name_of_the_option(monkeypatch, variables, option):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Runtime()
    assert caught.value.option == option


def test_an_error_that_names_its_own_variable_gets_no_second_one(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "soon")
    assert error_of().startswith("OTEL_EXPORTER_OTLP_ENDPOINT")


def test_the_credentials_in_a_misspelt_name_are_not_shown():
    assert "hunter2" not in error_of("otpl:http://me:hunter2@collector/")
    assert error_of("http://me:hunter2@collector/") == (
        "option 'sinks': 'http' is not known; for a URL write otlp:URL or loki:URL"
    )


def test_names_in_one_text_are_answered_with_a_list():
    assert error_of("console,memory").endswith("; give several names as a list")


def test_an_exporter_that_cannot_be_made_is_one_clear_error(monkeypatch):
    point = metadata.EntryPoint("broken", "no_such_module:Exporter", "opentelemetry_logs_exporter")

    def entry_points(**_: str) -> Iterable[metadata.EntryPoint]:
        return [point]

    monkeypatch.setattr("fapilog.sinks.factory.entry_points", entry_points)
    assert error_of("broken").startswith("option 'sinks': the exporter 'broken' cannot be made: ")
    assert error_of("brokn").endswith("did you mean 'broken'?")


# ---- values that are not sinks


@pytest.mark.parametrize("given", [[None], [ScriptedSink(), None], [3], 3, [ScriptedSink]])
def test_a_value_that_is_not_a_sink_is_refused_with_the_values_that_are_possible(given):
    assert "is not a sink; give names (console, otlp" in error_of(given)


def test_the_same_sink_twice_is_refused():
    sink = ScriptedSink(name="mine")
    assert "is given twice" in error_of([sink, ScriptedSink(), sink])
    assert sink.opened == 0


# ---- opening


def test_sinks_that_were_opened_before_a_failing_one_are_closed_the_last_one_first():
    notes: list[str] = []
    sinks = [
        Sequenced("a", notes),
        Sequenced("b", notes),
        Sequenced("c", notes, ConfigurationError("c cannot")),
        Sequenced("d", notes),
    ]
    assert error_of(sinks) == "c cannot"
    assert notes == ["open a", "open b", "close b", "close a"]


def test_an_error_of_a_sinks_own_becomes_a_configuration_error():
    notes: list[str] = []
    message = error_of([Sequenced("a", notes), Sequenced("b", notes, OSError("no device"))])
    assert message == "sink 'b' cannot be opened: OSError: no device"
    assert notes == ["open a", "close a"]


def test_a_sink_that_cannot_be_closed_hides_no_error(capsys):
    class Stuck(ScriptedSink):
        def close(self) -> None:
            raise RuntimeError("stuck")

    first = ScriptedSink(name="first")
    stuck = Stuck(name="stuck")
    assert (
        error_of([first, stuck, Sequenced("c", [], ConfigurationError("c cannot"))]) == "c cannot"
    )
    assert first.closed == 1
    assert "sink 'stuck' cannot be closed: RuntimeError: stuck" in capsys.readouterr().err


def test_the_options_of_a_group_reach_the_sink(folder, monkeypatch):
    monkeypatch.setenv("FAPILOG_FILE__MODE", "0644")
    monkeypatch.setenv("FAPILOG_FILE__FSYNC", "true")
    synced: list[int] = []
    monkeypatch.setattr("fapilog.sinks.file.os.fsync", synced.append)
    with Runtime(sinks="file:app.jsonl") as runtime:
        runtime.get_logger("t").info("hello")
    assert synced
    if os.name == "posix":
        assert (folder / "app.jsonl").stat().st_mode & 0o777 == 0o644


def test_colours_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    settings = Settings(console={"format": "pretty", "color": True})
    (sink,) = make_sinks(settings, "console").values()
    with Runtime(sinks=[sink]) as runtime:
        runtime.get_logger("t").info("hello")
    assert "\x1b[" in capsys.readouterr().out
