"""``fapilog check`` against planted faults: each is named, and its fix is a line to copy."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
import trustme

from fapilog.cli import main
from fapilog.cli.receiver import Receiver
from tests.support.collectors import opentelemetry_collector, rotel_agent
from tests.support.loki import QueriedLoki, RealLoki
from tests.support.otlp_servers import Certificates, grpc_server

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"

Check = Callable[..., tuple[object, dict[str, Any]]]
Environment = Callable[..., None]


@pytest.fixture
def check(capfd, monkeypatch, tmp_path) -> Check:
    """Run ``fapilog check --json``, and return the exit code and the first sink's result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    def run(*arguments: str) -> tuple[object, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["check", "--json", *arguments])
        document = json.loads(capfd.readouterr().out)
        assert document["delivered"] is (ended.value.code == 0)
        (sink,) = document["sinks"]
        return ended.value.code, {**sink, "record_id": document["record_id"]}

    return run


@pytest.fixture
def environment(monkeypatch) -> Environment:
    """Set environment variables."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def apply(monkeypatch) -> Callable[[str], None]:
    """Set the variables in a line to copy, as a shell would."""

    def run(line: str) -> None:
        for pair in shlex.split(line):
            name, equals, value = pair.partition("=")
            assert equals, line
            monkeypatch.setenv(name, value)

    return run


@pytest.fixture
def certificates(tmp_path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@contextlib.contextmanager
def web(
    status: int,
    body: bytes,
    kind: str = "text/plain",
    *,
    tls: ssl.SSLContext | None = None,
    wait: Callable[[], object] = bool,
) -> Iterator[str]:
    """Run an HTTP server that gives one answer to every request; yield its address.

    ``wait`` is called before the answer to a POST request.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.command == "POST":
                wait()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            return  # the client's TLS does not fit, as the test wants

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def secure_grpc(credentials: grpc.ServerCredentials) -> Iterator[str]:
    """Run a LogsService with TLS; yield its address."""
    handler = grpc.unary_unary_rpc_method_handler(lambda _body, _context: b"")
    service = "opentelemetry.proto.collector.logs.v1.LogsService"
    workers = ThreadPoolExecutor(2)
    server = grpc.server(workers)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        workers.shutdown()


def plain_grpc() -> contextlib.AbstractContextManager[str]:
    return grpc_server(lambda _body, _context: b"")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# ---- nobody, or nobody who answers


@pytest.mark.parametrize(
    ("protocol", "usual"), [("http/protobuf", 4318), ("http/json", 4318), ("grpc", 4317)]
)
def test_a_port_where_nobody_listens(check, environment, protocol, usual):
    port = closed_port()
    environment(**{ENDPOINT: f"http://127.0.0.1:{port}", PROTOCOL: protocol})
    code, sink = check()
    assert (code, sink["fault"]) == (1, "nobody-listens")
    assert sink["reason"].startswith(f"nobody listens at 127.0.0.1:{port}: start the backend")
    assert "in a container, localhost is the container itself" in sink["reason"]
    # Another process of this machine may listen at the usual port.
    assert sink["fix"] in {
        f"{ENDPOINT}=http://HOST:{usual}",
        f"{ENDPOINT}=http://127.0.0.1:{usual}",
    }


def test_a_port_where_no_loki_listens(check, environment):
    environment(FAPILOG_SINKS="loki", FAPILOG_LOKI__URL=f"http://127.0.0.1:{closed_port()}")
    _, sink = check()
    assert sink["fault"] == "nobody-listens"
    assert sink["fix"].startswith("FAPILOG_LOKI__URL=http://")
    assert sink["fix"].endswith(":3100")


def test_a_host_that_does_not_exist(check):
    code, sink = check("--sinks", "otlp:http://collector.invalid:4318")
    assert (code, sink["fault"]) == (1, "unknown-host")
    assert "collector.invalid" in sink["reason"]
    assert sink["fix"] == "fapilog check --sinks otlp:http://HOST:4318"


def test_a_port_that_accepts_connections_and_says_nothing(check):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        _, sink = check("--sinks", f"otlp:http://{address}", "--timeout", "0.2")
    assert sink["fault"] == "no-answer"
    assert f"something listens at {address} but does not answer" in sink["reason"]


