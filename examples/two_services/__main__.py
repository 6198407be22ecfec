"""Runs both services, sends one order, and draws the trace that a receiver got.

    python -m examples.two_services [ITEM] [QUANTITY]

To do the same by hand, run ``fapilog receive`` in one terminal, and start each
service in its own terminal with ``opentelemetry-instrument uvicorn ...``.
"""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

SECONDS = 60  # the time after which a process counts as stuck


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(stack: ExitStack, *command: str, **options: Any) -> "subprocess.Popen[str]":
    # In its own session, so that Ctrl-C reaches only this program, which then ends the others.
    process = stack.enter_context(
        subprocess.Popen(command, text=True, start_new_session=True, **options)
    )
    stack.callback(process.terminate)
    return process


def serve(stack: ExitStack, name: str, port: int, **variables: str) -> str:
    """Start a service as users would start it, and return its URL when it listens."""
    environment = {**os.environ, "OTEL_SERVICE_NAME": name, "OTEL_PYTHON_DISTRO": "fapilog"}
    environment |= {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_METRICS_EXPORTER": "none", **variables}
    process = start(
        stack,
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        *(sys.executable, "-m", "uvicorn", f"examples.two_services.{name}:app"),
        *("--port", str(port), "--log-level", "warning"),
        env=environment,
    )
    deadline = time.monotonic() + SECONDS
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the service {name} does not listen on port {port}")
            time.sleep(0.05)
    return f"http://127.0.0.1:{port}"


def main(item: str = "piano", quantity: str = "2") -> None:
    """Send one order and wait until its trace is drawn."""
    with ExitStack() as stack:
        ports = ("--port", "0", "--grpc-port", "0", "--traces", "1")
        receiver = start(
            stack, sys.executable, "-m", "fapilog", "receive", *ports, stdout=subprocess.PIPE
        )
        assert receiver.stdout
        endpoint = ""
        for line in receiver.stdout:
            if found := re.search(r"OTLP/HTTP +OTEL_EXPORTER_OTLP_ENDPOINT=(\S+)", line):
                endpoint = found[1]
                break
        collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        stock = serve(stack, "stock", free_port(), **collector)
        orders = serve(stack, "orders", free_port(), STOCK_URL=stock, **collector)
        answer = httpx.post(f"{orders}/orders/{item}", params={"quantity": quantity})
        print(f"POST /orders/{item}?quantity={quantity} -> {answer.status_code} {answer.text}")
        shown, _ = receiver.communicate(timeout=SECONDS)
        print(shown[shown.index("trace ") :], end="")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
