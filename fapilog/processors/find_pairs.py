"""Finds secrets that follow their names in a text: ``password=...``, ``"token": "..."``.

One search finds the names in query strings, JSON, Python reprs, connection
strings, headers and command lines.  If a name is secret, its value is located.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from fapilog.processors.pieces import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# The percent-encoding of a character that a name may contain, without the "%".
_ESCAPE: Final = "(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff])"


def _compiled(character: str, begin: str = "") -> re.Pattern[str]:
    """Return a pattern for a name and the separator before its value.

    A word may come before the name ("api key"), and quotes or brackets after it.

    Args:
        character: the pattern of one character of a name.
        begin: the pattern of an additional condition at the start of a name.
    """
    return re.compile(
        rf"""(?<![\w.-]) {begin} (?:(?P<dashes>--) | (?P<word>[A-Za-z]{{2,12}})[ ])?
        (?P<name>{character}{{2,}})
        (?P<closing>(?:%5[Dd] | [\\"'\]]){{0,20}})
        (?: [ \t]{{0,64}} (?:=> | :=(?!=) | (?P<colon>:)(?![=:]) | =(?![=:]) | %3[AaDd])
            [ \t]{{0,64}}
          | (?P<comma>(?<=["']),) [ \t]{{0,64}}
          | (?(dashes) [ \t]{{1,64}}(?!-) | (?!)) )""",
        re.VERBOSE,
    )


_name: Final = _compiled(r"[\w.-]")
# A name cannot begin inside an escape; otherwise the search would take quadratic time.
_encoded_name: Final = _compiled(rf"(?:[\w.-]|%{_ESCAPE})", rf"(?!(?<=%){_ESCAPE})")
_closing_quote: Final = re.compile(r"""\\*["']\Z""")
# A character that ends a member of an object, or begins or ends a string or a container.
_structure: Final = re.compile(r"""(?<!\\)\\*["']|[\[\](){},\r\n]""")
_LINE_ENDS: Final = frozenset("\r\n\\")
_QUOTES: Final = frozenset("\"'")
_OPENING: Final = frozenset("[({")
_CLOSING: Final = frozenset("])}")
#: Matches the start of a quotation; the group ``quote`` is the quote with its backslashes.
quotation: Final = re.compile(r"""[bBrRuUfF]{0,2}(?P<quote>\\{0,32}(?:\"""|'''|["']))""").match
# Line ends between a name and a value that is a quotation, a container or a number.
_break: Final = r"(?:(?:\r?\n|(?:\\{1,8}r)?\\{1,8}n)[ \t]{0,99}){1,3}"
_member_below: Final = re.compile(rf"""{_break}(?=[bBrRuUfF]{{0,2}}\\*["']|[\[({{\d-])""")
# The line end after a name whose value is in the next line, as in YAML.  The value must be an
# indented word that is not followed by its own value.
_word_below: Final = re.compile(
    r"\r?\n[ \t]{1,99}(?=[^\s\[({#|>-])(?![^\s:=]{1,99}[ \t]?[:=](?:\s|\Z))"
)
_yaml_start: Final = re.compile(r"(?:\A|[\r\n])[ \t]{0,99}(?:-[ ])?\Z")
_STATEMENTS: Final = frozenset({"if", "elif", "while", "with", "class", "match", "case"})
_literal: Final = re.compile(r"(?:None|null|nil|undefined|true|false|True|False)(?![\w.~+/=-])")
_brackets: Final = re.compile(r"[\[({](?:[^\[\](){}\r\n]*[\])}]|[^\r\n]*)")
# By quote: matches the rest of the quotation with name and value, or for "" of the line.
_rest: Final = {quote: re.compile(rf"[^\r\n\\{quote}]*") for quote in ("", "'", '"')}
# A value up to the next space, quote or delimiter; a comma is a delimiter if a name follows.
_unquoted: Final = re.compile(r"""[^\s,;&"']*(?:,(?![\w.-]{1,64}[=:])[^\s,;&"']+)*""")
_scheme: Final = re.compile(r"(?i)(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+")
_header: Final = re.compile(r"(?i)(?:authorization|cookies?)\Z")
_signature: Final = re.compile(r"(?i)(?:signature|sig)\Z")
_tuple_start: Final = re.compile(r"""[(\[][bBuU]?\\*["']\Z""")
_tuple_end: Final = re.compile(r"""\\*["'][ \t]*[)\]]""")


#: The maximum number of characters of a name that are read, counted from its end.
_LONGEST_NAME: Final = 256


def may_hold_pair(text: str) -> bool:
    """Whether a text contains a separator such as "=" or ":".  Takes 0.1 µs."""
    return (
        "=" in text
        or ":" in text
        or ("%" in text and "%3" in text)
        or ("-" in text and "--" in text)
        or ("," in text and ("'," in text or '",' in text))
    )


class Value(NamedTuple):
    """The position in a text of the value that follows a secret name.

    Attributes:
        start, end: the offsets between which the text is masked.
        quote: the quote to add on both sides of the mask, so that JSON stays valid.
    """

    start: int
    end: int
    quote: str = ""


def find_pairs(text: str, is_secret: Callable[[str], bool]) -> Iterator[Value]:
    """Yield each value that follows a name for which ``is_secret`` returns True.

    The values are in order and do not overlap.
    """
    last = 0
    for match in search(_encoded_name if "%" in text else _name, text):
        if match.start() >= last and _is_secret(match, is_secret):
            value = _value(text, match)
            if value.start < value.end:
                yield value
                last = value.end


def _is_secret(match: re.Match[str], is_secret: Callable[[str], bool]) -> bool:
    name, word = match["name"][-_LONGEST_NAME:], match["word"]
    if "%" in name:
        name = unquote(name)
    if is_secret(name):
        return True
    if word:  # "api key" is secret, "auth failed" is not
        return not is_secret(word) and is_secret(f"{word} {name}")
    return _signature.search(name) is not None and _is_in_query(match)


def _is_in_query(match: re.Match[str]) -> bool:
    text, start = match.string, match.start()
    if start:
        return text[start - 1] in "?&"
    return not any(blank in text for blank in " \t\r\n")  # the text may be a query string


def _value(text: str, match: re.Match[str]) -> Value:
    """Return the bounds of the secret after a name.  They are equal if there is no secret."""
    start = _start(text, match)
    quoted = quotation(text, start)
    if quoted:
        start, end = quoted.end(), end_of_quotation(text, quoted["quote"], quoted.end())
        if match["comma"] and not (match["dashes"] or _is_tuple(text, match, end)):
            return Value(start, start)
    elif match["comma"] or _literal.match(text, start):
        return Value(start, start)
    elif closing := _closing_quote.search(match["closing"]):
        return Value(start, _end_of_member(text, start, len(closing[0]) - 1), closing[0])
    scheme = _scheme.match(text, start)
    if scheme and (not quoted or scheme.end() < end):
        start = scheme.end()
    if not quoted:
        whole_line = _header.search(match["name"]) and (
            scheme is None or scheme[0].lower().startswith("digest")
        )
        end = _end_of_header(text, match, start) if whole_line else _end_unquoted(text, start)
    return Value(start, end)


def _start(text: str, match: re.Match[str]) -> int:
    """Return the offset where the value starts, which may be in a line below its name."""
    start = match.end()
    if text[start : start + 1] not in _LINE_ENDS or not (match["colon"] or match["comma"]):
        return start
    below = None
    if _closing_quote.search(match["closing"]):
        below = _member_below.match(text, start)
    elif match["word"] not in _STATEMENTS and _yaml_start.search(
        text[max(match.start() - 102, 0) : match.start()]
    ):
        below = _word_below.match(text, start)
    return below.end() if below else start


def _end_of_header(text: str, match: re.Match[str], start: int) -> int:
    opening = text[max(match.start() - 1, 0) : match.start()]
    rest = _rest.get(opening, _rest[""]).match(text, start)
    return rest.end() if rest else start


def end_of_quotation(text: str, quote: str, position: int) -> int:
    """Return the position of the closing quote, or the end of a truncated text."""
    while (found := text.find(quote, position)) >= 0:
        before = found
        while text[before - 1] == "\\":
            before -= 1
        # In JSON inside JSON, each level doubles the backslashes and adds one to each quote.
        if (found - before) % (2 * quote.count("\\") + 2) == 0 and not (
            # A repr of JSON doubles the backslashes, so a quote before a letter is escaped too.
            before < found and text[found + len(quote) : found + len(quote) + 1].isalnum()
        ):
            return found
        position = found + 1
    return len(text)


def _end_of_member(text: str, start: int, escapes: int = 0) -> int:
    """Return the end of a value that follows a name in quotes, as in JSON.

    The value may have several lines, and a truncated text may end inside it.
    ``escapes`` is the number of backslashes before each quote: 1 for JSON inside a
    JSON string.
    """
    depth, quote = 0, ""
    for match in _structure.finditer(text, start):
        mark = match[0]
        if mark[-1] in _QUOTES:
            if (len(mark) - 1) % (2 * escapes + 2) == escapes:
                quote = mark[-1] if not quote else "" if quote == mark[-1] else quote
        elif quote:
            continue
        elif mark in _OPENING:
            depth += 1
        elif mark in _CLOSING and depth:
            depth -= 1
            if not depth:
                return match.end()
        elif not depth:
            return start + len(text[start : match.start()].rstrip())
    return len(text)


def _end_unquoted(text: str, start: int) -> int:
    brackets = _brackets.match(text, start)
    least = brackets.end() if brackets else start
    if brackets and text[least - 1] not in _CLOSING:
        # The closing bracket may be in a later line.
        end = _end_of_member(text, start)
        least = end if text[end - 1 : end] in _CLOSING else least
    rest = _unquoted.match(text, least)
    end = rest.end() if rest else least
    return least + len(text[least:end].rstrip(")]}>|.:,"))


def _is_tuple(text: str, match: re.Match[str], end: int) -> bool:
    """Whether a name and its value are in brackets, as in a header: ``(b'cookie', b'a=b')``."""
    before = text[max(match.start() - 8, 0) : match.start()]
    return bool(_tuple_start.search(before) and _tuple_end.match(text, end))
