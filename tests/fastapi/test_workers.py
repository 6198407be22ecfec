"""Any worker of a real server shows the sums of all, also of those that were ended or killed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.fastapi.workers import (
    GUNICORN,
    TRACE,
    UVICORN,
    WORKERS,
    play,
    play_under_load,
    serving,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.mark.parametrize("command", [GUNICORN, UVICORN], ids=["gunicorn", "uvicorn"])
def test_every_scrape_of_any_worker_shows_the_sum_of_all(command, tmp_path: Path):
    if command is GUNICORN and importlib.util.find_spec("uvicorn_worker") is None:
        pytest.skip("needs uvicorn-worker")
    with serving(command, tmp_path) as server:
        answered = 0
        pids: set[int] = set()
        while len(pids) < 2 and answered < 2000:
            pids |= server.work(40)
            answered += 40
        assert len(pids) > 1
        for _ in range(10):
            assert server.scrape().requests == answered
        scrape = server.settled()
        assert scrape.accepted == scrape.delivered == answered
        assert scrape.trace_ids() == {TRACE}


@pytest.mark.slow
def test_sums_are_exact_though_workers_are_recycled_and_killed(tmp_path: Path):
    if importlib.util.find_spec("uvicorn_worker") is None:
        pytest.skip("needs uvicorn-worker")
    with serving(GUNICORN, tmp_path) as server:
        result = play(server, recycles=40)
        loaded = play_under_load(server, kills=5)
    assert loaded.wrong == []
    assert result.wrong == []
    assert result.recycled >= 40
    assert result.killed >= 10
    assert result.counted == result.answered
    assert result.delivered == result.written == result.answered
    assert result.most_files <= 2 * WORKERS + 3
