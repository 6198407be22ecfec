"""Finds secrets that percent-encoding or JSON escapes hide from the other rules.

If JSON escapes hide a secret, the record gets the text without these escapes, in which
the rules have masked the secret.  Percent-encoding is decoded only for the search: the
encoded value of a query parameter, or an encoded URL, is masked as a whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

#: The largest number of times that a text is decoded.
_MOST_TIMES: Final = 3
_percent: Final = re.compile("%[0-9A-Fa-f]{2}").search
# Matches one parameter of a query string, or a URL up to its query string.
_part: Final = re.compile(r"""[^\s&?"'<>\\]+""")
_equals: Final = re.compile("=|%(?:25){0,2}3[Dd]")
# A JSON escape of a printable ASCII character other than a backslash, or PHP's escape "\/".
_json: Final = re.compile(r"(?P<slashes>\\{1,8})(?:/|u00(?P<code>[2-7][0-9A-Fa-f])(?<!5[Cc]))")


def all_forms(text: str) -> str:
    """Return a text, followed by copies of it without JSON escapes and percent-encoding, if any."""
    if "\\" in text:
        plain = without_escapes(text)
        text = text if plain == text else f"{text}\n{plain}"
    return f"{text}\n{_decoded(text)}" if "%" in text and _percent(text) else text


def without_escapes(text: str) -> str:
    """Return a text without the JSON escapes that JSON does not require."""
    return _json.sub(_character, text) if "\\u00" in text or "\\/" in text else text


def _character(match: re.Match[str]) -> str:
    character = chr(int(match["code"], 16)) if match["code"] else "/"
    return match["slashes"] + character if character == '"' else character


def mask_encoded(text: str, search: Callable[[str], str], mask: str) -> str:
    """Mask the percent-encoded parameters and URLs that contain a secret.

    ``search`` masks the secrets in a decoded text.
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
