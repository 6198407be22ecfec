"""Deadlines still end when a test stops the clock of the process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import freezegun
import pytest
import time_machine

import fapilog
from fapilog.native import monotonic
from fapilog.protocols import Sink


@contextlib.contextmanager
def by_hand(moment: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: 1.0)
        yield


FREEZERS: dict[str, Callable[[str], Any]] = {
    "freezegun": freezegun.freeze_time,
    "time-machine": lambda moment: time_machine.travel(moment, tick=False),
    "monkeypatch": by_hand,
}


@pytest.fixture(params=FREEZERS)
def frozen(request) -> Iterator[None]:
    with FREEZERS[request.param]("2026-01-02"):
        yield


def test_the_clock_of_deadlines_goes_on(frozen) -> None:
    before = monotonic()
    time.sleep(0.002)
    assert monotonic() > before


@pytest.mark.timeout(20)
def test_a_flush_ends_at_its_deadline_although_time_stands_still(frozen) -> None:
    release = threading.Event()

    class Stuck(Sink[fapilog.LogRecord]):
        name = "stuck"

        def encode(self, record):
            return record

        def send(self, batch, timeout):
            release.wait(10)

    runtime = fapilog.Runtime(sinks=[Stuck()])
    try:
        runtime.get_logger("frozen").info("waits")
        assert runtime.flush(0.05) is False
    finally:
        release.set()
        runtime.shutdown()
