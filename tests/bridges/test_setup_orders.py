"""A record reaches each sink exactly once, in whatever order logging is set up."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support.processes import environment

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each order is a fork"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def told() -> list[str]:
    """The output of tests.setup_orders."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.setup_orders"],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment(FAPILOG_SINKS="none"),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def of(suite: str, told: list[str]) -> list[str]:
    return [line for line in told if line.startswith(f"{suite}:")]


def test_all_120_orders_of_five_steps_give_one_copy_a_sink(told: list[str]) -> None:
    assert of("all", told) == ["all: 120 orders"]


def test_doing_every_step_twice_gives_one_copy_a_sink(told: list[str]) -> None:
    assert of("twice", told) == ["twice: 24 orders"]


def test_a_handler_in_a_dict_config_gives_no_second_copy(told: list[str]) -> None:
    assert of("handler", told) == ["handler: 24 orders"]


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.instrumentation.logging.handler") is None,
    reason="this opentelemetry-instrumentation-logging has no handler",
)
def test_without_the_bridge_opentelemetrys_handler_gives_one_copy(told: list[str]) -> None:
    assert of("no bridge", told) == ["no bridge: 24 orders"]