def test_a_backend_that_is_slow_is_not_a_port_of_another_protocol(check):
    ended = threading.Event()
    with web(200, b"", wait=ended.wait) as address:
        _, sink = check("--sinks", f"otlp:http://{address}", "--timeout", "1")
        ended.set()
    assert sink["fault"] == "no-answer"
    assert "slow or overloaded" in sink["reason"]


def test_a_proxy_that_cannot_be_reached(check, environment):
    environment(HTTP_PROXY=f"http://127.0.0.1:{closed_port()}", NO_PROXY="")
    _, sink = check("--sinks", "otlp:http://collector.example:4318")
    assert (sink["fault"], sink["fix"]) == ("proxy", "NO_PROXY=collector.example")


def test_a_proxy_that_wants_credentials(check, environment):
    with web(407, b"") as address:
        environment(HTTP_PROXY=f"http://{address}", NO_PROXY="")
        _, sink = check("--sinks", "otlp:http://collector.example:4318")
    assert sink["fault"] == "proxy-credentials"
    assert sink["fix"] == "HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"


# ---- certificates


def test_a_certificate_that_is_not_trusted_is_not_nobody_listening(
    check, environment, apply, certificates
):
    with secure_grpc(certificates.grpc_credentials()) as address:
        environment(**{ENDPOINT: f"https://{address}", PROTOCOL: "grpc"})
        code, sink = check()
        assert (code, sink["fault"]) == (1, "wrong-certificate")
        assert f"a server listens at {address}, but its certificate is not" in sink["reason"]
        assert sink["fix"] == "OTEL_EXPORTER_OTLP_CERTIFICATE=/path/to/ca.pem"
        apply(sink["fix"].replace("/path/to/ca.pem", certificates.ca))
        assert check()[0] == 0


def test_words_of_grpc_that_are_cut_do_not_hide_the_certificate(
    check, environment, certificates, tmp_path
):
    directory = tmp_path / ("a" * 150) / ("b" * 100)
    directory.mkdir(parents=True)
    path = directory / "other-authority.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with secure_grpc(certificates.grpc_credentials()) as address:
        environment(
            **{ENDPOINT: f"https://{address}", PROTOCOL: "grpc"},
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(path),
        )
        _, sink = check()
    assert "CERTIFICATE_VERIFY" not in sink["text"]  # the sink's message is cut before it
    assert sink["fault"] == "wrong-certificate"


@pytest.mark.parametrize("sink", ["otlp", "loki"])
def test_a_certificate_that_is_not_trusted_over_https(
    check, environment, apply, certificates, sink
):
    answer = 204 if sink == "loki" else 200
    with web(answer, b"", tls=certificates.server_context()) as address:
        environment(
            **{ENDPOINT: f"https://{address}"},
            FAPILOG_SINKS=sink,
            FAPILOG_LOKI__URL=f"https://{address}",
        )
        _, found = check()
        assert found["fault"] == "wrong-certificate"
        apply(found["fix"].replace("/path/to/ca.pem", certificates.ca))
        assert check()[1]["fault"] is None


