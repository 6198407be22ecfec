"""Finds secrets that follow their names in a string: ``password=...``, ``"token": "..."``.

One regular expression finds the names in query strings, JSON, Python reprs, connection strings,
headers and command lines.  If a name is the name of a secret, this module determines where its
value starts and ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from fapilog.processors.pieces import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# Matches the two hexadecimal digits of a percent escape, if the escaped character may occur in a
# name.
_ESCAPE: Final = "(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff])"


def _compiled(character: str, begin: str = "") -> re.Pattern[str]:
    """Return a pattern that matches a name and the separator before its value.

    The pattern also matches a word before the name (as in "api key"), and quotes or brackets
    after the name.

    Args:
        character: the regular expression of one character of a name.
        begin: the regular expression of an additional condition at the start of a name.
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
# A name cannot begin inside a percent escape such as "%41"; otherwise the search would take
# quadratic time.
_encoded_name: Final = _compiled(rf"(?:[\w.-]|%{_ESCAPE})", rf"(?!(?<=%){_ESCAPE})")
_closing_quote: Final = re.compile(r"""\\*["']\Z""")
# Matches a character that ends a value in a JSON object, or that begins or ends a string or a
# container.
_structure: Final = re.compile(r"""(?<!\\)\\*["']|[\[\](){},\r\n]""")
_LINE_ENDS: Final = frozenset("\r\n\\")
_QUOTES: Final = frozenset("\"'")
_OPENING: Final = frozenset("[({")
_CLOSING: Final = frozenset("])}")
#: Matches the opening quote of a string, including a string prefix such as b.  The group
#: ``quote`` contains the quote and the backslashes before it.
quotation: Final = re.compile(r"""[bBrRuUfF]{0,2}(?P<quote>\\{0,32}(?:\"""|'''|["']))""").match
# Matches up to three line ends between a name and its value.  A line end may be escaped as \n.
_break: Final = r"(?:(?:\r?\n|(?:\\{1,8}r)?\\{1,8}n)[ \t]{0,99}){1,3}"
_member_below: Final = re.compile(rf"""{_break}(?=[bBrRuUfF]{{0,2}}\\*["']|[\[({{\d-])""")
# Matches the line end after a name whose value is on the next line, as in YAML.  The next line
# must be indented, and must not begin with another name that is followed by ":" or "=".
_word_below: Final = re.compile(
    r"\r?\n[ \t]{1,99}(?=[^\s\[({#|>-])(?![^\s:=]{1,99}[ \t]?[:=](?:\s|\Z))"
)
_yaml_start: Final = re.compile(r"(?:\A|[\r\n])[ \t]{0,99}(?:-[ ])?\Z")
_STATEMENTS: Final = frozenset({"if", "elif", "while", "with", "class", "match", "case"})
_literal: Final = re.compile(r"(?:None|null|nil|undefined|true|false|True|False)(?![\w.~+/=-])")
_brackets: Final = re.compile(r"[\[({](?:[^\[\](){}\r\n]*[\])}]|[^\r\n]*)")
# For each kind of quote, a pattern that matches up to the next quote of this kind.  All patterns
# stop at a line end or a backslash; the pattern for "" does not stop at quotes.
_rest: Final = {quote: re.compile(rf"[^\r\n\\{quote}]*") for quote in ("", "'", '"')}
# Matches a value without quotes, up to a space, a quote, ";" or "&".  A comma also ends the value
# if a space, or another name with a value, follows the comma.
_unquoted: Final = re.compile(r"""[^\s,;&"']*(?:,(?![\w.-]{1,64}[=:])[^\s,;&"']+)*""")
_scheme: Final = re.compile(r"(?i)(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+")
_header: Final = re.compile(r"(?i)(?:authorization|cookies?)\Z")
_signature: Final = re.compile(r"(?i)(?:signature|sig)\Z")
_tuple_start: Final = re.compile(r"""[(\[][bBuU]?\\*["']\Z""")
_tuple_end: Final = re.compile(r"""\\*["'][ \t]*[)\]]""")


#: If a name is longer than this number of characters, only its end is examined.
_LONGEST_NAME: Final = 256


def may_hold_pair(text: str) -> bool:
    """Whether ``text`` contains a separator of a name and its value, such as "=" or ":"."""
    return (
        "=" in text
        or ":" in text
        or ("%" in text and "%3" in text)
        or ("-" in text and "--" in text)
        or ("," in text and ("'," in text or '",' in text))
    )


class Value(NamedTuple):
    """The position in a string of the value that follows the name of a secret.

    Attributes:
        start, end: the text between these offsets is masked.
        quote: the quote to add before and after the mask so that JSON stays valid, or "".
    """

    start: int
    end: int
    quote: str = ""


def find_pairs(text: str, is_secret: Callable[[str], bool]) -> Iterator[Value]:
    """Yield the position of each value that follows a name for which ``is_secret`` returns True.

    The values are in the order of the text and do not overlap.
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
    if word:  # "api key" is the name of a secret, but "auth failed" is not
        return not is_secret(word) and is_secret(f"{word} {name}")
    return _signature.search(name) is not None and _is_in_query(match)


def _is_in_query(match: re.Match[str]) -> bool:
    text, start = match.string, match.start()
    if start:
        return text[start - 1] in "?&"
    # The text starts with the name, so no "?" or "&" can precede it.  If the text contains no
    # spaces or line ends, it is treated as a query string.
    return not any(blank in text for blank in " \t\r\n")


def _value(text: str, match: re.Match[str]) -> Value:
    """Return the position of the value after a name.

    The start and the end are equal if the value is not a secret.
    """
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
    """Return the offset where a value starts, which may be on the line below its name."""
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
    """Return the offset of the closing quote, or ``len(text)`` if the text was truncated."""
    while (found := text.find(quote, position)) >= 0:
        before = found
        while text[before - 1] == "\\":
            before -= 1
        # Each time that JSON is put into a JSON string, the number of backslashes before a quote
        # is doubled, and one more is added.
        if (found - before) % (2 * quote.count("\\") + 2) == 0 and not (
            # A ``repr`` of JSON doubles the backslashes before a quote inside a string, so this
            # quote may look like the closing quote.  A quote before a letter or a digit is not the
            # closing quote.
            before < found and text[found + len(quote) : found + len(quote) + 1].isalnum()
        ):
            return found
        position = found + 1
    return len(text)


def _end_of_member(text: str, start: int, escapes: int = 0) -> int:
    """Return the end of a value whose name is in quotes, as in JSON.

    The value may have several lines, and a truncated text may end inside the value.
    ``escapes`` is the number of backslashes before each quote: 1 for JSON inside a JSON string.
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
        # A value that begins with a bracket may continue on later lines.
        end = _end_of_member(text, start)
        least = end if text[end - 1 : end] in _CLOSING else least
    rest = _unquoted.match(text, least)
    end = rest.end() if rest else least
    return least + len(text[least:end].rstrip(")]}>|.:,"))


def _is_tuple(text: str, match: re.Match[str], end: int) -> bool:
    """Whether a name and its value form a pair in brackets, such as ``(b'cookie', b'a=b')``."""
    before = text[max(match.start() - 8, 0) : match.start()]
    return bool(_tuple_start.search(before) and _tuple_end.match(text, end))
