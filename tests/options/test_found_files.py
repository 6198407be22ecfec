"""A configuration file that nobody named: whose it is decides what it may set."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog import ConfigurationError, Settings

HOSTILE = """
sinks = ["file:stolen.jsonl"]
redact = false
redact_allow = ["password"]
shutdown_timeout = 0
backlog_bytes = "1GB"
level = "debug"
redact_fields = ["iban"]
[levels]
"app.db" = "warn"
[console]
format = "json"
[file]
path = "elsewhere"
[loki]
url = "http://evil.example"
[spool]
directory = "spool"
[routes.console]
level = "off"
"""
IGNORED = (
    "obeyed options: level, console.format; "
    "ignored options: sinks, redact, redact_allow, shutdown_timeout, backlog_bytes, redact_fields, levels, "
    "file.path, loki.url, spool.directory, routes; "
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_table(text: str) -> str:
    """Return the options as a table of pyproject.toml."""
    lines = text.replace("\n[", "\n[tool.fapilog.").splitlines()
    return "\n".join(["[tool.fapilog]", *lines])


@pytest.mark.parametrize("name", ["fapilog.toml", "pyproject.toml"])
def test_a_file_of_a_foreign_directory_sets_only_what_is_harmless(name, folder, capsys):
    text = HOSTILE if name == "fapilog.toml" else as_table(HOSTILE)
    (folder / name).write_text(text)
    found, default = Settings(), Settings.model_fields
    changed = {"level", "console"}
    assert found.level == 5
    assert found.console.format == "json"
    for option in default.keys() - changed:
        assert getattr(found, option) == default[option].get_default(call_default_factory=True)
    err = capsys.readouterr().err
    assert IGNORED in err
    assert f"set FAPILOG_CONFIG={name}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        *("level = 'off'", "level = 'fatal'", "level = 30", "level = true"),
        *("levels = {'' = 'off'}", "levels = {app = 'debug'}"),
        *("severities = {debug = 24}", "redact_fields = ['message']"),
    ],
)
def test_a_file_of_a_foreign_directory_hides_nothing(line, folder, capsys):
    (folder / "fapilog.toml").write_text(line)
    default = Settings.model_fields
    for option in ("level", "levels", "severities", "redact_fields"):
        value = default[option].get_default(call_default_factory=True)
        assert getattr(Settings(), option) == value
    assert f"ignored options: {line.split()[0]}; " in capsys.readouterr().err


def test_a_file_of_a_foreign_directory_that_is_obeyed_is_announced(folder, capsys):
    (folder / "fapilog.toml").write_text("level = 'debug'")
    assert Settings().level == 5
    assert capsys.readouterr().err == (
        "fapilog: fapilog.toml was found in the working directory and not named: obeyed options: level; "
        "if the file is yours, set FAPILOG_CONFIG=fapilog.toml\n"
    )


def test_a_file_that_is_named_sets_everything(folder, monkeypatch, capsys):
    (folder / "fapilog.toml").write_text("sinks = ['memory']\n")
    (folder / "mine.toml").write_text("sinks = ['none']\nqueue_size = 7\n")
    assert Settings(config="mine.toml").queue_size == 7
    monkeypatch.setenv("FAPILOG_CONFIG", "mine.toml")
    assert Settings().sinks == ("none",)
    (folder / "pyproject.toml").write_text("[tool.fapilog]\nqueue_size = 8\n")
    assert Settings(config=Path("pyproject.toml")).queue_size == 8
    assert capsys.readouterr().err == ""


def test_a_named_file_that_is_not_there_or_wrong_is_an_error(folder, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"nowhere.toml: there is no such file"):
        Settings(config="nowhere.toml")
    monkeypatch.setenv("FAPILOG_CONFIG", "mine.toml")
    (folder / "mine.toml").write_text("levle = 1")
    with pytest.raises(ConfigurationError, match=r"key 'levle' in mine.toml: .* mean 'level'"):
        Settings()


def run(folder: Path, *command: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **variables},
    )
    return {"sinks": done.stdout.strip(), "err": done.stderr}


SHOW = "from fapilog import Settings; print(Settings().sinks)"


def test_a_script_of_the_directory_has_its_file(folder):
    (folder / "fapilog.toml").write_text("sinks = ['memory']")
    (folder / "app.py").write_text(SHOW)
    assert run(folder, "app.py") == {"sinks": "('memory',)", "err": ""}
    assert run(folder, "-m", "app") == {"sinks": "('memory',)", "err": ""}


def test_an_application_that_a_server_imports_from_the_directory_has_its_file(folder):
    (folder / "fapilog.toml").write_text("sinks = ['memory']")
    (folder / "app.py").write_text(f"def app(): pass\n{SHOW}")
    server = "import sys, importlib; sys.path.insert(0, ''); importlib.import_module('app')"
    assert run(folder, "-c", server) == {"sinks": "('memory',)", "err": ""}


def test_a_tool_from_elsewhere_does_not_obey_the_directory_that_it_is_run_in(
    folder, tmp_path_factory
):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']")
    tool = tmp_path_factory.mktemp("bin") / "tool.py"
    tool.write_text(SHOW)
    seen = run(folder, str(tool))
    assert seen["sinks"] == "None"
    assert "ignored options: sinks" in seen["err"]
    assert run(folder, "-c", SHOW)["sinks"] == "None"


def test_an_installed_tool_of_an_environment_in_the_directory_does_not(folder):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']")
    package = folder / ".venv" / "lib" / "site-packages"
    package.mkdir(parents=True)
    (package / "tool.py").write_text(SHOW)
    assert run(folder, "-m", "tool", PYTHONPATH=str(package))["sinks"] == "None"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_file_that_others_can_write_does_not_belong_to_the_application(folder):
    path = folder / "fapilog.toml"
    path.write_text("sinks = ['memory']")
    (folder / "app.py").write_text(SHOW)
    path.chmod(0o666)
    assert run(folder, "app.py")["sinks"] == "None"
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        assert run(folder, "app.py")["sinks"] == "None"


def test_every_option_that_a_found_file_may_set_is_one_of_these():
    def marked(model: Any, prefix: str = "") -> set[str]:
        names = set()
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                names |= marked(field.annotation, f"{prefix}{name}.")
            elif field.json_schema_extra:
                names.add(prefix + name)
        return names

    assert marked(Settings) == {
        *("level", "code_attributes"),
        *("console.stream", "console.format", "console.color", "console.tracebacks"),
    }


def test_configure_takes_the_name_of_a_file(folder):
    (folder / "mine.toml").write_text("sinks = ['memory']")
    runtime = fapilog.configure(config="mine.toml", handle_sigterm=False)
    fapilog.shutdown()
    assert runtime.settings.sinks == ("memory",)


# ---- a directory that was made to deceive


@pytest.fixture
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that lies elsewhere, and goes to the folder it is given."""
    path = tmp_path_factory.mktemp("bin") / "tool.py"
    path.write_text(f"import os, sys\nos.chdir(sys.argv[1])\n{SHOW}")
    return path


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def write_too_much(path: Path) -> None:
    path.write_text("# \n" * 500_000)


