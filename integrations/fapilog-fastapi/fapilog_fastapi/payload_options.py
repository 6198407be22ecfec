"""The options for logging headers and bodies, in the class ``PayloadLogging``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fapilog import ConfigurationError
from fapilog.options.checks import names, refuse, whole

if TYPE_CHECKING:
    from starlette.types import Scope

#: The default of the option ``body_types``: the content types of bodies that are logged.
BODY_TYPES: Final = (
    "application/json",
    "application/*+json",
    "application/x-www-form-urlencoded",
    "text/plain",
)
#: The maximum number of bytes of a body that are logged.  It equals fapilog's default limit for
#: the length of a string.
MAX_BODY: Final = 65_536
_BODY_LIMIT: Final = whole(1, MAX_BODY, "bytes")

# The characters that are allowed in the name of a header.
# Source: https://www.rfc-editor.org/rfc/rfc9110#name-field-names
_header: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_media_type: Final = re.compile(r"(?:[\w!#$&^.+-]+|\*)/(?:[\w!#$&^.+-]+|\*|\*\+[\w.-]+)")
_path_part: Final = re.compile(
    r"(?P<rest>\*\*|\{\w+:path\})|(?P<any>\*)|(?P<name>\{\w+(?::\w+)?\})|(?P<text>[^*{}]+)"
)


@dataclass(frozen=True)
class PayloadLogging:
    """Selects the headers and bodies that completion records contain.

    By default, headers and bodies are not logged.

    The constructor does not block; the object is immutable, so any number of applications and
    threads may share it.

    Args:
        request_headers: the names of request headers to log, such as
            ``["x-client-version"]``.  Secret values are masked: ``authorization`` shows only
            that the request had this header.
        response_headers: the names of response headers to log.
        request_bodies: the paths whose request bodies are logged, written like routes:
            ``/orders``, ``/orders/{id}``, ``/files/{path:path}``; ``*`` matches any text
            without a slash, and ``**`` matches any text.
        response_bodies: the paths whose response bodies are logged.
        body_types: the content types of bodies to log; ``*`` matches any text without a slash,
            as in ``text/*`` or ``application/*+json``.
        body_limit: the maximum number of bytes to log per body, from 1 to 65,536.
        body_statuses: the response statuses for which bodies are logged: numbers, and classes
            such as ``"5xx"``; an empty list means every status.  The body of a request
            without a response is always logged.

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
            self._keep(option, names(option, getattr(self, option), '["/orders/{id}"]'))
        self._keep("body_types", _media_types(self.body_types))
        _BODY_LIMIT.check("body_limit", self.body_limit)
        self._keep("_statuses", _statuses(self.body_statuses))
        self._keep("body_statuses", tuple(self.body_statuses))
        self._keep("_requests", _paths("request_bodies", self.request_bodies))
        self._keep("_responses", _paths("response_bodies", self.response_bodies))
        types = "|".join(re.escape(kind).replace(r"\*", "[^/]*") for kind in self.body_types)
        self._keep("_types", re.compile(types or "(?!)"))

    def _keep(self, option: str, value: object) -> None:
        object.__setattr__(self, option, value)

    def wants_request_body(self, scope: Scope) -> bool:
        """Return whether the option ``request_bodies`` matches the path of this request."""
        return _is_listed(self._requests, scope)

    def wants_response_body(self, scope: Scope) -> bool:
        """Return whether the option ``response_bodies`` matches the path of this request."""
        return _is_listed(self._responses, scope)

    def wants_type(self, media_type: str) -> bool:
        """Return whether bodies of this type (lower case, without parameters) may be logged."""
        return self._types.fullmatch(media_type) is not None

    def wants_status(self, status: int | None) -> bool:
        """Return whether bodies are logged for a status; None means that there was no response."""
        return status is None or not self._statuses or status in self._statuses


def _is_listed(paths: re.Pattern[str] | None, scope: Scope) -> bool:
    if paths is None:
        return False
    path, root = scope.get("path", ""), scope.get("root_path", "")
    if paths.fullmatch(path):
        return True
    # The path may begin with ``root_path``, which a proxy or a mount adds to the path of a
    # route.
    return bool(root) and path.startswith(root) and bool(paths.fullmatch(path[len(root) :] or "/"))


def _headers(option: str, values: Any) -> tuple[str, ...]:
    found = names(option, values, '["x-client-version"]')
    for name in found:
        if not _header.fullmatch(name) or name == "*":
            _refuse(option, name, "the name of a header; name each header to record, without ':'")
    return tuple(dict.fromkeys(name.lower() for name in found))


def _media_types(values: Any) -> tuple[str, ...]:
    types = tuple(kind.lower() for kind in names("body_types", values, '["application/json"]'))
    for kind in types:
        if not _media_type.fullmatch(kind):
            fix = "write 'application/json', 'text/*' or 'application/*+json', without parameters"
            _refuse("body_types", kind, f"a content type; {fix}")
    return types


def _statuses(values: Any) -> frozenset[int]:
    fix = "use a list of statuses and classes, such as [422, '5xx']"
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        refuse("body_statuses", values, fix)
    statuses: set[int] = set()
    for value in values:
        if type(value) is int and 100 <= value <= 599:  # noqa: PLR2004 - HTTP's range
            statuses.add(value)
        elif isinstance(value, str) and re.fullmatch(r"[1-5][xX]{2}", value):
            first = int(value[0]) * 100
            statuses.update(range(first, first + 100))
        else:
            refuse("body_statuses", value, fix)
    return frozenset(statuses)


def _refuse(option: str, item: str, expected: str) -> NoReturn:
    msg = f"{option}: {item!r} is not {expected}"
    raise ConfigurationError(msg, option)


def _paths(option: str, patterns: Iterable[str]) -> re.Pattern[str] | None:
    expressions = [_path_expression(option, pattern) for pattern in patterns]
    return re.compile("|".join(expressions), re.DOTALL) if expressions else None


def _path_expression(option: str, pattern: str) -> str:
    """Return the regular expression for a path pattern such as ``/orders/{id}``.

    Matching a path takes time linear in the length of the path, because patterns that would
    need backtracking are refused.
    """
    if not pattern.startswith("/"):
        _refuse(option, pattern, "a path; begin it with '/'; '/**' stands for every path")
    parts = list(_path_part.finditer(pattern))
    if "".join(part[0] for part in parts) != pattern:
        _refuse(option, pattern, "a route; write parameters as {name} or {name:path}")
    wildcards = [part for part in parts if part["rest"]]
    if len(wildcards) > 1 or re.search(r"(?:\*|\})[^/]*(?:\*|\{)", pattern.replace("**", "*")):
        msg = f"{option}: {pattern!r} has two wildcards in one segment, or two '**'; remove one"
        raise ConfigurationError(msg, option)
    expression = "".join(
        re.escape(part["text"]) if part["text"]
        else ".*" if part["rest"]
        else "[^/]+" if part["name"]
        else "[^/]*"
        for part in parts
    )  # fmt: skip
    return expression[: -len("/.*")] + "(?:/.*)?" if expression.endswith("/.*") else expression
