"""Errors about wrong options: where the option was set, the allowed values, a similar name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fapilog import ConfigurationError, Settings
from fapilog.settings import salvage


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # As if the file belonged to the application: tests/options/test_found_files.py looks at the others.
    monkeypatch.setattr("fapilog.options.found.belongs_to_application", lambda _path: True)
    return tmp_path


def errors(**options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**options)
    return str(caught.value).splitlines()


def error(**options: Any) -> str:
    (line,) = errors(**options)
    return line


# ---- variables


@pytest.mark.parametrize(
    ("variable", "value", "start"),
    [
        ("FILE__MAXBYTES", "1", "there is no such option; did you mean FAPILOG_FILE__MAX_BYTES?"),
        ("FILE__LEVEL", "1", "there is no such option; did you mean FAPILOG_LEVEL?"),
        ("FILE__PATH__X", "1", "use a path"),
        ("FILE__QQQ", "1", "there is no such option; options are: FAPILOG_FILE__PATH, FAPILOG_"),
        ("FILE__ROTATE_EVERY", "weekly", "use 'hour' or 'day' or a number (rotate every hour"),
        ("FILE__ROTATE_EVERY", "days", "use 'hour' or 'day' or a number; did you mean 'day'?"),
        ("FILE__MAX_BYTES", "big", "use bytes, such as 10MB or 64MiB"),
        ("FILE__MAX_BYTES", "0", "use more than 0"),
        ("FILE__KEEP_AGE", "-1", "use more than 0 (seconds"),
        ("FILE__FSYNC", "perhaps", "use true or false"),
        ("CONSOLE__COLOR", "pink", "use true or false or 'auto'"),
        (
            "CONSOLE__FORMAT",
            "jsn",
            "use 'auto', 'pretty', 'json', 'otel', 'ecs', 'gcp', 'datadog' or 'lambda'; did you mean 'json'?",
        ),
        (
            "OVERFLOW",
            "drop-newest",
            "use 'block', 'drop_newest', 'drop_lowest' or 'spill'; did you mean",
        ),
        ("BLOCK_TIMEOUT", "inf", "use a finite number"),
        (
            "ROUTES__OTLP__LEVL",
            "info",
            "there is no such option; did you mean FAPILOG_ROUTES__OTLP",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, start: str
) -> None:
    monkeypatch.setenv(f"FAPILOG_{variable}", value)
    assert error().startswith(f"FAPILOG_{variable}: {start}")


@pytest.mark.parametrize("value", ["json", "q"])
def test_a_value_for_a_group_is_answered_with_the_options_of_the_group(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FAPILOG_CONSOLE", value)
    assert error() == (
        "FAPILOG_CONSOLE: 'console' is a group of options, not an option; its options are: "
        "FAPILOG_CONSOLE__STREAM, FAPILOG_CONSOLE__FORMAT, FAPILOG_CONSOLE__COLOR, "
        "FAPILOG_CONSOLE__TRACEBACKS, FAPILOG_CONSOLE__NAMES, FAPILOG_CONSOLE__RESOURCE"
    )


def test_a_value_for_groups_by_name_is_answered_with_an_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAPILOG_ROUTES", "otlp=error")
    assert error().endswith("write FAPILOG_ROUTES__NAME__LEVEL, for example")


def test_a_group_may_be_one_variable_in_json_and_errors_name_that_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_CONSOLE", '{"format": "json", "stream": "stderr"}')
    assert Settings().console.stream == "stderr"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FAPILOG_CONSOLE", '{"format": "jsn"}')
    assert error().startswith("FAPILOG_CONSOLE: format: use 'auto', ")


def test_an_error_of_a_level_names_the_variable_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAPILOG_LEVELS", "app.db=loud")
    assert error().startswith("FAPILOG_LEVELS: app.db: 'loud' is not a severity")


def test_only_variables_that_are_not_read_are_announced_as_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_ROUTES__OTLP__LEVEL", "error")
    assert Settings().routes["otlp"].level == 17
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FAPILOG_LEVELS__APP", "debug")
    assert Settings().levels == {}
    assert "FAPILOG_LEVELS__APP is not a variable of fapilog; did you mean FAPILOG_LEVELS?" in (
        capsys.readouterr().err
    )


def test_every_wrong_option_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "many")
    monkeypatch.setenv("FAPILOG_FILE__MAXBYTES", "1")
    lines = errors(level="loud")
    assert sorted(line.partition(":")[0] for line in lines) == [
        "FAPILOG_FILE__MAXBYTES",
        "FAPILOG_QUEUE_SIZE",
        "option 'level'",
    ]


def test_no_value_is_shown_that_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAPILOG_FILE__MAX_BYTES", "hunter2")
    monkeypatch.setenv("FAPILOG_CONSOLE", "hunter2")
    monkeypatch.setenv("FAPILOG_FILE__FORMAT", "hunter2")
    assert "hunter2" not in str(errors())


# ---- files


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("levle = 'info'", "key 'levle' in fapilog.toml: there is no such option; did you mean 'level'?"),
        ("queue-size = 1", "key 'queue-size' in fapilog.toml: there is no such option; did you mean 'queue_size'?"),
        ("[fiel]\npath = 'x'", "key 'fiel' in fapilog.toml: there is no such option; did you mean 'file'?"),
        ("[file]\nmaxbytes = 1", "key 'file.maxbytes' in fapilog.toml: there is no such option; did you mean 'file.max_bytes'?"),
        ("max_bytes = 1", "key 'max_bytes' in fapilog.toml: there is no such option; did you mean 'file.max_bytes'?"),
        ("file = '10MB'", "key 'file' in fapilog.toml: 'file' is a group of options, not an option; its options are: 'file.path', 'file.format', 'file.max_bytes', 'file.rotate_every', 'file.compress', 'file.keep_count', 'file.keep_age', 'file.keep_bytes', 'file.mode', 'file.fsync'"),
        ("[routes.otlp]\nlevl = 1", "key 'routes.otlp.levl' in fapilog.toml: there is no such option; did you mean 'routes.otlp.level'?"),
        ("[tool.fapilog]\nlevel = 'info'", "[tool.fapilog] in fapilog.toml: write its options at the top, without a table around them"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_its_file_and_what_was_meant(
    folder: Path, text: str, line: str
) -> None:
    (folder / "fapilog.toml").write_text(text)
    assert error() == line


def test_a_wrong_key_of_pyproject_is_named_with_its_table(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.fapilog]\nlevle = 1\n")
    assert error() == (
        "key 'levle' of [tool.fapilog] in pyproject.toml: "
        "there is no such option; did you mean 'level'?"
    )


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nfapilog = 3"])
def test_a_pyproject_of_another_shape_is_one_clear_error(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    assert error().endswith(
        "in pyproject.toml is not a table; write [tool.fapilog] above the options"
    )


@pytest.mark.parametrize("content", [b"= nonsense", b"level = '\xff'"])
def test_a_file_that_is_no_toml_is_named(folder: Path, content: bytes) -> None:
    (folder / "fapilog.toml").write_bytes(content)
    assert error().startswith("fapilog.toml cannot be read: ")


def test_a_file_that_cannot_be_opened_is_named(folder: Path) -> None:
    (folder / "fapilog.toml").mkdir()
    assert error().startswith("fapilog.toml cannot be read: ")


def test_an_argument_that_wins_is_not_blamed_for_what_the_file_says(folder: Path) -> None:
    (folder / "fapilog.toml").write_text("level = 'loud'\nqueue_size = 0\n")
    assert error(level="info").startswith("key 'queue_size' in fapilog.toml: use 1 or more")


# ---- arguments


def test_a_misspelt_argument_is_told_together_with_what_else_is_wrong() -> None:
    assert errors(levle="debug", queue_size="many") == [
        "option 'queue_size': use a whole number (largest number of records in the queue)",
        "option 'levle': there is no such option; did you mean 'level'?",
    ]
    assert error(_env_file="x").startswith("option '_env_file': there is no such option")


def test_an_option_of_a_group_has_the_same_dotted_name_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotted = {"file.max_bytes": 7, "routes.otlp.level": "warn", "levels.app.db": "debug"}
    own: Any = {**dotted, "file": {"mode": "0640"}}
    settings = Settings(**own)
    assert (settings.file.max_bytes, settings.file.mode) == (7, 0o640)
    assert settings.routes["otlp"].level == 13
    assert settings.levels == {"app.db": 5}
    for text in ("file.max_bytes = 8", '"file.max_bytes" = 8', "[file]\nmax_bytes = 8"):
        (folder / "fapilog.toml").write_text(text)
        assert Settings().file.max_bytes == 8
    monkeypatch.setenv("FAPILOG_FILE__MAX_BYTES", "9")
    assert Settings().file.max_bytes == 9
    wrong: Any = {"file.max_bytes": 0}
    assert error(**wrong).startswith("option 'file.max_bytes': use more than 0")


def test_a_wrong_argument_inside_of_a_group_is_named() -> None:
    assert error(file={"maxbytes": 1}) == (
        "option 'file.maxbytes': there is no such option; did you mean file={'max_bytes': ...}?"
    )
    for name in ("file_max_bytes", "file__max_bytes", "fileMaxBytes", "max_bytes"):
        assert error(**{name: 1}) == (
            f"option {name!r}: there is no such option; did you mean file={{'max_bytes': ...}}?"
        )
    assert error(levels={"app.db": "loud"}).startswith("option 'levels.app.db': 'loud' is not")
    assert error(sinks=[3]).startswith("option 'sinks.0': use text")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"level": "loud"}, "level"),
        ({"levle": "info"}, "levle"),
        ({"file": {"max_bytes": -1}}, "file.max_bytes"),
        ({"queue_size": 0, "batch_size": 0}, "queue_size"),
    ],
)
def test_the_error_has_the_name_of_the_option(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**options)
    assert caught.value.option == name


# ---- options of files and consoles


@pytest.mark.parametrize("text", ["640", "0640", "0o640"])
def test_permissions_are_octal_text(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FAPILOG_FILE__MODE", text)
    assert Settings().file.mode == 0o640


@pytest.mark.parametrize("value", ["0999", "1777", "rw-r-----", "-1", 0o1000, True, None])
def test_what_are_no_permissions_is_refused(value: object) -> None:
    assert error(file={"mode": value}).startswith("option 'file.mode': use octal digits")


def test_permissions_may_be_a_number_in_code_and_in_a_file(folder: Path) -> None:
    assert Settings(file={"mode": 0o644}).file.mode == 0o644
    (folder / "fapilog.toml").write_text("[file]\nmode = 0o600\nfsync = true\n")
    assert Settings().file.mode == 0o600
    assert Settings().file.fsync is True


# ---- the first log call of an application that never configured


def test_right_options_of_a_group_hold_beside_a_wrong_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fapilog.toml").write_text("[console]\ncolor = false\n")
    monkeypatch.setenv("FAPILOG_CONSOLE__STREAM", "stderr")
    monkeypatch.setenv("FAPILOG_CONSOLE__FORMT", "json")
    console = salvage().console
    assert (console.stream, console.color, console.format) == ("stderr", False, "auto")


@pytest.mark.skipif(sys.platform == "win32", reason="there variables have no case")
def test_a_variable_in_small_letters_is_one_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "fapilog_level", "debug")
    assert Settings().level == 5
    monkeypatch.setitem(os.environ, "fapilog_levle", "debug")
    Settings()
    assert "fapilog_levle is not a variable of fapilog; did you mean FAPILOG_LEVEL?" in (
        capsys.readouterr().err
    )