def nest_deeply(path: Path) -> None:
    path.write_text("a = " + "[" * 100_000)


def write_nonsense(path: Path) -> None:
    path.write_bytes(b"\xff = nonsense")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
@pytest.mark.parametrize(
    "make",
    [
        *(make_pipe, link_to_itself, link_to_a_device),
        *(write_too_much, nest_deeply, write_nonsense, Path.mkdir),
    ],
)
def test_what_is_not_a_file_of_options_is_announced_and_stops_no_tool(make, folder, tool):
    make(folder / "fapilog.toml")
    seen = run(folder, str(tool), str(folder))
    assert seen["sinks"] == "None"
    assert "fapilog.toml cannot be read" in seen["err"]
    assert "the file is ignored, because the user did not name it" in seen["err"]


def test_the_application_itself_is_stopped_by_its_unreadable_file(folder):
    (folder / "fapilog.toml").write_text("= nonsense")
    (folder / "app.py").write_text(f"try:\n    {SHOW}\nexcept ValueError as e: print(e)")
    assert run(folder, "app.py")["sinks"].startswith("fapilog.toml cannot be read")


def test_a_wrong_value_of_a_harmless_option_stops_no_tool(folder, capsys):
    (folder / "fapilog.toml").write_text("level = 'loud'\nconsole.format = 'json'\n")
    found = Settings()
    assert (found.level, found.console.format) == (9, "json")
    assert "ignored options: level" in capsys.readouterr().err