def test_a_certificate_of_another_host(check, environment, certificates, tmp_path):
    issued = certificates.authority.issue_cert("collector.example", "*.internal.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    with web(200, b"", tls=context) as address:
        environment(
            **{ENDPOINT: f"https://{address}"}, OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca
        )
        _, sink = check()
    port = address.partition(":")[2]
    assert sink["fault"] == "wrong-certificate"
    assert "is for collector.example, *.internal.example, not for 127.0.0.1" in sink["reason"]
    assert sink["fix"] == f"{ENDPOINT}=https://collector.example:{port}"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_server_that_wants_a_certificate_of_the_client(
    check, environment, apply, certificates, protocol
):
    server = (
        secure_grpc(certificates.grpc_credentials(mutual=True))
        if protocol == "grpc"
        else web(200, b"", tls=certificates.server_context(mutual=True))
    )
    with server as address:
        environment(
            **{ENDPOINT: f"https://{address}", PROTOCOL: protocol},
            OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca,
        )
        _, sink = check()
        assert sink["fault"] == "client-certificate"
        line = sink["fix"].replace("/path/to/client.pem", certificates.chain)
        apply(line.replace("/path/to/client-key.pem", certificates.key))
        assert check()[0] == 0


# ---- TLS and protocols that do not fit


@pytest.mark.parametrize("sink", ["otlp", "loki"])
def test_plain_http_at_a_port_for_tls(check, environment, apply, certificates, sink):
    answer = 204 if sink == "loki" else 200
    with web(answer, b"", tls=certificates.server_context()) as address:
        environment(
            **{ENDPOINT: f"http://{address}"},
            FAPILOG_SINKS=sink,
            FAPILOG_LOKI__URL=f"http://{address}",
            OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca,
            FAPILOG_LOKI__CERTIFICATE=certificates.ca,
        )
        _, found = check()
        assert found["fault"] == "plain-at-tls-port"
        assert f"the server at {address} expects TLS" in found["reason"]
        apply(found["fix"])
        assert check()[1]["fault"] is None


def test_plain_grpc_at_a_port_for_tls(check, environment, apply, certificates):
    with secure_grpc(certificates.grpc_credentials()) as address:
        environment(
            **{ENDPOINT: f"http://{address}", PROTOCOL: "grpc"},
            OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca,
        )
        _, sink = check()
        assert sink["fault"] == "plain-at-tls-port"
        apply(sink["fix"])
        assert check()[0] == 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_tls_at_a_port_for_plain_text(check, environment, apply, receiver, protocol):
    url = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    environment(**{ENDPOINT: url.replace("http:", "https:"), PROTOCOL: protocol})
    _, sink = check()
    assert sink["fault"] == "tls-at-plain-port"
    apply(sink["fix"])
    assert check()[0] == 0


def test_http_at_the_port_for_grpc(check, environment, apply, receiver):
    environment(**{ENDPOINT: receiver.grpc_endpoint})
    _, sink = check()
    assert (sink["fault"], sink["fix"]) == ("http-at-grpc-port", f"{PROTOCOL}=grpc")
    assert "usually 4318" in sink["reason"]
    apply(sink["fix"])
    assert check()[0] == 0


def test_http_at_a_port_for_grpc_with_tls(check, environment, apply, certificates):
    with secure_grpc(certificates.grpc_credentials()) as address:
        environment(
            **{ENDPOINT: f"http://{address}"}, OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca
        )
        _, sink = check()
        assert sink["fault"] == "http-at-grpc-port"
        assert sink["fix"] == f"{PROTOCOL}=grpc {ENDPOINT}=https://{address}"
        apply(sink["fix"])
        assert check()[0] == 0


@pytest.mark.parametrize("scheme", ["http://", "https://", ""])
def test_grpc_at_the_port_for_http(check, environment, apply, receiver, scheme):
    environment(**{ENDPOINT: scheme + receiver.http_endpoint[7:], PROTOCOL: "grpc"})
    _, sink = check()
    assert sink["fault"] == "grpc-at-http-port"
    assert "usually 4317" in sink["reason"]
    apply(sink["fix"])
    assert check()[0] == 0


def test_loki_is_not_written_to_over_grpc(check):
    with plain_grpc() as address:
        _, sink = check("--sinks", f"loki:http://{address}")
    assert sink["fault"] == "http-at-grpc-port"
    assert sink["fix"] == "fapilog check --sinks loki:http://127.0.0.1:3100"


# ---- wrong path, wrong port


def test_a_wrong_path_is_not_a_wrong_port(check, environment, apply, receiver):
    environment(OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{receiver.http_endpoint}/v1/log")
    code, sink = check()
    assert (code, sink["fault"]) == (1, "wrong-path")
    assert sink["reason"] == "the path /v1/log is wrong: the server takes logs at /v1/logs"
    apply(sink["fix"])
    assert check()[0] == 0


def test_the_fix_of_one_of_several_sinks_keeps_the_others(capfd, environment, receiver, tmp_path):
    specs = f"file:{tmp_path / 'a.jsonl'},otlp:{receiver.http_endpoint}/log"
    environment(FAPILOG_SINKS=specs)
    with pytest.raises(SystemExit) as ended:
        main(["check", "--json"])
    file, otlp = json.loads(capfd.readouterr().out)["sinks"]
    assert (ended.value.code, file["delivered"], otlp["fault"]) == (1, True, "wrong-path")
    assert otlp["fix"] == f"FAPILOG_SINKS={specs.removesuffix('/log')}"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "text/plain"), (405, "text/plain"), (200, "text/html")]
)
def test_an_http_server_that_takes_no_logs_is_a_wrong_port(check, status, kind):
    with web(status, b"<!doctype html><p>Welcome", kind) as address:
        code, sink = check("--sinks", f"otlp:http://{address}")
    assert (code, sink["fault"]) == (1, "wrong-port")
    assert f"an HTTP server answers at {address}, but takes logs at none of" in sink["reason"]
    assert sink["fix"].endswith(":4318")


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "dns:///127.0.0.1:{}"])
def test_a_grpc_server_that_takes_only_traces(check, environment, form):
    workers = ThreadPoolExecutor(1)
    server = grpc.server(workers)  # without any service
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    environment(
        **{ENDPOINT: form.format(port), PROTOCOL: "grpc"}, OTEL_EXPORTER_OTLP_INSECURE="true"
    )
    try:
        _, sink = check()
    finally:
        server.stop(0).wait()
        workers.shutdown()
    assert sink["fault"] == "wrong-port"
    assert "takes no logs" in sink["reason"]


