"""OTLP over gRPC on real sockets: the requests, and the effect of every status."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from fapilog.cli.receiver import Receiver
from fapilog.errors import (
    AccessDeniedError,
    ConfigurationError,
    PermanentError,
    RetryableError,
    SendError,
    TooLargeError,
)
from fapilog.protocols import Outcome
from fapilog.sinks.otlp import grpc as otlp_grpc
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.otlp_servers import Certificates, deliver, grpc_server, opened

SECRET = "s3cr3t-token"


def sink_for(address: str, **options: Any) -> OTLPSink:
    return OTLPSink(f"http://{address}", "grpc", **options)


def failing(code: grpc.StatusCode, details: str = "", status: bytes | None = None) -> Any:
    """Return an Export that aborts with ``code``."""

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        if status is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(code, details)
        raise AssertionError("abort raises")

    return export


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_arrive_over_grpc(compression):
    with (
        Receiver() as receiver,
        opened(OTLPSink(receiver.grpc_endpoint, "grpc", compression=compression)) as sink,
    ):
        assert deliver(sink, "one", "two") is None
        assert deliver(sink, "x" * 5_000_000) is None
        assert [log.body[:5] for log in receiver.logs] == ["one", "two", "xxxxx"]
        assert receiver.requests == 2


def test_a_target_without_a_scheme_goes_without_tls_only_when_asked_to():
    with Receiver() as receiver:
        target = str(receiver.grpc_endpoint).removeprefix("http://")
        with opened(OTLPSink(target, "grpc", insecure=True)) as sink:
            assert deliver(sink) is None
        with opened(OTLPSink(target, "grpc")) as sink:
            with pytest.raises(RetryableError):
                deliver(sink)
        assert receiver.requests == 1


def test_headers_are_sent_as_metadata_and_the_exporter_names_itself():
    seen: dict[str, str] = {}

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        seen.update({key: str(value) for key, value in context.invocation_metadata()})
        assert len(ExportLogsServiceRequest.FromString(body).resource_logs) == 1
        return b""

    with grpc_server(export) as address:
        with opened(sink_for(address, headers={"X-Scope-OrgID": "team"})) as sink:
            assert deliver(sink) is None
    assert seen["x-scope-orgid"] == "team"
    assert seen["user-agent"].startswith("fapilog-otlp/")


def test_partial_success_counts_rejected_records_and_is_not_an_error():
    answer = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=1, error_message="too old")
    ).SerializeToString()
    with grpc_server(lambda body, context: answer) as address, opened(sink_for(address)) as sink:
        assert deliver(sink, "a", "b") == Outcome(1, "too old")


def test_a_retryable_status_is_retried_after_the_delay_it_asks_for():
    status = status_pb2.Status(code=14, message="busy")
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=4))
    status.details.add().Pack(info)
    export = failing(grpc.StatusCode.UNAVAILABLE, "busy", status.SerializeToString())
    with grpc_server(export) as address, opened(sink_for(address)) as sink:
        with pytest.raises(
            RetryableError, match=rf"^http://{address}: gRPC UNAVAILABLE: busy$"
        ) as caught:
            deliver(sink)
    assert caught.value.retry_after == 4


def test_resource_exhausted_without_a_delay_is_final():
    export = failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota")
    with grpc_server(export) as address, opened(sink_for(address)) as sink:
        with pytest.raises(PermanentError, match="gRPC RESOURCE_EXHAUSTED: quota"):
            deliver(sink)


def test_an_answer_that_is_too_large_is_final():
    with grpc_server(lambda body, context: bytes(5 << 20)) as address:
        with (
            opened(sink_for(address)) as sink,
            pytest.raises(PermanentError, match="larger than max") as caught,
        ):
            deliver(sink)
    assert not isinstance(caught.value, TooLargeError), "the request was taken"


def test_a_request_that_is_too_large_for_the_server_is_to_be_split():
    with grpc_server(lambda body, context: b"") as address, opened(sink_for(address)) as sink:
        with pytest.raises(TooLargeError, match="larger than max"):
            deliver(sink, "x" * 5_000_000)
        assert deliver(sink, "x") is None


def test_a_server_that_named_its_limit_is_not_asked_for_larger_requests(monkeypatch):
    refused = threading.Event()

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        if len(body) > 400:  # the test sets a lower limit than gRPC's own
            assert not refused.is_set(), "asked again"
            refused.set()
            words = f"grpc: received message larger than max ({len(body)} vs. 400)"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        return b""

    with grpc_server(export) as address, opened(sink_for(address)) as sink:
        for _ in range(3):
            with pytest.raises(TooLargeError, match="400"):
                deliver(sink, "x" * 1000)
        assert deliver(sink, "x") is None
        refused.clear()
        monkeypatch.setattr(otlp_grpc, "monotonic", lambda: time.monotonic() + 3600)
        # After a minute, the sink asks again, because the limit may have changed.
        with pytest.raises(TooLargeError, match="larger than max"):
            deliver(sink, "x" * 1000)
        assert refused.is_set()


def test_threads_that_send_at_once_share_one_channel(monkeypatch):
    made: list[str] = []
    original = grpc.insecure_channel

    def insecure_channel(target: str, *rest: Any) -> grpc.Channel:
        made.append(target)
        return original(target, *rest)

    monkeypatch.setattr(grpc, "insecure_channel", insecure_channel)
    together = threading.Barrier(2, timeout=30)

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        together.wait()
        return b""

    with grpc_server(export) as address, opened(sink_for(address, concurrency=2)) as sink:
        threads = [threading.Thread(target=deliver, args=(sink,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not together.broken
    assert len(made) == 1


def test_a_status_message_that_repeats_our_credentials_shows_none_of_them():
    export = failing(grpc.StatusCode.UNAUTHENTICATED, f"{SECRET} has expired\x1b[31m")
    with grpc_server(export) as address:
        with opened(sink_for(address, headers={"authorization": f"Bearer {SECRET}"})) as sink:
            with pytest.raises(AccessDeniedError, match=r"\[REDACTED\] has expired \[31m"):
                deliver(sink)


def test_a_server_that_does_not_answer_does_not_stretch_the_time():
    release = threading.Event()

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        release.wait(30)
        return b""

    with grpc_server(export) as address, opened(sink_for(address)) as sink:
        with pytest.raises(RetryableError, match="DEADLINE_EXCEEDED"):
            deliver(sink, timeout=0.2)
        release.set()


def test_nobody_listening_is_worth_another_try_and_a_later_one_succeeds():
    with grpc_server(lambda body, context: b"") as address, opened(sink_for(address)) as sink:
        assert deliver(sink) is None
    with opened(sink_for(address)) as sink:
        with pytest.raises(RetryableError, match="UNAVAILABLE"):
            deliver(sink)
        sink.close()
        with grpc_server(lambda body, context: b"", int(address.rpartition(":")[2])):
            assert deliver(sink) is None


def test_the_channel_is_made_by_the_first_request(monkeypatch):
    made: list[str] = []
    original = grpc.insecure_channel

    def insecure_channel(target: str, *rest: Any) -> grpc.Channel:
        made.append(target)
        return original(target, *rest)

    monkeypatch.setattr(grpc, "insecure_channel", insecure_channel)
    with Receiver() as receiver, opened(OTLPSink(receiver.grpc_endpoint, "grpc")) as sink:
        assert made == []
        deliver(sink)
        deliver(sink)
        assert len(made) == 1
        sink.after_fork()
        deliver(sink)
        assert len(made) == 2


def test_mutual_tls_needs_the_clients_certificate(tmp_path: Path):
    files = Certificates(tmp_path)
    with Receiver(grpc_credentials=files.grpc_credentials(mutual=True)) as receiver:
        assert str(receiver.grpc_endpoint).startswith("https://")
        with opened(
            OTLPSink(
                receiver.grpc_endpoint,
                "grpc",
                certificate=files.ca,
                client_certificate=files.chain,
                client_key=files.key,
            )
        ) as sink:
            assert deliver(sink) is None
        for authority, reason in ((None, "certificate is not trusted"), (files.ca, "UNAVAILABLE")):
            with opened(OTLPSink(receiver.grpc_endpoint, "grpc", certificate=authority)) as sink:
                with pytest.raises(RetryableError, match=reason):
                    deliver(sink)
        assert receiver.requests == 1


def test_https_is_never_given_up_for_plain_text():
    with Receiver() as plain:
        endpoint = str(plain.grpc_endpoint).replace("http://", "https://")
        with opened(OTLPSink(endpoint, "grpc", insecure=True)) as sink:
            with pytest.raises(RetryableError):
                deliver(sink)
        assert plain.requests == 0


@pytest.mark.parametrize("name", ["grpc-timeout", "trace-bin", "a!b"])
def test_a_header_that_grpc_cannot_send_fails_at_start(name):
    with pytest.raises(ConfigurationError, match=rf"headers: '{name}' cannot be sent over gRPC"):
        OTLPSink(protocol="grpc", headers={name: "x"}).open()


def test_a_certificate_that_is_away_for_a_moment_is_worth_another_try(tmp_path: Path):
    files = Certificates(tmp_path)
    with Receiver(grpc_credentials=files.grpc_credentials()) as receiver:
        with opened(OTLPSink(receiver.grpc_endpoint, "grpc", certificate=files.ca)) as sink:
            content = Path(files.ca).read_bytes()
            Path(files.ca).unlink()
            with pytest.raises(RetryableError, match="No such file"):
                deliver(sink)
            Path(files.ca).write_bytes(content)
            assert deliver(sink) is None


def test_missing_grpc_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "fapilog.sinks.otlp.grpc", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'fapilog\[grpc\]'"):
        OTLPSink(protocol="grpc").open()


# -- what HTTP and gRPC have in common


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_names_the_authorities_of_http_and_grpc(tmp_path, monkeypatch, variable):
    certificates = Certificates(tmp_path)
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, certificates.ca)
    with Receiver(grpc_port=None, ssl_context=certificates.server_context()) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink) is None
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("localhost:0", certificates.grpc_credentials())
    server.start()
    try:
        with opened(OTLPSink(f"https://localhost:{port}", "grpc")) as sink:
            with pytest.raises(SendError, match="UNIMPLEMENTED"):
                deliver(sink)
    finally:
        server.stop(0).wait()


def test_a_port_of_the_other_protocol_is_answered_with_the_usual_ports() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with opened(OTLPSink(f"http://127.0.0.1:{port}")) as sink:
            with pytest.raises(RetryableError, match="use port 4318 for HTTP and 4317 for gRPC"):
                deliver(sink)
    finally:
        server.stop(0).wait()
    with Receiver(grpc_port=None) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, "grpc")) as sink:
            with pytest.raises(RetryableError, match="use port 4318 for HTTP and 4317 for gRPC"):
                deliver(sink)
