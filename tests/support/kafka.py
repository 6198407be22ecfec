"""A Kafka broker of one node, from the jars in the folder KAFKA_LIBS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from typing_extensions import Self

from tests.support.ports import free_port

HOW = (
    "set KAFKA_LIBS to a folder with the jars of org.apache.kafka:kafka_2.13:4.1.0 "
    "(mvn dependency:copy-dependencies -DincludeScope=runtime), and install Java 17"
)
LIBS = Path(os.environ.get("KAFKA_LIBS", "/nowhere"))
SECONDS = 90


def is_available() -> bool:
    return shutil.which("java") is not None and LIBS.is_dir()


class Broker:
    """A broker on a free port, which keeps its data in ``directory`` when it is killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._properties = directory / "server.properties"
        controller = free_port()
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "num.partitions": "2",
        }
        directory.mkdir(parents=True)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        self._run("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c")

    def _command(self, main: str, *arguments: str) -> list[str]:
        java = ["java", "-Xmx512m", "-cp", f"{LIBS}/*", main]
        return [*java, *arguments, str(self._properties)]

    def _run(self, main: str, *arguments: str) -> None:
        subprocess.run(
            self._command(main, *arguments), check=True, capture_output=True, timeout=SECONDS
        )

    def start(self) -> None:
        """Start the broker, and wait until it listens."""
        self._log = (self._directory / "log").open("a")
        self._process = subprocess.Popen(
            self._command("kafka.Kafka"), stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + SECONDS
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", self.port)):
                assert self._process.poll() is None, (self._directory / "log").read_text()[-4000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        """End the broker with SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
