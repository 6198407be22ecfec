"""Runs the Python fences of README.md and docs/ as tests: ``make snippets``.

A document is one program: its fences run in order, share their names, and run
in an empty directory.  Before a fence that cannot run, a comment gives the
reason: ``<!-- skip: next "needs a Kafka broker" -->``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser


def enter_empty_directory(namespace: dict[str, Any]) -> None:
    """Run the document in an empty directory, where it may write files."""
    stack = namespace["_stack"] = contextlib.ExitStack()
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    stack.callback(os.chdir, Path.cwd())
    os.chdir(directory)


def shut_down(namespace: dict[str, Any]) -> None:
    """Undo the document's ``configure()``, so the next document starts clean."""
    import fapilog  # noqa: PLC0415 - other tests do not need it

    fapilog.shutdown(10)
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=enter_empty_directory,
    teardown=shut_down,
).pytest()
