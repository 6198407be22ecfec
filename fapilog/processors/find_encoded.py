"""Finds secrets in texts that are percent-encoded or contain JSON escapes.

If a text with JSON escapes contains a secret, its copy without these escapes replaces the text,
and the secret is masked in this copy.  Percent-encoding is decoded only for the search.  If the
decoded text contains a secret, the encoded value of the query parameter, or the encoded URL, is
masked completely.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

#: The maximum number of times that a text is decoded, because it may be encoded repeatedly.
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

    Each copy is added only if the text contains such an encoding.
    """
    if "\\" in text:
        plain = without_escapes(text)
        text = text if plain == text else f"{text}\n{plain}"
    return f"{text}\n{_decoded(text)}" if "%" in text and _percent(text) else text


def without_escapes(text: str) -> str:
    """Replace the JSON escapes in ``text`` that are not necessary, such as those of letters."""
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
