"""Processes that ``opentelemetry-instrument`` runs, and a receiver for all of their data."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from fapilog.cli.receiver import ReceivedLog, ReceivedSpan, Receiver, python_values
from tests.support.processes import environment, kill

SECONDS = 100  # the time after which a child counts as stuck
INSTRUMENT = "opentelemetry-instrument"


class Telemetry:
    """Everything that a receiver got.  Metrics are kept by name, with their resource.

    Attributes:
        sums: the latest value of each sum of integers, by the name of the metric.
    """

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.metrics: list[tuple[str, dict[str, Any]]] = []
        self.receiver = Receiver(grpc_port=None, respond=self._note)

    def _note(self, path: str, body: bytes) -> None:
        if path == "/v1/metrics":
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                resource = python_values(group.resource.attributes)
                for scope in group.scope_metrics:
                    self.metrics += [(metric.name, resource) for metric in scope.metrics]
                    for metric in scope.metrics:
                        if points := metric.sum.data_points:
                            self.sums[metric.name] = sum(point.as_int for point in points)

    @property
    def logs(self) -> list[ReceivedLog]:
        return self.receiver.logs

    @property
    def spans(self) -> list[ReceivedSpan]:
        return self.receiver.spans

    def of_logger(self, name: str) -> list[ReceivedLog]:
        return [log for log in self.logs if log.scope.name == name]

    def requests(self, name: str) -> list[ReceivedSpan]:
        """The spans of requests, without the spans inside them."""
        return [span for span in self.spans if span.name == name]


@contextlib.contextmanager
def receiving() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    with telemetry.receiver:
        yield telemetry


def variables(telemetry: Telemetry, **more: str) -> dict[str, str]:
    """The environment of a user of fapilog's distro, with long time limits."""
    scripts = str(Path(sys.executable).parent)
    chosen = {
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "",  # otherwise every child compiles all modules that it imports
        "OTEL_PYTHON_DISTRO": "fapilog",
        "OTEL_EXPORTER_OTLP_ENDPOINT": telemetry.receiver.http_endpoint,
        "OTEL_SERVICE_NAME": "shop",
        "FAPILOG_SHUTDOWN_TIMEOUT": "60",
    }
    return environment(**{**chosen, **more})


def run(
    telemetry: Telemetry, script: str, directory: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` with ``opentelemetry-instrument python`` to its end."""
    (directory / "script.py").write_text(script)
    # The scripts do not use these, and importing them takes time.
    unused = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asgi,fastapi,httpx"}
    env = variables(telemetry, **{**unused, **more})
    command = [str(Path(sys.executable).with_name(INSTRUMENT)), "python", "script.py"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=env, cwd=directory,
        check=False,
    )  # fmt: skip


class Server:
    """A server under test: its process, its port, and its output after it has ended.

    Attributes:
        ending: the signal that ends it.
    """

    ending = signal.SIGTERM

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.output = ""

    def get(self, path: str) -> str:
        """Return the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        connection.close()
        return body

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the server; fail if it ends or takes too long."""
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextlib.contextmanager
def serving(
    telemetry: Telemetry, command: list[str], port: int, directory: Path, **more: str
) -> Iterator[Server]:
    """Run a server during the block, then end it with its signal and read its output."""
    executable = Path(sys.executable).with_name(command[0])
    with subprocess.Popen(
        [str(executable), *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables(telemetry, **more),
        cwd=directory,
    ) as process:
        server = Server(process, port)
        try:
            yield server
            process.send_signal(server.ending)
            server.output, _ = process.communicate(timeout=SECONDS)
        finally:
            kill(process)
