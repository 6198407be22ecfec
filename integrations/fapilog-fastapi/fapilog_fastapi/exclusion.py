"""Decides which requests are excluded from logging.

As in OpenTelemetry's instrumentation, regular expressions select the excluded URLs.  They are
searched for anywhere in a URL without its query string.  An expression that starts with one
``/`` is searched for in the path only, so that a client cannot exclude its requests with a
forged ``Host`` header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from fapilog import ConfigurationError
from fapilog_fastapi.attributes import headers_of

if TYPE_CHECKING:
    from typing import TypeAlias

    from starlette.types import Scope

    Expression: TypeAlias = str | re.Pattern[str]

#: The environment variables with the excluded URLs; the first variable that is set is used.
#: OpenTelemetry's instrumentation reads the same variables in the same order.
EXCLUDED_URLS: Final = ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS")


class Exclusion:
    """The regular expressions of the excluded URLs.

    Expressions that start with one ``/`` are searched for in the path only.
    """

    def __init__(self, patterns: Sequence[re.Pattern[str]]) -> None:
        self._paths = [p for p in patterns if _is_for_paths(p.pattern)]
        self._urls = [p for p in patterns if not _is_for_paths(p.pattern)]

    def matches(self, scope: Scope) -> bool:
        """Return whether the request with this ASGI scope is excluded."""
        if any(pattern.search(scope["path"]) for pattern in self._paths):
            return True
        url = _url(scope) if self._urls else ""
        return any(pattern.search(url) for pattern in self._urls)


def make_exclusion(given: Expression | Iterable[Expression] | None) -> Exclusion | None:
    """Return an ``Exclusion`` for the option ``exclude``, or None if no URLs are excluded.

    Args:
        given: a string with expressions that are separated by commas, a compiled expression, or
            an iterable of expressions; None means the environment variables in
            :data:`EXCLUDED_URLS`.

    Raises:
        ConfigurationError: ``exclude`` is not a regular expression.
    """
    if given is None:
        given = next((os.environ[name] for name in EXCLUDED_URLS if name in os.environ), "")
    if isinstance(given, str):
        given = given.split(",")
    parts: list[object] = list(given) if isinstance(given, Iterable) else [given]
    patterns = [_compiled(part) for part in parts if not isinstance(part, str) or part.strip()]
    return Exclusion(patterns) if patterns else None


def _compiled(part: object) -> re.Pattern[str]:
    if isinstance(part, re.Pattern) and isinstance(part.pattern, str):
        return part
    if not isinstance(part, str):
        msg = f"exclude: {part!r}: use regular expressions, such as '/health' or ['/health']"
        raise ConfigurationError(msg)
    try:
        return re.compile(part.strip())
    except re.error as error:
        msg = f"exclude: {part!r} is not a regular expression: {error}"
        raise ConfigurationError(msg) from None


def _is_for_paths(expression: str) -> bool:
    # An expression that starts with two slashes matches a host, such as //example.com/health.
    return expression.startswith("/") and not expression.startswith("//")


def _url(scope: Scope) -> str:
    """Return a request's URL in the form that OpenTelemetry compares with excluded URLs."""
    host = dict(headers_of(scope)).get(b"host", b"").decode("latin-1")
    if not host:
        name, port = scope.get("server") or ("", None)
        host = f"{name}:{port}" if port else str(name)
    return f"{scope.get('scheme', 'http')}://{host}{scope['path']}"
