"""Values that did not validate, in the texts of pydantic's and FastAPI's exceptions.

There a value does not stand behind its name: the name is the line before, or
an item of the error's ``loc``.  And pydantic cuts long values in their midst,
so that of a name and its value only the value may be left.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fapilog.processors.find_pairs import end_of_quotation, quotation
from fapilog.processors.pieces import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.processors.find_shapes import Span

_VALUE: Final = "input_value="
_VALUE_END: Final = ", input_type="

# The line with the place of an error, and two blanks further in the beginning
# of what is wrong; in a group of exceptions each line begins with a bar.  A
# line may end with an escape.
_place: Final = re.compile(
    r"""(?:\r?\n|\\n)(?P<bar>(?:[ ]{0,32}[|][ ])?)
    (?P<place>[^\s|\\][^\r\n\\]*(?:\\(?!n)[^\r\n\\]*)*)
    (?:\r?\n|\\n)(?P=bar)[ ]{2}""",
    re.VERBOSE,
)
#: Characters of the line before, at the most: the title, or the end of the error before.
_LONGEST_TITLE: Final = 600
_LONGEST_PLACE: Final = 512
_details: Final = re.compile(r"[ ]\[type=\w{1,64}(?:\]|,[ ]input_value=)")
# A cut in a name, from its dots on: what follows is a value.
_cut: Final = re.compile(r"""\.\.\.[^'":=,{}\[\]\r\n]{0,64}\\{0,8}['"]?(?::[ ]|=)""")
#: Characters of a value in which its cut is looked for, and how many runs of dots are.
_CUT_WITHIN: Final = 64
_MOST_DOTS: Final = 4
_location: Final = re.compile(
    r"""(?<=["'])loc\\{0,8}["']:[ ]?[\[(](?P<places>[^\[\]()\r\n]{0,512})[\])]"""
)
_member: Final = re.compile(r""",[ ]?\\{0,8}["'](?:msg|input|ctx)\\{0,8}["']:[ ]?""")
_literal: Final = re.compile(r"(?:None|null|true|false|True|False)(?=[,}])")
_simple: Final = re.compile(
    r"""(?:[-+\w.]+|[\[({][^\[\](){}'"\r\n]*[\])}])(?=[,}\s]|\Z)|[^\r\n]*"""
)


def may_hold_input(lowered: str) -> bool:
    """Whether a text in lower case may hold a value that pydantic has cut from its name."""
    return _VALUE in lowered


def find_inputs(text: str, is_secret: Callable[[str], bool]) -> list[Span]:
    """Return the values and messages of pydantic's errors, where the place is secret.

    Args:
        text: any text.
        is_secret: whether a path of names, joined by dots, leads to a secret.
    """
    spans: list[Span] = []
    position = 0
    for match in search(_place, text):
        if match.start() < position - 2 or not _is_place(match) or not is_secret(match["place"]):
            continue
        position = match.end()
        details = _details.search(text, position)
        if details is None:  # the text was cut
            spans.append((position, len(text)))
            break
        spans.append((position, details.start()))
        position = details.end()
        if text[position - 1] == "=":
            start, end = _input(text, position)
            spans.append((start, end))
            position = end
    return spans


def find_cut_inputs(text: str) -> list[Span]:
    """Return what is left of values that pydantic has cut behind their names, or in them."""
    return list(_rests(text))


def find_members(text: str, is_secret: Callable[[str], bool]) -> list[Span]:
    """Return ``msg``, ``input`` and ``ctx`` in reprs and JSON of errors whose ``loc`` is secret.

    Args:
        text: any text.
        is_secret: as of :func:`find_inputs`.
    """
    spans: list[Span] = []
    position = 0
    for match in search(_location, text):
        if match.start() < position:
            continue
        position = match.end()
        if not any(is_secret(place.strip(" \\\"'")) for place in match["places"].split(",")):
            continue
        while member := _member.match(text, position):
            start, end, position = _member_value(text, member.end())
            spans.append((start, end))
    return spans


def _is_place(match: re.Match[str]) -> bool:
    """Whether the line before is the title of errors, or the end of an error."""
    text, end = match.string, match.start()
    if match.end("place") - match.start("place") > _LONGEST_PLACE:
        return False
    start = max(end - _LONGEST_TITLE, 0)
    for mark in ("\n", "\\n"):
        found = text.rfind(mark, start, end)
        if found >= 0:
            start = found + len(mark)
    line = text[start:end]
    return (
        (" validation error" in line and " for " in line)
        or (line.endswith("]") and ("[type=" in line or ", input_type=" in line))
        or line.lstrip(" |").startswith("For further information ")
    )


def _rests(text: str) -> Iterator[Span]:
    position = text.find(_VALUE)
    while position >= 0:
        position += len(_VALUE)
        start = _after_cut(text, position)
        if start is not None:
            end = text.find(_VALUE_END, start)
            position = len(text) if end < 0 else end
            yield start, position
        position = text.find(_VALUE, position)


def _after_cut(text: str, start: int) -> int | None:
    """Return where the value goes on that was cut behind a name, or in it."""
    dots = start - 1
    for _ in range(_MOST_DOTS):
        dots = text.find("...", dots + 1, start + _CUT_WITHIN + 5)
        if dots < 0 or "\n" in text[start:dots]:
            return None
        before = text[max(dots - 2, start) : dots]
        if before.endswith((":", "=", ": ", "= ")):
            return dots
        found = _cut.match(text, dots)
        if found:
            return found.end()
        while text.startswith("...", dots + 1):
            dots += 1
    return None


def _input(text: str, start: int) -> Span:
    quote = quotation(text, start)
    if quote is not None:
        end = end_of_quotation(text, quote["quote"], quote.end())
        if text.startswith(_VALUE_END, end + len(quote["quote"])):
            return quote.end(), end
    end = text.find(_VALUE_END, start)
    return start, len(text) if end < 0 else end


def _member_value(text: str, start: int) -> tuple[int, int, int]:
    """Return start and end of what to mask, and where the value ends."""
    quote = quotation(text, start)
    if quote is not None:
        end = end_of_quotation(text, quote["quote"], quote.end())
        return quote.end(), end, end + len(quote["quote"])
    literal = _literal.match(text, start)
    if literal is not None:
        return start, start, literal.end()
    simple = _simple.match(text, start)
    end = simple.end() if simple else start
    return start, end, end
