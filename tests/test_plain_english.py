"""Checks the rules of CONTRIBUTING.md about English that a machine can check.

Docstrings, comments, pages and the texts that users see are searched for phrases that
stop a reader.  Everything else about plain English is left to reviewers.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reading import Fragment, fragments

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "fapilog", ROOT / "integrations")
CODE = (*PACKAGES, *(ROOT / name for name in ("tests", "benchmarks", "examples", "docs", ".ci")))
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "integrations").rglob("README.md")),
]

#: Phrases to avoid, each with a better one.
PHRASES = {
    r"(?<!there )\b(is|are|was|were|be) no (?!longer|more\b|other\b|fewer\b|or\b)": "is not a …",
    r"(?<!there )\b(?:is|are|was|were) (?-i:none)\b": "name what is missing",
    r"\bof (its|their) own(?=[,.;:)]|$| (that|which|in|for|and|to|with|on|at|by)\b)": "its own …",
    r"\banew\b|\bafresh\b": "again",
    r"\bin the midst\b": "in the middle of, while",
    r"\bas above\b": "repeat the reason",
    r"\b(whoever|whosoever)\b": "name the subject",
    r"(?:^|[.;] )who [^?]*$": "name the subject",
    r"^What (?!'s)[^?]*$": "begin with the noun",
    r"(?<!at )\bonce an? (record|request|call|process|thread|sink|name|batch)\b": "once per …",
    r"\b(records|requests|bytes|times|calls) a (second|minute)\b": "… per second",
    r"\bone (record|object|file|processor|logger|core) an? (\w+)\b": "one … per …",
    r"\b(mend|mends|mended|dearest)\b": "fix; most expensive",
}
PATTERNS = {re.compile(phrase, re.IGNORECASE): better for phrase, better in PHRASES.items()}

#: Commits after this one are checked.
LAST_UNCHECKED = "c08494d46a11"
LONGEST_SUBJECT = 72


def pages() -> Iterator[Fragment]:
    """Yield the paragraphs of the pages without code; of the changelog, what is not released."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if path.name == "CHANGELOG.md":
            text = re.split(r"^## (?!Unreleased)", text, flags=re.MULTILINE)[0]
        # Blanked instead of removed, to keep the lines' numbers.
        text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL)
        line = 1
        for paragraph in re.split(r"(\n\n+)", text):
            yield Fragment(path, line, "paragraph", paragraph, paragraph)
            line += paragraph.count("\n")


def messages() -> Iterator[Fragment]:
    """Yield the texts in the packages' code, which users see as errors and diagnostics."""
    for path in (path for package in PACKAGES for path in sorted(package.rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or id(node) in docstrings:
                continue
            if isinstance(node.value, str) and " " in node.value:
                yield Fragment(path, node.lineno, "text", node.value, node.value)


def found_in(texts: Iterator[Fragment]) -> list[str]:
    found = []
    for path, line, kind, text, _ in texts:
        joined = re.sub(r"\s*\n\s*", " ", re.sub(r"`+[^`]*`+", "``", text))
        for pattern, better in PATTERNS.items():
            if match := pattern.search(joined):
                where = f"{path.relative_to(ROOT)}:{line}"
                found.append(f"{where}: {kind}: {match[0][:60]!r}: {better}")
    return found


def test_docstrings_and_comments_avoid_phrases_that_stop_a_reader():
    assert found_in(fragments(*CODE)) == []


def test_pages_avoid_phrases_that_stop_a_reader():
    assert found_in(pages()) == []


def test_messages_avoid_phrases_that_stop_a_reader():
    assert found_in(messages()) == []


def test_commit_subjects_are_short():
    command = ["git", "log", "--format=%s", f"{LAST_UNCHECKED}..HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout with its history")
    assert [subject for subject in done.stdout.splitlines() if len(subject) > LONGEST_SUBJECT] == []
