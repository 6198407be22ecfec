"""uvicorn's own line of a record does not stand beside the same line of the console sink."""

from __future__ import annotations

import copy
import io
import logging
import logging.config
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fapilog import Runtime
from fapilog.bridges.stdlib import install, uninstall
from fapilog.delivery.route import Route
from fapilog.sinks import ConsoleSink, MemorySink

uvicorn_config = pytest.importorskip("uvicorn.config")
NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    yield
    uninstall()
    for name in NAMES:
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def configure_uvicorn(file: str | None = None) -> io.StringIO:
    """Configure logging as uvicorn does; return its terminal."""
    config = copy.deepcopy(uvicorn_config.LOGGING_CONFIG)
    terminal = io.StringIO()
    for handler in config["handlers"].values():
        handler["stream"] = terminal
    if file:
        config["handlers"]["file"] = {"class": "logging.FileHandler", "filename": file}
        config["loggers"]["uvicorn"]["handlers"].append("file")
    logging.config.dictConfig(config)
    return terminal


def test_a_record_that_the_console_shows_is_not_printed_by_uvicorn_too() -> None:
    before = configure_uvicorn()
    console = io.StringIO()
    with Runtime(sinks=[ConsoleSink(console)]) as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
        after = configure_uvicorn()  # uvicorn.run() in a script configures logging later
        logging.getLogger("uvicorn.error").info("Waiting for application startup.")
    assert console.getvalue().count("Started") == console.getvalue().count("Waiting") == 1
    assert before.getvalue() == after.getvalue() == ""


def test_without_a_console_sink_uvicorn_prints_its_lines() -> None:
    terminal = configure_uvicorn()
    with Runtime(sinks=[MemorySink()]) as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
    assert "Started" in terminal.getvalue()


@pytest.mark.parametrize(
    "sinks",
    [
        lambda console: [Route(console, level="warn")],
        lambda console: [Route(MemorySink(), fallback=console)],
    ],
    ids=["route", "fallback"],
)
def test_uvicorn_prints_its_lines_if_the_console_sink_gets_only_some_records(sinks: Any) -> None:
    terminal = configure_uvicorn()
    with Runtime(sinks=sinks(ConsoleSink(io.StringIO()))) as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
    assert "Started" in terminal.getvalue()


def of_fastapi_run(handler: logging.Handler) -> None:
    """Give a handler a formatter as that of the command ``fastapi run``."""
    base: Any = type(handler.formatter)
    handler.setFormatter(
        type("CustomFormatter", (base,), {"__module__": "fastapi_cli"})("%(message)s")
    )


def of_gunicorn(handler: logging.Handler) -> None:
    """Make a handler like gunicorn's, which its uvicorn workers use."""
    handler.setFormatter(logging.Formatter())
    vars(handler)["_gunicorn"] = True


@pytest.mark.parametrize("change", [of_fastapi_run, of_gunicorn])
def test_handlers_of_other_commands_that_run_uvicorn_do_not_print_twice_either(
    change: Callable[[logging.Handler], None],
) -> None:
    terminal = configure_uvicorn()
    change(logging.getLogger("uvicorn").handlers[0])
    console = io.StringIO()
    with Runtime(sinks=[ConsoleSink(console)]) as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
    assert console.getvalue().count("Started") == 1
    assert terminal.getvalue() == ""


def test_a_record_that_fapilog_does_not_take_is_printed_by_uvicorn() -> None:
    terminal = configure_uvicorn()
    with Runtime(sinks=[ConsoleSink(io.StringIO())], level="error") as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").info("after the shutdown")
    uninstall()
    logging.getLogger("uvicorn.error").info("after uninstall")
    assert [line.split("     ")[1] for line in terminal.getvalue().splitlines()] == [
        "Started server process",
        "after the shutdown",
        "after uninstall",
    ]


def test_handlers_that_the_application_gives_to_uvicorn_stay(tmp_path: object) -> None:
    file = f"{tmp_path}/uvicorn.log"
    configure_uvicorn(file)
    with Runtime(sinks=[ConsoleSink(io.StringIO())]) as runtime:
        install(lambda: runtime)
        logging.getLogger("uvicorn.error").info("Started server process")
    with open(file) as written:
        assert written.read() == "Started server process\n"
