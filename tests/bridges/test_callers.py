"""Code that searches for the caller of a log call finds the application, not fapilog's wrappers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import structlog

import fapilog
from fapilog.sinks import MemorySink


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    fapilog.configure(sinks=[MemorySink()])
    fapilog.install_stdlib()
    fapilog.install_hooks()
    yield
    fapilog.shutdown()


class Asking(logging.Handler):
    """A handler that notes what a function returns while a record is handled."""

    def __init__(self, ask: Callable[[logging.LogRecord], Any]) -> None:
        super().__init__()
        self.ask = ask
        self.found: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.ask(record))


def logger_with(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(handler)
    return logger


def by_file(_record: logging.LogRecord) -> str:
    """Walk the stack as the InterceptHandler in loguru's documentation does."""
    frame: FrameType | None = inspect.currentframe()
    assert frame is not None
    while frame.f_back and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    while frame.f_back and frame.f_code.co_filename == logging.__file__:
        frame = frame.f_back
    return frame.f_code.co_name


def test_a_handler_that_skips_the_frames_of_logging_by_file_finds_the_application():
    handler = Asking(by_file)

    def application() -> None:
        logger_with(handler).info("order placed")

    application()
    assert handler.found == ["application"]


def test_structlog_finds_the_application():
    adder = structlog.processors.CallsiteParameterAdder(
        {structlog.processors.CallsiteParameter.PATHNAME}, ["logging", __name__]
    )
    handler = Asking(lambda _record: adder(logging.getLogger(), "info", {})["pathname"])

    def application() -> None:
        logger_with(handler).info("order placed")

    application()
    # This module is skipped, as the module of a real handler would be: its caller remains.
    assert "fapilog/bridges" not in handler.found[0].replace("\\", "/")


def test_no_frame_of_fapilog_stands_between_logging_and_a_handler():
    def names(_record: logging.LogRecord) -> list[str]:
        return [frame.filename for frame in inspect.stack(0)]

    handler = Asking(names)
    logger_with(handler).info("order placed")
    (files,) = handler.found
    assert [file for file in files if "fapilog/bridges" in file.replace("\\", "/")] == []


@pytest.mark.parametrize("level", [1, 2])
def test_stacklevel_counts_as_without_fapilog(level):
    handler = Asking(lambda record: record.funcName)

    def library() -> None:
        logger_with(handler).info("order placed", stacklevel=level)

    def application() -> None:
        library()

    application()
    assert handler.found == [{1: "library", 2: "application"}[level]]


def test_a_captured_warning_has_the_place_that_it_has_without_fapilog():
    handler = Asking(lambda record: record.filename)
    logger = logging.getLogger("py.warnings")
    fapilog.uninstall_hooks()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        fapilog.install_hooks()
        logger.addHandler(handler)
        try:
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        finally:
            logger.removeHandler(handler)
            fapilog.uninstall_hooks()
            logging.captureWarnings(False)
    assert handler.found == ["warnings.py"]


def test_the_wrappers_of_hooks_belong_to_the_modules_that_they_serve():
    wrapped: list[Any] = [
        logging.Logger.callHandlers,
        warnings.showwarning,
        threading.excepthook,
        asyncio.BaseEventLoop.call_exception_handler,
    ]
    assert [hook.__module__ for hook in wrapped] == [
        "logging",
        "warnings",
        "threading",
        "asyncio.base_events",
    ]
