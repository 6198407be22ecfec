"""Certificates are renewed while the application runs, and no record is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fapilog import Runtime
from fapilog.cli.receiver import Receiver
from fapilog.diagnostics import reset
from fapilog.errors import RetryableError
from fapilog.sinks import OTLPSink
from fapilog.sinks.http.transport import TLSStream
from tests.support.otlp_servers import Certificates, deliver, opened
from tests.support.ports import free_port

FILES = ("ca.pem", "key.pem", "chain.pem")

Put = Callable[[Certificates], None]


@pytest.fixture(autouse=True)
def _speaks_freely() -> Iterator[None]:
    reset()
    yield
    reset()


def issue(directory: Path) -> Certificates:
    """Write an authority and certificates that it has signed to files in ``directory``."""
    directory.mkdir()
    return Certificates(directory)


def written_in_place(directory: Path) -> Put:
    def put(files: Certificates) -> None:
        for name, path in zip(FILES, (files.ca, files.key, files.chain), strict=True):
            (directory / name).write_bytes(Path(path).read_bytes())

    return put


def renamed(directory: Path) -> Put:
    def put(files: Certificates) -> None:
        for name, path in zip(FILES, (files.ca, files.key, files.chain), strict=True):
            (directory / "new").write_bytes(Path(path).read_bytes())
            (directory / "new").replace(directory / name)

    return put


def linked_as_kubernetes_does(directory: Path) -> Put:
    for name in FILES:
        (directory / name).symlink_to(f"..data/{name}")

    def put(files: Certificates) -> None:
        (directory / "..new").symlink_to(Path(files.ca).parent)
        (directory / "..new").replace(directory / "..data")

    return put


class Backend:
    """A receiver on one port whose authority a test can change."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.port = free_port()
        self.bodies: list[str] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def accepting(self, files: Certificates) -> Receiver:
        def take(logs: list[Any]) -> None:
            self.bodies += [log.body for log in logs]

        if self.protocol == "grpc":
            credentials = files.grpc_credentials(mutual=True)
            return Receiver(grpc_port=self.port, grpc_credentials=credentials, on_logs=take)
        tls = files.server_context(mutual=True)
        return Receiver(http_port=self.port, grpc_port=None, ssl_context=tls, on_logs=take)

    def sink(self, directory: Path) -> OTLPSink:
        return OTLPSink(
            self.url,
            self.protocol,  # type: ignore[arg-type]
            certificate=directory / "ca.pem",
            client_key=directory / "key.pem",
            client_certificate=directory / "chain.pem",
        )


PROTOCOLS = pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])


@pytest.mark.parametrize("way", [written_in_place, renamed, linked_as_kubernetes_does])
@PROTOCOLS
def test_records_before_and_after_a_renewal_arrive_without_a_restart(
    protocol, way: Callable[[Path], Put], tmp_path: Path
):
    used = tmp_path / "used"
    used.mkdir()
    put = way(used)
    old, new = issue(tmp_path / "old"), issue(tmp_path / "new")
    put(old)
    backend = Backend(protocol)
    with Runtime(
        sinks=backend.sink(used), retry_initial=0.05, retry_maximum=0.2, redact=False
    ) as runtime:
        log = runtime.get_logger("x")
        with backend.accepting(old):
            log.info("before")
            assert runtime.flush(30)
        with backend.accepting(new):
            log.info("between")
            assert not runtime.flush(0.5)
            put(new)
            log.info("after")
            assert runtime.flush(30)
    assert backend.bodies == ["before", "between", "after"]


@PROTOCOLS
def test_a_certificate_without_its_new_key_is_announced_and_the_old_pair_stays_in_use(
    protocol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    used = tmp_path / "used"
    used.mkdir()
    old, new = issue(tmp_path / "old"), issue(tmp_path / "new")
    renamed(used)(old)
    backend = Backend(protocol)
    with opened(backend.sink(used)) as sink:
        with backend.accepting(old):
            assert deliver(sink, "before") is None
        with pytest.raises(RetryableError):
            deliver(sink, "nobody listens")
        (used / "chain.pem").write_bytes(Path(new.chain).read_bytes())
        with backend.accepting(old):
            until_delivered(sink, "half-written")
        (used / "key.pem").write_bytes(Path(new.key).read_bytes())
        (used / "ca.pem").write_bytes(Path(new.ca).read_bytes())
        with backend.accepting(new):
            until_delivered(sink, "whole")
    assert backend.bodies == ["before", "half-written", "whole"]
    said = capsys.readouterr().err
    assert said.count("certificate files have changed and cannot be used") == 1
    assert "client_certificate=" in said


def until_delivered(sink: OTLPSink, body: str) -> None:
    """Send a batch again until it is delivered."""
    for _ in range(200):
        try:
            assert deliver(sink, body) is None
        except RetryableError:
            time.sleep(0.1)  # gRPC waits a second before it reconnects
            continue
        return
    raise AssertionError(body)


def test_an_authority_that_looks_unchanged_is_read_again_after_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fapilog.sinks.http.tls._state", lambda path: None)
    used = tmp_path / "used"
    used.mkdir()
    old, new = issue(tmp_path / "old"), issue(tmp_path / "new")
    renamed(used)(old)
    backend = Backend("http/protobuf")
    with backend.accepting(new), opened(backend.sink(used)) as sink:
        with pytest.raises(RetryableError, match="not trusted"):
            deliver(sink)
        renamed(used)(new)
        assert deliver(sink) is None


def test_the_files_are_read_once_for_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contexts = []
    real = TLSStream.__init__

    def noting(self: TLSStream, stream: Any, context: Any, *rest: Any) -> None:
        contexts.append(context)
        real(self, stream, context, *rest)

    monkeypatch.setattr(TLSStream, "__init__", noting)
    used = tmp_path / "used"
    used.mkdir()
    files = issue(tmp_path / "files")
    renamed(used)(files)
    backend = Backend("http/protobuf")
    with opened(backend.sink(used)) as sink:
        for _ in range(3):
            with backend.accepting(files):
                until_delivered(sink, "x")
    assert len(contexts) >= 3
    assert len(set(contexts)) == 1
