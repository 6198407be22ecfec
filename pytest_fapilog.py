"""The pytest plugin of fapilog, with the fixture ``logs``.

This module is outside of the package and does not import fapilog when it is loaded,
because pytest imports plugins before coverage is measured.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fapilog.testing import CapturedLogs


@pytest.fixture
def logs() -> Iterator[CapturedLogs]:
    """Capture the records of the test and of the application under test.

    :func:`fapilog.testing.capture_logs` describes the replacements during a capture.
    """
    from fapilog.testing import capture_logs  # noqa: PLC0415 - loads fapilog only when used

    with capture_logs() as captured:
        yield captured


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the captured records to the report of a failing test."""
    outcome = yield
    report = outcome.get_result()
    captured = getattr(item, "funcargs", {}).get("logs")
    # The test may use another fixture with this name.
    if report.failed and report.when == "call" and type(captured).__name__ == "CapturedLogs":
        report.sections.append(("Captured fapilog records", str(captured)))
