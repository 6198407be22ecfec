"""Records of the Logs API and of the SDK become fapilog's records, value by value."""

from __future__ import annotations

import traceback
from collections import UserDict
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord as APILogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource as SDKResource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fapilog.otel.convert import exception_of, from_api, from_sdk_resource, from_sdk_scope, severity
from fapilog.record import EMPTY_RESOURCE, EMPTY_SCOPE, LogRecord, Resource, Scope
from fapilog.sinks.exporter import ExporterSink

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0x00F067AA0BA902B7
SPAN = trace.NonRecordingSpan(
    trace.SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=trace.TraceFlags(1))
)


class PaymentError(Exception):
    pass


def shortened(error: BaseException) -> dict[str, Any]:
    """An exception's attributes as OpenTelemetry's logging handlers shorten them."""
    try:
        raise error
    except BaseException as raised:
        text = "".join(traceback.format_exception(raised))
    attributes = {"exception.type": type(error).__name__, "exception.stacktrace": text}
    if error.args:
        attributes["exception.message"] = str(error.args[0])
    return attributes


def test_every_field_of_an_api_record_arrives() -> None:
    scope, resource = Scope("shop"), Resource({"service.name": "web"})
    record = from_api(
        APILogRecord(
            timestamp=5,
            observed_timestamp=7,
            severity_number=SeverityNumber.WARN2,
            severity_text="NOTICE",
            body="order placed",
            attributes={"order": 42, "total": 9.5, "paid": True, "sku": "A-1"},
            event_name="order.placed",
        ),
        scope,
        resource,
    )
    assert (record.timestamp, record.observed_timestamp) == (5, 7)
    assert (record.severity_number, record.severity_text) == (14, "NOTICE")
    assert record.body == "order placed"
    assert record.attributes == {"order": 42, "total": 9.5, "paid": True, "sku": "A-1"}
    assert record.event_name == "order.placed"
    assert record.scope is scope
    assert record.resource is resource


def test_trace_ids_come_from_the_active_span() -> None:
    with trace.use_span(SPAN):
        emitted = APILogRecord(body="x")
    record = from_api(emitted)
    assert record.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert record.span_id == "00f067aa0ba902b7"
    assert record.trace_flags == 1


def test_trace_ids_come_from_the_given_context() -> None:
    context = trace.set_span_in_context(SPAN, Context())
    record = from_api(APILogRecord(body="x", context=context))
    assert (record.trace_id, record.span_id) == (
        "0af7651916cd43dd8448eb211c80319c",
        "00f067aa0ba902b7",
    )


def test_outside_a_span_there_are_no_ids() -> None:
    record = from_api(APILogRecord(body="x"))
    assert (record.trace_id, record.span_id, record.trace_flags) == ("", "", 0)


def test_a_record_without_a_timestamp_gets_its_observed_time() -> None:
    record = from_api(APILogRecord(body="x", observed_timestamp=11))
    assert (record.timestamp, record.observed_timestamp) == (11, 11)


def test_a_record_without_any_time_is_observed_now() -> None:
    emitted = APILogRecord(body="x")
    emitted.observed_timestamp = None  # type: ignore[assignment]
    record = from_api(emitted)
    assert record.observed_timestamp > 1_700_000_000_000_000_000
    assert record.timestamp == record.observed_timestamp


@pytest.mark.parametrize(
    ("given", "number"),
    [(SeverityNumber.FATAL4, 24), (17, 17), (None, 0), ("ERROR", 0), (True, 0)],
)
def test_severity_is_a_number_or_unspecified(given: object, number: int) -> None:
    assert severity(given) == number


def test_missing_texts_are_empty() -> None:
    record = from_api(APILogRecord())
    assert (record.severity_text, record.event_name, record.body) == ("", "", None)


def test_changing_values_later_does_not_change_the_record() -> None:
    body, nested = [{"a": 1}], [1, 2]
    attributes: dict[str, Any] = {"n": nested}
    record = from_api(APILogRecord(body=body, attributes=attributes))
    body[0]["a"] = 2
    nested.append(3)
    attributes["late"] = True
    assert record.body == [{"a": 1}]
    assert record.attributes == {"n": [1, 2]}


def test_attributes_may_be_any_mapping() -> None:
    emitted = APILogRecord(attributes=UserDict(a=1))
    assert from_api(emitted).attributes == {"a": 1}


def test_attributes_that_are_no_mapping_are_kept_as_one() -> None:
    emitted = APILogRecord(attributes=["a", 1])  # type: ignore[call-overload]
    assert from_api(emitted).attributes == {"attributes": ["a", 1]}


def test_attributes_the_sdk_dropped_stay_counted() -> None:
    bounded = BoundedAttributes(maxlen=1, attributes={"a": 1, "b": 2}, immutable=False)
    record = from_api(APILogRecord(attributes=bounded))
    assert record.attributes == {"b": 2}
    assert record.dropped_attributes_count == 1


def test_own_attributes_win_over_bound_ones() -> None:
    record = from_api(APILogRecord(attributes={"a": 1}), bound={"a": 0, "user": "u-1"})
    assert record.attributes == {"a": 1, "user": "u-1"}


def test_bound_fields_reach_a_record_without_attributes() -> None:
    assert from_api(APILogRecord(), bound={"user": "u-1"}).attributes == {"user": "u-1"}


