"""The options of ``install`` and ``FapilogMiddleware``, which are checked once, at start-up.

The error for a wrong option names the option and says how to fix it.  The code that runs for
each request does not check the options again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypedDict

from fapilog import ConfigurationError
from fapilog.options.checks import (
    FINITE_SECONDS,
    NONE,
    SECONDS,
    TRUE_OR_FALSE,
    Rule,
    check_all,
    instance_of,
    is_number,
    refuse,
    severity,
    whole,
)
from fapilog.options.explain import closest
from fapilog.severity import INFO, OFF
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
# The rules for the values of ``DebugOnError``, which are checked at start-up. fapilog.hold()
# also checks the first three values, but only when a request arrives.
_DEBUG_RULES: Final = {
    "records": whole(1),
    "size": whole(1, unit="bytes"),
    "seconds": FINITE_SECONDS,
    "status": whole(100, 599),
    "sampled": TRUE_OR_FALSE,
}


@dataclass(frozen=True)
class DebugOnError:
    """Options for buffering a request's debug records, which are logged only if the request fails.

    If ``records``, ``size`` or ``seconds`` is exceeded, the oldest records are dropped.

    Args:
        level: the lowest severity of the records that are buffered.
        records: the maximum number of buffered records per request.
        size: the approximate maximum size of the buffered records of a request in bytes.
        seconds: the maximum time in seconds for which a record is buffered.
        status: the lowest response status for which the buffered records are logged.
        sampled: whether debug records are logged immediately if the request's trace is
            sampled, so that every stored trace has its debug records.

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
        severity("level", self.level, "debug_on_error")
        check_all(_DEBUG_RULES, vars(self), "debug_on_error")


class OptionNames(TypedDict, total=False):
    """The names and types of the options, for type checkers; see :class:`Options`."""

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


_RULES: Final = {
    **dict.fromkeys(
        ("trace_headers", "trace_context", "replace_access_log", "validation_inputs"),
        TRUE_OR_FALSE,
    ),
    "request_id_header": NONE
    | Rule(
        lambda value: isinstance(value, str) and bool(_TOKEN.fullmatch(value)),
        "the name of a header",
    ),
    "context": NONE | Rule(callable, "a function (request) -> fields"),
    "sample": Rule(lambda value: is_number(value) and 0 <= value <= 1, "a ratio from 0 to 1"),
    "slow": SECONDS | NONE,
    "debug_on_error": TRUE_OR_FALSE | instance_of(DebugOnError, "a DebugOnError"),
    "payloads": NONE | instance_of(PayloadLogging, "a PayloadLogging"),
    "metrics": TRUE_OR_FALSE | instance_of(RequestMetrics, "a RequestMetrics"),
}


@dataclass(frozen=True)
class Options:
    """The options of the middleware; the docstring of ``install`` explains them."""

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
        check_all(_RULES, vars(self))

    @property
    def hold(self) -> DebugOnError | None:
        """The options for buffering debug records, or None if debug records are not buffered."""
        if self.debug_on_error is True:
            return DebugOnError()
        return self.debug_on_error or None


def make_options(options: Mapping[str, Any]) -> Options:
    """Check the options, and return them as an ``Options`` object.

    Raises:
        ConfigurationError: an option is wrong or unknown.
    """
    known = [field.name for field in fields(Options)]
    for name in options:
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near}?" if near else f"the options are {', '.join(known)}"
            msg = f"{name}: there is no such option; {hint}"
            raise ConfigurationError(msg, name)
    return Options(**options)


def severity_table(given: Mapping[int | str, int | str] | None) -> dict[int, int]:
    """Return the severity number of each status code from 100 to 599.

    Args:
        given: the severities by status (``404``) or class (``"4xx"``), which override the
            defaults: ERROR for 5xx, WARN for 4xx, INFO for all other statuses.

    Raises:
        ConfigurationError: the option ``severity`` is wrong.
    """
    if given is not None and not isinstance(given, Mapping):
        refuse("severity", given, "use a mapping such as {'4xx': 'INFO', 404: 'DEBUG'}")
    chosen = {**_DEFAULT_SEVERITY, **(given or {})}
    table = dict.fromkeys(_STATUSES, INFO)
    # Classes such as "4xx" are sorted first, so that a single status overrides its class.
    for key, value in sorted(chosen.items(), key=lambda pair: pair[0] not in _CLASSES):
        if key in _CLASSES:
            covered = range(_CLASSES[str(key)], _CLASSES[str(key)] + 100)
        elif key in table:
            covered = range(int(key), int(key) + 1)
        else:
            refuse("severity", key, "use a status from 100 to 599, or 1xx to 5xx, as a key")
        number = severity("severity", value, f"status {key}")
        if number >= OFF:
            refuse("severity", value, "use `exclude` to exclude requests", f"status {key}")
        table.update(dict.fromkeys(covered, number))
    return table
