"""Loggers and handlers in copies, pickles and other processes keep their name and fields."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

import fapilog
from fapilog import AsyncLogger, Handler, Logger, Runtime
from fapilog.bridges.structlog import StructlogProcessor
from fapilog.sinks import MemorySink


class Service:
    """An application's object that keeps its logger."""

    def __init__(self, log: Logger | AsyncLogger) -> None:
        self.log = log


class SpecialLogger(Logger):
    """A subclass, as an integration makes it."""

    __slots__ = ()


def copies(value: Any) -> list[Any]:
    pickles = range(2, pickle.HIGHEST_PROTOCOL + 1)
    return [
        copy.copy(value),
        copy.deepcopy(value),
        *(pickle.loads(pickle.dumps(value, protocol)) for protocol in pickles),
    ]


FIELDS = {"a": 1, "b": {"c": [1.5, None, b"x"]}, "d": object()}


@pytest.mark.parametrize("is_configured", [False, True], ids=["before", "after"])
def test_a_copied_logger_logs_with_its_name_and_fields(is_configured: bool) -> None:
    sink = MemorySink()
    if is_configured:
        fapilog.configure(sinks=[sink])
    services = copies(Service(fapilog.get_logger("app.orders", **FIELDS)))
    if not is_configured:
        fapilog.configure(sinks=[sink])
    for service in services:
        service.log.bind(more=2).info("from a copy")
    fapilog.flush(5)
    assert len(sink.records) == len(services)
    for record in sink.records:
        assert record.scope.name == "app.orders"
        assert record.attributes["b"] == {"c": [1.5, None, b"x"]}
        assert record.attributes["more"] == 2
    fapilog.set_level("error", "app.orders")
    assert [service.log.is_enabled("info") for service in services] == [False] * len(services)


def test_a_copy_keeps_its_class() -> None:
    loggers: list[Logger | AsyncLogger] = [
        fapilog.get_async_logger("app", a=1),
        SpecialLogger.of(fapilog.get_logger("app")),
    ]
    for log in loggers:
        for found in copies(log):
            assert type(found) is type(log)
            assert repr(found) == repr(log)


def test_a_logger_of_another_runtime_is_copied_but_not_pickled() -> None:
    sink = MemorySink()
    with Runtime(sinks=[sink], otel_provider=False) as own:
        log = own.get_logger("tenant", tenant="acme")
        copy.deepcopy(Service(log)).log.info("copied")
        own.flush(5)
        assert [record.body for record in sink.records] == ["copied"]
        with pytest.raises(pickle.PicklingError, match=r"separate Runtime.*get_logger"):
            pickle.dumps(log)
        handler = Handler(runtime=own)
        assert copy.deepcopy(handler) is handler
        with pytest.raises(pickle.PicklingError, match="separate Runtime"):
            pickle.dumps(handler)


class _Odd(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "odd" in record.getMessage()


def test_a_copied_handler_gives_records_to_the_default_runtime() -> None:
    sink = MemorySink()
    original = Handler(logging.WARNING, code_attributes=True)
    original.addFilter(_Odd())
    handlers = copies(original)
    fapilog.configure(sinks=[sink])
    for handler in handlers:
        assert handler.level == logging.WARNING
        log = logging.Logger("app")  # noqa: LOG001 - a logger without a parent
        log.addHandler(handler)
        log.warning("odd")
        log.warning("even")
    fapilog.flush(5)
    assert [record.body for record in sink.records] == ["odd"] * len(handlers)
    assert all("code.line.number" in record.attributes for record in sink.records)


def test_a_copied_bridge_gives_events_to_the_default_runtime() -> None:
    sink = MemorySink()
    bridges = copies(StructlogProcessor())
    fapilog.configure(sinks=[sink])
    for bridge in bridges:
        with pytest.raises(structlog.DropEvent):
            bridge(None, "info", {"event": "from structlog"})
    fapilog.flush(5)
    assert len(sink.records) == len(bridges)


POOL = """
import logging, multiprocessing, pathlib, sys
from concurrent.futures import ProcessPoolExecutor
import fapilog

class Service:
    def __init__(self):
        self.log = fapilog.get_logger("app.service", kind="bound")
        self.stdlib = logging.getLogger("app.stdlib")
        self.handler = fapilog.Handler()
    def work(self, number):
        self.log.info("work %d", number)
        assert isinstance(self.handler, fapilog.Handler)
        fapilog.flush(10)
        return number

def set_up(folder):
    fapilog.configure(sinks=[f"file:{folder}/log.jsonl"], otel_provider=False)

if __name__ == "__main__":
    how, method, folder = sys.argv[1:]
    before = Service()
    set_up(folder)
    services = [before, Service()]
    context = multiprocessing.get_context(method)
    for service in services:
        if how == "executor":
            with ProcessPoolExecutor(2, context, set_up, (folder,)) as pool:
                assert list(pool.map(service.work, range(4))) == [0, 1, 2, 3]
        else:
            with context.Pool(2, set_up, (folder,)) as pool:
                assert pool.map(service.work, range(4)) == [0, 1, 2, 3]
                pool.close()
                pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("how", ["executor", "pool"])
def test_an_object_with_a_logger_works_in_a_process_pool(
    how: str, method: str, tmp_path: Path
) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    done = subprocess.run(
        [sys.executable, str(script), how, method, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = "".join(path.read_text() for path in tmp_path.glob("log*.jsonl"))
    assert text.count('"work %d"') == 8
    assert text.count('"kind":"bound"') == 8
