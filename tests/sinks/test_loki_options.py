"""Options of the Loki sink: arguments, variables, names, and errors about them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry._logs import LogRecord as APILogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource as SDKResource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import fapilog
from fapilog.cli.config import settings_entries
from fapilog.errors import ConfigurationError, RetryableError
from fapilog.otel.exporters import LokiExporter
from fapilog.protocols import BatchLimits
from fapilog.record import LogRecord, Resource
from fapilog.settings import Settings
from fapilog.sinks import LokiSink
from fapilog.sinks.factory import make_sinks, sink_of
from fapilog.sinks.loki.options import DEFAULT_LABELS
from tests.support.loki import FakeLoki
from tests.support.otlp_servers import Certificates

SECRET = "s3cr3t-token"


def sink_for(spec: str = "loki", **options: Any) -> LokiSink:
    given: Any = options
    sink = sink_of(spec, Settings(loki=given))
    assert isinstance(sink, LokiSink)
    return sink


# ---- arguments


def test_the_defaults_are_safe_ones():
    sink = LokiSink("http://loki:3100")
    options = sink.options
    assert (options.format, options.line, options.timeout) == ("json", "message", 10.0)
    assert options.labels == (
        "service.name", "service.namespace", "deployment.environment.name",
        "deployment.environment", "severity",
    )  # fmt: skip
    assert (sink.name, sink.concurrency, sink.limits) == ("loki", 1, BatchLimits(1000, 1 << 20))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "loki:3100"}, r"^url is not a usable URL: give it in the form http://host:3100"),
    ({"url": "ftp://loki"}, r"^url is not a usable URL"),
    ({"url": "http://"}, r"^url is not a usable URL"),
    ({"url": f"http://me:{SECRET}@ho st"}, r"^url is not a usable URL"),
    ({"url": None}, r"^url is not a usable URL"),
    ({"tenant": ""}, r"^tenant=''.*letters, digits"),
    ({"tenant": "a|b"}, r"^tenant='a\|b'"),
    ({"tenant": ".."}, r"^tenant="),
    ({"tenant": "x" * 151}, r"^tenant="),
    ({"username": "me"}, r"^username and password belong together"),
    ({"password": SECRET}, r"^username and password belong together"),
    (
        {"username": "me", "password": SECRET, "token": SECRET},
        r"^token and username cannot be combined",
    ),
    ({"token": ""}, r"^token must be"),
    ({"token": f"{SECRET}\nx"}, r"^token must be"),
    ({"token": f"{SECRET}é"}, r"^token must be a str of printable ASCII"),
    ({"username": 5, "password": SECRET}, r"^username must be"),
    ({"headers": {"bad name": SECRET}}, r"^headers: the header 'bad name' cannot be set"),
    ({"headers": {"Content-Type": "x"}}, r"^headers: the header 'content-type' cannot be set"),
    ({"headers": {"x-key": f"{SECRET}\r\nx: y"}}, r"^headers: the value of 'x-key'"),
    ({"format": "xml"}, r"^format='xml': use 'json' or 'protobuf'"),
    ({"line": "text"}, r"^line='text': use 'message', 'json' or 'logfmt'"),
    ({"labels": "service.name"}, r"^labels='service.name': use a list"),
    ({"labels": []}, r"^labels: give 1 to 15 names \(Loki's limit\), not 0"),
    (
        {"labels": [f"l{n}" for n in range(16)]},
        r"^labels: give 1 to 15 names \(Loki's limit\), not 16",
    ),
    ({"labels": ["x" * 1025]}, r"^labels: .*cannot be the name of a label"),
    ({"labels": [7]}, r"^labels=\[7\]: use a list of names"),
    ({"labels": {f"l{n}": "x" for n in range(11)}}, r"^labels: give 1 to 15 names .*, not 16"),
    ({"labels": {"env": 7}}, r"^labels: the value of 'env' must be a str"),
    ({"labels": {"env": ""}}, r"^labels: the value of 'env' must be .*, not empty"),
    ({"labels": ["env="]}, r"^labels: the value of 'env' must be"),
    ({"labels": ["=prod"]}, r"^labels: '' cannot be the name of a label"),
    ({"labels": {"env": "a\nb"}}, r"^labels: the value of 'env' must be"),
    ({"labels": {"env": "x" * 2049}}, r"^labels: the value of 'env' exceeds 2048 bytes"),
    ({"labels": {7: "x"}}, r"^labels: 7 cannot be the name of a label"),
    ({"labels": {"trace.id": "x"}}, r"^labels: 'trace.id' would make a stream"),
    (
        {"labels": ["a.b=1", "a-b=2"]},
        r"^labels: 'a-b' and another name become the same label 'a_b'",
    ),
    ({"metadata": "label"}, r"^metadata='label': use 'auto', 'structured' or 'line'"),
    ({"labels": ["service.instance.id"]}, r"^labels: 'service.instance.id' would make a stream"),
    ({"labels": ["severity", "trace_id"]}, r"^labels: 'trace_id' would make a stream"),
    ({"timeout": 0}, r"^timeout=0: use a number of seconds, more than 0"),
    ({"timeout": math.nan}, r"^timeout="),
    ({"certificate": "/nowhere/ca.pem"}, r"^certificate=.*readable PEM file"),
    ({"client_key": __file__}, r"^client_key without client_certificate"),
    ({"concurrency": 0}, r"^concurrency=0: use a whole number from 1 to 64"),
    ({"concurrency": 65}, r"^concurrency=65"),
    ({"concurrency": True}, r"^concurrency=True"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_option_is_named_with_the_fix_and_no_secret(wrong, message):
    options = {"url": "http://loki:3100", **wrong}
    with pytest.raises(ConfigurationError, match=message) as caught:
        LokiSink(**options)
    assert SECRET not in str(caught.value)


def test_missing_snappy_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fapilog\[loki\]'"):
        LokiSink("http://loki", format="protobuf")
    LokiSink("http://loki")


def test_no_secret_is_shown():
    sink = LokiSink(
        f"http://loki/x?key={SECRET}", token=SECRET, headers={"x-key": SECRET}, name="audit"
    )
    assert repr(sink) == "LokiSink('http://loki/x', format='json', name='audit')"
    assert SECRET not in repr(sink.options).replace(sink.options.endpoint, "")
    settings = Settings(
        loki={"url": f"http://me:{SECRET}@h", "token": SECRET, "headers": f"x-key={SECRET}"}
    )
    shown = repr(settings) + str(settings.model_dump_json(exclude={"loki": {"url"}}))
    assert SECRET not in shown
    assert SECRET not in repr([(name, str(value)) for name, value, _ in settings_entries(settings)])


# ---- by name


def test_every_option_can_be_set_by_a_variable(monkeypatch, tmp_path):
    files = Certificates(tmp_path)
    for name, value in {
        "URL": "https://loki.example",
        "TENANT": "team-a",
        "USERNAME": "me",
        "PASSWORD": "pass",
        "HEADERS": "x-extra=1, x-more=2",
        "FORMAT": "protobuf",
        "LINE": "logfmt",
        "LABELS": "service.name, k8s.cluster.name, my env=prod",
        "METADATA": "line",
        "TIMEOUT": "2.5",
        "CERTIFICATE": files.ca,
        "CLIENT_KEY": files.key,
        "CLIENT_CERTIFICATE": files.chain,
        "CONCURRENCY": "4",
    }.items():
        monkeypatch.setenv(f"FAPILOG_LOKI__{name}", value)
    monkeypatch.setenv("FAPILOG_SINKS", "loki")
    monkeypatch.setenv("FAPILOG_SCHEDULE_DELAY", "0.25")
    sinks = make_sinks(Settings())
    sink: Any = sinks["loki"]
    options = sink.options
    assert options.endpoint == "https://loki.example/loki/api/v1/push"
    assert dict(options.headers) == {
        "x-extra": "1", "x-more": "2", "authorization": "Basic bWU6cGFzcw==",
    }  # fmt: skip
    assert (options.tenant, options.format, options.line) == ("team-a", "protobuf", "logfmt")
    assert options.labels == ("service.name", "k8s.cluster.name")
    assert options.static_labels == {"my_env": "prod"}
    assert options.metadata == "line"
    assert (options.timeout, sink.concurrency) == (2.5, 4)
    assert (options.certificate, options.client_key, options.client_certificate) == (
        files.ca, files.key, files.chain,
    )  # fmt: skip
    assert sink.limits == BatchLimits(1000, 1 << 20, 0.25)
    sink.close()


def test_a_token_by_its_variable_is_a_bearer(monkeypatch):
    monkeypatch.setenv("FAPILOG_LOKI__TOKEN", SECRET)
    assert sink_of("loki:http://here:1", Settings()).options.headers == {  # type: ignore[union-attr]
        "authorization": f"Bearer {SECRET}"
    }


def test_the_url_behind_the_name_wins_and_the_other_options_hold():
    sink = sink_for("loki:http://here:3100", url="http://there:3100", tenant="a")
    assert sink.options.endpoint == "http://here:3100/loki/api/v1/push"
    assert sink.options.tenant == "a"


def test_a_smaller_batch_can_be_chosen_for_all_remote_sinks():
    sink = sink_of("loki:http://h", Settings(batch_size=100))
    assert sink is not None
    assert sink.limits.count == 100


def test_the_name_without_any_url_is_told_what_to_give(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "loki")
    with pytest.raises(
        ConfigurationError, match=r"^FAPILOG_SINKS: 'loki' needs a URL: loki:http.*loki\.url"
    ):
        fapilog.configure()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LOKI__URL", f"ftp://me:{SECRET}@h", r"^FAPILOG_LOKI__URL: url is not a usable URL"),
        ("LOKI__TENANT", "a b", r"^FAPILOG_LOKI__TENANT: tenant="),
        ("LOKI__LABELS", "trace_id", r"^FAPILOG_LOKI__LABELS: labels: 'trace_id' would"),
        ("LOKI__FORMAT", "xml", r"^FAPILOG_LOKI__FORMAT: "),
        ("LOKI__HEADERS", SECRET, r"^FAPILOG_LOKI__HEADERS: use name=value pairs"),
        ("SINKS", f"loki:ftp://me:{SECRET}@h", r"^FAPILOG_SINKS: url is not a usable URL"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named_by_its_variable(
    monkeypatch, variable, value, message
):
    monkeypatch.setenv("FAPILOG_SINKS", "loki")
    monkeypatch.setenv("FAPILOG_LOKI__URL", "http://loki:3100")
    monkeypatch.setenv(f"FAPILOG_{variable}", value)
    with pytest.raises(ConfigurationError, match=message) as caught:
        fapilog.configure()
    assert SECRET not in str(caught.value)


def test_the_sdk_exports_to_loki_by_the_entry_points_name(monkeypatch):
    from importlib.metadata import entry_points

    (point,) = entry_points(group="opentelemetry_logs_exporter", name="fapilog_loki")
    assert point.load() is LokiExporter
    with FakeLoki() as server:
        monkeypatch.setenv("FAPILOG_LOKI__URL", server.url)
        exporter = LokiExporter()
        record = APILogRecord(
            body="paid", severity_number=SeverityNumber.INFO, attributes={"password": SECRET}
        )
        resource = SDKResource({"service.name": "web"})
        readable = ReadableLogRecord(record, resource, InstrumentationScope("shop"))
        assert exporter.export([readable]) is LogRecordExportResult.SUCCESS
        exporter.shutdown()
        (entry,) = server.entries
    assert entry.line == "paid"
    assert dict(entry.labels)["service_name"] == "web"
    assert SECRET not in repr(entry)
    monkeypatch.delenv("FAPILOG_LOKI__URL")
    with pytest.raises(ConfigurationError, match=r"loki\.url"):
        LokiExporter()


def test_records_of_the_application_reach_loki_by_the_name_alone(monkeypatch):
    with FakeLoki() as server:
        monkeypatch.setenv("FAPILOG_SINKS", f"loki:{server.url}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "web")
        fapilog.get_logger("shop").event("order.placed", order_id=42)
        assert fapilog.flush(30)
        fapilog.shutdown(10)
        (entry,) = server.entries
    assert dict(entry.labels) == {"service_name": "web", "severity": "INFO"}
    assert (entry.line, entry.values["event_name"]) == ("order.placed", "order.placed")
    assert entry.values["order_id"] == "42"


# ---- labels


def labels_of(resource: dict[str, Any], **options: Any) -> dict[str, str]:
    """Return the labels that reach Loki with a record of a runtime."""
    with FakeLoki() as server:
        runtime = fapilog.Runtime(sinks=[LokiSink(server.url, **options)], resource=resource)
        runtime.get_logger("shop").info("hello")
        assert runtime.flush(30)
        runtime.shutdown(10)
        (entry,) = server.entries
    return dict(entry.labels)


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_a_mapping_adds_fixed_labels_to_the_default_ones(form):
    resource = {"service.name": "web", "service.namespace": "shop"}
    labels = {"env": "prod", "data-centre": 'e"1'}
    assert labels_of(resource, format=form, labels=labels) == {
        "service_name": "web", "service_namespace": "shop", "severity": "INFO",
        "env": "prod", "data_centre": 'e"1',
    }  # fmt: skip


def test_a_list_names_every_label_and_may_contain_fixed_ones():
    resource = {"service.name": "web", "host.name": "h1"}
    assert labels_of(resource, labels=["host.name", "env=prod"]) == {
        "host_name": "h1", "env": "prod",
    }  # fmt: skip


def test_a_fixed_label_replaces_the_attribute_and_the_attribute_stays_in_the_metadata():
    with FakeLoki() as server:
        sink = LokiSink(server.url, labels={"service.name": "fixed", "severity": "none"})
        send(sink)
        (entry,) = server.entries
    assert dict(entry.labels) == {"service_name": "fixed", "severity": "none"}
    sink = LokiSink("http://loki", labels=["env=prod"])
    record = LogRecord(1, 2, body="x", resource=Resource({"env": "other"}))
    stream, _, entry_bytes = sink.encode(record)
    assert stream == b'{"env":"prod"}'
    assert b'"env_2":"other"' in entry_bytes


@pytest.mark.parametrize(
    ("labels", "missing", "hint"),
    [
        (["service.nam", "severity"], "service.nam", "did you mean 'service.name'? Or give"),
        (["service.name", "Severity"], "Severity", "did you mean 'severity'? Or give"),
        (["service.name", "env"], "env", "cannot be labels; give"),
    ],
)
def test_a_label_that_matches_nothing_is_an_error_with_the_fix(labels, missing, hint):
    sink = LokiSink("http://loki", labels=labels)
    with pytest.raises(ConfigurationError) as caught:
        fapilog.Runtime(sinks=[sink], resource={"service.name": "web", "host.name": "h"})
    message = str(caught.value)
    assert message.startswith(f"labels: {missing!r} is not an attribute of the resource")
    assert f"{hint} the label a fixed value, {missing}=VALUE" in message
    assert f"OTEL_RESOURCE_ATTRIBUTES={missing}=VALUE" in message
    assert "host.name, " in message.partition("; the resource has ")[2]
    assert caught.value.option == "labels"


def test_in_the_environment_the_error_names_the_variable(monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "loki:http://loki:3100")
    monkeypatch.setenv("FAPILOG_LOKI__LABELS", "service.name, env")
    with pytest.raises(ConfigurationError, match=r"^FAPILOG_LOKI__LABELS: labels: 'env' is not"):
        fapilog.configure()
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "env=prod")
    fapilog.configure()
    fapilog.shutdown(0)


def test_default_labels_need_not_be_in_the_resource():
    resource = {"service.name": "web", "host.name": "h1"}
    assert labels_of(resource, labels=[*DEFAULT_LABELS, "host.name"]) == {
        "service_name": "web", "host_name": "h1", "severity": "INFO",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "names", "static"),
    [
        ({"env": "prod"}, DEFAULT_LABELS, {"env": "prod"}),
        ({"k8s": {"pod": "a"}}, DEFAULT_LABELS, {"k8s_pod": "a"}),
        (["severity", "env=prod"], ("severity",), {"env": "prod"}),
        ("severity, env=a=b", ("severity",), {"env": "a=b"}),
    ],
)
def test_settings_take_labels_in_every_form(labels, names, static):
    options = sink_for(url="http://loki", labels=labels).options
    assert (options.labels, options.static_labels) == (names, static)


def test_records_of_another_resource_that_lacks_a_label_are_announced(capsys):
    sink = LokiSink("http://loki", labels=["host.name", "severity"])
    sink.encode(LogRecord(1, 2, body="x", resource=Resource({"service.name": "web"})))
    assert "loki: labels: a record's resource has no attribute 'host.name'" in (
        capsys.readouterr().err
    )


# ---- TLS


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def send(sink: LokiSink) -> None:
    sink.open()
    try:
        assert sink.send([sink.encode(LogRecord(1, 2, body="hello"))], 10) is None
    finally:
        sink.close()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_newline_at_the_end_of_a_secret_is_left_out(end):
    token = LokiSink("http://loki", token=f"{SECRET}{end}").options.headers["authorization"]
    assert token == f"Bearer {SECRET}"
    plain = LokiSink("http://loki", username="me", password=SECRET)
    read = LokiSink("http://loki", username=f"me{end}", password=f"{SECRET}{end}")
    assert read.options == plain.options
    header = LokiSink("http://loki", headers={"x-key": f"{SECRET}{end}"}).options.headers["x-key"]
    assert header == SECRET


def test_the_newline_at_the_end_of_a_secret_in_a_variable_is_left_out(monkeypatch):
    monkeypatch.setenv("FAPILOG_LOKI__TOKEN", f"{SECRET}\n")
    assert sink_for("loki:http://loki").options.headers["authorization"] == f"Bearer {SECRET}"


def test_https_trusts_the_given_authority_only_and_says_so_of_others(certificates):
    with FakeLoki(ssl_context=certificates.server_context()) as server:
        send(LokiSink(server.url, certificate=certificates.ca))
        with pytest.raises(
            RetryableError, match=r"certificate is not trusted.*nothing is sent.*option certificate"
        ):
            send(LokiSink(server.url))
        assert len(server.requests) == 1


def test_mutual_tls_needs_the_clients_certificate(certificates):
    with FakeLoki(ssl_context=certificates.server_context(mutual=True)) as server:
        pair = {"client_key": certificates.key, "client_certificate": certificates.chain}
        send(LokiSink(server.url, certificate=certificates.ca, **pair))
        with pytest.raises(RetryableError):
            send(LokiSink(server.url, certificate=certificates.ca))
        assert len(server.requests) == 1


def test_https_is_never_given_up_for_plain_http():
    with FakeLoki() as plain:
        with pytest.raises(RetryableError):
            send(LokiSink(plain.url.replace("http://", "https://")))
        assert plain.requests == []


def test_a_redirect_is_not_followed():
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(307, headers={"location": "https://me:pw@other.example/x?token=abc"})

    sink = LokiSink("http://loki", transport=httpx.MockTransport(handle))
    with pytest.raises(fapilog.errors.PermanentError, match=r"leads to other\.example; redirects"):
        send(sink)
