"""One redaction policy applies to every field of a record and to every output."""

from __future__ import annotations

import json
import logging
from enum import Enum
from typing import Any

import pytest
from opentelemetry._logs import LogRecord as APILogRecord
from opentelemetry.sdk._logs import LoggerProvider as SDKLoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

import fapilog
from fapilog import LogRecord
from fapilog.otel.exporters import SinkExporter
from fapilog.processors import RedactProcessor
from fapilog.processors.redact import MASK
from fapilog.record import Scope
from fapilog.sinks import MemorySink

TOKEN = "ghp_hunter2correcthorsebatterystaple12"


def masked(text: str, **attributes: Any) -> Any:
    return RedactProcessor()(LogRecord(1, 1, 9, "INFO", text, attributes)).body


@pytest.mark.parametrize(
    "document",
    [
        {"otp": 123456, "b": 2},
        {"otp": -1.5e3, "b": [1, {"token": 7}]},
        {"passwords": ["a", "b", {"c": ["d"]}], "x": "y"},
        {"token": {"a": [1, 2, {"b": "]}"}], "c": None}, "x": 1},
        {"secrets": [], "credentials": {}, "api_key": 5},
        {"nested": [{"password": [1, 2]}, {"cvv": 123}], "z": False},
        {"password": None, "token": True},
        {"authorization": ["Bearer abcdefghijk"], "cookie": {"a": "b"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("indent", [None, 2])
def test_masked_json_is_still_json_and_holds_no_secret(document, indent):
    text = json.dumps(document, indent=indent)
    shown = json.loads(masked(text))
    assert set(shown) == set(document)
    inside = masked("received " + json.dumps({"body": text}))
    assert json.loads(json.loads(inside.removeprefix("received "))["body"]) == shown
    assert all(_is_masked(name, value) for name, value in _members(shown))


@pytest.mark.parametrize("depth", range(5))
@pytest.mark.parametrize(
    "value", ["hunter2\\", "\\\\", 'hun"ter2', 'hunter2"', 'hun\\"ter2\\\\', '"', "hun'ter2", ["a\\", 'b"'], {"a\\": '"'}]
)  # fmt: skip
def test_quotes_and_backslashes_in_a_value_do_not_move_its_end(value, depth):
    document = {"otp": value, "user": "ann", "n": [{"password": value}, "x\\"], "z": 'a"b'}
    expected = {"otp": MASK, "user": "ann", "n": [{"password": MASK}, "x\\"], "z": 'a"b'}
    text = json.dumps(document)
    for _ in range(depth):
        text = json.dumps({"m": text})
    shown = json.loads(masked(text + "  ").rstrip())
    for _ in range(depth):
        shown = json.loads(shown["m"])
    assert shown == expected
    assert masked(f"got {text} done").endswith("} done")


def test_a_quote_in_json_that_a_repr_holds_does_not_end_the_value():
    text = repr({"m": json.dumps({"otp": 'hun"ter2', "user": "ann"})})
    assert masked(text) == repr({"m": json.dumps({"otp": MASK, "user": "ann"})})


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [member for item in value for member in _members(item)]
    if not isinstance(value, dict):
        return []
    return [*value.items(), *(member for item in value.values() for member in _members(item))]


def _is_masked(name: str, value: Any) -> bool:
    """Whether a value is masked if its name is secret; None and booleans stay."""
    harmless = value is None or isinstance(value, bool) or "[REDACTED]" in str(value)
    return harmless or not RedactProcessor()._fields.is_secret(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"passwords": [\n "xITy",\n "b"\n], "a": 1', '"passwords": "[REDACTED]", "a": 1'),
        ("passwords = [\n  'abc',\n  'def'\n]\nnext", "passwords = [REDACTED]\nnext"),
        ("{'token': Decimal('12'), 'x': 1}", "{'token': '[REDACTED]', 'x': 1}"),
        ('{\\"otp\\": 123, \\"b\\": 1}', '{\\"otp\\": \\"[REDACTED]\\", \\"b\\": 1}'),
        ('{"token": [1, 2', '{"token": "[REDACTED]"'),
        ("sig=abcdef&expires=1", "sig=[REDACTED]&expires=1"),
        ("sig=abc is a word in a sentence", "sig=abc is a word in a sentence"),
        ("GET /?a=1&%74oken=abc HTTP", "GET /?a=1&%74oken=[REDACTED] HTTP"),
        ("/cb?%61%70i_key%3Dabc", "/cb?%61%70i_key%3D[REDACTED]"),
        ("token%3Dabc%26x", "token%3D[REDACTED]"),
        ("GET /login?data=%7B%22password%22%3A+%22hunter2%22%7D&a=%20b", "GET /login?data=[REDACTED]&a=%20b"),
        ("a=1&data=%7B%22password%22%3A%22hunter2%22%7D", "a=1&data=[REDACTED]"),
        ("data=%257B%2522password%2522%253A%2522hunter2%2522%257D", "data=[REDACTED]"),
        ("user%5B%27password%27%5D=hunter2", "user%5B%27password%27%5D=[REDACTED]"),
        ("next=https%3A%2F%2Fh%2Fx%3Fa%3D1%26sig%3Dhunter2", "next=[REDACTED]"),
        ("connect postgres%3A%2F%2Fu%3Ahunter2%40h%2Fdb now", "connect [REDACTED] now"),
        ("GET %2Freset%2Fhunter2xyz9123abc", "GET [REDACTED]"),
        ("state=Bearer+hunter2&a=1", "state=Bearer+[REDACTED]&a=1"),
        ("x=%42earer%20hunter2&a=1", "x=[REDACTED]&a=1"),
        ("x=%67hp_abcdefghijklmnopqrst0123", "x=[REDACTED]"),
        ('{"u": "https:\\/\\/h?a\\u003d1\\u0026sig\\u003dhunter2"}', '{"u": "https://h?a=1&sig=[REDACTED]"}'),
        ('{"u": "pg:\\/\\/ann:hunter2@h\\/db"}', '{"u": "pg://ann:[REDACTED]@h/db"}'),
        ('{"u": "{\\u0022otp\\u0022: \\u0022hunter2\\u0022}"}', '{"u": "{\\"otp\\": \\"[REDACTED]\\"}"}'),
        ('{"\\u0070assword": "hunter2"}', '{"password": "[REDACTED]"}'),
        ("q=100%25+of%20the%20tokens%3F&path=%2Fverify%2Fsettings \\u0041\\/b", None),
        ("POST /reset/a8f7d9c0b1e2f3a4 200", "POST /reset/[REDACTED] 200"),
        ("/users/password-reset/Zk3-x9_Q2w8rT/confirm", "/users/password-reset/[REDACTED]/confirm"),
        ("/invite/4f9a1c77", "/invite/[REDACTED]"),
        ("/verify/settings2 /reset/password /tokens/list", None),
        ("/orders/reset/12345678", None),
    ],
)  # fmt: skip
def test_text_is_masked_in_every_form(text, expected):
    shown = masked(text)
    assert shown == (text if expected is None else expected)
    assert masked(shown) == shown, "redacting again changes nothing"


@pytest.fixture
def sink() -> Any:
    yield MemorySink()
    fapilog.shutdown()


def only(sink: MemorySink) -> LogRecord:
    assert fapilog.flush(10)
    (record,) = sink.records
    return record


def test_event_names_logger_names_and_severity_texts_are_redacted(sink):
    fapilog.configure(sinks=[sink], handle_sigterm=False)
    fapilog.install_stdlib()
    logging.addLevelName(25, f"LEVEL {TOKEN}")
    logging.getLogger(f"user.password={TOKEN}").log(25, "hello", extra={"otel.event.name": TOKEN})
    record = only(sink)
    assert record.scope.name == "user.password=[REDACTED]"
    assert record.event_name == "[REDACTED]"
    assert record.severity_text == "LEVEL [REDACTED]"


def test_a_severity_text_is_redacted_if_the_record_has_no_event_name(sink):
    runtime = fapilog.configure(sinks=[sink], handle_sigterm=False)
    runtime.offer(LogRecord(1, 1, 9, f"LEVEL {TOKEN}", "hello"))
    assert only(sink).severity_text == "LEVEL [REDACTED]"


class Kind(str, Enum):
    EVENT = f"login.{TOKEN}"
    LEVEL = f"level {TOKEN}"


def test_names_that_are_members_of_an_enumeration_are_redacted(sink):
    runtime = fapilog.configure(sinks=[sink], handle_sigterm=False)
    runtime.offer(LogRecord(1, 1, 9, Kind.LEVEL, "hello", {}, Kind.EVENT, scope=Scope(Kind.LEVEL)))
    record = only(sink)
    assert record.severity_text == record.scope.name == "level [REDACTED]"
    assert record.event_name == "login.[REDACTED]"


def test_version_and_schema_url_of_a_scope_are_redacted(sink):
    runtime = fapilog.configure(sinks=[sink], handle_sigterm=False)
    scope = Scope("library", f"1.0+{TOKEN}", "https://ann:hunter2@schemas/1", {"a": 1})
    runtime.offer(LogRecord(1, 1, 9, "INFO", "hello", scope=scope))
    found = only(sink).scope
    assert (found.name, found.attributes) == ("library", {"a": 1})
    assert (found.version, found.schema_url) == (
        "1.0+[REDACTED]",
        "https://ann:[REDACTED]@schemas/1",
    )


def test_the_name_of_a_logger_of_fapilog_is_redacted(sink):
    fapilog.configure(sinks=[sink], handle_sigterm=False)
    fapilog.get_logger(f"worker {TOKEN}").info("hello")
    assert only(sink).scope.name == "worker [REDACTED]"


def test_path_and_query_of_a_request_are_redacted(sink):
    fapilog.configure(sinks=[sink], handle_sigterm=False)
    path = "/reset/a8f7d9c0b1e2f3a4"
    fapilog.get_logger("web").info("done", **{"url.path": path, "url.query": "sig=abc&x=1"})
    assert only(sink).attributes == {
        "url.path": "/reset/[REDACTED]",
        "url.query": "sig=[REDACTED]&x=1",
    }


def test_what_a_processor_adds_after_the_redactor_of_the_application_is_redacted(sink):
    def add(record: LogRecord) -> LogRecord:
        record.attributes["password"] = "hunter2"
        record.body = f"{record.body!s} {TOKEN}"
        return record

    own = RedactProcessor(extra_fields=["iban"])
    fapilog.configure(sinks=[sink], processors=[own, add], handle_sigterm=False)
    fapilog.get_logger("app").info("hello", iban="DE02")
    record = only(sink)
    assert record.attributes == {"iban": "[REDACTED]", "password": "[REDACTED]"}
    assert record.body == "hello [REDACTED]"


def exported(sink: MemorySink, **attributes: Any) -> LogRecord:
    provider = SDKLoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(SinkExporter(sink)))
    provider.get_logger("sdk").emit(APILogRecord(body="hello", attributes=attributes))
    provider.shutdown()
    (record,) = sink.records
    return record


def test_the_sdk_exporters_obey_the_options_of_redaction(monkeypatch):
    monkeypatch.setenv("FAPILOG_REDACT_FIELDS", "iban")
    monkeypatch.setenv("FAPILOG_REDACT_ALLOW", "token_hint, auth")
    record = exported(MemorySink(), iban="DE02", auth="basic", password="hunter2")
    assert record.attributes == {"iban": "[REDACTED]", "auth": "basic", "password": "[REDACTED]"}


def test_the_sdk_exporters_obey_the_switch_of_redaction(monkeypatch):
    monkeypatch.setenv("FAPILOG_REDACT", "false")
    assert exported(MemorySink(), password="hunter2").attributes == {"password": "hunter2"}
