"""Records of the OpenTelemetry Logs API and SDK, turned into fapilog's.

Used by the provider and the processor on the caller's thread, and by the
exporters on the SDK's.  Nothing here raises because of a value: bodies and
attributes may be anything and become bounded snapshots.  The way out, to an
SDK exporter, is ``fapilog.sinks.exporter``.
"""

from __future__ import annotations

from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.attributes import BoundedAttributes

from fapilog.bridges.feeds import attributes_of, body_of
from fapilog.context import EMPTY
from fapilog.record import EMPTY_RESOURCE, EMPTY_SCOPE, LogRecord, Resource, Scope
from fapilog.values import snapshot
from fapilog.values.exceptions import Capture

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Convert a record of the Logs API, or one the SDK made of it.

    Severity and event name are taken as the source gives them.  A record
    without a timestamp gets its observed time: it was emitted in this
    process, so the two are the same instant.

    Args:
        record: its trace context is the one it was created in.
        scope: the logger it came from.
        resource: the entity that produced it.
        bound: fields of the emitting context; the record's own win.
    """
    observed = record.observed_timestamp or time_ns()
    attributes = attributes_from(record.attributes, bound)
    if "exception.type" in attributes:
        _restore_exception(attributes)
    return LogRecord(
        record.timestamp or observed,
        observed,
        severity(record.severity_number),
        record.severity_text or "",
        body_of(record.body),
        attributes,
        record.event_name or "",
        _hex(record.trace_id, "032x"),
        _hex(record.span_id, "016x"),
        int(record.trace_flags or 0),
        scope,
        resource,
        getattr(record.attributes, "dropped", 0),
    )


def severity(number: object) -> int:
    """Return the number of a ``SeverityNumber`` or of a plain integer; else 0."""
    value = getattr(number, "value", number)
    return value if type(value) is int else 0


def exception_of(record: api.LogRecord) -> Capture | None:
    """Capture the exception a record carries, unless its attributes tell it already."""
    # The Logs API has the field since 1.40.
    exception = getattr(record, "exception", None)
    if not isinstance(exception, BaseException):
        return None
    if record.attributes and "exception.stacktrace" in record.attributes:
        return None
    return Capture(exception)


@lru_cache(maxsize=4096)
def from_sdk_scope(scope: InstrumentationScope | None) -> Scope:
    """Return the one fapilog scope of equal SDK scopes."""
    if scope is None:
        return EMPTY_SCOPE
    attributes = attributes_from(scope.attributes)
    return Scope(scope.name or "", scope.version or "", scope.schema_url or "", attributes)


# By identity, because an SDK resource hashes by serialising itself.  The
# source is kept beside the result, so an id cannot come to mean another one.
_resources: dict[int, tuple[SDKResource, Resource]] = {}


def from_sdk_resource(resource: SDKResource | None) -> Resource:
    """Return the one fapilog resource of an SDK resource object."""
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
    """Return a snapshot of any mapping, bound fields beneath; total, as snapshots are."""
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
    """Recover what a logging handler shortened from the stack trace it sent along.

    OpenTelemetry's logging handlers give the bare class name and only the
    exception's first argument.  The last header line of the stack trace has
    the qualified name and the whole message; it is believed when it agrees
    with what was given.  (Notes follow the message there, and stay in it.)
    """
    name, trace = attributes["exception.type"], attributes.get("exception.stacktrace")
    given = attributes.get("exception.message", "")
    if not (isinstance(name, str) and isinstance(trace, str) and isinstance(given, str)):
        return
    suffix = f".{name}"
    lines = trace.rstrip("\n").split("\n")
    for index in range(len(lines) - 1, -1, -1):
        head, _, rest = lines[index].partition(": ")
        if " " not in head and (head == name or head.endswith(suffix)):
            message = "\n".join((rest, *lines[index + 1 :]))
            if given in message:
                attributes["exception.type"] = head
                attributes["exception.message"] = message
            return