def test_a_shortened_exception_type_is_qualified_from_its_stack_trace() -> None:
    record = from_api(APILogRecord(attributes=shortened(PaymentError("declined"))))
    assert record.attributes["exception.type"] == f"{__name__}.PaymentError"
    assert record.attributes["exception.message"] == "declined"


def test_a_shortened_exception_message_is_restored_from_its_stack_trace() -> None:
    record = from_api(APILogRecord(attributes=shortened(FileNotFoundError(2, "No such file"))))
    assert record.attributes["exception.type"] == "FileNotFoundError"
    assert record.attributes["exception.message"] == "[Errno 2] No such file"


def test_an_exception_of_several_lines_keeps_them() -> None:
    error = PaymentError("declined:\n  insufficient funds")
    record = from_api(APILogRecord(attributes=shortened(error)))
    assert record.attributes["exception.type"] == f"{__name__}.PaymentError"
    assert record.attributes["exception.message"] == "declined:\n  insufficient funds"


def test_an_exception_that_quotes_another_of_its_kind_keeps_its_message() -> None:
    error = PaymentError("first line\nPaymentError: quoted")
    record = from_api(APILogRecord(attributes=shortened(error)))
    assert record.attributes["exception.message"] == "first line\nPaymentError: quoted"


@pytest.mark.parametrize(
    "attributes",
    [
        {"exception.type": "E"},
        {"exception.type": "E", "exception.stacktrace": "no header"},
        {"exception.type": "E", "exception.message": "m", "exception.stacktrace": "x.E: other"},
        {"exception.type": "E", "exception.message": 5, "exception.stacktrace": "x.E: m"},
    ],
)
def test_exception_attributes_that_do_not_agree_are_left_alone(attributes: dict[str, Any]) -> None:
    assert from_api(APILogRecord(attributes=attributes)).attributes == attributes


def carrying(exception: object, attributes: dict[str, Any] | None = None) -> APILogRecord:
    record = APILogRecord(attributes=attributes)
    record.exception = exception  # type: ignore[assignment]  # the API has it since 1.40
    return record


def test_the_exception_a_record_carries_is_captured() -> None:
    capture = exception_of(carrying(PaymentError("declined")))
    assert capture is not None
    assert capture.attributes()["exception.type"] == f"{__name__}.PaymentError"
    assert capture.attributes()["exception.message"] == "declined"


def test_an_exception_the_attributes_tell_already_is_not_captured_again() -> None:
    assert exception_of(carrying(PaymentError(), {"exception.stacktrace": "…"})) is None


def test_what_is_no_exception_is_not_captured() -> None:
    assert exception_of(carrying("text")) is None
    assert exception_of(SimpleNamespace(attributes=None)) is None  # type: ignore[arg-type]


def test_equal_sdk_scopes_are_one_scope() -> None:
    one = from_sdk_scope(InstrumentationScope("shop", "1.2", "https://s", {"team": "a"}))
    two = from_sdk_scope(InstrumentationScope("shop", "1.2", "https://s", {"team": "a"}))
    assert one is two
    assert (one.name, one.version, one.schema_url) == ("shop", "1.2", "https://s")
    assert one.attributes == {"team": "a"}
    assert from_sdk_scope(InstrumentationScope("shop")) is not one
    assert from_sdk_scope(None) is EMPTY_SCOPE


def test_an_sdk_resource_is_one_resource() -> None:
    resource = SDKResource({"service.name": "web"}, "https://s")
    converted = from_sdk_resource(resource)
    assert from_sdk_resource(resource) is converted
    assert converted.attributes == {"service.name": "web"}
    assert converted.schema_url == "https://s"
    assert from_sdk_resource(None) is EMPTY_RESOURCE


def test_many_sdk_resources_are_never_confused() -> None:
    for number in range(200):
        converted = from_sdk_resource(SDKResource({"n": number}))
        assert converted.attributes == {"n": number}


def test_a_record_survives_the_way_out_and_back() -> None:
    record = LogRecord(
        5,
        7,
        17,
        "ERROR",
        {"nested": [1, None, b"x"]},
        {"a": 1, "b": [True, "x"], "c": {"d": 1.5}},
        "order.failed",
        "0af7651916cd43dd8448eb211c80319c",
        "00f067aa0ba902b7",
        1,
        Scope("shop", "1", "https://s", {"team": "a"}),
        Resource({"service.name": "web"}, "https://r"),
    )
    readable = ExporterSink(SimpleNamespace()).encode(record)  # type: ignore[arg-type]
    back = from_api(
        readable.log_record,
        from_sdk_scope(readable.instrumentation_scope),
        from_sdk_resource(readable.resource),
    )
    for field in LogRecord.__slots__:
        if field not in ("scope", "resource"):
            assert getattr(back, field) == getattr(record, field), field
    assert vars(back.scope) == vars(record.scope)
    assert vars(back.resource) == vars(record.resource)


def test_a_record_outside_a_span_stays_so_on_the_way_out() -> None:
    with trace.use_span(SPAN):
        readable = ExporterSink(SimpleNamespace()).encode(LogRecord(1, 1, 9))  # type: ignore[arg-type]
    assert readable.log_record.trace_id == 0
    assert readable.log_record.span_id == 0
