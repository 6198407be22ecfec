"""The receiver accepts the requests of any OTLP exporter and leaves no thread running."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource as SDKResource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from fapilog.cli.receiver import ReceivedLog, Receiver
from fapilog.cli.receiver.http import MAX_REQUEST, HTTPReceiver
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.otlp_servers import deliver, opened

RECORD = LogRecord(
    timestamp=1,
    observed_timestamp=2,
    severity_number=13,
    severity_text="WARNING",
    body={"text": "hello", "list": [1, 2.5, None, True, b"x"]},
    attributes={"nested": {"a": {"b": 1}}},
    event_name="order.placed",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    scope=Scope("app.orders", "2.0"),
    resource=Resource({"service.name": "web"}),
)


def post(receiver: Receiver, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(receiver.http_endpoint.removeprefix("http://"))
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
def test_a_received_log_has_every_field_as_a_python_value(protocol):
    with Receiver() as receiver:
        endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        with opened(OTLPSink(endpoint, protocol)) as sink:
            sink.send([sink.encode(RECORD)], 5)
        (log,) = receiver.logs
    assert log.body == RECORD.body
    assert log.attributes == RECORD.attributes
    assert (log.severity_number, log.severity_text) == (13, "WARNING")
    assert log.event_name == "order.placed"
    assert (log.trace_id, log.span_id) == (RECORD.trace_id, RECORD.span_id)
    assert log.resource == {"service.name": "web"}
    assert (log.scope.name, log.scope.version) == ("app.orders", "2.0")
    assert log.record.time_unix_nano == 1


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_spans_and_metrics_of_the_sdks_exporters_are_accepted(protocol):
    if protocol == "http":
        exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    else:
        exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    with Receiver() as receiver:
        if protocol == "http":
            exporter = exporters.OTLPSpanExporter(receiver.http_endpoint + "/v1/traces")
        else:
            exporter = exporters.OTLPSpanExporter(receiver.grpc_endpoint, insecure=True)
        provider = TracerProvider(resource=SDKResource({"service.name": "web"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("work", attributes={"a": 1}):
            context = trace.get_current_span().get_span_context()
        provider.shutdown()
        (span,) = receiver.spans
        assert (span.name, span.attributes, span.resource["service.name"]) == (
            "work",
            {"a": 1},
            "web",
        )
        assert (span.trace_id, span.span_id) == (
            trace.format_trace_id(context.trace_id),
            trace.format_span_id(context.span_id),
        )
        assert span.scope.name == "t"
        assert post(receiver, "/v1/metrics", b"", Content_Type="application/x-protobuf")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/logs", b"\xff", {"Content_Type": "application/x-protobuf"}, 400),
        ("/v1/logs", b"{", {"Content_Type": "application/json"}, 400),
        ("/v1/logs", b'{"resourceLogs": 5}', {"Content_Type": "application/json"}, 400),
        (
            "/v1/logs",
            b"no gzip",
            {"Content_Type": "application/json", "Content_Encoding": "gzip"},
            400,
        ),
        ("/v1/logs", b"{}", {"Content_Type": "text/plain"}, 415),
        ("/v2/logs", b"{}", {"Content_Type": "application/json"}, 404),
        (
            "/v1/logs",
            b"{}",
            {"Content_Type": "application/json", "Transfer_Encoding": "chunked"},
            411,
        ),
        ("/v1/logs", b"", {"Content_Length": str(MAX_REQUEST + 1)}, 413),
        (
            "/v1/logs",
            gzip.compress(bytes(MAX_REQUEST + 1), 1),
            {"Content_Type": "application/x-protobuf", "Content_Encoding": "gzip"},
            413,
        ),
    ],
)
def test_a_wrong_request_is_answered_with_a_status_and_a_message(path, body, headers, status):
    with Receiver(grpc_port=None) as receiver:
        answer = post(receiver, path, body, **headers)
        assert answer[0] == status
        assert answer[1]
        assert receiver.logs == []


def test_json_ids_are_read_as_hexadecimal_and_unknown_fields_are_ignored():
    body = {
        "resourceLogs": [
            {
                "scopeLogs": [
                    {"logRecords": [{"traceId": RECORD.trace_id.upper(), "somethingNew": 1}]}
                ]
            }
        ]
    }
    with Receiver(grpc_port=None) as receiver:
        assert post(
            receiver, "/v1/logs", json.dumps(body).encode(), Content_Type="application/json"
        ) == (200, b"{}")
        assert receiver.logs[0].trace_id == RECORD.trace_id


def test_wait_for_waits_until_enough_records_are_there():
    with Receiver() as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        assert not receiver.wait_for(1, timeout=0.01)
        waiting: list[bool] = []
        waiter = threading.Thread(target=lambda: waiting.append(receiver.wait_for(3, timeout=30)))
        waiter.start()
        deliver(sink, "a")
        deliver(sink, "b", "c")
        waiter.join()
        assert waiting == [True]


def test_keep_bounds_memory_and_counting_continues():
    with Receiver(keep=2) as receiver, opened(OTLPSink(receiver.http_endpoint)) as sink:
        for body in "abcde":
            deliver(sink, body)
        assert [log.body for log in receiver.logs] == ["d", "e"]
        assert receiver.wait_for(5, timeout=0)


def test_on_logs_is_called_with_the_records_of_each_request():
    calls: list[list[ReceivedLog]] = []
    with Receiver(on_logs=calls.append) as receiver:
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            deliver(sink, "a", "b")
            deliver(sink, "c")
    assert [[log.body for log in call] for call in calls] == [["a", "b"], ["c"]]


def test_respond_scripts_answers_and_sees_path_and_decompressed_body():
    seen: list[tuple[str, int]] = []

    def respond(path: str, body: bytes) -> Any:
        seen.append((path, len(ExportLogsServiceRequest.FromString(body).resource_logs)))
        return None if len(seen) > 1 else (200, {}, b"")

    with Receiver(respond=respond) as receiver:
        with opened(OTLPSink(receiver.http_endpoint, compression="gzip")) as sink:
            deliver(sink, "scripted")
            deliver(sink, "taken")
        assert seen == [("/v1/logs", 1)] * 2
        assert [log.body for log in receiver.logs] == ["taken"]
        assert receiver.requests == 2


def test_stopping_ends_every_thread_and_connection_even_idle_ones():
    before = set(threading.enumerate())
    with Receiver() as receiver:
        host, _, port = receiver.http_endpoint.removeprefix("http://").partition(":")
        idle = socket.create_connection((host, int(port)))
        sinks = [OTLPSink(receiver.http_endpoint), OTLPSink(receiver.grpc_endpoint, "grpc")]
        for sink in sinks:
            deliver(sink)
    assert [
        thread.name for thread in set(threading.enumerate()) - before if "receiver" in thread.name
    ] == []
    with idle:
        assert idle.recv(1) == b""
    for sink in sinks:
        sink.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_a_client_that_breaks_off_does_not_disturb_others(capfd):
    with Receiver(grpc_port=None) as receiver:
        host, _, port = receiver.http_endpoint.removeprefix("http://").partition(":")
        for piece in (b"", b"POST /v1/logs HTT", b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nx"):
            with socket.create_connection((host, int(port))) as broken:
                broken.sendall(piece)
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink) is None
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_running():
    with Receiver() as receiver:
        http_port = int(receiver.http_endpoint.rpartition(":")[2])
        grpc_port = int(str(receiver.grpc_endpoint).rpartition(":")[2])
        before = set(threading.enumerate())
        with pytest.raises(OSError):
            Receiver(http_port=http_port).start()
        with pytest.raises(RuntimeError):
            Receiver(grpc_port=grpc_port).start()
        assert set(threading.enumerate()) == before


def test_without_grpc_only_http_is_offered(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with Receiver() as receiver:
        assert receiver.grpc_endpoint is None
        with opened(OTLPSink(receiver.http_endpoint)) as sink:
            assert deliver(sink) is None


# ---- requests from other hosts


def send(url: str, body: bytes, kind: str = "application/json", **headers: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/logs", content=body, headers={"content-type": kind, **headers}, trust_env=False
    )


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"resourceLogs": null, "x": [',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": 5}]}]}]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"spanId": ["a"]}]}]}]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": "xyz"}]}]}]}',
        b'{"\\ud800": 1, "resourceLogs": [{"\\udfff": 3}]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": "\\ud800"}]}]}]}',
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": NaN}]}]}]}',
        '{"resourceLogs": []}'.encode("utf-16"),
        b'{"resourceLogs": 5}',
        b'{"resourceLogs": [null, 5, "a"]}',
        b'{"resourceLogs": [{"scopeLogs": {"a": 1}}]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": '
        + b'{"arrayValue": {"values": [' * 2000,
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_an_invalid_request_is_refused_with_the_reason(body, capfd):
    with Receiver(grpc_port=None) as receiver:
        response = send(receiver.http_endpoint, body)
        assert response.status_code == 400
        assert response.json()["message"]
        assert send(receiver.http_endpoint, b"{}").status_code == 200
    assert capfd.readouterr().err == ""


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(codec=None), max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(codec=None), max_size=3)
                | st.sampled_from(
                    [
                        "resourceLogs",
                        "scopeLogs",
                        "logRecords",
                        "traceId",
                        "body",
                        "attributes",
                        "key",
                        "value",
                        "kvlistValue",
                        "values",
                        "stringValue",
                        "timeUnixNano",
                        "severityNumber",
                        "doubleValue",
                        "bytesValue",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
@settings(deadline=None)
def test_any_json_gets_an_answer(value):
    body = json.dumps(value).encode()
    status, _, _ = HTTPReceiver.answer(_server(), "/v1/logs", "application/json", "", body)
    assert status in {200, 400}


def _server() -> Any:
    return SimpleNamespace(_respond=lambda _path, _body: None, _take=lambda _request: None)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4318", "127.0.0.1.evil.example"),
        *("[::1].evil.example", "[::1]evil", "[::1]:80.evil", "[::1", "[::1%evil.example]"),
        *("localhost:evil.example", "localhost:80:80", "::1"),
    ],
)
def test_a_foreign_host_is_refused_on_loopback(host):
    with Receiver(grpc_port=None) as receiver:
        response = send(receiver.http_endpoint, b"{}", Host=host)
    assert response.status_code == 403
    assert "localhost" in response.text


@given(st.binary(max_size=200), st.sampled_from(["", "gzip"]))
@settings(deadline=None)
def test_any_bytes_get_an_answer(body, encoding):
    kind = "application/x-protobuf"
    status, _, _ = HTTPReceiver.answer(_server(), "/v1/traces", kind, encoding, body)
    assert status in {200, 400}


def exchange(receiver: Receiver, request: bytes) -> bytes:
    """Send bytes, close this side, and return everything that comes back."""
    port = int(receiver.http_endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ("Host: localhost\r\nHost: evil.example\r\nContent-Length: 2", b"{}", 403),
        ("Host: evil.example\r\nHost: localhost\r\nContent-Length: 2", b"{}", 403),
        ("Host: evil.example\xff\x1b\r\nContent-Length: 2", b"{}", 403),
        ("Host: localhost\r\nContent-Length: 100", b"{}", 400),
        ("Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 2", b"{}", 411),
    ],
)
def test_a_head_that_does_not_fit_is_refused(lines, body, status, capfd):
    head = f"POST /v1/logs HTTP/1.1\r\nContent-Type: application/json\r\n{lines}\r\n\r\n"
    with Receiver(grpc_port=None) as receiver:
        answer = exchange(receiver, head.encode("latin-1") + body)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert capfd.readouterr().err == ""


def test_an_answer_quotes_little_of_a_request():
    path = "/" + "a" * 10_000
    _, _, body = HTTPReceiver.answer(_server(), path, "application/json", "", b"{}")
    assert len(body) < 1000


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4318", "127.0.0.1:1", "127.0.0.1:", "[::1]:4318", "[::1]"]
)
def test_a_name_of_this_machine_is_served(host):
    with Receiver(grpc_port=None) as receiver:
        assert send(receiver.http_endpoint, b"{}", Host=host).status_code == 200


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "\xb2"])
def test_a_length_that_is_not_a_number_is_refused(length, capfd):
    with Receiver(grpc_port=None) as receiver:
        port = int(receiver.http_endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = f"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode("latin-1"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 411 ")
    assert capfd.readouterr().err == ""
