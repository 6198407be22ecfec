"""OpenTelemetry's variables follow its specification: a wrong one is announced, never fatal.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from typing import Any

import pytest

import fapilog
from fapilog import Settings, diagnostics
from fapilog.otel.provider import LoggerProvider
from fapilog.otel.resource import detect_resource
from fapilog.sinks import MemorySink, OTLPSink
from fapilog.values import Limits

DEFAULT = Settings.model_fields
LONGEST = 86_400.0
#: Variable, value, option, and the option's value; None means the default, with a warning.
TABLE: list[tuple[str, str, str, Any]] = [
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "7", "queue_size", 7),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "0", "queue_size", None),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1", "queue_size", None),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "abc", "queue_size", None),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "2147483647", "queue_size", 2147483647),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "2147483648", "queue_size", None),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "999999999999", "queue_size", None),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "999999999999", "batch_size", None),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "-1", "batch_size", None),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1.5", "batch_size", None),
    ("OTEL_BLRP_SCHEDULE_DELAY", "0", "schedule_delay", 0.0),
    ("OTEL_BLRP_SCHEDULE_DELAY", "soon", "schedule_delay", None),
    ("OTEL_BLRP_SCHEDULE_DELAY", "2147483647", "schedule_delay", LONGEST),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "0", "export_timeout", LONGEST),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "-1", "export_timeout", None),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "2147483647", "export_timeout", LONGEST),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "0", "attribute_count_limit", 0),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "abc", "attribute_count_limit", None),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "5", "attribute_count_limit", 5),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0", "attribute_value_length_limit", 0),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-3", "attribute_value_length_limit", None),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9", "attribute_value_length_limit", 9),
    ("OTEL_SDK_DISABLED", "TRUE", "otel_disabled", True),
    ("OTEL_SDK_DISABLED", "1", "otel_disabled", None),
    ("OTEL_SDK_DISABLED", "treu", "otel_disabled", None),
]
VARIABLES = sorted({row[0] for row in TABLE})


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    fapilog.shutdown()


@pytest.mark.parametrize(("variable", "value", "option", "expected"), TABLE)
def test_a_variable_is_obeyed_or_announced(variable, value, option, expected, monkeypatch, capsys):
    monkeypatch.setenv(variable, value)
    found = getattr(Settings(), option)
    err = capsys.readouterr().err
    if expected is None:
        assert found == DEFAULT[option].default
        assert f"{variable}={value!r} is ignored: use " in err
    else:
        assert found == expected
        assert err == ""


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_is_unset(variable, monkeypatch, capsys):
    monkeypatch.setenv(variable, "  ")
    assert Settings() == Settings()
    assert capsys.readouterr().err == ""


def test_the_variable_of_logs_wins_over_the_general_one_and_a_wrong_one_does_not(
    monkeypatch, capsys
):
    monkeypatch.setenv("OTEL_ATTRIBUTE_COUNT_LIMIT", "5")
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "3")
    assert Settings().attribute_count_limit == 3
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "many")
    assert Settings().attribute_count_limit == 5


def test_a_variable_of_fapilog_is_still_an_error(monkeypatch):
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "many")
    with pytest.raises(fapilog.ConfigurationError, match="FAPILOG_QUEUE_SIZE"):
        Settings()


@pytest.mark.parametrize("value", ["bogus", "otlp,bogus", "bogus, otlp"])
def test_an_unknown_exporter_is_announced_and_the_others_are_used(value, monkeypatch, capsys):
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", value)
    runtime = fapilog.Runtime(handle_sigterm=False)
    sinks = [queue.sink for queue in runtime.pipeline.sending_queues()]
    runtime.shutdown(0)
    assert [type(sink) for sink in sinks] == [OTLPSink]
    assert "OTEL_LOGS_EXPORTER: 'bogus' is not known" in capsys.readouterr().err


def logged(**options: Any) -> Any:
    sink = MemorySink()
    runtime = fapilog.Runtime(sinks=[sink], handle_sigterm=False, **options)
    runtime.get_logger("app").info("a long message", text="a long text", items=["abcdefgh"], n=1)
    assert runtime.flush(10)
    runtime.shutdown(10)
    return sink.records[0]


def test_the_length_limit_of_attributes_does_not_cut_the_body(monkeypatch):
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    record = logged()
    assert record.body == "a long message"
    assert len(record.attributes["text"]) <= 4
    assert len(record.attributes["items"][0]) <= 4
    assert record.attributes["n"] == 1


def test_attribute_limits_may_be_zero(monkeypatch):
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0")
    assert logged().attributes == {"text": "", "items": [""], "n": 1}
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "0")
    record = logged()
    assert record.attributes == {}
    assert record.dropped_attributes_count == 3
    with pytest.raises(fapilog.ConfigurationError):
        Limits(attribute_text=-1)


def test_the_callers_own_exception_attributes_win():
    sink = MemorySink()
    fapilog.configure(sinks=[sink], handle_sigterm=False)
    mine = {"exception.type": "Mine", "exception.message": "my words"}
    fapilog.get_logger("app").error("failed", exc_info=ValueError("no"), **mine)
    fapilog.flush(10)
    attributes = sink.records[0].attributes
    assert (attributes["exception.type"], attributes["exception.message"]) == ("Mine", "my words")
    assert "ValueError: no" in attributes["exception.stacktrace"]


def test_nothing_is_enabled_without_a_sink():
    fapilog.configure(sinks="none", handle_sigterm=False)
    assert not fapilog.get_logger("app").is_enabled("error")
    fapilog.configure(sinks="memory", handle_sigterm=False)
    assert fapilog.get_logger("app").is_enabled("error")


# ---- every variable, with any value

OTLP = "OTEL_EXPORTER_OTLP_"
WHOLE_NUMBERS = (
    *("OTEL_BLRP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"),
    *("OTEL_BLRP_SCHEDULE_DELAY", "OTEL_BLRP_EXPORT_TIMEOUT"),
    *("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    *("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    *(f"{OTLP}TIMEOUT", f"{OTLP}LOGS_TIMEOUT"),
)
CHOICES = (
    *("OTEL_SDK_DISABLED", "OTEL_LOGS_EXPORTER"),
    *(
        prefix + name
        for prefix in (OTLP, f"{OTLP}LOGS_")
        for name in ("PROTOCOL", "COMPRESSION", "INSECURE", "HEADERS")
    ),
    *("OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"),
)
#: A wrong guess at these could send records or credentials to another place.
NEVER_GUESSED = tuple(
    prefix + name
    for prefix in (OTLP, f"{OTLP}LOGS_")
    for name in ("ENDPOINT", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
)


def goes_on(capsys: pytest.CaptureFixture[str]) -> str:
    """Check that a record is taken and encoded; return the output on stderr."""
    runtime = fapilog.Runtime(handle_sigterm=False)
    sinks = [queue.sink for queue in runtime.pipeline.sending_queues()]
    runtime.get_logger("app").error("hello", answer=42)
    err = capsys.readouterr().err
    runtime.shutdown(0)
    assert [type(sink) for sink in sinks] == [OTLPSink]
    assert runtime.stats().accepted == 1
    return err


@pytest.fixture
def otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")


@pytest.mark.usefixtures("otlp")
@pytest.mark.parametrize("variable", [*WHOLE_NUMBERS, *CHOICES])
def test_logs_go_on_and_the_warning_names_the_variable_that_is_wrong(variable, monkeypatch, capsys):
    monkeypatch.setenv(variable, "abc")
    assert variable in goes_on(capsys)


@pytest.mark.usefixtures("otlp")
@pytest.mark.parametrize("value", ["-1", "1.5", "1e3", " ", "\u0663", "nan", "9" * 5000])
@pytest.mark.parametrize("variable", WHOLE_NUMBERS)
def test_logs_go_on_whatever_a_number_is(variable, value, monkeypatch, capsys):
    monkeypatch.setenv(variable, value)
    err = goes_on(capsys)
    is_too_much = value == "9" * 5000 and "SIZE" in variable
    is_endless = value == "9" * 5000 and not is_too_much
    assert (variable in err) == (not value.isspace() and not is_endless)


@pytest.mark.usefixtures("otlp")
@pytest.mark.parametrize("value", ["0", "1", "2147483647"])
@pytest.mark.parametrize("variable", WHOLE_NUMBERS)
def test_logs_go_on_with_the_smallest_and_the_largest_number(variable, value, monkeypatch, capsys):
    monkeypatch.setenv(variable, value)
    is_size = "SIZE" in variable and value == "0"
    err = goes_on(capsys)
    assert (f"{variable}='0' is ignored" in err) == is_size


@pytest.mark.usefixtures("otlp")
@pytest.mark.parametrize("variable", NEVER_GUESSED)
def test_a_wrong_destination_or_authority_is_never_guessed(variable, monkeypatch, capsys):
    if not variable.endswith("ENDPOINT"):  # the files count with TLS only
        monkeypatch.setenv(f"{OTLP}ENDPOINT", "https://localhost:4318")
    monkeypatch.setenv(variable, "/nowhere at all")
    with pytest.raises(fapilog.ConfigurationError, match=variable):
        fapilog.Runtime(handle_sigterm=False)
    monkeypatch.setenv(variable, "")
    goes_on(capsys)


@pytest.mark.parametrize(
    ("value", "entries"), [("a=1,b", "2"), ("=1, c=2,d ", "1, 3"), ("a=1,,b=2,", "")]
)
def test_entries_of_the_resource_that_are_left_out_are_counted_off(
    value, entries, monkeypatch, capsys
):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", value)
    detect_resource()
    err = capsys.readouterr().err
    assert (f"OTEL_RESOURCE_ATTRIBUTES: entry {entries} does not" in err) == bool(entries)


def test_a_batch_is_not_larger_than_the_queue(monkeypatch, capsys):
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "11")
    assert Settings().batch_size == 10
    assert "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=11 is more than" in capsys.readouterr().err


def test_attributes_that_a_limit_discards_are_reported(monkeypatch, capsys):
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "1")
    assert logged().dropped_attributes_count == 2
    assert "2 attributes of a record of 'app' were discarded" in capsys.readouterr().err


def test_a_logger_without_a_name_works_and_is_reported(capsys):
    name: Any = None
    for wrong in ("", name):
        diagnostics.reset()
        LoggerProvider().get_logger(wrong)
        assert "called without a name" in capsys.readouterr().err
