"""Turns the first bytes of a request or response body into a value that can be logged.

The value is redacted later.  Redaction recognizes most secrets by the names of their fields,
so JSON and forms are logged as fields, not as text.  Of a JSON document that was cut off,
such as ``{"login": {"password": ["a``, only complete fields are logged.
"""

from __future__ import annotations

import codecs
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import from_json

#: Returned instead of a value if no part of a body may be logged.  None would mean JSON's null.
NOTHING: Final = object()
#: The maximum number of fields of a form that are logged; further fields are omitted.
MAX_FIELDS: Final = 256

# Maps the accepted ``charset`` labels of content types to Python codecs.  Clients choose the
# label, and codecs.lookup() imports a module named after it, so other labels are not looked up.
# Source: https://encoding.spec.whatwg.org/#names-and-labels
_CHARSETS: Final = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "cp1252", "ascii": "cp1252",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "windows-1252": "cp1252", "cp1252": "cp1252",
    "iso-8859-2": "iso8859-2", "iso-8859-15": "iso8859-15", "windows-1250": "cp1250",
    "windows-1251": "cp1251", "koi8-r": "koi8-r", "utf-16": "utf-16-le", "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be", "shift_jis": "cp932", "euc-jp": "euc_jp", "euc-kr": "cp949",
    "gbk": "gbk", "gb2312": "gbk", "gb18030": "gb18030", "big5": "big5",
}  # fmt: skip
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def codec_of(charset: str, data: bytes = b"") -> str:
    """Return the Python codec for a ``charset`` label, or UTF-8 if the label is unknown.

    A byte order mark at the beginning of ``data`` overrides the label.  The codec ``utf-16``
    is never returned, because its incremental decoder raises an error without a byte order
    mark.
    """
    for mark, codec in _MARKS.items():
        if data.startswith(mark):
            return codec
    return _CHARSETS.get(charset.strip().strip("'\"").lower(), "utf-8")


def content_of(data: bytes, kind: str, charset: str, *, whole: bool) -> tuple[Any, bool]:
    """Return the value to log for a body, and whether the value represents the complete body.

    Takes time proportional to the size of ``data``: about a millisecond for 64 KB.  Never
    raises; thread-safe.

    Args:
        data: the first bytes of the body, or all of them.
        kind: ``json``, ``form`` or ``text``.
        charset: the ``charset`` label of the content type; undecodable bytes become U+FFFD.
        whole: whether ``data`` is the complete body.

    Returns:
        The value, or :data:`NOTHING` if no part of the body can be logged safely; and whether
        the value represents the complete body.
    """
    codec = codec_of(charset, data)
    # Truncated data may end within a character.  An incremental decoder omits this character
    # instead of replacing it with U+FFFD.
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    text = decoder.decode(data, final=whole).lstrip("\ufeff")
    # Clients send JSON with other content types too: ``curl -d`` declares all data as a form.
    if kind == "json" or text.lstrip()[:1] in {"{", "["}:
        return _json(text, whole=whole)
    if kind == "form":
        return _form(text, codec, whole=whole)
    return _text(text, whole=whole)


def _json(text: str, *, whole: bool) -> tuple[Any, bool]:
    if not whole:  # remove a number at the end: it may be incomplete
        text = text.rstrip("0123456789+-.eE")
    try:
        # ``allow_partial`` omits an incomplete name, string or literal at the end of the text.
        return from_json(text, allow_partial=not whole), whole
    except ValueError:
        return NOTHING, False


def _form(text: str, codec: str, *, whole: bool) -> tuple[Any, bool]:
    if not whole:
        text = text[: max(text.rfind("&"), 0)]
    written = text.split("&", MAX_FIELDS)
    complete = whole and len(written) <= MAX_FIELDS
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(
        "&".join(written[:MAX_FIELDS]), keep_blank_values=True, encoding=codec, errors="replace"
    ):
        fields.setdefault(name, []).append(value)
    if not fields and not whole:
        return NOTHING, False
    return {name: v[0] if len(v) == 1 else v for name, v in fields.items()}, complete


def _text(text: str, *, whole: bool) -> tuple[Any, bool]:
    if "\0" in text:
        return NOTHING, False
    if not whole:  # omit the last word: redaction might not recognize half a secret
        words = text.rsplit(None, 1)
        text = text.rstrip() if text[-1:].isspace() else "".join(words[: len(words) - 1])
        if not text:
            return NOTHING, False
    return text, whole
