from __future__ import annotations

import sys
import threading

import pytest

from fapilog import diagnostics
from fapilog.diagnostics import announce, describe


def test_an_announcement_in_the_midst_of_another_is_no_deadlock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(dict[str, float]):
        """As if a signal handler ran while the table is looked at."""

        def get(self, key: str, default: float = 0.0) -> float:  # type: ignore[override]
            if key == "outer":
                announce("inner", "from a signal handler")
            return super().get(key, default)

    monkeypatch.setattr(diagnostics, "_last", Interrupted())
    thread = threading.Thread(target=announce, args=("outer", "interrupted"), daemon=True)
    thread.start()
    thread.join(10)
    assert capsys.readouterr().err.splitlines() == [
        "fapilog: from a signal handler",
        "fapilog: interrupted",
    ]


def test_a_stderr_that_fails_in_its_own_way_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def write(self, _text: str) -> int:
            raise LookupError

    monkeypatch.setattr(sys, "stderr", Broken())
    announce("subject", "lost")


def test_subjects_are_remembered_up_to_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2 * diagnostics._MAX_SUBJECTS):
        announce(f"subject {number}", "x")
    assert len(capsys.readouterr().err.splitlines()) == diagnostics._MAX_SUBJECTS
    assert len(diagnostics._last) + len(diagnostics._muted) == diagnostics._MAX_SUBJECTS


def test_an_error_is_described_whatever_its_own_code_does() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(SilentError()) == "SilentError"
    assert describe(OSError()) == "OSError"
    assert describe(OSError("disk full")) == "OSError: disk full"
