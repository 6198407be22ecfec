"""Options of the OTLP sink: arguments, variables, and errors about them."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import trustme

import fapilog
from fapilog import diagnostics
from fapilog.errors import ConfigurationError
from fapilog.protocols import BatchLimits
from fapilog.record import LogRecord
from fapilog.sinks.otlp.options import OTLPOptions, Protocol, resolve
from fapilog.sinks.otlp.sink import OTLPSink

GENERAL = "OTEL_EXPORTER_OTLP_"
LOGS = "OTEL_EXPORTER_OTLP_LOGS_"
SECRET = "s3cr3t-token"


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    """Write the files of an authority and of a client certificate that it issued."""
    authority = trustme.CA()
    issued = authority.issue_cert("client.example")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "key", "chain")}
    authority.cert_pem.write_to_path(paths["ca"])
    issued.private_key_pem.write_to_path(paths["key"])
    issued.cert_chain_pems[0].write_to_path(paths["chain"])
    return paths


# -- endpoint -------------------------------------------------------------------


def test_the_defaults_are_those_of_the_specification():
    options = resolve()
    assert options.endpoint == "http://localhost:4318/v1/logs"
    assert (options.protocol, options.timeout, options.compression) == (
        "http/protobuf",
        10.0,
        "none",
    )
    assert resolve(protocol="grpc").target == "localhost:4317"
    assert not resolve(protocol="grpc").is_secure


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("http://collector:4318/", "http://collector:4318/v1/logs"),
        ("http://collector:4318/mycollector/", "http://collector:4318/mycollector/v1/logs"),
        ("https://collector.example/otlp", "https://collector.example/otlp/v1/logs"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/logs"),
    ],
)
def test_the_general_endpoint_is_a_base_to_which_the_path_is_added(monkeypatch, base, url):
    monkeypatch.setenv(GENERAL + "ENDPOINT", base)
    assert resolve().endpoint == url


def test_a_general_endpoint_that_ends_with_the_path_of_logs_is_announced(monkeypatch, capsys):
    monkeypatch.setenv(GENERAL + "ENDPOINT", "http://collector:4318/v1/logs/")
    assert resolve().endpoint == "http://collector:4318/v1/logs/v1/logs"
    assert f"remove /v1/logs from it, or set {LOGS}ENDPOINT instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "form"),
    [
        (GENERAL + "ENDPOINT", "http://host:4318, to which /v1/logs is added$"),
        (LOGS + "ENDPOINT", "http://host:4318/v1/logs$"),
    ],
)
def test_a_wrong_endpoint_is_told_the_form_of_its_variable(monkeypatch, variable, form):
    monkeypatch.setenv(variable, "collector:4318")
    with pytest.raises(ConfigurationError, match=rf"^{variable} is not .*{form}"):
        resolve()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://collector:4318", "http://collector:4318/"),
        ("https://collector.example/my/logs/", "https://collector.example/my/logs/"),
    ],
)
def test_the_endpoint_for_logs_is_used_as_it_is_and_wins(monkeypatch, given, url):
    monkeypatch.setenv(GENERAL + "ENDPOINT", "http://general:4318")
    monkeypatch.setenv(LOGS + "ENDPOINT", given)
    assert resolve().endpoint == url


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://here:4318", "http://here:4318/v1/logs"),
        ("http://here:4318/", "http://here:4318/"),
        ("http://here/otlp/v1/logs?a=b", "http://here/otlp/v1/logs?a=b"),
    ],
)
def test_an_argument_wins_over_the_environment(monkeypatch, given, url):
    monkeypatch.setenv(LOGS + "ENDPOINT", "http://there:4318/x")
    assert resolve(endpoint=given).endpoint == url


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv(LOGS + "ENDPOINT", " ")
    monkeypatch.setenv(LOGS + "PROTOCOL", "")
    monkeypatch.setenv(GENERAL + "ENDPOINT", "http://general:1")
    assert resolve().endpoint == "http://general:1/v1/logs"
    assert resolve().protocol == "http/protobuf"


@pytest.mark.parametrize(
    ("endpoint", "insecure", "target", "secure"),
    [
        ("http://c:4317", False, "c:4317", False),
        ("https://c:4317", True, "c:4317", True),
        ("https://c:4317/v1/logs", None, "c:4317", True),
        ("c:4317", None, "c:4317", True),
        ("c:4317", True, "c:4317", False),
        ("dns:///c:4317", True, "dns:///c:4317", False),
        ("unix:/run/otel.sock", True, "unix:/run/otel.sock", False),
        ("ipv4:10.0.0.1:4317,10.0.0.2:4317", True, "ipv4:10.0.0.1:4317,10.0.0.2:4317", False),
        ("[::1]:4317", True, "[::1]:4317", False),
        ("collector", True, "collector", False),
        ("dns:4317", True, "dns:4317", False),
    ],
)
def test_a_grpc_endpoint_is_a_url_or_a_target_and_its_scheme_wins(
    endpoint, insecure, target, secure
):
    options = resolve(endpoint=endpoint, protocol="grpc", insecure=insecure)
    assert (options.target, options.is_secure) == (target, secure)


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost:4318", "ftp://host/", "http://", "http://:4318", "http://h:port", "http://h:0"],
)
def test_an_endpoint_that_is_no_url_is_refused(monkeypatch, endpoint):
    with pytest.raises(
        ConfigurationError, match=r"^endpoint is not a usable URL.*http://host:4318"
    ):
        resolve(endpoint=endpoint)
    if endpoint:
        monkeypatch.setenv(LOGS + "ENDPOINT", endpoint)
        with pytest.raises(ConfigurationError, match=LOGS + "ENDPOINT"):
            resolve()


@pytest.mark.parametrize(
    "endpoint",
    [
        *("http://:4317", "host with spaces:1", "https://h:x", "host:99999", "host:0", ""),
        *("host:port", "host:4317/v1/logs", "ftp://host", "grpc://host:4317", "http//host:4317"),
        *(":4317", "host:4317:1", "unix:", "dns:///", "a:4317,b:4317"),
    ],
)
def test_a_grpc_endpoint_can_be_wrong_too(endpoint):
    with pytest.raises(ConfigurationError, match=r"endpoint is not a usable URL for grpc"):
        resolve(endpoint=endpoint, protocol="grpc")


# -- secrets --------------------------------------------------------------------


def test_credentials_in_the_url_become_a_header_and_are_shown_nowhere():
    sink = OTLPSink(f"https://me:{SECRET}%40x@host:4318/v1/logs?key={SECRET}")
    encoded = base64.b64encode(f"me:{SECRET}@x".encode()).decode()
    assert sink.options.headers == {"authorization": f"Basic {encoded}"}
    assert sink.options.endpoint == f"https://host:4318/v1/logs?key={SECRET}"
    assert repr(sink) == "OTLPSink('https://host:4318/v1/logs', 'http/protobuf', name='otlp')"
    assert SECRET not in repr(sink.options).replace(sink.options.endpoint, "")


def test_a_header_given_wins_over_credentials_in_the_url():
    options = resolve(endpoint="http://a:b@host/", headers={"Authorization": "Bearer x"})
    assert options.headers == {"authorization": "Bearer x"}


@pytest.mark.parametrize("wrong", ["token", "=x", "a b=c", "content-length=3", "a=%00", "a=\u00e9"])
def test_a_wrong_entry_of_a_headers_variable_is_announced_and_the_others_are_sent(
    wrong, monkeypatch, capsys
):
    monkeypatch.setenv(GENERAL + "HEADERS", f"first=1,{wrong},last=2")
    assert resolve().headers == {"first": "1", "last": "2"}
    err = capsys.readouterr().err
    assert f"fapilog: {GENERAL}HEADERS: " in err
    assert err.endswith("it is ignored\n")


def test_headers_show_in_no_repr_and_no_error(monkeypatch, capsys):
    sink = OTLPSink(headers={"x-api-key": SECRET})
    assert SECRET not in repr(sink) + repr(sink.options) + str(sink.options)
    for text in (f"authorization={SECRET},{SECRET}", f"={SECRET}", f"{SECRET}"):
        diagnostics.reset()
        monkeypatch.setenv(LOGS + "HEADERS", text)
        resolve()
        err = capsys.readouterr().err
        assert SECRET not in err
        assert LOGS + "HEADERS" in err
    with pytest.raises(ConfigurationError) as caught:
        resolve(headers={"x-api-key": f"{SECRET}\r\nx: y"})
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        resolve(endpoint=f"ftp://me:{SECRET}@host")
    assert SECRET not in str(caught.value)


def test_a_backend_that_repeats_a_secret_does_not_get_it_into_a_message():
    options = resolve(headers={"authorization": f"Bearer {SECRET}", "x-tenant": "a"})
    said = options.conceal(f"token {SECRET} of 'Bearer {SECRET}' is not valid for a")
    assert said == "token [REDACTED] of '[REDACTED]' is not valid for a"


def test_the_password_inside_a_basic_authorization_is_a_secret_too():
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    options = resolve(endpoint="http://h/?key=in-the-query", headers={"a": f"Basic {encoded}"})
    assert options.conceal(f"{SECRET}, {encoded}, in-the-query, me") == (
        "[REDACTED], [REDACTED], [REDACTED], me"
    )
    for odd in ("Basic not-base64!", "Basic " + base64.b64encode(b"\xff:\xff").decode()):
        assert resolve(headers={"a": odd}).conceal(f"<{odd}>") == "<[REDACTED]>"


# -- headers --------------------------------------------------------------------


def test_headers_of_the_environment_are_percent_decoded(monkeypatch):
    monkeypatch.setenv(
        GENERAL + "HEADERS", "Authorization=Bearer%20a%2Cb%3D%3D, x-scope-orgid = team+1 ,,empty="
    )
    assert resolve().headers == {
        "authorization": "Bearer a,b==",
        "x-scope-orgid": "team+1",
        "empty": "",
    }


def test_headers_for_logs_replace_the_general_ones_and_arguments_replace_both(monkeypatch):
    monkeypatch.setenv(GENERAL + "HEADERS", "a=1")
    assert resolve().headers == {"a": "1"}
    monkeypatch.setenv(LOGS + "HEADERS", "b=2")
    assert resolve().headers == {"b": "2"}
    assert resolve(headers={"C": "3"}).headers == {"c": "3"}
    assert resolve(headers={}).headers == {}


@pytest.mark.parametrize(
    "headers",
    [{"bad name": "x"}, {"": "x"}, {"a": "x\ny"}, {"a": "é"}, {"a": 5}, {"Content-Type": "text/x"}],
)
def test_a_header_that_cannot_be_sent_is_refused(headers: Any):
    with pytest.raises(ConfigurationError, match=r"^headers: "):
        resolve(headers=headers)


# -- the others -----------------------------------------------------------------


def test_variables_give_the_timeout_in_milliseconds_and_arguments_in_seconds(monkeypatch):
    monkeypatch.setenv(GENERAL + "TIMEOUT", "2500")
    assert resolve().timeout == 2.5
    monkeypatch.setenv(LOGS + "TIMEOUT", "500")
    assert resolve().timeout == 0.5
    assert resolve(timeout=3).timeout == 3.0
    monkeypatch.setenv(LOGS + "TIMEOUT", "0")
    assert resolve().timeout == math.inf


def test_a_timeout_variable_that_looks_like_seconds_is_announced(monkeypatch, capsys):
    monkeypatch.setenv(LOGS + "TIMEOUT", "10")
    assert resolve().timeout == 0.01
    assert f"{LOGS}TIMEOUT=10 means 10 milliseconds, not seconds" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["10s", "-1", "1.5", "²"])
def test_a_timeout_variable_that_is_no_whole_number_is_announced_and_ignored(
    monkeypatch, value, capsys
):
    monkeypatch.setenv(GENERAL + "TIMEOUT", value)
    assert resolve().timeout == resolve(timeout=10).timeout
    assert f"{GENERAL}TIMEOUT={value!r}: use a whole number of milliseconds" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5"])
def test_a_timeout_argument_must_be_above_zero(value: Any):
    with pytest.raises(
        ConfigurationError, match=r"^timeout=.* use a number of seconds, more than 0"
    ):
        resolve(timeout=value)


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("CERTIFICATE", "/nowhere/ca.pem", "readable PEM file"),
        ("CLIENT_KEY", "/nowhere/key.pem", "readable PEM file"),
        ("CLIENT_CERTIFICATE", "/", "readable PEM file"),
    ],
)
@pytest.mark.parametrize("prefix", [GENERAL, LOGS])
def test_a_wrong_variable_is_named_with_the_fix(monkeypatch, prefix, name, value, fix):
    monkeypatch.setenv(prefix + name, value)
    for endpoint in (
        {"endpoint": "https://collector"},
        {"endpoint": "collector:4317", "protocol": "grpc"},
    ):
        secure: Any = endpoint
        with pytest.raises(ConfigurationError, match=rf"{prefix}{name}=.*{fix}"):
            resolve(**secure)
    monkeypatch.delenv(prefix + name)
    argument: Any = {name.lower(): value}
    with pytest.raises(ConfigurationError, match=rf"^{name.lower()}=.*{fix}"):
        resolve(**argument)


@pytest.mark.parametrize("name", ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"])
@pytest.mark.parametrize(
    "endpoint",
    [
        {"endpoint": "http://collector"},
        {"endpoint": "collector:4317", "protocol": "grpc", "insecure": True},
    ],
)
def test_a_missing_file_in_a_variable_is_announced_and_ignored_without_tls(
    monkeypatch, endpoint, name, capsys
):
    monkeypatch.setenv(GENERAL + name, "/nowhere/file.pem")
    options = resolve(**endpoint)
    assert not options.is_secure
    assert (options.certificate, options.client_key, options.client_certificate) == (None,) * 3
    err = capsys.readouterr().err
    assert f"{GENERAL}{name}='/nowhere/file.pem'" in err
    assert "it is ignored, because the endpoint of the logs uses no TLS" in err


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("COMPRESSION", "zstd", "use 'gzip' or 'none'"),
        ("PROTOCOL", "http", "use 'http/protobuf', 'http/json' or 'grpc'"),
        ("INSECURE", "1", "use 'true' or 'false'"),
    ],
)
@pytest.mark.parametrize("prefix", [GENERAL, LOGS])
def test_a_wrong_choice_in_a_variable_is_announced_and_ignored(
    monkeypatch, prefix, name, value, fix, capsys
):
    monkeypatch.setenv(prefix + name, value)
    assert resolve() == OTLPOptions(endpoint=resolve().endpoint)
    assert f"{prefix}{name}={value!r}: {fix}" in capsys.readouterr().err
    if name != "INSECURE":
        argument: Any = {name.lower(): value}
        with pytest.raises(ConfigurationError, match=rf"^{name.lower()}=.*{fix}"):
            resolve(**argument)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "SSL_CERT_FILE"])
def test_a_file_without_certificates_is_named_with_its_variable(monkeypatch, tmp_path, name):
    (tmp_path / "ca.pem").write_text("no certificates")
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    for protocol in get_args(Protocol):
        with pytest.raises(
            ConfigurationError, match=f"^{name}=.*ca.pem' holds no usable"
        ) as caught:
            fapilog.configure(sinks=[OTLPSink("https://collector:4317", protocol)])
        assert caught.value.option == name
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        fapilog.configure()


def test_a_clients_certificate_and_key_are_named_with_their_variables(monkeypatch, pem):
    monkeypatch.setenv(GENERAL + "CLIENT_KEY", pem["ca"])
    with pytest.raises(ConfigurationError, match=f"^{GENERAL}CLIENT_KEY without"):
        OTLPSink("https://collector")
    monkeypatch.setenv(GENERAL + "CLIENT_CERTIFICATE", pem["ca"])
    words = f"^{GENERAL}CLIENT_CERTIFICATE='.*', {GENERAL}CLIENT_KEY='.*': not a PEM"
    with pytest.raises(ConfigurationError, match=words):
        OTLPSink("https://collector").open()


@pytest.mark.parametrize("value", ["GRPC", "Http/Json", "HTTP/PROTOBUF"])
def test_a_protocol_variable_may_be_in_any_case(monkeypatch, value):
    monkeypatch.setenv(GENERAL + "PROTOCOL", value)
    assert resolve().protocol == value.lower()


def test_every_variable_reaches_its_option(monkeypatch, pem):
    for name, value in {
        "PROTOCOL": "grpc",
        "ENDPOINT": "collector:4317",
        "COMPRESSION": "GZIP",
        "CERTIFICATE": pem["ca"],
        "CLIENT_KEY": pem["key"],
        "CLIENT_CERTIFICATE": pem["chain"],
        "INSECURE": "True",
    }.items():
        monkeypatch.setenv(GENERAL + name, value)
    options = resolve()
    assert (options.protocol, options.endpoint, options.compression) == (
        "grpc",
        "collector:4317",
        "gzip",
    )
    assert (options.certificate, options.client_key, options.client_certificate) == (
        pem["ca"],
        pem["key"],
        pem["chain"],
    )
    assert options.insecure


@pytest.mark.parametrize("value", ["1", "yes", "on", "false"])
def test_only_true_is_true(monkeypatch, value):
    monkeypatch.setenv(LOGS + "INSECURE", value)
    assert not resolve().insecure


def test_a_key_without_its_certificate_is_refused(pem):
    with pytest.raises(ConfigurationError, match="client_key without client_certificate"):
        resolve(client_key=pem["key"])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_open_refuses_certificates_that_cannot_be_used(protocol, pem, tmp_path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    other = trustme.CA().issue_cert("other.example")
    other_key = tmp_path / "other.pem"
    other.private_key_pem.write_to_path(str(other_key))
    wrong: list[dict[str, Any]] = [
        {"certificate": nonsense},
        {"client_certificate": nonsense},
        {"client_certificate": pem["chain"]},
        {"client_certificate": pem["chain"], "client_key": other_key},
    ]
    for files in wrong:
        sink = OTLPSink("https://host:1", protocol, **files)
        with pytest.raises(ConfigurationError, match=rf"^{next(iter(files))}="):
            sink.open()


def test_an_encrypted_key_is_refused_without_asking_for_a_passphrase(pem, tmp_path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(pem["key"]).read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    sink = OTLPSink("https://host:1", client_certificate=pem["chain"], client_key=encrypted)
    with pytest.raises(ConfigurationError, match="unencrypted key"):
        sink.open()


def test_a_transport_of_httpx_is_for_http_only():
    with pytest.raises(ConfigurationError, match="transport is for HTTP only"):
        OTLPSink(
            protocol="grpc", transport=httpx.MockTransport(lambda request: httpx.Response(200))
        )


def test_the_sink_has_the_name_and_the_limits_it_was_given():
    limits = BatchLimits(count=5)
    sink = OTLPSink(name="audit", limits=limits, concurrency=64)
    assert (sink.name, sink.limits, sink.concurrency) == ("audit", limits, 64)
    assert (OTLPSink().limits, OTLPSink().concurrency) == (BatchLimits(), 1)


@pytest.mark.parametrize("value", [0, 65, -1, 2.0, True, "4", None])
def test_the_number_of_requests_at_once_must_be_from_1_to_64(value: Any):
    with pytest.raises(ConfigurationError, match=r"^concurrency=.*use a whole number from 1 to 64"):
        OTLPSink(concurrency=value)


@pytest.mark.parametrize(
    ("protocol", "wire_format"),
    [("http/protobuf", "otlp-protobuf"), ("grpc", "otlp-protobuf"), ("http/json", "otlp-json")],
)
def test_what_is_packed_for_the_disk_comes_back_and_is_a_request(protocol, wire_format):
    sink = OTLPSink(protocol=protocol)
    assert sink.wire_format == wire_format
    items = [sink.encode(LogRecord(1, 2, body=body)) for body in ("a", "b")]
    packed = sink.pack(items)
    assert [item[2] for item in sink.unpack(packed)] == [item[2] for item in items]
    assert sink.pack(sink.unpack(packed)) == packed
    with pytest.raises(ValueError):
        sink.unpack(packed[:-1])


def test_importing_and_making_a_sink_loads_neither_httpx_nor_grpc_nor_protobuf():
    code = (
        "import sys; from fapilog.sinks.otlp.sink import OTLPSink; OTLPSink(); OTLPSink(protocol='grpc');"
        "print({'httpx', 'grpc', 'google.protobuf'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    "sink", ["OTLPSink('https://h')", "LokiSink('https://h')", "OTLPSink('http://h')"]
)
def test_opening_a_sink_loads_neither_httpx_nor_what_it_brings_along(sink):
    code = (
        f"import sys; from fapilog.sinks import LokiSink, OTLPSink; sink = {sink}; sink.open();"
        "print({'httpx', 'rich', 'click', 'pygments', 'asyncio'} & sys.modules.keys());"
        "print('httpcore' in sys.modules); sink.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\nTrue\n", "")
