"""The handler on the root logger: install(), uninstall(), and no loops."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fapilog.bridges.stdlib import Handler, install, uninstall
from fapilog.context import BOUND, SUPPRESSED
from fapilog.errors import ConfigurationError, SendError
from fapilog.record import LogRecord
from fapilog.sinks.exporter import ExporterSink
from tests.support.targets import Collector


@pytest.fixture
def target() -> Collector:
    return Collector()


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger; afterwards nothing is installed and its level is restored."""
    found = logging.getLogger()
    level, handlers = found.level, found.handlers[:]
    yield found
    uninstall()
    found.setLevel(level)
    found.handlers[:] = handlers


def test_install_and_uninstall_leave_the_root_logger_as_it_was(
    root: logging.Logger, target: Collector
) -> None:
    root.setLevel(logging.WARNING)
    level, handlers = root.level, root.handlers[:]
    install(lambda: target, "info")
    install(lambda: target, "info")
    logging.getLogger("shop").info("x")
    logging.getLogger("shop").debug("below")
    assert [record.body for record in target.records] == ["x"]
    assert len(root.handlers) == len(handlers) + 1
    uninstall()
    uninstall()
    assert (root.level, root.handlers) == (level, handlers)


def test_without_a_level_the_logger_is_opened_to_what_the_target_takes(
    root: logging.Logger,
) -> None:
    root.setLevel(logging.WARNING)
    target = Collector(threshold=5)
    install(lambda: target)
    logging.getLogger("shop").debug("x")
    assert [record.body for record in target.records] == ["x"]
    install(lambda: None)
    assert root.level == logging.WARNING


def test_a_logger_that_is_open_wider_stays_so(root: logging.Logger, target: Collector) -> None:
    root.setLevel(logging.DEBUG)
    install(lambda: target, logging.ERROR)
    logging.getLogger("shop").warning("below the handler's level")
    assert root.level == logging.DEBUG
    assert target.records == []
    uninstall()
    assert root.level == logging.DEBUG


def test_installing_again_changes_target_and_level(root: logging.Logger, target: Collector) -> None:
    root.setLevel(logging.WARNING)
    other = Collector()
    install(lambda: target, "DEBUG")
    install(lambda: other, "error")
    assert root.level == logging.WARNING
    logging.getLogger("shop").warning("below")
    logging.getLogger("shop").error("x")
    assert (len(target.records), len(other.records)) == (0, 1)


def test_a_level_set_by_somebody_else_in_between_stays(
    root: logging.Logger, target: Collector
) -> None:
    root.setLevel(logging.WARNING)
    install(lambda: target, "debug")
    root.setLevel(logging.ERROR)
    uninstall()
    assert root.level == logging.ERROR


def test_a_handler_removed_by_another_configuration_is_added_again(
    root: logging.Logger, target: Collector
) -> None:
    install(lambda: target)
    root.handlers[:] = [h for h in root.handlers if not isinstance(h, Handler)]
    install(lambda: target)
    assert sum(isinstance(handler, Handler) for handler in root.handlers) == 1


def test_a_logger_with_a_handler_from_elsewhere_gets_no_second_one(target: Collector) -> None:
    logger = logging.getLogger("has.one")
    handler = Handler(runtime=target)
    logger.addHandler(handler)
    install(lambda: target, "INFO", logger)
    logger.info("x")
    assert len(target.records) == 1
    uninstall(logger)
    assert logger.handlers == [handler]
    logger.removeHandler(handler)


def test_a_logger_can_be_named(target: Collector) -> None:
    install(lambda: target, "trace", "only.this")
    logging.getLogger("only.this.child").debug("x")
    logging.getLogger("another").error("y")
    uninstall("only.this")
    assert [record.body for record in target.records] == ["x"]
    assert logging.getLogger("only.this").level == logging.NOTSET


@pytest.mark.parametrize("level", ["loud", ""])
def test_a_wrong_level_fails_at_once(level: str) -> None:
    with pytest.raises(ConfigurationError, match="level"):
        install(lambda: None, level)


@pytest.fixture
def backend() -> Iterator[str]:
    """The URL of a server that takes any POST."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/logs"
    server.shutdown()
    thread.join()
    server.server_close()


def official_exporter(url: str) -> Callable[[LogRecord], None]:
    module = pytest.importorskip("opentelemetry.exporter.otlp.proto.http._log_exporter")
    sink = ExporterSink(module.OTLPLogExporter(url))
    return lambda record: sink.send([sink.encode(record)], 5.0)


def own_sink(url: str) -> Callable[[LogRecord], None]:
    module = pytest.importorskip("fapilog.sinks.otlp.sink")
    sink = module.OTLPSink(url, protocol="http/protobuf")
    sink.open()

    def send(record: LogRecord) -> None:
        # The context of a delivery thread.
        token = BOUND.set(SUPPRESSED)
        try:
            sink.send([sink.encode(record)], 5.0)
        except SendError as error:
            pytest.fail(str(error))
        finally:
            BOUND.reset(token)
            sink.close()

    return send


@pytest.mark.parametrize("deliver", [official_exporter, own_sink])
def test_an_http_client_that_logs_at_debug_does_not_feed_itself(
    root: logging.Logger,
    target: Collector,
    backend: str,
    deliver: Callable[[str], Callable[[LogRecord], None]],
) -> None:
    seen: list[str] = []

    class Witness(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.name.partition(".")[0])

    send = deliver(backend)
    root.setLevel(logging.DEBUG)
    root.addHandler(Witness())
    install(lambda: target, logging.DEBUG)
    logging.getLogger("shop").info("paid")
    send(target.records[0])
    assert {"urllib3", "httpcore"} & set(seen)  # else the test shows nothing
    assert [record.body for record in target.records] == ["paid"]
