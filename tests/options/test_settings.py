from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapilog import ConfigurationError, Settings, Severity
from fapilog.settings import salvage


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As if the file belonged to the application: tests/options/test_found_files.py looks at the others.
    monkeypatch.setattr("fapilog.options.found.belongs_to_application", lambda _path: True)
    return tmp_path


def write(folder: Path, text: str, name: str = "fapilog.toml") -> None:
    (folder / name).write_text(text, encoding="utf-8")


def error_of(**options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**options)
    return str(caught.value)


def test_arguments_win_over_the_environment_over_the_file_over_pyproject(empty_folder, monkeypatch):
    (empty_folder / "pyproject.toml").write_text(
        '[tool.fapilog]\nlevel = "fatal"\nqueue_size = 1\nblock_timeout = 1\nsinks = ["memory"]\n'
    )
    (empty_folder / "fapilog.toml").write_text(
        'level = "error"\nqueue_size = 2\nblock_timeout = 2\n[file]\nmax_bytes = "10MB"\n'
    )
    monkeypatch.setenv("FAPILOG_LEVEL", "warn")
    monkeypatch.setenv("FAPILOG_BLOCK_TIMEOUT", "3")
    settings = Settings(level="debug")
    assert settings.level == 5
    assert settings.block_timeout == 3
    assert settings.queue_size == 2
    assert settings.sinks == ("memory",)
    assert settings.file.max_bytes == 10_000_000


def test_lists_and_pairs_are_written_plainly_in_the_environment(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "console, otlp,file:/var/log/app.jsonl")
    monkeypatch.setenv("FAPILOG_LEVELS", "app.db=debug, uvicorn=30")
    monkeypatch.setenv("FAPILOG_SEVERITIES", "notice=info3")
    monkeypatch.setenv("FAPILOG_FILE__KEEP_COUNT", "7")
    settings = Settings()
    assert settings.sinks == ("console", "otlp", "file:/var/log/app.jsonl")
    assert settings.levels == {"app.db": 5, "uvicorn": 13}
    assert settings.severities == {"NOTICE": 11}
    assert settings.file.keep_count == 7


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SINKS", '["console", "file:/var/log/a,b.jsonl"]', ("console", "file:/var/log/a,b.jsonl")),
        ("REDACT_FIELDS", ' ["iban", "ssn"] ', ("iban", "ssn")),
        ("LEVELS", '{"app.db": "debug"}', {"app.db": 5}),
        ("SEVERITIES", '{"notice": "info3"}', {"NOTICE": 11}),
        ("SINKS", "[console", ("[console",)),  # not JSON, so a list of one name
    ],
)
def test_lists_and_pairs_may_be_json_in_the_environment(variable, text, value, monkeypatch):
    monkeypatch.setenv(f"FAPILOG_{variable}", text)
    assert getattr(Settings(), variable.lower()) == value


def test_the_variable_of_one_option_wins_over_the_json_of_its_group(monkeypatch):
    monkeypatch.setenv("FAPILOG_CONSOLE", '{"format": "json", "names": {"body": "msg"}}')
    monkeypatch.setenv("fapilog_console__format", "pretty")
    monkeypatch.setenv("FAPILOG_ROUTES__LOKI", '{"level": "warn", "loggers": ["app"]}')
    monkeypatch.setenv("FAPILOG_ROUTES__LOKI__WHERE", "a=1")
    settings = Settings()
    assert (settings.console.format, settings.console.names) == ("pretty", {"body": "msg"})
    route = settings.routes["loki"]
    assert (route.level, route.loggers, route.where) == (13, ("app",), {"a": "1"})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FAPILOG_SINKS", " "),
        ("FAPILOG_LEVEL", "\n"),
        ("FAPILOG_CONFIG", " \n"),
        ("FAPILOG_FILE__PATH", "\t"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", " "),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=,team=a"),
    ],
)
def test_a_blank_variable_is_unset(variable, text, empty_folder, monkeypatch):
    plain = Settings()
    monkeypatch.setenv(variable, text)
    assert Settings() == plain
    assert Settings().sinks is None


def test_a_newline_at_the_end_of_a_variable_is_removed(monkeypatch):
    monkeypatch.setenv("FAPILOG_CONSOLE__FORMAT", "json\r\n")
    monkeypatch.setenv("FAPILOG_LOKI__URL", "http://loki:3100\n")
    settings = Settings()
    assert (settings.console.format, settings.loki.url) == ("json", "http://loki:3100")


