"""What ``install`` and ``FapilogMiddleware`` may be told, checked once, at start.

A wrong option raises here, with its name and the fix; what runs for each
request reads attributes that are known to be right.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

from fapilog import ConfigurationError
from fapilog.options.explain import closest
from fapilog.severity import OFF, parse_severity
from fapilog_fastapi.metrics import RequestMetrics
from fapilog_fastapi.payloads import PayloadLogging

if TYPE_CHECKING:
    from typing import TypeAlias

    from starlette.requests import HTTPConnection

    from fapilog_fastapi.exclusion import Expression

    Fields: TypeAlias = Mapping[str, Any] | None
    Hook: TypeAlias = Callable[[HTTPConnection], Fields | Awaitable[Fields]]

_CLASSES: Final = {"1xx": 100, "2xx": 200, "3xx": 300, "4xx": 400, "5xx": 500}
_STATUSES: Final = range(100, 600)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_DEFAULT_SEVERITY: Final[dict[int | str, int | str]] = {"4xx": "WARN", "5xx": "ERROR"}


@dataclass(frozen=True)
class DebugOnError:
    """How debug records of a request wait until it is known whether it fails.

    Args:
        level: lowest severity that waits.
        records: records that wait at most, for each request.
        size: bytes they take at most, about.
        seconds: how long a record waits at most.
        status: lowest status of a response that counts as a failure.
        sampled: let them through at once where the request's trace is
            sampled, so that every kept trace has its debug records.

    Raises:
        ConfigurationError: a value is out of range.
    """

    level: int | str = "DEBUG"
    records: int = 1000
    size: int = 1 << 20
    seconds: float = 60.0
    status: int = 500
    sampled: bool = False

    def __post_init__(self) -> None:
        try:
            parse_severity(self.level)
        except ValueError as error:
            msg = f"debug_on_error: level: {error}"
            raise ConfigurationError(msg) from None
        # As fapilog.hold() has them: what that refuses would fail with each request.
        for name in ("records", "size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                _refuse(f"debug_on_error: {name}", value, "a whole number above 0")
        seconds = self.seconds
        if type(seconds) not in {int, float} or not isfinite(seconds) or seconds <= 0:
            _refuse("debug_on_error: seconds", seconds, "a number of seconds above 0")
        status: object = self.status
        if not isinstance(status, int) or status not in _STATUSES:
            _refuse("debug_on_error: status", status, "a status from 100 to 599")
        if not isinstance(self.sampled, bool):
            _refuse("debug_on_error: sampled", self.sampled, "True or False")


class OptionNames(TypedDict, total=False):
    """The options by name, for type checkers; see :class:`Options`."""

    request_id_header: str | None
    trace_headers: bool
    trace_context: bool
    context: Hook | None
    exclude: Expression | Iterable[Expression] | None
    sample: float
    slow: float | None
    severity: Mapping[int | str, int | str] | None
    replace_access_log: bool
    validation_inputs: bool
    debug_on_error: bool | DebugOnError
    payloads: PayloadLogging | None
    metrics: bool | RequestMetrics


@dataclass(frozen=True)
class Options:
    """Options of the middleware; their meaning is told at ``install``."""

    request_id_header: str | None = "X-Request-ID"
    trace_headers: bool = False
    trace_context: bool = True
    context: Hook | None = None
    exclude: Expression | Iterable[Expression] | None = None
    sample: float = 1.0
    slow: float | None = None
    severity: Mapping[int | str, int | str] | None = None
    replace_access_log: bool = True
    validation_inputs: bool = False
    debug_on_error: bool | DebugOnError = False
    payloads: PayloadLogging | None = None
    metrics: bool | RequestMetrics = False

    def __post_init__(self) -> None:
        for name in ("trace_headers", "trace_context", "replace_access_log", "validation_inputs"):
            if not isinstance(getattr(self, name), bool):
                _refuse(name, getattr(self, name), "True or False")
        header = self.request_id_header
        if header is not None and not (isinstance(header, str) and _TOKEN.fullmatch(header)):
            _refuse("request_id_header", header, "the name of a header, or None")
        if self.context is not None and not callable(self.context):
            _refuse("context", self.context, "a function (request) -> fields")
        if not _is_number(self.sample) or not 0 <= self.sample <= 1:
            _refuse("sample", self.sample, "a ratio from 0 to 1")
        if self.slow is not None and (not _is_number(self.slow) or self.slow <= 0):
            _refuse("slow", self.slow, "seconds above 0, or None")
        if not isinstance(self.debug_on_error, (bool, DebugOnError)):
            _refuse("debug_on_error", self.debug_on_error, "True, False or a DebugOnError")
        if self.payloads is not None and not isinstance(self.payloads, PayloadLogging):
            _refuse("payloads", self.payloads, "a PayloadLogging, or None")
        if not isinstance(self.metrics, (bool, RequestMetrics)):
            _refuse("metrics", self.metrics, "True, False or a RequestMetrics")

    @property
    def hold(self) -> DebugOnError | None:
        """What holds debug records back, None when nothing does."""
        if self.debug_on_error is True:
            return DebugOnError()
        return self.debug_on_error or None


def make_options(options: Mapping[str, Any]) -> Options:
    """Return checked options.

    Raises:
        ConfigurationError: an option is wrong or unknown; names it and the fix.
    """
    known = [field.name for field in fields(Options)]
    for name in options:
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            msg = f"{name}: there is no such option; {hint}"
            raise ConfigurationError(msg)
    return Options(**options)


def severity_table(given: Mapping[int | str, int | str] | None) -> dict[int, int]:
    """Return the severity number of each status code from 100 to 599.

    Args:
        given: severities by status (``404``) or class (``"4xx"``), above the
            defaults: 5xx ERROR, 4xx WARN, others INFO.

    Raises:
        ConfigurationError: ``severity`` is wrong.
    """
    if given is not None and not isinstance(given, Mapping):
        _refuse("severity", given, "a mapping such as {'4xx': 'INFO', 404: 'DEBUG'}")
    chosen = {**_DEFAULT_SEVERITY, **(given or {})}
    table = dict.fromkeys(_STATUSES, parse_severity("INFO"))
    # A status is more particular than its class, wherever each stands.
    for key, severity in sorted(chosen.items(), key=lambda pair: pair[0] not in _CLASSES):
        if key in _CLASSES:
            covered = range(_CLASSES[str(key)], _CLASSES[str(key)] + 100)
        elif key in table:
            covered = range(int(key), int(key) + 1)
        else:
            _refuse("severity", key, "a status from 100 to 599, or 1xx to 5xx, as a key")
        table.update(dict.fromkeys(covered, _severity(key, severity)))
    return table


def _severity(key: int | str, given: int | str) -> int:
    try:
        number = parse_severity(given)
    except ValueError:
        number = OFF
    if number >= OFF:
        fix = "trace, debug, info, warn, error, fatal, or a number from 1 to 24"
        _refuse(f"severity: {key}", given, f"{fix}; `exclude` leaves requests out")
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - no NaN


def _refuse(name: str, value: object, fix: str) -> NoReturn:
    msg = f"{name}={value!r}: use {fix}"
    raise ConfigurationError(msg)
