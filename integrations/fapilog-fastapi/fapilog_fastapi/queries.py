"""Masks the secrets in the query strings of URLs; all other text stays readable."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_plus

from fapilog.processors import RedactProcessor

#: The maximum numbers of characters and parameters of a query string that are logged.  Without
#: limits, a client could block the event loop with a long query string.
MAX_QUERY: Final = 8192
MAX_PARAMETERS: Final = 256

_NAME: Final = "value"  # a field name that redaction does not consider secret
#: The maximum length of a parameter's name that is passed to the cache of ``_is_harmless``.
_MAX_NAME: Final = 64


class _Redaction(threading.local):
    """Stores one ``RedactProcessor`` per thread, because the processor is not thread-safe."""

    def __init__(self) -> None:
        self.processor = RedactProcessor()


_redaction: Final = _Redaction()


@lru_cache(maxsize=1024)
def _is_harmless(name: str) -> bool:
    """Return False if redaction masks a parameter's name, or its value because of the name."""
    pair = {unquote_plus(name, errors="replace"): _NAME}
    return _redaction.processor.redact_mapping(pair) == pair


def redact_query(query: str | bytes) -> str:
    """Return a query string in which secrets are masked.

    Secrets are recognized by the names of parameters and by the format of values.  Names and
    values are decoded before they are checked, so ``p%61ssword=x`` is masked, and a URL
    within a value is searched too.  All other text stays unchanged.  The names are the
    default names of :class:`fapilog.processors.RedactProcessor`; names that you configure are
    masked later, when fapilog processes the record.  Does not block or raise; thread-safe.

    Args:
        query: the query string of the URL or of the ASGI scope, with or without a leading
            ``?``.  A query of more than 8,192 characters or 256 parameters is cut and ends in
            ``...``.
    """
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    mark = "?" if text.startswith("?") else ""
    text = text[len(mark) :]
    kept = text if len(text) <= MAX_QUERY else text[: text.rfind("&", 0, MAX_QUERY) + 1]
    parameters = kept.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]
    cut = "" if len(kept) == len(text) and kept.count("&") < MAX_PARAMETERS else "..."
    masked = "&".join(map(_parameter, parameters))
    # Some secrets, such as URL signatures, are recognized only in the text of a whole query.
    return mark + _text("?" + masked)[1:] + cut


def _parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        decoded = unquote_plus(name, errors="replace")
        shown = _text(decoded)
        return name if shown == decoded else _quoted(shown)
    is_plain = "%" not in value and "+" not in value and len(name) <= _MAX_NAME
    if is_plain and _is_harmless(name):
        return parameter  # its value is checked later, with the whole query
    pair = unquote_plus(name, errors="replace"), unquote_plus(value, errors="replace")
    ((shown_name, shown_value),) = _redaction.processor.redact_mapping(dict([pair])).items()
    if (shown_name, shown_value) == pair:
        return parameter
    if shown_name != pair[0]:
        name = _quoted(shown_name)
    return f"{name}={_quoted(str(shown_value))}"


def _text(text: str) -> str:
    return str(_redaction.processor.redact_mapping({_NAME: text})[_NAME])


def _quoted(text: str) -> str:
    return quote(text, safe="[]:/@?,")
