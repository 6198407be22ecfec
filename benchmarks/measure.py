"""Runs scenarios, with every measurement in a fresh process and the contestants in turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contestants import base_name
from environments import HERE, python_of
from figures import Scenario

#: The measurements of one scenario: for each contestant, one dict per repeat.
Measured = dict[str, list[dict[str, Any]]]

PEERS = (
    "otel-otlp",
    "loki-logger-handler",
    "inuits-loki",
    "structlog-file",
    "loguru-file",
    "nothing",
)
#: Words in the names of contestants that send to a backend.
PROTOCOLS = {"otlp", "loki"}
#: An address where nothing listens.
REFUSING = "http://127.0.0.1:9"
TIMEOUT = 300  # the seconds that a single measurement may take


class BrokenScenarioError(Exception):
    """A measurement failed."""


def measure(
    name: str, scenario: Scenario, options: dict[str, Any], repeats: int, say: Any
) -> Measured:
    """Run ``scenario`` in turns (A B A B …), and return the reports of all processes.

    Raises:
        BrokenScenarioError: a process failed or hung.
    """
    measured: Measured = {contestant: [] for contestant in scenario.contestants}
    for turn in range(repeats):
        for contestant in scenario.contestants:
            say(f"{name} {turn + 1}/{repeats} {contestant}")
            own = {**options, **scenario.overrides.get(contestant, {})}
            measured[contestant].append(one(scenario.module or name, contestant, own))
    return measured


def one(module: str, contestant: str, options: dict[str, Any]) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="fapilog-bench-") as directory,
        backend(contestant, options) as endpoint,
    ):
        request = {
            "options": options,
            "endpoint": endpoint,
            "directory": directory,
        }
        done = child(contestant, module, request)
    if done.returncode:
        message = f"{module} of {contestant} broke ({done.returncode}):\n{done.stderr[-3000:]}"
        raise BrokenScenarioError(message)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(
    contestant: str, module: str, request: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    python = python_of(environment_of(contestant))
    command = [python, "-m", f"scenarios.{module}", contestant, json.dumps(request)]
    try:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=request["directory"],
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired as error:
        message = f"{module} of {contestant} took longer than {TIMEOUT} s"
        raise BrokenScenarioError(message) from error


def environment_of(contestant: str) -> str:
    if contestant.startswith("older"):
        return "older"
    return "peers" if base_name(contestant) in PEERS else "self"


def clean_environment() -> dict[str, str]:
    """Return the environment without options of any library, and with the scenarios importable."""
    foreign = ("OTEL_", "FAPILOG_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PYTHONPATH": str(HERE)}


@contextlib.contextmanager
def backend(contestant: str, options: dict[str, Any]) -> Iterator[str]:
    """Run a backend and yield its URL, which is empty if the contestant needs none.

    The option ``backend`` is ``up``, ``refusing`` (nothing listens) or
    ``silent`` (requests are read and never answered).
    """
    state = options.get("backend", "up")
    if not PROTOCOLS & set(base_name(contestant).split("-")):
        yield ""
        return
    if state == "refusing":
        yield REFUSING
        return
    command = [python_of("peers"), str(Path(HERE, "receiver.py")), state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
