"""Long texts are searched in pieces, so that no search keeps the interpreter for long.

``re`` holds the interpreter while it runs: one search through a long text would
stop every thread of the application.  All rules of redaction search with
:func:`search`; between two pieces other threads run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fapilog.interpreter import give_way

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

#: Characters in which a match may begin before other threads get their turn.
PIECE: Final = 8192
#: Characters beyond them that a rule may look at to begin a match.  A rule that
#: needs more context than this to recognise a secret does not find it.
OVERLAP: Final = 1024


def search(
    pattern: re.Pattern[str], text: str, *, bounded: bool = False
) -> Iterator[re.Match[str]]:
    """Yield the matches of ``pattern``, in order and without overlap.

    Args:
        pattern: takes linear time.
        text: any text; one of up to ``PIECE`` characters is searched at once.
        bounded: whether a match never goes beyond the overlap, so that a
            pattern of unknown cost sees no more text than that at once.
    """
    size = len(text)
    if size <= PIECE:
        yield from pattern.finditer(text)
        return
    position = 0
    while position < size:
        border = position + PIECE
        end = min(border + OVERLAP, size)
        position = border
        for match in pattern.finditer(text, border - PIECE, end):
            if match.start() >= border:
                break
            if match.end() == end < size and not bounded:
                match = pattern.match(text, match.start()) or match  # noqa: PLW2901 - all of it
            yield match
            if match.end() > border:
                position = match.end()
                break
        give_way()
