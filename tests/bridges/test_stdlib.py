"""Records of the logging module: which ones arrive, and in which form."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import queue
import socket
import sys
import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from fapilog.bridges import feeds
from fapilog.bridges.stdlib import Handler
from fapilog.context import BOUND, SUPPRESSED, bind
from fapilog.errors import ConfigurationError
from tests.support.targets import Collector


@pytest.fixture
def target() -> Collector:
    return Collector()


@pytest.fixture
def logger(target: Collector) -> logging.Logger:
    """A separate logger without a parent that logs to the target."""
    made = logging.Logger("shop.payments")  # noqa: LOG001 - not a child of root
    made.addHandler(Handler(runtime=target))
    return made


def test_a_record_arrives_as_it_was_logged(logger: logging.Logger, target: Collector) -> None:
    logger.warning("paid %s of %d", "A-1", 9)
    (record,) = target.records
    assert record.body == "paid A-1 of 9"
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.scope.name == "shop.payments"
    assert record.attributes == {}
    assert (record.trace_id, record.span_id, record.event_name) == ("", "", "")
    assert 0 <= record.observed_timestamp - record.timestamp < 60_000_000_000
    assert record.timestamp > 1_700_000_000_000_000_000


def test_levels_in_between_keep_their_place(logger: logging.Logger, target: Collector) -> None:
    logging.addLevelName(25, "NOTICE")
    logger.log(25, "x")
    assert (target.records[0].severity_number, target.records[0].severity_text) == (11, "NOTICE")


def test_extras_become_typed_attributes(logger: logging.Logger, target: Collector) -> None:
    items = ["a", {"b": 1}]
    logger.info("x", extra={"order": 42, "paid": True, "total": 9.5, "items": items})
    items.append("late")
    assert target.records[0].attributes == {
        "order": 42,
        "paid": True,
        "total": 9.5,
        "items": ["a", {"b": 1}],
    }


def test_what_other_handlers_and_instrumentation_leave_on_a_record_is_no_extra(
    logger: logging.Logger, target: Collector
) -> None:
    record = logger.makeRecord("shop", 20, __file__, 1, "x", (), None, extra={"order": 1})
    logging.Formatter("%(asctime)s %(message)s").format(record)
    record.otelTraceID, record.taskName = "0", "Task-1"
    logger.handle(record)
    assert target.records[0].attributes == {"order": 1}


def test_a_single_mapping_fills_named_placeholders(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("%(who)s paid", {"who": "Ada"})
    assert target.records[0].body == "Ada paid"
    assert target.records[0].attributes == {}


def test_a_mapping_logged_without_arguments_stays_structured(
    logger: logging.Logger, target: Collector
) -> None:
    message = {"event": "paid", "order": {"id": 42}}
    logger.info(message)
    message["event"] = "changed"
    assert target.records[0].body == {"event": "paid", "order": {"id": 42}}


@pytest.mark.parametrize("message", [ValueError("why"), 42, ["a"], None])
def test_other_objects_are_logged_as_their_text(
    logger: logging.Logger, target: Collector, message: object
) -> None:
    logger.info(message)
    assert target.records[0].body == str(message)


def test_a_message_that_does_not_fit_its_arguments_is_kept_raw(
    logger: logging.Logger, target: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.error("%d of %d", 1, extra={"order": 42})
    (record,) = target.records
    assert record.body == "%d of %d"
    assert record.attributes == {"order": 42, "log.args": [1]}
    assert "shop.payments" in capsys.readouterr().err


class Unprintable:
    def __str__(self) -> str:
        msg = "no text"
        raise RuntimeError(msg)

    __repr__ = __str__


def test_a_message_without_a_text_does_not_raise(logger: logging.Logger, target: Collector) -> None:
    logger.error(Unprintable())
    logger.error("%s", Unprintable())
    assert len(target.records) == 2
    assert "Unprintable" in str(target.records[0].body)
    assert target.records[1].body == "%s"


class LogsItself:
    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger

    def __str__(self) -> str:
        self.logger.info("formatting %s", self)
        self.logger.info("plain")
        return "itself"


def test_a_value_that_logs_while_it_is_formatted_ends(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("got %s", LogsItself(logger))
    assert [record.body for record in target.records] == ["formatting %s", "plain", "got itself"]


def test_an_exception_is_captured(logger: logging.Logger, target: Collector) -> None:
    try:
        raise KeyError("order")
    except KeyError:
        logger.exception("failed")
    (capture,) = target.captures
    assert capture is not None
    attributes = capture.attributes()
    assert attributes["exception.type"] == "KeyError"
    assert attributes["exception.message"] == "'order'"
    assert "test_an_exception_is_captured" in attributes["exception.stacktrace"]


def test_exc_info_without_an_exception_adds_nothing(
    logger: logging.Logger, target: Collector
) -> None:
    logger.error("x", exc_info=True)  # noqa: LOG014 - the test needs a call without an exception
    assert target.captures == [None]
    assert target.records[0].attributes == {}


def test_a_stack_becomes_code_stacktrace(logger: logging.Logger, target: Collector) -> None:
    logger.info("x", stack_info=True)
    assert "test_a_stack_becomes" in target.records[0].attributes["code.stacktrace"]


def test_the_text_of_an_exception_that_is_gone_is_kept(
    logger: logging.Logger, target: Collector
) -> None:
    record = logger.makeRecord("shop", 40, __file__, 1, "x", (), None)
    record.exc_text = "Traceback …\nKeyError: 'order'"
    logger.handle(record)
    assert target.records[0].attributes == {"exception.stacktrace": record.exc_text}


def test_the_active_span_is_on_the_record(logger: logging.Logger, target: Collector) -> None:
    span = trace.NonRecordingSpan(
        trace.SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    with trace.use_span(span):
        logger.info("x")
    (record,) = target.records
    assert (record.trace_id, record.span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert record.trace_flags == 1


def test_the_message_that_uvicorn_adds_for_terminals_is_left_out(target: Collector) -> None:
    logger = logging.Logger("uvicorn.error")  # noqa: LOG001 - not a child of root
    logger.addHandler(Handler(runtime=target))
    logger.warning("at %s", "x", extra={"color_message": "at \x1b[1m%s", "order": 1})
    (record,) = target.records
    assert (record.body, record.attributes) == ("at x", {"order": 1})


def test_another_loggers_extra_of_the_same_name_stays(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("x", extra={"color_message": "green"})
    assert target.records[0].attributes == {"color_message": "green"}


def test_extras_win_over_the_bound_context(logger: logging.Logger, target: Collector) -> None:
    with bind(user="u-1", order=0):
        logger.info("x", extra={"order": 42})
    logger.info("y")
    assert target.records[0].attributes == {"user": "u-1", "order": 42}
    assert target.records[1].attributes == {}


@pytest.mark.parametrize("name", ["otel.event.name", "event.name"])
def test_an_event_name_among_the_extras_is_the_events(
    logger: logging.Logger, target: Collector, name: str
) -> None:
    logger.info("x", extra={name: "order.paid", "order": 42})
    assert target.records[0].event_name == "order.paid"
    assert target.records[0].attributes == {"order": 42}


class Till:
    def pay(self, logger: logging.Logger) -> None:
        logger.info("paid")


def test_code_attributes_are_optional(target: Collector) -> None:
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(Handler(runtime=target, code_attributes=True))
    Till().pay(logger)
    attributes = target.records[0].attributes
    assert attributes["code.file.path"] == __file__
    assert attributes["code.line.number"] == Till.pay.__code__.co_firstlineno + 1
    qualified = "Till.pay" if sys.version_info >= (3, 11) else "pay"
    assert attributes["code.function.name"] == f"{__name__}.{qualified}"


def test_a_function_that_has_returned_keeps_its_plain_name(target: Collector) -> None:
    handler = Handler(runtime=target, code_attributes=True)
    record = logging.LogRecord("shop", 20, "/app/till.py", 7, "x", (), None, func="pay")
    thread = threading.Thread(target=handler.handle, args=(record,))
    thread.start()
    thread.join()
    assert target.records[0].attributes == {
        "code.file.path": "/app/till.py",
        "code.line.number": 7,
        "code.function.name": "pay",
    }


def test_thread_attributes_are_optional(target: Collector) -> None:
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(Handler(runtime=target, thread_attributes=True))
    logger.info("x")
    current = threading.current_thread()
    assert target.records[0].attributes == {
        "thread.id": current.ident,
        "thread.name": current.name,
    }


def test_a_severity_the_target_does_not_take_is_left_out(
    logger: logging.Logger, target: Collector
) -> None:
    target.threshold = 13
    logger.info("x")
    assert target.records == []
    assert target.asked == ["shop.payments"]


def test_fapilogs_own_loggers_are_left_out_and_others_of_similar_name_are_not(
    target: Collector,
) -> None:
    handler = Handler(runtime=target)
    for name in ("fapilog", "fapilog.sinks.otlp.sink", "fapilogger"):
        handler.handle(logging.LogRecord(name, 20, "", 1, name, (), None))
    assert [record.body for record in target.records] == ["fapilogger"]


def test_nothing_logged_inside_a_delivery_arrives(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("by the application")
    token = BOUND.set(SUPPRESSED)
    logger.info("by fapilog's own sink")
    logger.handlers[0].flush()
    BOUND.reset(token)
    otel = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    logger.info("by an exporter of the SDK")
    detach(otel)
    assert [record.body for record in target.records] == ["by the application"]
    assert target.flushed == []


def test_filters_decide_and_may_replace_the_record(
    logger: logging.Logger, target: Collector
) -> None:
    logger.handlers[0].addFilter(lambda record: record.getMessage() != "drop")
    logger.info("drop")
    logger.info("keep")
    if sys.version_info >= (3, 12):
        other = logging.LogRecord("shop", 20, "", 1, "replaced", (), None)
        logger.handlers[0].addFilter(lambda record: other)  # type: ignore[arg-type]
        logger.info("original")
        assert target.records.pop().body == "replaced"
    assert [record.body for record in target.records] == ["keep"]


def test_no_lock_is_held_while_user_code_runs(logger: logging.Logger, target: Collector) -> None:
    class Waits:
        def __str__(self) -> str:
            thread = threading.Thread(target=logger.info, args=("from another thread",))
            thread.start()
            thread.join(30)
            return "waited" if not thread.is_alive() else "stuck"

    logger.info("%s", Waits())
    assert [record.body for record in target.records] == ["from another thread", "waited"]


def test_records_that_come_through_a_queue_arrive(target: Collector) -> None:
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, Handler(runtime=target))
    listener.start()
    logger.info("paid %d", 42, extra={"order": 42})
    listener.stop()
    assert target.records[0].body == "paid 42"
    assert target.records[0].attributes == {"order": 42}


def test_dict_config_can_name_the_handler(target: Collector) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "fapilog": {
                    "class": "fapilog.bridges.stdlib.Handler",
                    "level": "WARNING",
                    "runtime": target,
                    "code_attributes": True,
                }
            },
            "loggers": {"configured": {"handlers": ["fapilog"], "level": "DEBUG"}},
        }
    )
    logger = logging.getLogger("configured")
    try:
        logger.info("below the handler's level")
        logger.warning("x")
    finally:
        logger.handlers.clear()
    assert [record.body for record in target.records] == ["x"]
    assert target.records[0].attributes["code.file.path"] == __file__


def test_without_a_runtime_it_feeds_the_default_one(
    monkeypatch: pytest.MonkeyPatch, target: Collector
) -> None:
    monkeypatch.setattr(feeds, "default_target", feeds.no_target)
    logger = logging.Logger("shop")  # noqa: LOG001 - not a child of root
    logger.addHandler(Handler())
    logger.info("nobody listens")
    monkeypatch.setattr(feeds, "default_target", lambda: target)
    logger.info("heard")
    assert [record.body for record in target.records] == ["heard"]


def test_flushing_a_handler_that_was_never_used_makes_no_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    monkeypatch.setattr(feeds, "default_target", lambda: made.append(1))
    Handler().flush()
    assert made == []


def test_logging_does_not_flush_and_flushing_is_short(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("x")
    assert target.flushed == []
    logger.handlers[0].flush()
    assert target.flushed == [1.0]
    logger.handlers[0].close()
    assert target.flushed == [1.0]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("sinks", "sinks is an option of fapilog.configure()"),
        ("processors", "processors is an option of fapilog.configure()"),
        ("redact_fields", "redact_fields is an option of fapilog.configure()"),
        (
            "stream",
            "fapilog.Handler takes level, code_attributes and thread_attributes, not stream",
        ),
    ],
)
def test_a_wrong_option_in_a_dictconfig_is_an_error_that_names_the_right_place(
    option: str, reason: str
) -> None:
    placed = Handler.placed
    with pytest.raises(ValueError, match="handler 'fapilog'") as caught:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"fapilog": {"class": "fapilog.Handler", option: ["otlp"]}},
            }
        )
    assert isinstance(caught.value.__cause__, ConfigurationError)
    assert str(caught.value.__cause__).endswith(reason)
    assert Handler.placed == placed


def test_the_socket_and_the_second_time_of_djangos_server_are_left_out(target: Collector) -> None:
    server = logging.Logger("django.server")  # noqa: LOG001 - not a child of root
    server.addHandler(Handler(runtime=target))
    with socket.socket() as connection:
        extra = {
            "request": connection,
            "server_time": "29/Nov/2026 22:38:59",
            "status_code": 200,
            "peers": [connection],
        }
        server.info('"GET / HTTP/1.1" 200 2', extra=extra)
    attributes = target.records[0].attributes
    assert attributes["status_code"] == 200
    assert sorted(attributes) == ["peers", "status_code"]
    assert len(extra) == 4


def test_only_loggers_of_the_library_lose_what_its_formatter_needs(
    logger: logging.Logger, target: Collector
) -> None:
    logger.info("x", extra={"server_time": 1, "color_message": "y"})
    assert target.records[0].attributes == {"server_time": 1, "color_message": "y"}
