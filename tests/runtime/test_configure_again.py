"""A second configure() changes only what it names; reset=True and shutdown() forget earlier calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog import ConfigurationError, LogRecord, Settings
from fapilog.sinks import MemorySink
from fapilog.testing import capture_logs


def test_arguments_that_a_later_call_does_not_name_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    fapilog.configure(
        sinks=[f"file:{path}"],
        redact_fields=["iban"],
        service_name="shop",
        resource={"team": "a"},
        file={"mode": "0640"},
    )
    fapilog.configure(level="debug", file={"max_bytes": "1MB"})
    fapilog.get_logger("t").debug("paid", iban="DE00 1234")
    runtime = fapilog.configure()
    fapilog.flush(5)
    text = path.read_text()
    assert '"paid"' in text
    assert "1234" not in text
    assert runtime.resource.attributes["service.name"] == "shop"
    assert runtime.resource.attributes["team"] == "a"
    assert (runtime.settings.file.mode, runtime.settings.file.max_bytes) == (0o640, 1_000_000)
    assert runtime.settings.level == 5


def test_processors_and_sink_objects_keep_their_values() -> None:
    def mark(record: LogRecord) -> LogRecord:
        record.attributes["marked"] = True
        return record

    sink = MemorySink()
    fapilog.configure(sinks=sink, processors=[mark])
    fapilog.configure(redact_fields=["iban"])
    fapilog.get_logger("t").info("x")
    fapilog.flush(5)
    assert sink.records[0].attributes["marked"] is True
    fapilog.configure(processors=[])
    fapilog.get_logger("t").info("y")
    fapilog.flush(5)
    assert "marked" not in sink.records[1].attributes


def test_lists_and_levels_are_replaced_as_a_whole() -> None:
    fapilog.configure(sinks="none", redact_fields=["iban"], levels={"app": "debug"})
    settings = fapilog.configure(redact_fields=["pan"], levels={"db": "warn"}).settings
    assert settings.redact_fields == ("pan",)
    assert settings.levels == {"db": 13}


def test_routes_keep_the_options_that_a_later_call_does_not_name() -> None:
    fapilog.configure(sinks=["memory", "console"], routes={"console": {"level": "warn"}})
    routes = fapilog.configure(
        routes={"console": {"max_level": "error"}, "memory": {"level": "info"}}
    ).settings.routes
    assert (routes["console"].level, routes["console"].max_level) == (13, 17)
    assert routes["memory"].level == 9


def test_the_environment_and_files_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fapilog.configure(sinks="none", level="debug")
    monkeypatch.setenv("FAPILOG_LEVEL", "error")
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "77")
    settings = fapilog.configure(batch_size=3).settings
    assert (settings.level, settings.queue_size, settings.batch_size) == (5, 77, 3)


@pytest.mark.parametrize("forget", ["reset", "shutdown"])
def test_reset_and_shutdown_forget_the_earlier_calls(forget: str) -> None:
    sink = MemorySink()
    fapilog.configure(sinks=sink, level="debug", redact_fields=["iban"], service_name="shop")
    fapilog.set_level("trace", "app")
    if forget == "shutdown":
        fapilog.shutdown()
    runtime = fapilog.configure(queue_size=9, reset=forget == "reset")
    assert runtime.settings.level == 9
    assert runtime.settings.redact_fields == ()
    assert "shop" not in str(runtime.resource.attributes["service.name"])
    assert list(runtime.stats().sinks) == ["console"]
    assert not fapilog.get_logger("app").is_enabled("debug")


def test_a_wrong_reset_forgets_nothing() -> None:
    runtime = fapilog.configure(sinks="memory", level="debug")
    with pytest.raises(ConfigurationError, match="level"):
        fapilog.configure(level="loud", reset=True)
    assert fapilog.configure() is runtime
    assert runtime.settings.level == 5


@pytest.mark.parametrize(
    "named", [{"level": "info", "queue_size": 10}, {"level": "info"}, {"levels": {}}]
)
def test_changed_levels_stay_unless_a_call_names_levels(named: Any) -> None:
    fapilog.configure(sinks="memory", level="info")
    fapilog.set_level("debug", "app.db")
    log = fapilog.get_logger("app.db")
    fapilog.configure(queue_size=9)
    fapilog.configure(queue_size=9)
    assert log.is_enabled("debug")
    runtime = fapilog.configure(**named)  # levels={} and level="info" are the options before
    assert not log.is_enabled("debug")
    assert fapilog.configure(level="info") is runtime


def test_settings_name_all_options_and_leave_the_other_arguments() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=sink, redact_fields=["iban"], resource={"team": "a"})
    runtime = fapilog.configure(Settings(level="debug"))
    assert runtime.settings.redact_fields == ()
    assert runtime.settings.level == 5
    assert runtime.resource.attributes["team"] == "a"
    fapilog.get_logger("t").debug("x")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["x"]
    assert list(fapilog.configure(Settings(sinks="memory")).stats().sinks) == ["memory"]
    assert fapilog.configure(queue_size=8).settings.level == 9


def test_a_capture_keeps_the_arguments_of_the_application() -> None:
    fapilog.configure(sinks="none", redact_fields=["iban"])
    with capture_logs("debug") as logs:
        fapilog.configure(queue_size=8)
        fapilog.get_logger("t").debug("x", iban="DE00")
    assert logs.one("x").attributes["iban"] == "[REDACTED]"
    assert fapilog.configure().settings.queue_size != 8


# ---- an application and a library that both configure


def package(folder: Path, name: str, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(f"import fapilog\n\nfapilog.configure({options})\n")


def stderr_of(tmp_path: Path, *modules: str) -> str:
    installed = str(tmp_path / "site-packages")
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {installed!r}]; "
    done = subprocess.run(
        [sys.executable, "-c", script + "; ".join(f"import {name}" for name in modules)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    return done.stderr


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    package(tmp_path, "shop", "sinks='none', level='info'")
    package(tmp_path, "again", "level='debug'")
    package(tmp_path, "nothing_new", "level='info'")
    package(tmp_path / "site-packages", "library", "level='debug', console={'format': 'json'}")
    package(tmp_path / "site-packages", "quiet", "")
    return tmp_path


def test_a_library_that_configures_where_the_application_has_is_announced(packages: Path) -> None:
    assert stderr_of(packages, "shop", "library") == (
        f"fapilog: configure() at {packages}/site-packages/library.py:3 in the installed package "
        "'library' changes console, level of the configuration that the application made at "
        f"{packages}/shop.py:3; a library should leave the configuration to the application\n"
    )


def test_an_application_that_configures_after_a_library_is_told_what_it_keeps(
    packages: Path,
) -> None:
    words = stderr_of(packages, "library", "shop")
    assert words.startswith(f"fapilog: configure() at {packages}/shop.py:3 in the application")
    assert words.endswith("configure(reset=True) would forget what it set\n")


@pytest.mark.parametrize(
    "modules", [("shop", "again"), ("shop", "quiet"), ("quiet", "shop"), ("shop", "nothing_new")]
)
def test_calls_of_the_application_and_calls_that_change_nothing_are_not_announced(
    packages: Path, modules: Any
) -> None:
    assert stderr_of(packages, *modules) == ""
