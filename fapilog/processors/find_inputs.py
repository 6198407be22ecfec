"""Finds secrets in the validation errors of pydantic and FastAPI, which quote invalid inputs.

In these errors, the name of a field does not directly precede its value: the name is on the
preceding line, or in the list ``loc`` of the error.  In addition, pydantic replaces the middle
of a long input with "...", so the error may contain a secret but not the name of the secret.
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

# Matches the line with the location of an error (``body.password``), and the start of the next
# line, which contains the error's message.  In an exception group each line begins with a bar.
# Line ends may be escaped as \n.
_place: Final = re.compile(
    r"""(?:\r?\n|\\n)(?P<bar>(?:[ ]{0,32}[|][ ])?)
    (?P<place>[^\s|\\][^\r\n\\]*(?:\\(?!n)[^\r\n\\]*)*)
    (?:\r?\n|\\n)(?P=bar)[ ]{2}""",
    re.VERBOSE,
)
#: The maximum number of characters that are read from the line before an error's location.
_LONGEST_TITLE: Final = 600
_LONGEST_PLACE: Final = 512
_details: Final = re.compile(r"[ ]\[type=\w{1,64}(?:\]|,[ ]input_value=)")
# Matches the "..." with which pydantic has replaced a part of a name, the remaining
# characters of the name, and the ":" or "=" before the value.
_cut: Final = re.compile(r"""\.\.\.[^'":=,{}\[\]\r\n]{0,64}\\{0,8}['"]?(?::[ ]|=)""")
#: The number of characters at the start of an ``input_value`` in which "..." is searched for.  At
#: most ``_MOST_DOTS`` occurrences of "..." are examined.
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
    """Whether a string in lower case may contain an error of pydantic that quotes a value."""
    return _VALUE in lowered


def find_inputs(text: str, is_secret: Callable[[str], bool]) -> Iterator[Span]:
    """Yield the bounds of each message and value in pydantic's errors about secret fields.

    ``is_secret`` returns whether a location, such as ``body.password``, belongs to a secret
    field.
    """
    position = 0
    for match in search(_place, text):
        if match.start() < position - 2 or not _is_place(match) or not is_secret(match["place"]):
            continue
        position = match.end()
        details = _details.search(text, position)
        if details is None:  # the text was truncated before "[type=...]"
            yield position, len(text)
            break
        yield position, details.start()
        position = details.end()
        if text[position - 1] == "=":
            start, end = _input(text, position)
            yield start, end
            position = end


def find_cut_inputs(text: str) -> Iterator[Span]:
    """Yield the start and end of each possible secret after a "..." in pydantic's errors.

    pydantic replaces the middle of a long input with "...".  The replaced characters may be the
    name of a secret or the beginning of a secret.
    """
    position = text.find(_VALUE)
    while position >= 0:
        position += len(_VALUE)
        start = _after_cut(text, position)
        if start is not None:
            end = text.find(_VALUE_END, start)
            position = len(text) if end < 0 else end
            yield start, position
        position = text.find(_VALUE, position)


def find_members(text: str, is_secret: Callable[[str], bool]) -> Iterator[Span]:
    """Yield the bounds of each ``msg``, ``input`` and ``ctx`` in errors about secret fields.

    The errors are those of pydantic, as a ``repr`` or as JSON.  Each error contains a list
    ``loc`` of field names, the path to the invalid field.  ``is_secret`` returns whether one of
    these names is the name of a secret field.
    """
    position = 0
    for match in search(_location, text):
        if match.start() < position:
            continue
        position = match.end()
        if not any(is_secret(place.strip(" \\\"'")) for place in match["places"].split(",")):
            continue
        while member := _member.match(text, position):
            start, end, position = _member_value(text, member.end())
            yield start, end


def _is_place(match: re.Match[str]) -> bool:
    """Whether the line that ``_place`` matched is the location of a pydantic error.

    The line is a location if the line before it is the heading of a list of errors, or the last
    line of another error.
    """
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


def _after_cut(text: str, start: int) -> int | None:
    """Return the offset of a possible secret whose name or beginning "..." replaces, or None."""
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
    """Return the start and end of the text to mask, and the end of the whole value.

    The value begins at ``start``.  The quotes around a value are not masked, and None and
    booleans are not masked at all.
    """
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