def test_a_wrong_path_of_loki(check, environment, apply):
    with QueriedLoki() as loki:
        environment(FAPILOG_SINKS="loki", FAPILOG_LOKI__URL=f"{loki.url}/api/prom/push")
        _, sink = check()
        assert sink["fault"] == "wrong-path"
        assert sink["fix"] == f"FAPILOG_LOKI__URL={loki.url}"
        apply(sink["fix"])
        assert check()[0] == 0


def test_a_collector_is_not_loki(check, apply, environment, receiver):
    environment(FAPILOG_SINKS=f"loki:{receiver.http_endpoint}")
    _, sink = check()
    assert sink["fault"] == "not-loki"
    apply(sink["fix"])
    assert check()[0] == 0


# ---- Loki by OTLP, tenants, credentials


def test_a_loki_that_needs_a_tenant_is_known_by_its_path(check, environment):
    with QueriedLoki(needs_tenant=True) as loki:
        environment(**{ENDPOINT: loki.url})
        assert check()[1]["fault"] == "loki-otlp-path"


def test_loki_takes_otlp_below_its_own_path(check, environment, apply):
    with QueriedLoki() as loki:
        environment(**{ENDPOINT: loki.url})
        code, sink = check()
        assert (code, sink["fault"]) == (1, "loki-otlp-path")
        assert "below /otlp" in sink["reason"]
        assert sink["fix"] == f"{ENDPOINT}={loki.url}/otlp"
        apply(sink["fix"])
        code, sink = check()
    assert (code, sink["read_back"]) == (0, True)
    assert len(loki.tenants[""]) == 1


@pytest.mark.parametrize("headers", ["", "x-team=checkout"])
def test_loki_that_needs_a_tenant_by_otlp(check, environment, monkeypatch, headers):
    with QueriedLoki(needs_tenant=True) as loki:
        environment(**{ENDPOINT: f"{loki.url}/otlp"}, OTEL_EXPORTER_OTLP_HEADERS=headers)
        code, sink = check()
        assert (code, sink["fault"]) == (1, "loki-tenant")
        assert "X-Scope-OrgID" in sink["reason"]
        name = "OTEL_EXPORTER_OTLP_HEADERS"
        kept = f'"${name},x-scope-orgid=TENANT"' if headers else "x-scope-orgid=TENANT"
        assert sink["fix"] == f"{name}={kept}"
        line = sink["fix"].replace(f"${name}", headers).replace("TENANT", "shop")
        monkeypatch.setenv(name, line.partition("=")[2].strip('"'))
        assert check()[0] == 0
    assert list(loki.tenants) == ["shop"]


def test_loki_that_needs_a_tenant(check, environment, apply):
    with QueriedLoki(needs_tenant=True) as loki:
        environment(FAPILOG_SINKS="loki", FAPILOG_LOKI__URL=loki.url)
        code, sink = check()
        assert (code, sink["fault"], sink["fix"]) == (
            1,
            "loki-tenant",
            "FAPILOG_LOKI__TENANT=TENANT",
        )
        apply(sink["fix"].replace("=TENANT", "=shop"))
        assert check()[0] == 0


