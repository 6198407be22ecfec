"""Correct code of users type-checks in strict mode, and wrong code does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from fapilog.options import arguments
from fapilog.options.schema import inside, is_group
from fapilog.settings import Settings
from tests.typing import options

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_right_uses_of_the_public_names_pass_and_wrong_ones_fail_the_type_checker() -> None:
    pytest.importorskip("mypy", reason="needs the dependency group `lint`")
    # tests/typing/wrong.py ignores each error by its code; in strict mode an
    # ignore without an error is an error itself.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "tests/typing"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.slow
def test_pyright_finds_the_same_errors() -> None:
    pytest.importorskip("pyright", reason="needs the dependency group `pyright`")
    # tests/typing/pyrightconfig.json makes an ignore without an error an error.
    command = [sys.executable, "-m", "pyright", "-p", "tests/typing"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def choices(kind: object) -> set[object]:
    """Return the values of every Literal inside a type."""
    if get_origin(kind) is Literal:
        return set(get_args(kind))
    return set().union(*map(choices, get_args(kind)))


def compare(model: type[BaseModel], typed: Any, name: str = "") -> None:
    """Compare the options of a group with the arguments that type checkers know."""
    hints = get_type_hints(typed)
    assert set(hints) == set(model.model_fields), name
    for option, hint in hints.items():
        group = inside(model, option)
        if is_group(group):
            compare(group, hint, option)
        elif is_group(inside(group, "")):
            compare(inside(group, ""), get_args(hint)[1], option)
        else:
            assert choices(hint) == choices(model.model_fields[option].annotation), option


def test_type_checkers_know_every_option_and_every_choice() -> None:
    compare(Settings, arguments.SettingsArguments)


def test_the_right_value_of_every_option_is_right_at_run_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = options.settings()
    assert settings.model_fields_set == set(Settings.model_fields)
    for group in (settings.console, settings.file, settings.loki, settings.spool):
        assert group.model_fields_set == set(type(group).model_fields)
    (route,) = settings.routes.values()
    assert route.model_fields_set == set(type(route).model_fields)