@pytest.mark.parametrize("variable", ["FAPILOG_CONFIG", "fapilog_config", "Fapilog_Config"])
def test_the_variable_of_the_file_is_found_in_any_case(variable, empty_folder, monkeypatch):
    (empty_folder / "mine.toml").write_text('redact_fields = ["iban"]\n')
    monkeypatch.setenv(variable, "mine.toml\n")
    assert Settings().redact_fields == ("iban",)


@pytest.mark.parametrize("text", ["pretty", "null", "[1", "[" * 100_000])
def test_a_group_that_is_not_a_json_object_is_refused(text, monkeypatch):
    monkeypatch.setenv("FAPILOG_CONSOLE", text)
    monkeypatch.setenv("FAPILOG_CONSOLE__FORMAT", "json")
    assert "FAPILOG_CONSOLE: 'console' is a group of options" in error_of()


def test_opentelemetrys_variables_set_the_options_they_name(monkeypatch):
    for name, value in {
        "OTEL_BLRP_MAX_QUEUE_SIZE": "4096",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "64",
        "OTEL_BLRP_SCHEDULE_DELAY": "250",
        "OTEL_BLRP_EXPORT_TIMEOUT": "5000",
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "16",
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100",
        "OTEL_LOGS_EXPORTER": "console,otlp",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.queue_size, settings.batch_size) == (4096, 64)
    assert (settings.schedule_delay, settings.export_timeout) == (0.25, 5.0)
    assert settings.attribute_count_limit == 16
    assert settings.attribute_value_length_limit == 100
    assert settings.sinks == ("console", "otlp")


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"]
)
def test_an_otlp_endpoint_chooses_otlp_unless_something_else_is_said(name, monkeypatch):
    assert Settings().sinks is None
    monkeypatch.setenv(name, "http://collector:4318")
    assert Settings().sinks == ("otlp",)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    assert Settings().sinks == ("none",)
    monkeypatch.setenv("FAPILOG_SINKS", "console")
    assert Settings().sinks == ("console",)
    monkeypatch.delenv("FAPILOG_SINKS")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Settings().sinks is None
    assert Settings().otel_disabled


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FAPILOG_LEVEL": "loud"}, ["FAPILOG_LEVEL", "'loud' is not a severity", "use trace"]),
        ({"FAPILOG_QUEUE_SIZE": "0"}, ["FAPILOG_QUEUE_SIZE", "use 1 or more"]),
        ({"FAPILOG_LEVELS": "app"}, ["FAPILOG_LEVELS", "name=value"]),
        (
            {"FAPILOG_OVERFLOW": "explode"},
            ["FAPILOG_OVERFLOW", "'block', 'drop_newest', 'drop_lowest' or"],
        ),
        ({"FAPILOG_FILE__KEEP_COUNT": "-1"}, ["FAPILOG_FILE__KEEP_COUNT"]),
        (
            {"FAPILOG_SEVERITIES": "notice=off"},
            ["FAPILOG_SEVERITIES", "off is not the severity of a record"],
        ),
    ],
)
def test_a_wrong_variable_is_named_with_the_fix(variables, words, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    for word in words:
        assert word in str(caught.value)


def test_a_file_cannot_name_another_file(empty_folder, monkeypatch):
    (empty_folder / "other.toml").write_text('redact_fields = ["iban"]\n')
    write(empty_folder, 'config = "other.toml"\n')
    words = "key 'config' in fapilog.toml: a file cannot name another file; set FAPILOG_CONFIG"
    assert error_of() == words
    monkeypatch.setenv("FAPILOG_CONFIG", "other.toml")
    assert Settings().redact_fields == ("iban",)


def test_a_wrong_argument_and_a_wrong_file_are_named(empty_folder):
    assert "option 'level': 'loud'" in error_of(level="loud")
    assert "did you mean 'queue_size'?" in error_of(queue_sise=3)
    assert "options are: 'config', 'service_name', 'level'" in error_of(zzz=3)
    write(empty_folder, "level = 'loud'\n")
    assert error_of().startswith("key 'level' in fapilog.toml: 'loud' is not a severity")
    write(empty_folder, "= nonsense")
    assert error_of().startswith("fapilog.toml cannot be read: ")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf[project]\nname = 'shop'\n",
        b"[project]\nname = 'caf\xe9'\n",
        b"[project]\nname = shop\ndependencies = ['fapilog']\n",
        "[project]".encode("utf-16"),
    ],
)
def test_a_pyproject_file_without_our_table_cannot_stop_the_application(
    empty_folder, content, capsys
):
    (empty_folder / "pyproject.toml").write_bytes(content)
    assert Settings().level == 9
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "table", ["[tool.fapilog]", "[ tool . 'fapilog' ]", "tool.fapilog.redact = 1"]
)
def test_an_unreadable_pyproject_file_with_our_table_is_an_error(empty_folder, table):
    (empty_folder / "pyproject.toml").write_text(f"{table}\nlevel = info\n")
    assert error_of().startswith("pyproject.toml cannot be read: ")


