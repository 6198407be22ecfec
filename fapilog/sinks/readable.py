"""Shortens values for a person: numbers, ids, and the record of a completed HTTP request.

The console's format ``pretty`` uses this module.  JSON lines contain every value in full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fapilog.sinks.lines import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BARE: Final = re.compile(r"[^\s\"'=,{}\[\]\\]+")
_SHORT_ID: Final = 8  # enough digits to distinguish the ids on one screen
#: Matches a token of compact JSON: a string and the colon after it, a comma, or anything else.
_JSON_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")(:?)|(,)|[^",]+')
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE
)
_HEX: Final = re.compile(r"[0-9a-f]{16,128}", re.IGNORECASE)
_ID_NAME: Final = re.compile(r"(?:.*[._-])?(?:id|Id|ID)|.*[a-z](?:Id|ID)", re.DOTALL)
#: Matches the names of OpenTelemetry's durations in seconds, such as ``db.query.duration``.
#: Source: https://opentelemetry.io/docs/specs/semconv/general/metrics/#units
_SECONDS: Final = re.compile(r"(?:http|db|rpc|messaging|gen_ai|dns|faas)\.[a-z_.]*duration")
_MINUTE: Final = 60
_PRECISE: Final = 10

#: The attributes that are not shown with the one-line summary of an HTTP request, because the
#: summary contains them or because they describe only the transport.
#: Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
_OF_A_REQUEST: Final = frozenset(
    {
        "client.address",
        "http.request.body.size",
        "http.request.method",
        "http.response.body.size",
        "http.response.status_code",
        "http.route",
        "http.server.request.duration",
        "network.protocol.name",
        "network.protocol.version",
        "server.address",
        "server.port",
        "url.path",
        "url.query",
        "url.scheme",
        "user_agent.original",
    }
)


@dataclass(frozen=True)
class Summary:
    """The strings of the line that shows a completed HTTP request or a closed WebSocket.

    Attributes:
        target: the method and the path with its query, such as ``GET /orders/7?page=2``.
        code: the HTTP status, the WebSocket's close code, or "" if the record has neither.
        ending: the words after the code, such as ``disconnected``, or "".
        duration: the duration as text, such as ``39 ms``.
        seconds: the duration in seconds.
        shown: the names of the attributes that the summary replaces, so that they are not
            shown a second time.
    """

    target: str
    code: str
    ending: str
    duration: str
    seconds: float
    shown: frozenset[str]


def summary_of(body: object, attributes: Mapping[str, Any]) -> Summary | None:
    """Return the summary of a record about a completed request, or None for other records.

    Such a record has the attributes of OpenTelemetry's HTTP conventions.  Its body is the
    method, the route or the path, the code, and sometimes how the request ended, such as
    ``GET /orders/{id} 200``.
    """
    seconds = attributes.get("http.server.request.duration")
    path, where = attributes.get("url.path"), attributes.get("http.route")
    if not isinstance(seconds, (int, float)) or not isinstance(path, str):
        return None
    method, _, rest = body.partition(" ") if isinstance(body, str) else ("", "", "")
    where = where if isinstance(where, str) else path
    if not rest.startswith(where):
        return None
    query = attributes.get("url.query")
    target = f"{method} {path}?{query}" if query else f"{method} {path}"
    code, _, ending = rest[len(where) :].strip().partition(" ")
    if not code.isdecimal():
        code, ending = "", f"{code} {ending}".strip()
    shown = _OF_A_REQUEST
    if attributes.get("error.type") == code:
        shown |= {"error.type"}
    return Summary(target, code, ending, duration_text(seconds), seconds, shown)


def value_text(name: str, value: Any, more: str = "…") -> str:
    """Return an attribute's value as short text for a person.

    A UUID is shortened to eight digits.  A long hexadecimal number is also shortened to eight
    digits if the attribute's name ends with ``id``.  A float is rounded, and a
    duration gets its unit.  A string is quoted if it is empty or contains characters such as a
    space or ``=``, so that a reader sees where it ends.

    Args:
        name: the attribute's name.
        value: the attribute's value.
        more: the sign that replaces the omitted digits, such as ``…``.
    """
    if isinstance(value, float):
        return duration_text(value) if _SECONDS.fullmatch(name) else number_text(value)
    if not isinstance(value, str):
        return json_text(value)
    uuid = _UUID.fullmatch(value)
    if uuid or (_HEX.fullmatch(value) and _ID_NAME.fullmatch(name)):
        # UUIDs of versions 6 and 7 begin with the time, so the first digits of recent ids are
        # almost equal.  Show the last digits.
        is_late = uuid is not None and uuid[1] in "67"
        return more + value[-_SHORT_ID:] if is_late else value[:_SHORT_ID] + more
    if _BARE.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_parts(text: str) -> Iterator[tuple[bool, str]]:
    """Split compact JSON into parts, and add a space after each comma and colon.

    Yields pairs: whether the part is a key of an object, and the part.  If a line has to be
    broken, it should be broken before a part that begins with a space.
    """
    space = ""
    for token in _JSON_TOKEN.finditer(text):
        string, colon, comma = token.groups()
        yield bool(colon), space + (string or token[0])
        space = " " if comma else ""
        if colon:
            yield False, ": "


def number_text(value: float) -> str:
    """Return a rounded float: 0.001823423423 becomes ``0.001823``.

    A number of 1 or more is rounded to three decimals, and a smaller number is rounded to
    four significant digits.
    """
    if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
        return json_text(value)
    exact = repr(value)
    short = f"{value:.4g}" if 0 < abs(value) < 1 else repr(round(value, 3))
    return short if len(short) < len(exact) else exact


def duration_text(seconds: float) -> str:
    """Return a duration with its unit: ``0.82 ms``, ``39 ms``, ``1.24 s``, ``2 min 5 s``."""
    milliseconds = seconds * 1000
    if not 0 <= seconds < 1e9:  # noqa: PLR2004 - not a duration
        return f"{number_text(float(seconds))} s"
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < _PRECISE:
        return f"{milliseconds:.1f} ms"
    if round(milliseconds) < 1000:  # noqa: PLR2004 - milliseconds in a second
        return f"{milliseconds:.0f} ms"
    if round(seconds, 2) < _MINUTE:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest} s"


def short_trace(trace_id: str) -> str:
    """Return the first eight digits of a trace id."""
    return trace_id[:_SHORT_ID]
