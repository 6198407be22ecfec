"""Finds secrets in strings that are percent-encoded or contain JSON escapes.

A string with JSON escapes is searched again after the escapes have been decoded.  If this search
finds a secret, the decoded text, in which the secret is masked, replaces the original text.
Percent-encoding is decoded only for the search.  If the decoded text contains a secret, the
encoded value of the query parameter, or the encoded URL, is masked completely.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

#: A string may be percent-encoded several times.  It is decoded at most this number of times.
_MOST_TIMES: Final = 3
_percent: Final = re.compile("%[0-9A-Fa-f]{2}").search
# Matches one parameter of a query string, or a URL up to its query string.
_part: Final = re.compile(r"""[^\s&?"'<>\\]+""")
_equals: Final = re.compile("=|%(?:25){0,2}3[Dd]")
# Matches the JSON escape of a printable ASCII character other than a backslash, or the escape
# "\/", which PHP writes.
_json: Final = re.compile(r"(?P<slashes>\\{1,8})(?:/|u00(?P<code>[2-7][0-9A-Fa-f])(?<!5[Cc]))")


def all_forms(text: str) -> str:
    """Return ``text``, followed by copies of it without JSON escapes and percent-encoding.

    If ``text`` contains JSON escapes, a copy without them is added.  If it contains
    percent-encoding, a percent-decoded copy is added.
    """
    if "\\" in text:
        plain = without_escapes(text)
        text = text if plain == text else f"{text}\n{plain}"
    return f"{text}\n{_decoded(text)}" if "%" in text and _percent(text) else text


def without_escapes(text: str) -> str:
    """Decode the JSON escapes in ``text`` that JSON does not require, such as those of letters."""
    return _json.sub(_character, text) if "\\u00" in text or "\\/" in text else text


def _character(match: re.Match[str]) -> str:
    character = chr(int(match["code"], 16)) if match["code"] else "/"
    return match["slashes"] + character if character == '"' else character


def mask_encoded(text: str, search: Callable[[str], str], mask: str) -> str:
    """Mask the percent-encoded query parameters and URLs in ``text`` that contain a secret.

    ``search`` is the function that masks the secrets in a decoded text.
    """

    def is_secret(part: str) -> bool:
        decoded = _decoded(part)
        return search(decoded) != decoded

    def masked(match: re.Match[str]) -> str:
        part = match[0]
        if not _percent(part) or not is_secret(part):
            return part
        equals = _equals.search(part)
        return (
            mask
            if equals is None or is_secret(part[: equals.start()])
            else part[: equals.end()] + mask
        )

    return _part.sub(masked, text) if _percent(text) else text


def _decoded(text: str) -> str:
    for _ in range(_MOST_TIMES):
        before, text = text, unquote_plus(text)
        if text == before:
            break
    return text
