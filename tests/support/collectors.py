"""OTLP collectors of other projects, each of which forwards to fapilog's receiver.

A collector runs on free ports.  At the end of its block the collector has stopped, and
the receiver has everything that the collector had to forward.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from fapilog.cli.receiver import Receiver
from tests.support.ports import free_port

CONFIGURATION = Path(__file__).resolve().parents[2] / "collector-config"
COLLECTOR = CONFIGURATION / "build" / "otelcol-fapilog"


class Endpoints(NamedTuple):
    """Base URLs for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""

    http: str
    grpc: str

    def of(self, protocol: str) -> str:
        return self.grpc if protocol == "grpc" else self.http


def wait_until_listening(process: subprocess.Popen[str], port: int) -> None:
    while True:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            output = process.communicate(timeout=0.05)[0]
            raise AssertionError(f"{process.args!r} ended: {output}")


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], environment: Mapping[str, str], *ports: int
) -> Iterator[None]:
    """Run a server; the block begins when it listens on all ports."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        for port in ports:
            wait_until_listening(process, port)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


# ---- rotel

# The agent embeds Python and needs its shared library, which some interpreters lack.
ROTEL_ENVIRONMENT = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}


def find_rotel_agent() -> Path:
    """Return the program; skip the test if it is not installed or does not run."""
    spec = find_spec("rotel")
    program = Path(str(spec.origin)).parent / "rotel-agent" if spec else Path("rotel-agent")
    if not program.exists():
        pytest.skip("rotel-agent is not installed: pip install rotel (wheels for Linux only)")
    version = subprocess.run(
        [program, "version"], env=ROTEL_ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if "shared libraries" in version.stderr:
        pytest.skip(f"rotel-agent does not run with this interpreter: {version.stderr.strip()}")
    return program


@contextlib.contextmanager
def rotel_agent(directory: Path, behind: Receiver) -> Iterator[Endpoints]:
    """Run rotel-agent, which forwards to ``behind`` over OTLP."""
    http, grpc = free_port(), free_port()
    command: list[str | Path] = [
        *(find_rotel_agent(), "start", "--exporter", "otlp", "--batch-timeout", "10ms"),
        *("--otlp-http-endpoint", f"127.0.0.1:{http}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
        *("--otlp-exporter-endpoint", str(behind.grpc_endpoint)),
        *("--pid-file", directory / "pid", "--log-file", directory / "log"),
    ]
    with running(command, ROTEL_ENVIRONMENT, http, grpc):
        yield Endpoints(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}")


# ---- the OpenTelemetry Collector


@contextlib.contextmanager
def opentelemetry_collector(directory: Path, behind: Receiver) -> Iterator[Endpoints]:
    """Run the OpenTelemetry Collector, then send the lines of its files to ``behind``."""
    if not COLLECTOR.exists():
        pytest.skip("no collector: run `make collector`")
    http, grpc, health = free_port(), free_port(), free_port()
    environment = {
        **os.environ,
        "OTLP_HTTP_PORT": str(http),
        "OTLP_GRPC_PORT": str(grpc),
        "HEALTH_PORT": str(health),
        "OUTPUT_DIRECTORY": str(directory),
    }
    command: list[str | Path] = [COLLECTOR, "--config", CONFIGURATION / "test.yaml"]
    with running(command, environment, http, grpc):
        yield Endpoints(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}")
    for signal in ("logs", "traces"):
        for line in (directory / f"{signal}.jsonl").read_bytes().splitlines():
            _post(f"{behind.http_endpoint}/v1/{signal}", line)


def _post(url: str, body: bytes) -> None:
    """Send one line of the OTLP file format, which is a request of OTLP/HTTP."""
    answer = httpx.post(
        url, content=body, headers={"content-type": "application/json"}, trust_env=False
    )
    assert answer.status_code == 200, answer.text


class Shipped(NamedTuple):
    """A collector that runs a configuration of ``collector-config/``."""

    http: str
    grpc: str
    process: subprocess.Popen[str]
    log: Path

    def send(self, signal: str, request: Any) -> int:
        """Send one OTLP request, and return the status of the answer."""
        return httpx.post(
            f"{self.http}/v1/{signal}",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
            timeout=30,
            trust_env=False,
        ).status_code

    def post(self, signal: str, request: Any) -> None:
        """Send one OTLP request; the collector must accept it."""
        assert self.send(signal, request) == 200


@contextlib.contextmanager
def shipped_collector(
    directory: Path, files: Sequence[str], variables: Mapping[str, str]
) -> Iterator[Shipped]:
    """Run the collector with ``files`` of ``collector-config/``, on free ports.

    Args:
        directory: where the collector keeps its queues, ``queue``, and its log.
        files: the values of ``--config``, in order.
        variables: the environment variables of the configurations.
    """
    if not COLLECTOR.exists():
        pytest.skip("no collector: run `make collector`")
    http, grpc, health = free_port(), free_port(), free_port()
    # A collector that reads from Kafka does not receive OTLP.
    listening = [health] if "kafka-consumer.yaml" in files else [http, grpc]
    overrides = {
        "receivers::otlp::protocols::http::endpoint": f"127.0.0.1:{http}",
        "receivers::otlp::protocols::grpc::endpoint": f"127.0.0.1:{grpc}",
        "service::telemetry::metrics::level": "none",
    }
    if "base.yaml" in files:
        overrides["extensions::health_check::endpoint"] = f"127.0.0.1:{health}"
    command: list[str | Path] = [COLLECTOR]
    for file in files:
        command += ["--config", file]
    for name, value in overrides.items():
        command += ["--config", f"yaml:{name}: {value}"]
    environment = {**os.environ, "QUEUE_DIRECTORY": str(directory / "queue"), **variables}
    log = directory / "collector.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            cwd=CONFIGURATION,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        try:
            for port in listening:
                wait_until_listening(process, port)
        except AssertionError as error:
            raise AssertionError(log.read_text()[-4000:]) from error
        yield Shipped(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", process, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
