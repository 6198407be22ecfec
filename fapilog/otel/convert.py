"""Converts records of the OpenTelemetry Logs API and SDK into fapilog's records.

The logger provider and the log record processor of fapilog convert a record on the thread that
emits the record.  The exporters of fapilog convert records on the SDK's export thread.
``fapilog.sinks.exporter`` converts fapilog's records into records of the SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.attributes import BoundedAttributes

from fapilog.bridges.event import from_traceback
from fapilog.bridges.feeds import attributes_of, body_of
from fapilog.context import EMPTY
from fapilog.record import EMPTY_RESOURCE, EMPTY_SCOPE, LogRecord, Resource, Scope
from fapilog.values import plain_name, snapshot
from fapilog.values.exceptions import Capture
from fapilog.values.plain import INT64_MAX

if TYPE_CHECKING:
    from opentelemetry import _logs as api
    from opentelemetry.sdk.resources import Resource as SDKResource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

_MAX_RESOURCES: Final = 64


def from_api(
    record: api.LogRecord,
    scope: Scope = EMPTY_SCOPE,
    resource: Resource = EMPTY_RESOURCE,
    bound: Mapping[str, Any] = EMPTY,
) -> LogRecord:
    """Convert a record of the Logs API or of the SDK.

    If the record has no timestamp, the observed timestamp replaces it, because this process has
    emitted and observed the record at the same instant.  ``bound`` contains the fields that
    ``fapilog.bind`` has set.  An attribute of the record overrides a bound field with the same
    name.
    """
    try:
        observed = record.observed_timestamp or time_ns()
        time = record.timestamp or observed
        flags = int(record.trace_flags or 0)
        text, event_name = record.severity_text or "", record.event_name or ""
        is_valid = 0 <= time | observed | flags <= INT64_MAX
    except Exception:  # noqa: BLE001 - values of any class
        is_valid = False
    if not is_valid:
        observed, time, flags, text, event_name = _corrected(record)
    attributes = attributes_from(record.attributes, bound)
    if "exception.type" in attributes:
        _restore_exception(attributes)
    return LogRecord(
        time,
        observed,
        severity(record.severity_number),
        text,
        body_of(record.body),
        attributes,
        event_name,
        _hex(record.trace_id, "032x"),
        _hex(record.span_id, "016x"),
        flags,
        scope,
        resource,
        getattr(record.attributes, "dropped", 0),
    )


def _corrected(record: api.LogRecord) -> tuple[int, int, int, str, str]:
    """Return the times, flags and strings of a record, with substitutes for invalid values."""
    observed = _whole(record.observed_timestamp) or time_ns()
    time = _whole(record.timestamp) or observed
    texts = _text(record.severity_text), _text(record.event_name)
    return observed, time, _whole(record.trace_flags), *texts


def _whole(value: Any) -> int:
    """Return a timestamp or trace flags as an int, or 0 if ``value`` is not valid."""
    try:
        number = int(value)
    except Exception:  # noqa: BLE001 - a value of any class
        return 0
    return number if 0 <= number <= INT64_MAX else 0


def _text(value: object) -> str:
    return value if type(value) is str else plain_name(value)


def severity(number: object) -> int:
    """Return a ``SeverityNumber`` or an int as an int, or 0 for any other value."""
    value = getattr(number, "value", number)
    return value if type(value) is int else 0


def exception_of(record: api.LogRecord) -> Capture | None:
    """Capture the exception of a record, so that ``exception.*`` attributes can be made later.

    Return None if the record has no exception, or if its attributes already contain a stack trace.
    """
    # Before version 1.40 of opentelemetry-api, a record has no field ``exception``.
    exception = getattr(record, "exception", None)
    if not isinstance(exception, BaseException):
        return None
    attributes = record.attributes
    is_described = isinstance(attributes, Mapping) and "exception.stacktrace" in attributes
    return None if is_described else Capture(exception)


@lru_cache(maxsize=4096)
def from_sdk_scope(scope: InstrumentationScope | None) -> Scope:
    """Convert an SDK scope.  Results are cached, because encoders compare scopes by identity."""
    if scope is None:
        return EMPTY_SCOPE
    attributes = attributes_from(scope.attributes)
    return Scope(scope.name or "", scope.version or "", scope.schema_url or "", attributes)


# Converted resources.  The keys are the ids of the SDK resources, because hashing an SDK resource
# is slow: it serialises all attributes.  Each value also contains the SDK resource, which
# therefore stays alive, so that no other object gets the same id.
_resources: dict[int, tuple[SDKResource, Resource]] = {}


def from_sdk_resource(resource: SDKResource | None) -> Resource:
    """Convert an SDK resource.

    Results are cached, because encoders compare resources by identity.
    """
    if resource is None:
        return EMPTY_RESOURCE
    found = _resources.get(id(resource))
    if found is None:
        if len(_resources) >= _MAX_RESOURCES:
            _resources.clear()
        made = Resource(attributes_from(resource.attributes), resource.schema_url or "")
        found = _resources.setdefault(id(resource), (resource, made))
    return found[1]


def attributes_from(source: object, bound: Mapping[str, Any] = EMPTY) -> dict[str, Any]:
    """Return a snapshot of the attributes in ``source`` and the ``bound`` fields.

    An attribute in ``source`` overrides a bound field with the same name.  If ``source`` is not a
    mapping, it becomes the value of an attribute that is named ``attributes``.
    """
    if type(source) is dict or isinstance(source, BoundedAttributes):
        fields: Any = source.copy()
    else:
        fields = {} if source is None else snapshot(source)
        if type(fields) is not dict:
            fields = {"attributes": fields}
    return attributes_of({**bound, **fields} if bound else fields)


def _hex(number: object, digits: str) -> str:
    return format(number, digits) if isinstance(number, int) and number > 0 else ""


def _restore_exception(attributes: dict[str, Any]) -> None:
    """Restore the full exception type and message that a logging handler has shortened.

    OpenTelemetry's logging handlers give only the class name and the exception's first argument.
    So this function reads the type and the message from the stack trace, which contains the
    qualified class name and the complete message with the exception's notes.
    """
    name, trace = attributes["exception.type"], attributes.get("exception.stacktrace")
    given = attributes.get("exception.message", "")
    if isinstance(name, str) and isinstance(trace, str) and isinstance(given, str):
        found = from_traceback(trace)
        kind = found.get("exception.type")
        if kind and f".{kind}".endswith(f".{name}") and given in found["exception.message"]:
            found["exception.stacktrace"] = trace
            attributes.update(found)