def test_a_byte_order_mark_is_left_out(empty_folder, monkeypatch):
    mark = b"\xef\xbb\xbf"
    (empty_folder / "pyproject.toml").write_bytes(mark + b"[tool.fapilog]\nlevel = 'warn'\n")
    assert Settings().level == 13
    (empty_folder / "fapilog.toml").write_bytes(mark + b"level = 'error'\n")
    assert Settings().level == 17
    monkeypatch.setenv("FAPILOG_CONFIG", "fapilog.toml")
    assert Settings().level == 17


def test_a_misspelt_variable_is_announced_with_what_was_meant(monkeypatch, capsys):
    monkeypatch.setenv("FAPILOG_LEVLE", "debug")
    Settings()
    assert "FAPILOG_LEVLE is not a variable of fapilog; did you mean FAPILOG_LEVEL?" in (
        capsys.readouterr().err
    )


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().level = Severity.DEBUG  # type: ignore[misc]


def test_the_origin_of_each_value_is_known(empty_folder, monkeypatch):
    write(empty_folder, 'level = "error"\nredact = true\n[levels]\napp.db = "info"\n')
    monkeypatch.setenv("FAPILOG_LEVEL", "warn")
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("FAPILOG_CONSOLE", '{"format": "json"}')
    origins = Settings.origins()
    found = {
        name: source.origin(name)
        for name in ("level", "redact", "queue_size", "levels", "console.format", "console.stream")
        if (source := origins.source(name)) is not None
    }
    assert found == {
        "level": "FAPILOG_LEVEL",
        "redact": "fapilog.toml",
        "queue_size": "OTEL_BLRP_MAX_QUEUE_SIZE",
        "levels": "fapilog.toml",
        "console.format": "FAPILOG_CONSOLE",
    }


def test_what_is_wrong_later_is_placed_where_it_came_from(empty_folder, monkeypatch):
    write(empty_folder, 'sinks = ["memory"]\n[file]\npath = "a"\n')
    assert Settings().place("sinks") == "key 'sinks' in fapilog.toml"
    assert Settings().place("file.path") == "key 'file.path' in fapilog.toml"
    assert Settings(sinks="console").place("sinks") == "option 'sinks'"
    monkeypatch.setenv("FAPILOG_SINKS", "none")
    assert Settings().place("sinks") == "FAPILOG_SINKS"
    monkeypatch.setenv("FAPILOG_ROUTES__OTLP__FALLBACK", "file")
    assert Settings().place("routes.otlp.fallback") == "FAPILOG_ROUTES__OTLP__FALLBACK"
    monkeypatch.setenv("FAPILOG_ROUTES__MY.SINK__LEVEL", "warn")
    assert Settings().place("routes.my.sink.level") == "FAPILOG_ROUTES__MY.SINK__LEVEL"


def test_dotted_names_in_a_file_may_be_written_with_and_without_quotes(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "fapilog.toml").write_text('[levels]\napp.db = "debug"\n"app.web" = "warn"\n')
    assert Settings().levels == {"app.db": 5, "app.web": 13}


def test_the_misspelling_of_a_nested_variable_finds_the_right_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_FILE_MAX_BYTES", "10MB")
    Settings()
    assert "did you mean FAPILOG_FILE__MAX_BYTES?" in capsys.readouterr().err


def test_what_is_right_by_itself_is_salvaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAPILOG_REDACT_FIELDS", "iban")
    monkeypatch.setenv("FAPILOG_LEVEL", "error")
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "many")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "soon")
    settings = salvage()
    assert settings.redact_fields == ("iban",)
    assert settings.level == 17
    assert settings.queue_size == 32_768
