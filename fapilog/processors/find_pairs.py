"""Secrets that stand after their names in text: ``password=...``, ``"token": "..."``.

One reader for query strings, JSON, Python reprs, connection strings, headers
and command lines: it looks for names, and where a name is secret by
:mod:`fapilog.processors.field_names`, for the end of the value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from fapilog.processors.pieces import search

if TYPE_CHECKING:
    from collections.abc import Callable


# What URLs may write for a character of a name; "=", ":" and brackets are none.
_ESCAPE: Final = "(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff])"


def _compiled(character: str, begin: str = "") -> re.Pattern[str]:
    """Return what finds names, their quotes and brackets, and what stands before a value.

    A word may come before a name ("api key").

    Args:
        character: a character of a name.
        begin: what else holds where a name begins.
    """
    return re.compile(
        rf"""(?<![\w.-]) {begin} (?:(?P<dashes>--) | (?P<word>[A-Za-z]{{2,12}})[ ])?
        (?P<name>{character}{{2,}})
        (?P<closing>(?:%5[Dd] | [\\"'\]]){{0,4}})
        (?: [ \t]{{0,4}} (?:=> | :=(?!=) | [=:](?![=:]) | %3[AaDd]) [ \t]{{0,4}}
          | (?P<comma>(?<=["']),) [ \t]{{0,4}}
          | (?(dashes) [ \t]{{1,4}}(?!-) | (?!)) )""",
        re.VERBOSE,
    )


_name: Final = _compiled(r"[\w.-]")
# It does not begin inside an escape: each part of a long name would be searched again.
_encoded_name: Final = _compiled(rf"(?:[\w.-]|%{_ESCAPE})", rf"(?!(?<=%){_ESCAPE})")
_closing_quote: Final = re.compile(r"""\\*["']\Z""")
# What ends a member of an object, or opens something in it.
_structure: Final = re.compile(r"""\\{0,32}["']|[\[\](){},\r\n]""")
_QUOTES: Final = frozenset("\"'")
_OPENING: Final = frozenset("[({")
_CLOSING: Final = frozenset("])}")
_quotation: Final = re.compile(r"""[bBrRuUfF]{0,2}(?P<quote>\\{0,32}(?:\"""|'''|["']))""")
_literal: Final = re.compile(r"(?:None|null|nil|undefined|true|false|True|False)(?![\w.~+/=-])")
_brackets: Final = re.compile(r"[\[({](?:[^\[\](){}\r\n]*[\])}]|[^\r\n]*)")
# The rest of a line, or of a quotation that began before the name.
_rest: Final = {quote: re.compile(rf"[^\r\n\\{quote}]*") for quote in ("", "'", '"')}
# To the next blank, quote or delimiter; a comma is one where a name follows.
_unquoted: Final = re.compile(r"""[^\s,;&"']*(?:,(?![\w.-]{1,64}[=:])[^\s,;&"']+)*""")
_scheme: Final = re.compile(r"(?i)(?:basic|bearer|digest|negotiate|token|apikey)[ \t]+")
_header: Final = re.compile(r"(?i)(?:authorization|cookies?)\Z")
_signature: Final = re.compile(r"(?i)(?:signature|sig)\Z")
_tuple_start: Final = re.compile(r"""[(\[][bBuU]?\\*["']\Z""")
_tuple_end: Final = re.compile(r"""\\*["'][ \t]*[)\]]""")


#: Characters of a name that are looked at, from its end: a longer one is no name.
_LONGEST_NAME: Final = 256


def may_hold_pair(text: str) -> bool:
    """Whether something stands between names and values; told in a tenth of a microsecond."""
    return (
        "=" in text
        or ":" in text
        or ("%" in text and "%3" in text)
        or ("-" in text and "--" in text)
        or ("," in text and ("'," in text or '",' in text))
    )


class Value(NamedTuple):
    """Where the value of a secret name is.

    Attributes:
        start, end: what is masked.
        quote: put around the mask, so that JSON stays JSON.
    """

    start: int
    end: int
    quote: str = ""


def find_pairs(text: str, is_secret: Callable[[str], bool]) -> list[Value]:
    """Return where the values of secret names are, in order and without overlap.

    Args:
        text: any text.
        is_secret: whether a name is one of a secret.
    """
    values: list[Value] = []
    last = 0
    for match in search(_encoded_name if "%" in text else _name, text):
        if match.start() >= last and _is_secret(match, is_secret):
            value = _value(text, match)
            if value.start < value.end:
                values.append(value)
                last = value.end
    return values


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
    return not any(blank in text for blank in " \t\r\n")  # a query string alone


def _value(text: str, match: re.Match[str]) -> Value:
    """Return what to mask after a name; an empty span for nothing."""
    start = match.end()
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


def _end_of_header(text: str, match: re.Match[str], start: int) -> int:
    opening = text[max(match.start() - 1, 0) : match.start()]
    rest = _rest.get(opening, _rest[""]).match(text, start)
    return rest.end() if rest else start


def quotation(text: str, position: int) -> re.Match[str] | None:
    """Return the beginning of a quotation at ``position``, with its group ``quote``."""
    return _quotation.match(text, position)


def end_of_quotation(text: str, quote: str, position: int) -> int:
    """Return where a quotation ends; one that does not, because it was cut, ends with the text."""
    while (found := text.find(quote, position)) >= 0:
        before = found
        while text[before - 1] == "\\":
            before -= 1
        escapes = found - before
        # Quotes that are escaped themselves (JSON in JSON) close only where no
        # further escape precedes them.
        if (escapes if "\\" in quote else escapes % 2) == 0:
            return found
        position = found + 1
    return len(text)


def _end_of_member(text: str, start: int, escapes: int = 0) -> int:
    """Return where a value ends that stands behind a name in quotes, as in JSON.

    It may go on over lines, and ends with the text if the text was cut.

    Args:
        text: any text.
        start: where the value begins.
        escapes: how many backslashes stand before the quotes around a text; JSON
            inside a JSON text has some.
    """
    depth, quote = 0, ""
    for match in _structure.finditer(text, start):
        mark = match[0]
        if mark[-1] in _QUOTES:
            slashes = len(mark) - 1
            if slashes == escapes or (not escapes and slashes % 2 == 0):
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
        # Perhaps it is closed in a later line.
        end = _end_of_member(text, start)
        least = end if text[end - 1 : end] in _CLOSING else least
    rest = _unquoted.match(text, least)
    end = rest.end() if rest else least
    return least + len(text[least:end].rstrip(")]}>|.:,"))


def _is_tuple(text: str, match: re.Match[str], end: int) -> bool:
    """Whether name and value make a pair in brackets, as headers do: ``(b'cookie', b'a=b')``."""
    before = text[max(match.start() - 8, 0) : match.start()]
    return bool(_tuple_start.search(before) and _tuple_end.match(text, end))