@pytest.mark.parametrize(
    ("sink", "fix"),
    [
        ("otlp", "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN"),
        ("loki", "FAPILOG_LOKI__TOKEN=TOKEN"),
    ],
)
def test_a_backend_that_refuses_the_credentials(check, sink, fix):
    with web(401, b"invalid token") as address:
        code, found = check("--sinks", f"{sink}:http://{address}")
    assert (code, found["fault"], found["fix"]) == (1, "credentials", fix)
    assert "invalid token" in found["text"]


# ---- reading back


@pytest.mark.parametrize("misses", [0, 2])
def test_loki_is_asked_for_the_record_until_it_has_it(check, misses):
    with QueriedLoki(misses=misses) as loki:
        code, sink = check("--sinks", f"loki:{loki.url}")
    assert (code, sink["read_back"], sink["note"]) == (0, True, None)
    assert sink["text"].startswith("delivered and read back from Loki in ")
    (entry,) = loki.tenants[""]
    assert sink["record_id"] in entry.values.values()


def test_a_record_that_another_tenant_gets_is_not_delivered(check, environment):
    def gateway(_tenant: str) -> str:
        return "shop"  # whatever the query names

    with QueriedLoki(read_tenant=gateway) as loki:
        environment(FAPILOG_LOKI__TENANT="shpo")
        code, sink = check("--sinks", f"loki:{loki.url}", "--timeout", "2")
    assert (code, sink["read_back"], sink["fault"]) == (1, False, "not-found-again")
    assert "but not in tenant 'shpo'" in sink["text"]
    assert sink["record_id"] in sink["text"]
    assert sink["fix"] == "FAPILOG_LOKI__TENANT=TENANT"
    assert list(loki.tenants) == ["shpo"]


def test_a_tenant_that_nobody_uses_is_doubted(check, environment):
    with QueriedLoki() as loki:
        environment(FAPILOG_LOKI__TENANT="shpo")
        code, sink = check("--sinks", f"loki:{loki.url}")
        assert (code, sink["read_back"]) == (0, True)
        assert "read back from tenant 'shpo'" in sink["text"]
        assert sink["note"].startswith("tenant 'shpo' had no records in the last day before")
        assert check("--sinks", f"loki:{loki.url}")[1]["note"] is None


