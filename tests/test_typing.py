"""Correct code of users type-checks in strict mode, and wrong code does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_right_uses_of_the_public_names_pass_and_wrong_ones_fail_the_type_checker() -> None:
    pytest.importorskip("mypy", reason="needs the dependency group `lint`")
    # tests/typing/wrong.py ignores each error by its code; in strict mode an
    # ignore without an error is an error itself.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "tests/typing"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
