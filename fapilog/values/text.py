"""Shortens strings and names, and converts unusual numbers to strings.

Every string in a snapshot that is too long is truncated by :func:`fit`, which ends it with
``…`` or with the original length, such as ``…(truncated, 90000 characters)``.
"""

from __future__ import annotations

import re
from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Final

from fapilog.values.plain import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fapilog.record import AnyValue

#: The maximum number of bits of an integer that str() can always convert.  A larger integer may
#: have more than 640 digits, the lowest limit that an application can set with
#: ``sys.set_int_max_str_digits()``.
_DECIMAL_BITS: Final = 2126
#: The maximum number of characters that are removed from the end of a truncated string, so that
#: the string does not end with half of a word.
_LONGEST_WORD: Final = 512
_JSON_NAMES: Final = {None: "null", True: "true", False: "false"}


def utf8_size(text: str) -> int:
    """Return the number of UTF-8 bytes of a string, which must not contain lone surrogates."""
    return len(text) if text.isascii() else len(text.encode())


def without_last_word(head: str) -> str:
    """Return truncated text without its last word, which the truncation may have split.

    Redaction runs later and does not recognise half of a token, or a password in a URL whose host
    was cut off.  The function looks for a space only in the last quarter of the text, and in at
    most 512 characters.  If these characters contain no space, all of them are removed.
    """
    last = max(len(head) - _LONGEST_WORD, len(head) * 3 // 4)
    for place in range(len(head) - 1, last - 1, -1):
        if head[place].isspace():
            return head[: place + 1]
    return head[:last]


def fit(
    text: str,
    limit: int,
    room: int | None = None,
    end: Callable[[str], str] = without_last_word,
) -> str:
    """Return ``text`` with lone surrogates escaped, and truncated if it is too long.

    A truncated string ends with its original length, such as ``…(truncated, 90000 characters)``, or
    only with ``…`` if the limit is too low.

    Args:
        text: any string.
        limit: the maximum number of characters in the result.
        room: the maximum number of UTF-8 bytes in the result, or None for no limit.
        end: the function that shortens a truncated string to a suitable end, such as the end of a
            word.
    """
    head = text[:limit]
    if not head.isascii():
        head = head.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit >= len(head) and (room is None or utf8_size(head) <= room):
        return head
    mark = f"…(truncated, {len(text)} characters)"
    if len(mark) > limit or (room is not None and len(mark.encode()) > room):
        mark = "…"
    head = head[: max(limit - len(mark), 0)]
    if room is not None:
        head = head.encode()[: max(room - len(mark.encode()), 0)].decode("utf-8", "ignore")
    return (end(head) + mark)[:limit]


#: Truncates a string that has already been redacted, so it is safe to split the last word.
fit_redacted = partial(fit, end=str)


def name_of(key: AnyValue, taken: Collection[str]) -> str:
    """Turn the key of a dict into a valid name that ``taken`` does not contain."""
    if key is None or isinstance(key, bool):
        key = _JSON_NAMES[key]
    elif isinstance(key, bytes):
        key = key.decode("utf-8", "backslashreplace")
    return free_name(_fit_name(str(key), MAX_NAME) or "(empty)", taken)


def free_name(name: str, taken: Collection[str]) -> str:
    """Return ``name``, or ``name#number`` if ``taken`` already contains ``name``."""
    number, free = len(taken) + 1, name
    while free in taken:
        free = f"{_fit_name(name, MAX_NAME - 8)}#{number}"
        number += 1
    return free


def _fit_name(name: str, limit: int) -> str:
    """Truncate a long name but keep its last words, such as ``password``.

    These words show whether the value with this name is secret.
    """
    if len(name) <= limit or _not_in_names(name, max(len(name) - _LONGEST_WORD, 0)):
        return fit(name, limit)
    last = _last_words(name, len(name) - _LAST_WORDS)
    end = last[0] if last else ""
    return fit(name, limit - len(end)) + end


#: The number of characters at the end of a long name that are searched for its last words.
_LAST_WORDS: Final = 96
# Matches the last words of a name.  They contain only letters, except for up to two digits at the
# end, because a word with more digits or other characters could be the end of a token.
_last_words: Final = re.compile(
    r"(?:(?:[ ._/\[-]{1,2}|(?<=[a-z])(?=[A-Z]))[A-Z]{0,20}[a-z]{0,20}){1,4}[0-9]{0,2}[\]]{0,2}\Z"
).search
# Finds a character that is unusual in a name.  A name that contains such a character is treated as
# a string, which may contain a secret.
_not_in_names: Final = re.compile(r"[^\w ./\[\]-]").search


def non_finite_text(value: float) -> str:
    """Return the string for NaN or an infinity in the proto3 JSON mapping."""
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def integer_text(value: int, limit: int) -> str:
    """Return an integer in decimal, or in hexadecimal if it may have more than 640 digits.

    If the hexadecimal text would exceed ``limit`` characters, it is truncated, and ends with the
    number of bits, such as ``…(truncated, 5000000 bits)``.
    """
    bits = value.bit_length()
    if bits <= _DECIMAL_BITS:
        return str(value)
    if bits <= 4 * limit:
        return hex(value)
    return f"{hex(value >> (bits - 256))}…(truncated, {bits} bits)"
