"""JSON lines with the field names of platforms, checked against their documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from fapilog import Runtime, Settings
from fapilog.errors import ConfigurationError
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks import ConsoleSink
from fapilog.sinks.lines import json_line
from fapilog.sinks.presets import PRESETS, line_format
from tests.support.records import DANGEROUS, SPAN, TIME, TRACE, records

RESOURCE = Resource(
    {
        "service.name": "shop",
        "service.version": "1.4.2",
        "service.instance.id": "web-1",
        "deployment.environment.name": "prod",
        "process.pid": 7,
        "telemetry.sdk.name": "opentelemetry",
    }
)
FAILED: dict[str, Any] = {
    "exception.type": "app.PaymentError",
    "exception.message": "declined",
    "exception.stacktrace": "Traceback (most recent call last):\napp.PaymentError: declined\n",
}


def full_record(body: Any = "payment failed", severity: int = 17, **attributes: Any) -> LogRecord:
    one = LogRecord(TIME, TIME + 5, severity, "ERROR", body, {"order": 7, **attributes})
    one.trace_id, one.span_id, one.trace_flags = TRACE, SPAN, 1
    one.scope, one.resource = Scope("shop.pay"), RESOURCE
    return one


def shown(preset: str, record: LogRecord, **options: Any) -> dict[str, Any]:
    line = line_format(preset, **options)(record)
    assert line.endswith(b"\n")
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_json_and_otel_are_what_they_were() -> None:
    assert line_format("json") is line_format("otel") is json_line
    without = shown("otel", full_record(), resource=False)
    whole = json.loads(json_line(full_record()))
    assert whole.pop("resource")["service.name"] == "shop"
    assert without == whole
    assert list(without) == list(whole)


def test_ecs_has_the_names_of_the_elastic_common_schema() -> None:
    fields = shown("ecs", full_record(**{**FAILED, "error.type": "app.PaymentError"}))
    # The specification prescribes the first three, in this order.
    assert list(fields)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    assert fields == {
        "@timestamp": "2026-11-23T10:15:00.123Z",
        "log.level": "ERROR",
        "message": "payment failed",
        "ecs.version": "8.11.0",
        "log.logger": "shop.pay",
        "trace.id": TRACE,
        "span.id": SPAN,
        "error.type": "app.PaymentError",
        "error.message": "declined",
        "error.stack_trace": FAILED["exception.stacktrace"],
        "service.name": "shop",
        "service.version": "1.4.2",
        "service.node.name": "web-1",
        "service.environment": "prod",
        "process.pid": 7,
        "order": 7,
    }


def test_gcp_has_the_special_fields_of_cloud_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    place: dict[str, Any] = {
        "code.file.path": "/a.py",
        "code.line.number": 3,
        "code.function.name": "app.pay",
    }
    assert shown("gcp", full_record(**FAILED, **place)) == {
        "time": "2026-11-23T10:15:00.123456789Z",
        "severity": "ERROR",
        "message": "payment failed",
        "logger": "shop.pay",
        "logging.googleapis.com/trace": f"projects/my-project/traces/{TRACE}",
        "logging.googleapis.com/spanId": SPAN,
        "logging.googleapis.com/trace_sampled": True,
        "logging.googleapis.com/sourceLocation": {
            "file": "/a.py",
            "line": "3",
            "function": "app.pay",
        },
        "logging.googleapis.com/labels": {
            "service.name": "shop",
            "service.version": "1.4.2",
            "service.instance.id": "web-1",
            "deployment.environment.name": "prod",
            "process.pid": "7",
        },
        "stack_trace": FAILED["exception.stacktrace"],
        "serviceContext": {"service": "shop", "version": "1.4.2"},
        "exception.type": "app.PaymentError",
        "exception.message": "declined",
        "order": 7,
    }


def test_gcp_shows_a_request_as_an_http_request() -> None:
    request: dict[str, Any] = {
        "http.request.method": "POST",
        "url.path": "/orders",
        "url.query": "a=b",
        "http.response.status_code": 201,
        "http.server.request.duration": 0.03867,
        "http.request.body.size": 7,
        "http.response.body.size": 11,
        "user_agent.original": "curl/8.5.0",
        "client.address": "127.0.0.1",
    }
    fields = shown("gcp", full_record(**request), resource=False)
    assert fields["httpRequest"] == {
        "requestMethod": "POST",
        "requestUrl": "/orders?a=b",
        "status": 201,
        "latency": "0.038670000s",
        "requestSize": "7",
        "responseSize": "11",
        "userAgent": "curl/8.5.0",
        "remoteIp": "127.0.0.1",
    }
    assert not fields.keys() & request.keys()


@pytest.mark.parametrize(
    ("number", "severity"),
    [(0, "DEFAULT"), (1, "DEBUG"), (5, "DEBUG"), (9, "INFO"), (11, "NOTICE"), (13, "WARNING"),
     (17, "ERROR"), (21, "CRITICAL"), (23, "ALERT"), (24, "EMERGENCY")],
)  # fmt: skip
def test_gcp_has_severities_that_cloud_logging_knows(number: int, severity: str) -> None:
    assert shown("gcp", full_record(severity=number))["severity"] == severity


def test_datadog_has_its_reserved_attributes_and_decimal_ids() -> None:
    assert shown("datadog", full_record(**FAILED)) == {
        "timestamp": "2026-11-23T10:15:00.123Z",
        "status": "error",
        "message": "payment failed",
        "ddsource": "python",
        "logger.name": "shop.pay",
        "dd.trace_id": str(int(TRACE, 16) & (1 << 64) - 1),
        "dd.span_id": str(int(SPAN, 16)),
        "error.kind": "app.PaymentError",
        "error.message": "declined",
        "error.stack": FAILED["exception.stacktrace"],
        "service": "shop",
        "dd.service": "shop",
        "dd.env": "prod",
        "dd.version": "1.4.2",
        "service.instance.id": "web-1",
        "process.pid": 7,
        "order": 7,
    }


def test_lambda_has_the_names_of_the_python_runtime() -> None:
    invocation: dict[str, Any] = {"faas.invocation_id": "8286a188"}
    assert shown("lambda", full_record(severity=21, **FAILED, **invocation), resource=False) == {
        "timestamp": "2026-11-23T10:15:00.123Z",
        "level": "FATAL",
        "message": "payment failed",
        "logger": "shop.pay",
        "trace_id": TRACE,
        "span_id": SPAN,
        "requestId": "8286a188",
        "errorType": "app.PaymentError",
        "errorMessage": "declined",
        "stackTrace": ["Traceback (most recent call last):", "app.PaymentError: declined"],
        "order": 7,
    }


@pytest.mark.parametrize("preset", ["ecs", "gcp", "datadog", "lambda"])
def test_a_message_is_text_and_an_event_has_its_name(preset: str) -> None:
    one = full_record({"left": 3})
    one.event_name = "stock.low"
    assert shown(preset, one)["message"] == '{"left":3}'
    assert shown(preset, one)["event.name"] == "stock.low"
    one.body = None
    assert shown(preset, one)["message"] == "stock.low"


@pytest.mark.parametrize(
    ("preset", "place"),
    [("ecs", "labels"), ("gcp", "attributes"), ("datadog", "attributes"), ("lambda", "attributes")],
)
def test_an_attribute_with_the_name_of_a_field_is_kept_apart(preset: str, place: str) -> None:
    fields = shown(preset, full_record(message="mine", **{place: 1}))
    assert fields["message"] == "payment failed"
    assert fields[place] == {"message": "mine", place: 1}


def test_fields_have_the_names_that_the_user_chose() -> None:
    names = {"timestamp": "time", "severity_text": "level", "body": "message"}
    fields = shown("json", full_record(), names=names, resource=False)
    assert list(fields)[:5] == ["time", "observed_timestamp", "level", "severity_number", "message"]
    assert fields["message"] == "payment failed"
    # An attribute that has the chosen name does not replace the field.
    clash = shown("lambda", full_record(msg="mine"), names={"message": "msg"})
    assert clash["msg"] == "payment failed"
    assert clash["attributes"] == {"msg": "mine"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"bdy": "message"}, "has no field 'bdy'; did you mean 'body'"),
        ({"order": "message"}, "the fields are timestamp"),
        ({"body": ""}, "give the new name"),
        ({"body": "scope"}, "two fields would have the name 'scope'"),
    ],
)
def test_a_wrong_name_fails_at_the_start(names: Mapping[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ConsoleSink(names=names).open()


def test_the_options_can_be_set_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_CONSOLE__FORMAT", "lambda")
    monkeypatch.setenv("FAPILOG_CONSOLE__NAMES", "message=msg")
    monkeypatch.setenv("FAPILOG_CONSOLE__RESOURCE", "false")
    with Runtime(Settings(), sinks="console") as runtime:
        runtime.get_logger("shop").info("order placed")
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"timestamp", "level", "msg", "logger"}


@pytest.mark.parametrize("preset", PRESETS)
@given(one=records)
def test_no_record_breaks_a_line(preset: str, one: LogRecord) -> None:
    one.attributes = {**one.attributes, "big": 1 << 70, "raw": b"\xff", "nested": {"a": {1: 2}}}
    one.trace_id = one.span_id = "not hexadecimal"
    line = line_format(preset, resource=False)(one).decode()
    assert line.endswith("\n")
    assert not set(line[:-1]) & set(DANGEROUS)
    json.loads(line)
