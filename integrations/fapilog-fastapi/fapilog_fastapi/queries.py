"""Masks the secrets in query strings and leaves everything else readable."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_plus

from fapilog.processors import RedactProcessor

#: The maximum length of a query string, in characters and in parameters; the remainder is
#: cut off, so a client cannot keep the event loop busy.
MAX_QUERY: Final = 8192
MAX_PARAMETERS: Final = 256

_NAME: Final = "value"  # a name that is not secret
#: The maximum length of a name whose check is cached.
_MAX_NAME: Final = 64


class _Redaction(threading.local):
    """One processor per thread, because a processor is not thread-safe."""

    def __init__(self) -> None:
        self.processor = RedactProcessor()


_redaction: Final = _Redaction()


@lru_cache(maxsize=1024)
def _is_harmless(name: str) -> bool:
    """Whether a name, as written in the query, is not secret and contains no secret."""
    pair = {unquote_plus(name, errors="replace"): _NAME}
    return _redaction.processor.redact_mapping(pair) == pair


def redact_query(query: str | bytes) -> str:
    """Return a query string with masked secrets, which are found by name and by shape.

    Names and values are decoded before they are checked, so ``p%61ssword=x`` is
    masked, and a URL within a value is searched too.  Everything else stays
    unchanged.  Uses the default names of
    :class:`fapilog.processors.RedactProcessor`; the pipeline later masks the names
    that you configure.  Does not block or raise; thread-safe.

    Args:
        query: the query string of the URL or of the ASGI scope, with or without
            a leading ``?``.  A query of more than 8,192 characters or 256 parameters
            is cut and ends in ``...``.
    """
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    mark = "?" if text.startswith("?") else ""
    text = text[len(mark) :]
    kept = text if len(text) <= MAX_QUERY else text[: text.rfind("&", 0, MAX_QUERY) + 1]
    parameters = kept.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]
    cut = "" if len(kept) == len(text) and kept.count("&") < MAX_PARAMETERS else "..."
    masked = "&".join(map(_parameter, parameters))
    # The whole query is searched too, because URL signatures span several parameters.
    return mark + _text("?" + masked)[1:] + cut


def _parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        decoded = unquote_plus(name, errors="replace")
        shown = _text(decoded)
        return name if shown == decoded else _quoted(shown)
    is_plain = "%" not in value and "+" not in value and len(name) <= _MAX_NAME
    if is_plain and _is_harmless(name):
        return parameter  # redact_query() also searches the whole query
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