def test_names_of_a_stranger_command_no_terminal_and_leave_room_for_the_fix(folder, capsys):
    names = "\n".join(f"option{number} = 1" for number in range(300))
    (folder / "fapilog.toml").write_text(f'"\\u001b]0;hi" = 1\n{names}')
    Settings()
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.endswith("and 281 more; if the file is yours, set FAPILOG_CONFIG=fapilog.toml\n")


def test_a_tool_that_goes_to_a_directory_with_a_file_of_its_name_does_not_obey_it(folder, tool):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']")
    (folder / tool.name).write_text("")
    seen = run(tool.parent, tool.name, str(folder))
    assert seen["sinks"] == "None"
    assert "ignored options: sinks" in seen["err"]


def test_code_that_was_only_compiled_under_the_name_of_a_file_there_does_not_count(folder, tool):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']")
    template = folder / "page.html"
    template.write_text("")
    tool.write_text(
        "from fapilog import Settings\n"
        "code = compile('print(Settings().sinks)', 'page.html', 'exec')\n"
        "exec(code, {'Settings': Settings, '__file__': 'page.html', '__name__': 'page'})"
    )
    assert run(folder, str(tool))["sinks"] == "None"


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_to_a_file_beside_the_tool_does_not_count(folder, tool):
    other = tool.parent / "other.toml"
    other.write_text("sinks = ['file:stolen']")
    (folder / "fapilog.toml").symlink_to(other)
    assert run(folder, str(tool), str(folder))["sinks"] == "None"


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_an_applications_link_to_its_file_elsewhere_is_obeyed(folder, tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared") / "logging.toml"
    shared.write_text("sinks = ['memory']")
    (folder / "fapilog.toml").symlink_to(shared)
    (folder / "app.py").write_text(SHOW)
    assert run(folder, "app.py")["sinks"] == "('memory',)"
    if os.geteuid() == 0:
        os.chown(folder / "fapilog.toml", 12345, -1, follow_symlinks=False)
        assert run(folder, "app.py")["sinks"] == "None"


def test_a_command_of_an_environment_in_the_directory_is_installed_too(folder):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']")
    venv.create(folder / ".venv", symlinks=sys.platform != "win32")
    scripts = next(path for path in (folder / ".venv").iterdir() if path.name in {"bin", "Scripts"})
    (scripts / "tool").write_text(SHOW)
    python = next(path for path in scripts.iterdir() if path.name in {"python", "python.exe"})
    done = subprocess.run(
        [python, scripts / "tool"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == "None"
    assert "ignored options: sinks" in done.stderr


def test_parents_of_the_working_directory_are_not_searched(folder, monkeypatch):
    (folder / "fapilog.toml").write_text("level = 'debug'")
    inner = folder / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert Settings().level == 9


def test_the_config_command_says_what_it_does_not_obey(folder):
    (folder / "fapilog.toml").write_text("sinks = ['file:stolen']\nlevel = 'debug'")
    seen = run(folder, "-m", "fapilog", "config")
    assert "ignored options: sinks; if the file is yours, set FAPILOG_CONFIG" in seen["err"]
    lines = {tuple(line.split()) for line in seen["sinks"].splitlines()}
    assert ("sinks", "console", "default") in lines
    assert ("level", "DEBUG", "fapilog.toml") in lines
    assert (
        "file:stolen"
        in run(folder, "-m", "fapilog", "config", FAPILOG_CONFIG="fapilog.toml")["sinks"]
    )
