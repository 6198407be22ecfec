"""Options of request and response logging, checked when they are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fapilog import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

#: Content types of bodies that are logged where a route is opted in.
BODY_TYPES: Final = (
    "application/json",
    "application/*+json",
    "application/x-www-form-urlencoded",
    "text/plain",
)
#: Bytes of one body that are held at most; the most that one text of a record holds, too.
MAX_BODY: Final = 65_536

# Source: https://www.rfc-editor.org/rfc/rfc9110#name-field-names
_header: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_media_type: Final = re.compile(r"(?:[\w!#$&^.+-]+|\*)/(?:[\w!#$&^.+-]+|\*|\*\+[\w.-]+)")
_path_part: Final = re.compile(
    r"(?P<rest>\*\*|\{\w+:path\})|(?P<any>\*)|(?P<name>\{\w+(?::\w+)?\})|(?P<text>[^*{}]+)"
)


@dataclass(frozen=True)
class PayloadLogging:
    """What of requests and responses is put on the completion record.

    Nothing is by default.  Making one does not block; it is immutable, so any
    number of apps and threads may share it.

    Args:
        request_headers: names of request headers to record, such as
            ``["x-client-version"]``.  Values are redacted by the pipeline, so
            ``authorization`` shows only that there was one.
        response_headers: names of response headers to record.
        request_bodies: paths whose request bodies are recorded, written like
            routes: ``/orders``, ``/orders/{id}``, ``/files/{path:path}``; ``*``
            stands for any part of one segment, ``**`` for any rest.
        response_bodies: paths whose response bodies are recorded.
        body_types: content types of bodies to record; ``*`` stands for any
            type, subtype or, before ``+``, part of it.
        body_limit: bytes of one body that are held at most, 1 to 65,536.
        body_statuses: statuses of the response with which bodies are recorded:
            numbers, and classes such as ``"5xx"``; none means every one.  A
            request without a response counts as failed, whatever is given.

    Raises:
        ConfigurationError: an option is wrong.
    """

    request_headers: Iterable[str] = ()
    response_headers: Iterable[str] = ()
    request_bodies: Iterable[str] = ()
    response_bodies: Iterable[str] = ()
    body_types: Iterable[str] = BODY_TYPES
    body_limit: int = MAX_BODY
    body_statuses: Iterable[int | str] = ()
    _requests: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _responses: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _types: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _statuses: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for option in ("request_headers", "response_headers"):
            self._keep(option, _headers(option, getattr(self, option)))
        for option in ("request_bodies", "response_bodies"):
            self._keep(option, _listed(option, getattr(self, option), '["/orders/{id}"]'))
        self._keep("body_types", _media_types(self.body_types))
        if type(self.body_limit) is not int or not 1 <= self.body_limit <= MAX_BODY:
            msg = f"body_limit must be an integer from 1 to {MAX_BODY} (bytes held of one body)"
            raise ConfigurationError(msg)
        self._keep("_statuses", _statuses(self.body_statuses))
        self._keep("body_statuses", tuple(self.body_statuses))
        self._keep("_requests", _paths("request_bodies", self.request_bodies))
        self._keep("_responses", _paths("response_bodies", self.response_bodies))
        types = "|".join(re.escape(kind).replace(r"\*", "[^/]*") for kind in self.body_types)
        self._keep("_types", re.compile(types or "(?!)"))

    def _keep(self, option: str, value: object) -> None:
        object.__setattr__(self, option, value)

    def wants_request_body(self, scope: Scope) -> bool:
        """Whether the body of this request may be recorded, by its path."""
        return _is_listed(self._requests, scope)

    def wants_response_body(self, scope: Scope) -> bool:
        """Whether the body of the response to this request may be recorded, by its path."""
        return _is_listed(self._responses, scope)

    def wants_type(self, media_type: str) -> bool:
        """Whether a body of this content type, in lower case and without parameters, is."""
        return self._types.fullmatch(media_type) is not None

    def wants_status(self, status: int | None) -> bool:
        """Whether bodies are recorded with this status; None: there was no response."""
        return status is None or not self._statuses or status in self._statuses


def _is_listed(paths: re.Pattern[str] | None, scope: Scope) -> bool:
    if paths is None:
        return False
    path, root = scope.get("path", ""), scope.get("root_path", "")
    if paths.fullmatch(path):
        return True
    # Servers and mounts put the path they are at in front of it.
    return bool(root) and path.startswith(root) and bool(paths.fullmatch(path[len(root) :] or "/"))


def _listed(option: str, values: Any, example: str) -> tuple[str, ...]:
    try:
        listed = () if isinstance(values, (str, bytes)) else tuple(values)
    except TypeError:
        listed = (None,)
    if isinstance(values, (str, bytes)) or not all(isinstance(value, str) for value in listed):
        msg = f"{option} must be a list of strings, such as {example}"
        raise ConfigurationError(msg)
    return listed


def _headers(option: str, values: Any) -> tuple[str, ...]:
    names = _listed(option, values, '["x-client-version"]')
    for name in names:
        if not _header.fullmatch(name) or name == "*":
            msg = f"{option}: {name!r} is no header name; name each header to record, without ':'"
            raise ConfigurationError(msg)
    return tuple(dict.fromkeys(name.lower() for name in names))


def _media_types(values: Any) -> tuple[str, ...]:
    types = tuple(kind.lower() for kind in _listed("body_types", values, '["application/json"]'))
    for kind in types:
        if not _media_type.fullmatch(kind):
            msg = (
                f"body_types: {kind!r} is no content type; write 'application/json', 'text/*' or "
                "'application/*+json', without parameters"
            )
            raise ConfigurationError(msg)
    return types


def _statuses(values: Any) -> frozenset[int]:
    fix = "body_statuses must be a list of statuses and classes, such as [422, '5xx']"
    if isinstance(values, (str, bytes)):
        raise ConfigurationError(fix)
    try:
        listed = tuple(values)
    except TypeError:
        raise ConfigurationError(fix) from None
    statuses: set[int] = set()
    for value in listed:
        if type(value) is int and 100 <= value <= 599:  # noqa: PLR2004 - what HTTP defines
            statuses.add(value)
        elif isinstance(value, str) and re.fullmatch(r"[1-5][xX]{2}", value):
            first = int(value[0]) * 100
            statuses.update(range(first, first + 100))
        else:
            msg = f"{fix}, not {value!r}"
            raise ConfigurationError(msg)
    return frozenset(statuses)


def _paths(option: str, patterns: Iterable[str]) -> re.Pattern[str] | None:
    expressions = [_path_expression(option, pattern) for pattern in patterns]
    return re.compile("|".join(expressions), re.DOTALL) if expressions else None


def _path_expression(option: str, pattern: str) -> str:
    """Return a regular expression that takes time linear to a path, whatever that is."""
    if not pattern.startswith("/"):
        msg = f"{option}: {pattern!r} must begin with '/'; '/**' stands for every path"
        raise ConfigurationError(msg)
    parts = list(_path_part.finditer(pattern))
    if "".join(part[0] for part in parts) != pattern:
        msg = f"{option}: {pattern!r} is no route; write parameters as {{name}} or {{name:path}}"
        raise ConfigurationError(msg)
    wildcards = [part for part in parts if part["rest"]]
    if len(wildcards) > 1 or re.search(r"(?:\*|\})[^/]*(?:\*|\{)", pattern.replace("**", "*")):
        msg = f"{option}: {pattern!r} has two wildcards in a segment, or two that span segments"
        raise ConfigurationError(msg)
    expression = "".join(
        re.escape(part["text"]) if part["text"]
        else ".*" if part["rest"]
        else "[^/]+" if part["name"]
        else "[^/]*"
        for part in parts
    )  # fmt: skip
    return expression[: -len("/.*")] + "(?:/.*)?" if expression.endswith("/.*") else expression
