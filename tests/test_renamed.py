"""Names of other libraries and of earlier versions end in errors that say what to use."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from typing import Any

import pytest

import fapilog
import fapilog.core
from fapilog import AsyncLogger, Logger, renamed

#: The public names of fapilog 0.18.0.
OLDER = (
    "AdaptiveDrainSummary", "AsyncLoggerBuilder", "DrainResult", "LogEvent", "LoggerBuilder",
    "PresetName", "RedactionPresetName", "VERSION", "clear_logger_cache",
    "create_task_with_context", "get_cached_loggers", "install_shutdown_handlers", "list_presets",
    "preserve_context", "register_level", "run_in_executor_with_context", "runtime_async",
)  # fmt: skip
#: The methods of its loggers that have other names here.
OLDER_METHODS = (
    "audit", "check_health", "clear_context", "disable_enricher", "enable_enricher", "security",
    "self_test", "start", "stop_and_drain", "unsafe_debug",
)  # fmt: skip
OTHER_METHODS = ("setLevel", "msg", "success", "opt", "catch", "isEnabledFor", "addHandler", "new")


@pytest.fixture(params=[fapilog.get_logger, fapilog.get_async_logger])
def log(request: pytest.FixtureRequest) -> Logger | AsyncLogger:
    made: Logger | AsyncLogger = request.param("app")
    return made


@pytest.mark.parametrize("name", [*OLDER_METHODS, *OTHER_METHODS])
def test_a_method_of_another_library_is_explained(log: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute {name!r}; ") as caught:
        getattr(log, name)
    assert renamed.LOGGER[name] in str(caught.value)
    assert not hasattr(log, name)
    assert getattr(log, name, None) is None
    assert name not in dir(log)


def test_an_unknown_method_is_an_ordinary_error(log: Any) -> None:
    with pytest.raises(AttributeError, match=r"Logger' object has no attribute 'verbose'"):
        log.verbose("x")
    with pytest.raises(AttributeError):
        copy.copy(log)._other  # noqa: B018 - reading it raises
    with pytest.raises(AttributeError):
        Logger.__new__(Logger).info("no core")


def test_every_name_in_the_table_of_loggers_is_explained(log: Any) -> None:
    for name, here in renamed.LOGGER.items():
        with pytest.raises(AttributeError) as caught:
            getattr(log, name)
        assert str(caught.value).endswith(f"; {here}")


def test_the_tables_explain_no_name_that_exists() -> None:
    assert [name for name in renamed.LOGGER if hasattr(Logger, name)] == []
    assert [name for name in renamed._PACKAGE if name in fapilog.__all__] == []


def test_every_name_that_is_recommended_exists() -> None:
    texts = (*renamed.LOGGER.values(), *renamed._PACKAGE.values(), *renamed._ARGUMENTS.values())
    words = {word.strip("`,.;") for text in texts for word in text.replace("(", " ").split()}
    for word in words:
        if word.startswith("fapilog."):
            assert hasattr(fapilog, word.split(".")[1]), word
        if word.startswith("log.") and word != "log.":
            assert hasattr(Logger, word.removeprefix("log.")), word


@pytest.mark.parametrize("name", [*OLDER, "getLogger", "bind_contextvars", "logger", "info"])
def test_a_name_of_another_library_is_explained(name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute {name!r}; "):
        getattr(fapilog, name)
    assert not hasattr(fapilog, name)
    with pytest.raises(ImportError, match=f"cannot import name {name!r} from 'fapilog'; ") as error:
        exec(f"from fapilog import {name}", {})
    assert renamed._PACKAGE[name] in str(error.value)


def test_an_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'fapilog' has no attribute 'nothing'$"):
        fapilog.nothing  # type: ignore[attr-defined]  # noqa: B018 - reading it raises
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from fapilog import nothing", {})


def test_import_paths_of_the_earlier_version_are_explained() -> None:
    with pytest.raises(ImportError, match="pip install fapilog-fastapi"):
        importlib.import_module("fapilog.fastapi")
    with pytest.raises(ImportError, match=r"use fapilog\.Settings"):
        exec("from fapilog.core import Settings", {})
    with pytest.raises(TypeError, match=r"use fapilog\.configure"):
        fapilog.runtime()  # type: ignore[operator]


@pytest.mark.parametrize("get", [fapilog.get_logger, fapilog.get_async_logger])
def test_arguments_of_the_earlier_version_are_explained(get: Any) -> None:
    for argument in ("preset", "settings", "sinks", "auto_detect", "reuse"):
        with pytest.raises(TypeError, match=f"no argument {argument!r}; ") as caught:
            get("app", **{argument: "x"})
        assert f"bind({argument}=...)" in str(caught.value)
    with pytest.raises(TypeError, match=r"takes the name by position: get_logger\('app'\)"):
        get(name="app")
    assert get("app", name="n").bind(preset=1, sinks=2).name == "app"


def test_the_statement_is_explained_in_a_program_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from fapilog import get_logger, LoggerBuilder"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ImportError: cannot import name 'LoggerBuilder' from 'fapilog'; use" in done.stderr
