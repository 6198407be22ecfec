"""Runs the Python fences of README.md and docs/ as tests: ``make snippets``.

A document is one program: its fences run in order and share their names, in
an empty directory.  A fence that cannot run has a comment in front of it that
says why: ``<!-- skip: next "needs a Kafka broker" -->``.
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
    """Run the document where the files that it writes are in nobody's way."""
    stack = namespace["_stack"] = contextlib.ExitStack()
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    stack.callback(os.chdir, Path.cwd())
    os.chdir(directory)


def shut_down(namespace: dict[str, Any]) -> None:
    """Undo the document's ``configure()``, so that the next one starts clean."""
    import fapilog  # noqa: PLC0415 - not needed to collect the other tests

    fapilog.shutdown(10)
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=enter_empty_directory,
    teardown=shut_down,
).pytest()
