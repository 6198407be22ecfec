"""Shared fixtures: every test starts and ends without a configured fapilog."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

import fapilog
from fapilog import diagnostics
from fapilog.engine import holding
from fapilog.runtime import default

# `make thorough` tries many examples of each property, and all other runs try few.
settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def clean_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Remove variables, the default runtime, and the threads of fapilog around each test."""
    if request.node.get_closest_marker("measured") is None:
        # Coverage makes child processes slow, and a child hangs if it is forked
        # while another thread holds coverage's lock.
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    for name in list(os.environ):
        if name.startswith(("FAPILOG_", "OTEL_")):
            monkeypatch.delenv(name)
    diagnostics.reset()
    yield
    fapilog.shutdown(2)
    holding.reset_floor()
    default.state.registry.detach()
    default.state.runtime = None
    default.state.made_from = None
    until = time.monotonic() + 20  # one in a nap ends just after the shutdown that told it to
    while (left := _threads()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, f"threads left behind: {left}"


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fapilog-")]