def test_a_record_that_loki_drops_is_not_delivered(check):
    with QueriedLoki(keeps=False) as loki:
        code, sink = check("--sinks", f"otlp:{loki.url}/otlp/v1/logs", "--timeout", "2")
    assert (code, sink["fault"]) == (1, "not-found-again")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_credentials_that_can_only_write_are_enough(check, status):
    with QueriedLoki(refuses_reads=status) as loki:
        code, sink = check("--sinks", f"loki:{loki.url}")
    assert (code, sink["read_back"]) == (0, None)
    assert "accepted in " in sink["text"]
    assert "; not read back: " in sink["text"]
    assert f"HTTP {status}" in sink["text"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_accepts_and_is_not_read_back(check, environment, receiver, protocol):
    url = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    environment(**{ENDPOINT: url, PROTOCOL: protocol})
    code, sink = check()
    assert (code, sink["delivered"], sink["read_back"]) == (0, True, None)
    (log,) = receiver.logs
    assert log.attributes["log.record.uid"] == sink["record_id"]
    assert sink["record_id"] in sink["text"]


def test_a_real_loki_is_read_back(check, environment, tmp_path):
    with RealLoki(tmp_path) as loki:
        assert check("--sinks", f"loki:{loki.url}")[1]["read_back"] is True
        assert check("--sinks", f"otlp:{loki.url}/otlp/v1/logs")[1]["read_back"] is True
        environment(**{ENDPOINT: loki.url})
        assert check()[1]["fault"] == "loki-otlp-path"


# ---- collectors of other projects


@pytest.mark.parametrize(
    ("protocol", "scheme", "port", "fault"),
    [
        ("http/protobuf", "http", "http", None),
        ("http/protobuf", "http", "grpc", "http-at-grpc-port"),
        ("http/protobuf", "https", "http", "tls-at-plain-port"),
        ("http/protobuf", "https", "grpc", "http-at-grpc-port"),
        ("grpc", "http", "grpc", None),
        ("grpc", "http", "http", "grpc-at-http-port"),
        ("grpc", "https", "grpc", "tls-at-plain-port"),
        ("grpc", "https", "http", "grpc-at-http-port"),
    ],
)
@pytest.mark.parametrize(
    "collector",
    [
        pytest.param(rotel_agent, marks=pytest.mark.rotel),
        pytest.param(opentelemetry_collector, marks=pytest.mark.collector),
    ],
)
def test_protocols_at_the_ports_of_a_collector(
    check, environment, apply, tmp_path, collector, protocol, scheme, port, fault
):
    with Receiver() as behind, collector(tmp_path, behind) as endpoints:
        url = getattr(endpoints, port).replace("http:", f"{scheme}:")
        environment(**{ENDPOINT: url, PROTOCOL: protocol})
        faults: list[str | None] = []
        code, sink = check()
        while code and len(faults) < 2:
            faults.append(sink["fault"])
            apply(sink["fix"])
            code, sink = check()
    assert code == 0
    # A port that accepts both versions of HTTP may need a second step.
    assert fault in (faults or [None])


# ---- what people read


def test_no_output_shows_the_credentials_of_a_url(capfd, receiver):
    secret = receiver.http_endpoint.replace("//", "//me:hunter2@")
    specs = f"otlp:{secret}/wrong?token=hunter3,otlp:{secret},loki:{secret}"
    for option in ([], ["--json"]):
        with pytest.raises(SystemExit):
            main(["check", "--sinks", specs, *option])
        out, err = capfd.readouterr()
        assert "wrong is wrong" in out
        assert "hunter" not in out + err


def plain(capfd: Any, *arguments: str) -> tuple[object, list[str]]:
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    return ended.value.code, capfd.readouterr().out.splitlines()


def test_the_reason_and_the_line_to_copy_stand_below_the_sink(capfd, environment):
    with QueriedLoki() as loki:
        environment(**{ENDPOINT: loki.url})
        code, lines = plain(capfd)
    assert code == 1
    first, reason, fix = lines
    assert first.startswith("✗ otlp  rejected: ")
    assert reason == "        this is Loki, which takes OTLP below /otlp: /otlp/v1/logs"
    assert fix == f"        {ENDPOINT}={loki.url}/otlp"


def test_with_nothing_configured_it_says_that_nothing_leaves_the_process(capfd, tmp_path):
    code, lines = plain(capfd)
    assert code == 0
    words, fix = lines[-2:]
    assert words.startswith("nothing is configured, so nothing leaves this process")
    assert fix == f"  {ENDPOINT}=http://localhost:4318"


@pytest.mark.parametrize(
    ("variables", "words", "fix"),
    [
        ({"FAPILOG_SINKS": "console"}, "nothing leaves this process", "FAPILOG_SINKS=console,otlp"),
        ({"FAPILOG_SINKS": "memory"}, "records only stay in memory", "FAPILOG_SINKS=console,otlp"),
        (
            {"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://localhost:4318"},
            "OTEL_SDK_DISABLED is true",
            f"OTEL_SDK_DISABLED=false {ENDPOINT}=http://localhost:4318",
        ),
        ({"FAPILOG_SINKS": "none"}, "no sink is configured", f"{ENDPOINT}=http://localhost:4318"),
    ],
)
def test_sinks_that_send_nothing_are_told(capfd, environment, variables, words, fix):
    environment(**variables)
    code, lines = plain(capfd)
    assert code == (1 if variables.get("FAPILOG_SINKS") == "none" else 0)
    assert words in lines[-2]
    assert lines[-1] == f"  {fix}"


def test_a_file_leaves_the_process(capfd, tmp_path):
    code, lines = plain(capfd, "--sinks", f"console,file:{tmp_path / 'a.jsonl'}")
    assert code == 0
    assert not any("leaves this process" in line for line in lines)


def test_json_alone_is_on_standard_output(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["check", "--json"])
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert ended.value.code == 0
    assert document["warning"].startswith("nothing is configured")
    assert document["sinks"] == [
        {
            "name": "console",
            "delivered": True,
            "read_back": None,
            "text": document["sinks"][0]["text"],
            "fault": None,
            "reason": None,
            "fix": None,
            "note": None,
        }
    ]
    assert json.loads(err)["attributes"]["log.record.uid"] == document["record_id"]


def test_json_without_a_sink_is_a_failure(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["check", "--json", "--sinks", "none"])
    document = json.loads(capfd.readouterr().out)
    assert (ended.value.code, document["delivered"], document["sinks"]) == (1, False, [])
