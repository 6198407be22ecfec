"""Proxies: how a sink finds its proxy, refused requests, and secrets that stay hidden."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog import Runtime
from fapilog.cli.receiver import Receiver
from fapilog.diagnostics import reset
from fapilog.errors import AccessDeniedError, ConfigurationError
from fapilog.sinks import OTLPSink
from fapilog.sinks.http.proxies import environment_proxy, is_exempt
from tests.support.otlp_servers import (
    EMPTY_OK,
    Certificates,
    SocketServer,
    deliver,
    grpc_server,
    opened,
    read_request,
)

PASSWORD = "p@ss-word"
CREDENTIALS = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
ECHO = f"Basic {CREDENTIALS}, user:p%40ss-word, {PASSWORD}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    reset()
    yield
    reset()


# -- NO_PROXY -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("collector", "*"),
        ("collector", "other, *"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.3"),
        ("10.1.2.3", "10.1.2.3:4318"),
        ("10.1.2.3", "10.1.2.3/8"),
        ("::1", "::1"),
        ("::1", "[::1]"),
        ("::1", "[::1]:4318"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("fd00::5", "fd00::/8"),
        ("fd00::5", "[fd00::]/8, fd00::5"),
        ("fe80::1%eth0", "fe80::/10"),
        ("2001:db8::5", "[2001:db8::]/32"),
        ("2001:db8::5", "[2001:db8::]/32:4318"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.3"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "Bücher.example"),
        ("otel.bücher.example", ".bücher.example"),
        ("collector", "collector"),
        ("Collector", "cOLLECTOR"),
        ("collector", "collector:4318"),
        ("otel.example.com", "example.com"),
        ("otel.example.com", ".example.com"),
        ("otel.example.com", "*.example.com"),
        ("otel.example.com", ".Example.COM:4318"),
        ("otel.example.com.", "example.com"),
        ("example.com", ".example.com"),
        ("example.com", "a b example.com"),
    ],
)
def test_no_proxy_names_what_is_reached_directly(host, no_proxy):
    assert is_exempt(host, 4318, no_proxy)


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("collector", ""),
        ("collector", " , ."),
        ("collector", "10.0.0.0/8"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3:80"),
        ("10.1.2.3", "2.3"),
        ("10.1.2.3", "::/0"),
        ("10.1.2.3", "10.0.0.0/99"),
        ("::1", "::2"),
        ("::1", "[::1]:80"),
        ("2001:db8::5", "[2001:db9::]/32"),
        ("2001:db8::5", "[2001:db8::]/320"),
        ("::ffff:11.1.2.3", "10.0.0.0/8"),
        ("bücher.example", "bucher.example"),
        ("b\u0130" * 40, "\u0130" * 80),
        ("::1", "0.0.0.0/0"),
        ("badexample.com", "example.com"),
        ("example.com", "otel.example.com"),
        ("collector", "collector:80"),
    ],
)
def test_no_proxy_names_nothing_else(host, no_proxy):
    assert not is_exempt(host, 4318, no_proxy)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("url", ["http://[fd00::1]:4318", "http://10.2.0.1", "http://a.corp"])
def test_both_cases_of_the_variable_count_for_names_networks_and_ipv6(monkeypatch, name, url):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert environment_proxy(url)
    monkeypatch.setenv(name, "[fd00::1]:4318,10.0.0.0/8,.corp")
    assert environment_proxy(url) is None


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_scheme_is_used_and_its_repr_shows_no_password(monkeypatch, name):
    monkeypatch.setenv(name, f"http://user:{PASSWORD}@[::1]:3128")
    proxy = environment_proxy("https://collector:4318")
    assert proxy is not None
    assert (proxy.url, proxy.username, proxy.password) == ("http://[::1]:3128", "user", PASSWORD)
    assert PASSWORD not in repr(proxy)
    assert environment_proxy("http://collector:4318") == (None if "s_" in name.lower() else proxy)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "SOCKS4"])
def test_a_socks_proxy_fails_at_start_with_the_variable_and_the_fix(monkeypatch, protocol, scheme):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:{PASSWORD}@127.0.0.1:1080")
    with pytest.raises(ConfigurationError) as caught:
        OTLPSink("https://collector:4318", protocol).open()
    assert str(caught.value) == (
        "the environment's proxy (ALL_PROXY) is a SOCKS proxy, which is not supported: set "
        "HTTPS_PROXY to http://host:port, or add collector to NO_PROXY"
    )


# -- a proxy that refuses requests ----------------------------------------------


def refuse(connection: socket.socket) -> None:
    """Answer 407 and echo the credentials."""
    read_request(connection)
    head = f"HTTP/1.1 407 Proxy Authentication Required {PASSWORD}\r\nContent-Type: text/plain\r\n"
    connection.sendall(f"{head}Content-Length: {len(ECHO)}\r\n\r\n{ECHO}".encode())


def refused_by_proxy(sink: OTLPSink) -> str:
    with opened(sink), pytest.raises(AccessDeniedError, match="407") as caught:
        deliver(sink)
    return str(caught.value)


@pytest.mark.parametrize("url", ["http://collector.invalid:4318", "https://collector.invalid:4318"])
def test_a_407_keeps_the_records_and_shows_no_credentials(monkeypatch, url):
    with SocketServer(refuse) as server:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:p%40ss-word@{server.address}")
        said = refused_by_proxy(OTLPSink(url))
    assert "HTTP 407 Proxy Authentication Required" in said
    for secret in (PASSWORD, CREDENTIALS, "p%40ss-word"):
        assert secret not in said


def test_a_407_by_grpc_keeps_the_records(monkeypatch):
    with SocketServer(refuse) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss-word@{server.address}")
        said = refused_by_proxy(OTLPSink("http://collector.invalid:4317", "grpc"))
    assert PASSWORD not in said


def test_records_wait_until_a_proxy_takes_its_credentials_and_the_alarm_shows_none(
    monkeypatch, capsys
):
    answers = iter([True, True])

    def proxy(connection: socket.socket) -> None:
        if next(answers, False):
            refuse(connection)
        else:
            read_request(connection)
            connection.sendall(EMPTY_OK)

    with SocketServer(proxy) as server:
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss-word@{server.address}")
        sink = OTLPSink("http://collector.invalid:4318")
        with Runtime(sinks=sink, retry_initial=0.01, retry_maximum=0.01) as runtime:
            runtime.get_logger("x").info("kept")
            assert runtime.flush(30)
            stats = runtime.stats()
    assert (stats.delivered, stats.rejected) == (1, 0)
    said = capsys.readouterr().err
    assert "ALARM" in said
    for secret in (PASSWORD, CREDENTIALS, "p%40ss-word"):
        assert secret not in said


# -- through a proxy ------------------------------------------------------------


@contextlib.contextmanager
def tunnels(tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Run a proxy that always connects to loopback; yield its address and requests."""
    heads: list[bytes] = []
    threads = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def tunnel(connection: socket.socket) -> None:
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        heads.append(head)
        port = int(head.split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, connection))
            threads.append(back)
            back.start()
            pump(connection, server)
        connection.close()

    with SocketServer(tunnel) as server:
        yield server.address, heads
    for thread in threads:
        thread.join()


