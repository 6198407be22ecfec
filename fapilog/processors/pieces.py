"""Searches long strings in pieces, and lets other threads run between two pieces.

The module ``re`` holds the interpreter lock while it runs, so one search through a long text
would block every other thread of the application.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fapilog.process.give_way import give_way

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The number of characters in a piece of a string.
PIECE: Final = 8192
#: The number of characters after a piece that a pattern may also read, because a match may begin
#: in a piece and end after it.
OVERLAP: Final = 1024
#: ``SHORT_PIECE`` and ``SHORT_OVERLAP`` replace ``PIECE`` and ``OVERLAP`` in a search for a user's
#: pattern.  They are smaller, because the pattern may take quadratic time.
SHORT_PIECE: Final = 1024
SHORT_OVERLAP: Final = 512
_blank: Final = re.compile(r"\s")


def search(
    pattern: re.Pattern[str],
    text: str,
    piece: int = PIECE,
    overlap: int = OVERLAP,
    *,
    whole: bool = True,
) -> Iterator[re.Match[str]]:
    """Yield the matches of ``pattern`` in ``text`` in order; they do not overlap.

    The text is searched in pieces of ``piece`` characters.  Each search may also read
    ``overlap`` characters after its piece.  A pattern that may take quadratic time needs short
    pieces.  If ``whole`` is True and a match ends at the last character that the search may
    read, the pattern is matched again at the same start, up to the end of the text.
    """
    size = len(text)
    if size <= piece:
        yield from pattern.finditer(text)
        return
    position = 0
    while position < size:
        border = position + piece
        end = min(border + overlap, size)
        after = border
        for match in pattern.finditer(text, position, end):
            if match.start() >= border:
                break
            if whole and match.end() == end < size:
                match = pattern.match(text, match.start()) or match  # noqa: PLW2901 - read on
            yield match
            if match.end() > border:
                after = match.end()
                break
        position = after
        give_way()


def search_bounded(
    pattern: re.Pattern[str], text: str, group: int | str = 0
) -> Iterator[tuple[int, int]]:
    """Yield the start and end of a group in each match of a user's pattern, without overlap.

    A match ends at most ``SHORT_OVERLAP`` characters after its piece.  If the group ends
    exactly at this limit, the secret may be longer, so the yielded end is moved to the next
    space or line end.
    """
    last = 0
    for match in search(pattern, text, SHORT_PIECE, SHORT_OVERLAP, whole=False):
        start, end = match.span(group)
        start = max(start, last)
        if start < end:
            if end == match.endpos < len(text):
                blank = _blank.search(text, end)
                end = blank.start() if blank else len(text)
            yield start, end
            last = end
