"""Fifty cases become the same record through every bridge; the documentation shows the table."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.instrumentation.logging.handler")

from tests.golden import __main__ as golden
from tests.golden.bridges import BRIDGES
from tests.golden.cases import CASES


def test_every_bridge_makes_the_same_record_of_the_same_event() -> None:
    text, problems = golden.table()
    assert problems == []
    page = Path(__file__).parents[2] / "docs" / "bridges.md"
    assert text in page.read_text(encoding="utf-8"), "make golden prints another table"


def test_there_are_fifty_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 50


def test_a_record_that_differs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[0]
    records = golden.play(BRIDGES[0])[case.name]
    assert golden.difference(case, records, records) == ""
    records[0].body = "other"
    assert "body is 'other'" in golden.difference(case, records, records)
    assert golden.difference(case, [], records) == "0 records"
