"""Query strings without their secrets, readable otherwise."""

from __future__ import annotations

import threading
from typing import Final
from urllib.parse import quote, unquote_plus

from fapilog.processors import RedactProcessor

#: Characters and parameters of a query string that are looked at; what is beyond
#: is cut off, so that nobody can keep an event loop busy with them.
MAX_QUERY: Final = 8192
MAX_PARAMETERS: Final = 256

_NAME: Final = "value"  # a name that is not secret
_MAX_NAMES: Final = 1024
_MAX_NAME: Final = 64


class _Redaction(threading.local):
    """A processor a thread: one belongs to a single worker."""

    def __init__(self) -> None:
        self.processor = RedactProcessor()
        # Names, as written, that neither are nor hold a secret.
        self.harmless: set[str] = set()

    def is_harmless(self, name: str) -> bool:
        """Whether the name alone gives no reason to mask a value."""
        if name in self.harmless:
            return True
        pair = {unquote_plus(name, errors="replace"): _NAME}
        if self.processor.redact_mapping(pair) != pair:
            return False
        if len(self.harmless) >= _MAX_NAMES:
            self.harmless.clear()
        if len(name) <= _MAX_NAME:
            self.harmless.add(name)
        return True


_redaction: Final = _Redaction()


def redact_query(query: str | bytes) -> str:
    """Return a query string with its secrets masked, by name and by what they look like.

    Names and values are decoded before they are judged, so ``p%61ssword=x`` is
    found, and a link within a value is searched too.  What is not secret stays
    as it was written.  Uses the default names of
    :class:`fapilog.processors.RedactProcessor`; names of your own are masked by
    the pipeline.  Does not block or raise; thread-safe.

    Args:
        query: as in the URL or in the ASGI scope, with or without a leading
            ``?``.  Beyond 8,192 characters or 256 parameters it is cut, which
            ``...`` at its end shows.
    """
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    mark = "?" if text.startswith("?") else ""
    text = text[len(mark) :]
    kept = text if len(text) <= MAX_QUERY else text[: text.rfind("&", 0, MAX_QUERY) + 1]
    parameters = kept.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]
    cut = "" if len(kept) == len(text) and kept.count("&") < MAX_PARAMETERS else "..."
    masked = "&".join(map(_parameter, parameters))
    # As a whole as well, where signatures of URLs are recognised.
    return mark + _text("?" + masked)[1:] + cut


def _parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        decoded = unquote_plus(name, errors="replace")
        shown = _text(decoded)
        return name if shown == decoded else _quoted(shown)
    if "%" not in value and "+" not in value and _redaction.is_harmless(name):
        return parameter  # its value is searched with the whole
    pair = unquote_plus(name, errors="replace"), unquote_plus(value, errors="replace")
    ((shown_name, shown_value),) = _redaction.processor.redact_mapping(dict([pair])).items()
    if (shown_name, shown_value) == pair:
        return parameter
    if shown_name == pair[0]:
        return f"{name}={_quoted(str(shown_value))}"
    return f"{_quoted(shown_name)}={_quoted(str(shown_value))}"


def _text(text: str) -> str:
    return str(_redaction.processor.redact_mapping({_NAME: text})[_NAME])


def _quoted(text: str) -> str:
    return quote(text, safe="[]:/@?,")