def test_https_goes_through_a_tunnel(monkeypatch, tmp_path: Path):
    files = Certificates(tmp_path)
    with (
        tunnels() as (address, heads),
        Receiver(grpc_port=None, ssl_context=files.server_context()) as receiver,
    ):
        monkeypatch.setenv("https_proxy", f"http://user:p%40ss-word@{address}")
        with opened(OTLPSink(receiver.http_endpoint, certificate=files.ca)) as sink:
            assert deliver(sink, "0123456789" * 20_000) is None
            assert deliver(sink) is None
        assert receiver.requests == 2
    assert len(heads) == 1
    assert f"Basic {CREDENTIALS}".encode() in heads[0]


def test_a_proxy_may_itself_be_reached_by_https(monkeypatch, tmp_path: Path):
    files = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", files.ca)
    with (
        tunnels(files.server_context()) as (address, heads),
        Receiver(grpc_port=None, ssl_context=files.server_context()) as receiver,
    ):
        monkeypatch.setenv("https_proxy", f"https://{address}")
        with opened(OTLPSink(receiver.http_endpoint, certificate=files.ca)) as sink:
            assert deliver(sink, "0123456789" * 20_000) is None
        assert receiver.requests == 1
    assert len(heads) == 1


def test_grpc_takes_the_proxy_and_its_exceptions_from_the_same_variables(monkeypatch):
    def export(body: bytes, context: Any) -> bytes:
        return b""

    with tunnels() as (proxy, heads), grpc_server(export) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss-word@{proxy}")
        with opened(OTLPSink(f"http://{address}", "grpc")) as sink:
            assert deliver(sink) is None
        assert [f"Basic {CREDENTIALS}".encode() in head for head in heads] == [True]
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        with opened(OTLPSink(address, "grpc", insecure=True)) as sink:
            assert deliver(sink) is None
    assert len(heads) == 1


def test_grpcs_own_variables_are_left_to_grpc(monkeypatch):
    def export(body: bytes, context: Any) -> bytes:
        return b""

    with tunnels() as (proxy, heads), grpc_server(export) as address:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("grpc_proxy", f"http://{proxy}")
        with opened(OTLPSink(f"http://{address}", "grpc")) as sink:
            assert deliver(sink) is None
    assert len(heads) == 1


def test_a_proxy_that_grpc_cannot_use_fails_at_start(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"https://user:{PASSWORD}@proxy:3128")
    with pytest.raises(ConfigurationError, match="gRPC cannot reach") as caught:
        OTLPSink("https://collector:4317", "grpc").open()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("target", ["unix:/tmp/no-such-socket", "dns:///host:4317"])
def test_a_target_that_only_grpc_understands_is_left_to_grpc(monkeypatch, target):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    with opened(OTLPSink(target, "grpc", insecure=True)) as sink:
        assert "grpc.http_proxy" not in dict(vars(sink._transport)["_proxy_arguments"])
