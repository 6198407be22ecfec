"""Values that did not validate, in the texts of pydantic's and FastAPI's exceptions.

There a value does not stand behind its name: the name is the line before, or
an item of the error's ``loc``.  And pydantic cuts long values in their midst,
so that of a name and its value only the value may be left.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fapilog.processors.pairs import end_of_quotation, quotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.processors.secrets import Span

_VALUE: Final = "input_value="
_VALUE_END: Final = ", input_type="

# What stands before the place of an error: the title, or the end of the error
# before.  Then the place, and two blanks further in what is wrong; in a group
# of exceptions each line begins with a bar.  A line may end with an escape.
_place: Final = re.compile(
    r"""(?:[ ]validation[ ]errors?[ ]for[ ][^\r\n]{1,256}?
      | (?:,[ ]input_type=[^\]\r\n]{0,128}|\[type=\w{1,64})\]
        (?:(?:\r?\n|\\n)[ |]{0,32}For[ ]further[ ]information[ ][^\r\n\\]{0,256})? )
    (?:\r?\n|\\n)(?P<bar>(?:[ ]{0,32}[|][ ])?)(?P<place>[^\s|][^\r\n]{0,511}?)
    (?:\r?\n|\\n)(?P=bar)[ ]{2}""",
    re.VERBOSE,
)
_details: Final = re.compile(r"[ ]\[type=\w{1,64}(?:\]|,[ ]input_value=)")
# A cut behind a name, or in it: what follows is a value.
_cut: Final = re.compile(
    r"""input_value=[^\r\n]{0,64}?
    (?:[:=][ ]?(?=\.\.\.) | \.\.\.[^'":=,{}\[\]\r\n]{0,64}\\{0,8}['"]?(?::[ ]|=))""",
    re.VERBOSE,
)
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
    while match := _place.search(text, position):
        position = match.end()
        if not is_secret(match["place"]):
            continue
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
    while match := _location.search(text, position):
        position = match.end()
        if not any(is_secret(place.strip(" \\\"'")) for place in match["places"].split(",")):
            continue
        while member := _member.match(text, position):
            start, end, position = _member_value(text, member.end())
            spans.append((start, end))
    return spans


def _rests(text: str) -> Iterator[Span]:
    position = 0
    while match := _cut.search(text, position):
        end = text.find(_VALUE_END, match.end())
        position = len(text) if end < 0 else end
        yield match.end(), position


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
