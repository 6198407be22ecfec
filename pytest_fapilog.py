"""The pytest plugin of fapilog: the fixture ``logs``.

A module beside the package, because pytest imports plugins before anything
measures coverage: importing this one loads nothing of fapilog.
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
    """Capture what the test and the application under test log.

    See :func:`fapilog.testing.capture_logs` for what is replaced meanwhile.
    """
    from fapilog.testing import capture_logs  # noqa: PLC0415 - see above

    with capture_logs() as captured:
        yield captured


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show what was logged in the report of a test that fails."""
    outcome = yield
    report = outcome.get_result()
    captured = getattr(item, "funcargs", {}).get("logs")
    # The fixture may be another one of this name.
    if report.failed and report.when == "call" and type(captured).__name__ == "CapturedLogs":
        report.sections.append(("Captured fapilog records", str(captured)))
