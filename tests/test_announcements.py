"""The page "When something is odd" explains every line that fapilog writes to stderr."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support.announcements import VALUE, texts

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
#: An entry is a term in backquotes that links to itself; a long text may be cut.
ENTRIES = {
    term: anchor
    for _, term, anchor, same in re.findall(
        r"^\[(`+)(.+?)\1\]\(#([\w-]+)\)\{#([\w-]+)\}$", PAGE, re.MULTILINE
    )
    if anchor == same
}
TEXTS = texts()
#: The message of the backend itself, after the sink's name.
ONLY_VALUES = {VALUE}
#: A text that is not in a call of ``announce`` but in an answer's outcome.
FROM_ANSWERS = f"{VALUE}: the answer is not OTLP; does the endpoint lead to an OTLP receiver?"


def explains(term: str, text: str) -> bool:
    """Whether the term is the text, or begins it with at least three words."""
    return term == text or (len(re.findall(r"\w+", term)) >= 3 and text.startswith(term))


@pytest.mark.parametrize("text", sorted(set(TEXTS) - ONLY_VALUES))
def test_every_announcement_is_explained(text: str) -> None:
    assert any(explains(term, text) for term in ENTRIES), f"{TEXTS[text]}: add it to the page"


def test_every_entry_of_the_page_is_announced_by_the_code() -> None:
    announced = [*TEXTS, FROM_ANSWERS]
    assert [term for term in ENTRIES if not any(explains(term, text) for text in announced)] == []


def test_the_entries_have_different_anchors() -> None:
    assert len(ENTRIES) > 80
    assert [anchor for anchor, count in Counter(ENTRIES.values()).items() if count > 1] == []


def test_the_search_for_announcements_finds_what_the_code_says() -> None:
    assert TEXTS["backlog is full; records dropped"].startswith("fapilog/delivery/intake.py:")
    # Two texts of one variable, and a choice inside a text.
    assert f"will try again: {VALUE}" in TEXTS
    assert any(text.startswith("ALARM: the backend refuses our credentials") for text in TEXTS)
    assert f"cannot start a thread for {VALUE}: {VALUE}; another thread works" in TEXTS
    # Only the message of a backend has no words of fapilog.
    assert TEXTS[VALUE].startswith("fapilog/delivery/sender.py:")
