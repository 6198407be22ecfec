"""Encodes records as JSON lines with the field names that a platform expects.

``json_line`` in :mod:`fapilog.sinks.lines` uses OpenTelemetry's field names.  This module
encodes the same record with the field names of Elastic, Google Cloud, Datadog or AWS Lambda,
with names that the user has chosen, or without the resource.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import orjson

from fapilog.errors import ConfigurationError
from fapilog.options.explain import closest
from fapilog.record import LogRecord, Scope
from fapilog.severity import range_name
from fapilog.sinks.lines import (
    base64_text,
    json_line,
    json_text,
    rfc3339,
    shown_resource,
    without_commands,
)
from fapilog.values import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Fields: TypeAlias = dict[str, Any]
    #: The fields of a JSON line in three groups: the fields with the names of a preset, the
    #: record's other attributes, and the fields of the resource.
    Parts: TypeAlias = tuple[Fields, Fields, Mapping[str, Any]]

_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")
_LOW_BITS: Final = 16  # the number of hexadecimal digits of a 64-bit number
_SAMPLED: Final = 1


def _otel(record: LogRecord) -> Parts:
    """Return the record with OpenTelemetry's field names, which ``json_line`` also uses."""
    fields = {
        "timestamp": rfc3339(record.timestamp or record.observed_timestamp),
        "observed_timestamp": rfc3339(record.observed_timestamp),
        "severity_text": record.severity_text,
        "severity_number": record.severity_number,
        "body": record.body,
        "attributes": record.attributes,
    }
    if record.event_name:
        fields["event_name"] = record.event_name
    if record.dropped_attributes_count:
        fields["dropped_attributes_count"] = record.dropped_attributes_count
    if record.trace_id:
        fields["trace_id"] = record.trace_id
        fields["span_id"] = record.span_id
        fields["trace_flags"] = record.trace_flags
    scope = record.scope
    named = {"name": scope.name}
    fields["scope"] = {**named, "version": scope.version} if scope.version else named
    return fields, {}, {"resource": shown_resource(record.resource)}


def _ecs(record: LogRecord) -> Parts:
    """Return the record with the field names of the Elastic Common Schema.

    Sources: https://github.com/elastic/ecs-logging/blob/main/spec/spec.json and
    https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html
    """
    fields: Fields = {
        "@timestamp": _milliseconds(record),
        "log.level": record.severity_text or _level(record),
        "message": _message(record),
        "ecs.version": "8.11.0",
    }
    attributes = _rest(record, fields, logger="log.logger", trace="trace.id", span="span.id")
    error = ("error.type", "error.message", "error.stack_trace")
    if _move(attributes, fields, dict(zip(_EXCEPTION, error, strict=True))):
        attributes.pop("error.type", None)
    origin = {
        "code.file.path": "log.origin.file.name",
        "code.line.number": "log.origin.file.line",
        "code.function.name": "log.origin.function",
    }
    _move(attributes, fields, origin)
    resource = shown_resource(record.resource)
    names = {
        "deployment.environment.name": "service.environment",
        "service.instance.id": "service.node.name",
    }
    constant = {names.get(name, name): value for name, value in resource.items()}
    return fields, attributes, constant


def _gcp(record: LogRecord) -> Parts:
    """Return the record with the field names that Google Cloud's agents understand.

    Sources: https://cloud.google.com/logging/docs/structured-logging and
    https://cloud.google.com/error-reporting/docs/formatting-error-messages
    """
    fields: Fields = {
        "time": rfc3339(record.timestamp or record.observed_timestamp),
        "severity": _GCP_SEVERITY[min(max(record.severity_number, 0), 24)],
        "message": _message(record),
    }
    attributes = _rest(record, fields, logger="logger")
    resource = shown_resource(record.resource)
    if record.trace_id:
        project = resource.get("cloud.account.id") or os.environ.get("GOOGLE_CLOUD_PROJECT")
        prefix = f"projects/{project}/traces/" if project else ""
        fields["logging.googleapis.com/trace"] = prefix + record.trace_id
        fields["logging.googleapis.com/spanId"] = record.span_id
        fields["logging.googleapis.com/trace_sampled"] = bool(record.trace_flags & _SAMPLED)
    if "code.file.path" in attributes:
        place = {
            "file": attributes.pop("code.file.path"),
            "line": str(attributes.pop("code.line.number", "")),
            "function": attributes.pop("code.function.name", ""),
        }
        fields["logging.googleapis.com/sourceLocation"] = place
    if "http.request.method" in attributes and "url.path" in attributes:
        fields["httpRequest"] = _gcp_request(attributes)
    if _move(attributes, fields, {"exception.stacktrace": "stack_trace"}):
        names = {"service.name": "service", "service.version": "version"}
        context = {shown: resource[name] for name, shown in names.items() if name in resource}
        fields["serviceContext"] = context
    labels = {name: _text(value) for name, value in resource.items()}
    return fields, attributes, {"logging.googleapis.com/labels": labels}


#: Google Cloud's severities, indexed by OpenTelemetry's severity number.  Source:
#: https://github.com/GoogleCloudPlatform/opentelemetry-operations-go (exporter/collector/logs.go)
_GCP_SEVERITY: Final = (
    "DEFAULT", *["DEBUG"] * 8, *["INFO"] * 2, *["NOTICE"] * 2, *["WARNING"] * 4, *["ERROR"] * 4,
    *["CRITICAL"] * 2, "ALERT", "EMERGENCY",
)  # fmt: skip


def _gcp_request(attributes: Fields) -> Fields:
    """Move the attributes of an HTTP request to a Google Cloud ``HttpRequest``, and return it.

    Source: https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry#httprequest
    """
    url, query = attributes.pop("url.path"), attributes.pop("url.query", "")
    request = {"requestUrl": f"{url}?{query}" if query else url}
    names = {
        "http.request.method": "requestMethod",
        "http.response.status_code": "status",
        "user_agent.original": "userAgent",
        "client.address": "remoteIp",
    }
    _move(attributes, request, names)
    sizes = {"http.request.body.size": "requestSize", "http.response.body.size": "responseSize"}
    for name, shown in sizes.items():
        if name in attributes:
            request[shown] = str(attributes.pop(name))
    seconds = attributes.get("http.server.request.duration")
    if isinstance(seconds, (int, float)):
        request["latency"] = f"{seconds:.9f}s"
        del attributes["http.server.request.duration"]
    return request


def _datadog(record: LogRecord) -> Parts:
    """Return the record with the names of Datadog's reserved and standard attributes.

    Sources: https://docs.datadoghq.com/logs/log_configuration/attributes_naming_convention/
    and https://docs.datadoghq.com/tracing/other_telemetry/connect_logs_and_traces/opentelemetry/
    """
    fields: Fields = {
        "timestamp": _milliseconds(record),
        "status": _DATADOG_STATUS.get(_level(record), "info"),
        "message": _message(record),
        "ddsource": "python",
    }
    attributes = _rest(record, fields, logger="logger.name")
    if record.trace_id:  # Datadog's ids are the last 64 bits, in decimal digits
        fields["dd.trace_id"] = _decimal(record.trace_id[-_LOW_BITS:])
        fields["dd.span_id"] = _decimal(record.span_id)
    error = ("error.kind", "error.message", "error.stack")
    _move(attributes, fields, dict(zip(_EXCEPTION, error, strict=True)))
    resource = shown_resource(record.resource)
    names = {
        "service.name": "dd.service",
        "deployment.environment.name": "dd.env",
        "service.version": "dd.version",
    }
    unified = {shown: resource[name] for name, shown in names.items() if name in resource}
    if "service.name" in resource:
        unified["service"] = resource["service.name"]
    rest = {name: value for name, value in resource.items() if name not in names}
    return fields, attributes, {**unified, **rest}


_DATADOG_STATUS: Final = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warn",
    "ERROR": "error",
    "FATAL": "critical",
}


def _lambda(record: LogRecord) -> Parts:
    """Return the record with the field names of AWS Lambda's JSON logs for Python.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html
    """
    fields: Fields = {
        "timestamp": _milliseconds(record),
        "level": _level(record),
        "message": _message(record),
    }
    attributes = _rest(record, fields, logger="logger", trace="trace_id", span="span_id")
    names = {
        "exception.type": "errorType",
        "exception.message": "errorMessage",
        "exception.stacktrace": "stackTrace",
        "faas.invocation_id": "requestId",
    }
    _move(attributes, fields, names)
    if "stackTrace" in fields:
        fields["stackTrace"] = _text(fields["stackTrace"]).splitlines()
    return fields, attributes, {"resource": shown_resource(record.resource)}


PRESETS: Final[Mapping[str, Callable[[LogRecord], Parts]]] = {
    "json": _otel,
    "otel": _otel,
    "ecs": _ecs,
    "gcp": _gcp,
    "datadog": _datadog,
    "lambda": _lambda,
}
#: An example record from which _check_names() learns the field names of a preset.  Every preset
#: converts it to all fields of the preset, except the fields that come from the resource.
_FULL: Final = LogRecord(
    1,
    1,
    9,
    body="",
    event_name="event",
    trace_id="1",
    span_id="1",
    scope=Scope("scope"),
    dropped_attributes_count=1,
    attributes=dict.fromkeys(
        [*_EXCEPTION, "code.file.path", "http.request.method", "url.path", "faas.invocation_id"], ""
    ),
)


def line_format(
    preset: str, names: Mapping[str, str] | None = None, *, resource: bool = True
) -> Callable[[LogRecord], bytes]:
    """Return a function that encodes a record as one line of JSON in UTF-8.

    The function never blocks or raises, and is thread-safe.  If an attribute has the same
    name as a field, the line contains the attribute in the object ``attributes``, or in
    ``labels`` if the preset is ``"ecs"``.

    Args:
        preset: a name in :data:`PRESETS`.
        names: the fields to rename.  The keys are the preset's names, the values are the new
            names.
        resource: whether the line contains the resource.

    Raises:
        ConfigurationError: a field is unknown, or two fields would have the same name.
    """
    parts_of = PRESETS[preset]
    names = dict(names or {})
    _check_names(preset, names)
    if parts_of is _otel and not names and resource:
        return json_line
    collisions = "labels" if preset == "ecs" else "attributes"

    def encode(record: LogRecord) -> bytes:
        own, attributes, constant = parts_of(record)
        if resource:
            own.update((name, value) for name, value in constant.items() if name not in own)
        if names:
            own = {names.get(name, name): value for name, value in own.items()}
        return _dumps(_merged(own, attributes, collisions))

    return encode


def _check_names(preset: str, names: Mapping[str, Any]) -> None:
    own, _, constant = PRESETS[preset](_FULL)
    known = [*own, *constant]
    for name, shown in names.items():
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near!r}?" if near else f"the fields are {', '.join(known)}"
            msg = f"names: the format {preset!r} has no field {name!r}; {hint}"
            raise ConfigurationError(msg, "names")
        if not isinstance(shown, str) or not shown:
            msg = f"names: {name}={shown!r}: give the new name of the field {name!r}"
            raise ConfigurationError(msg, "names")
    final = [names.get(name, name) for name in known]
    twice = next((name for name in final if final.count(name) > 1), None)
    if twice:
        msg = f"names: two fields would have the name {twice!r}; give each its own name"
        raise ConfigurationError(msg, "names")


def _dumps(fields: Fields) -> bytes:
    try:
        line = orjson.dumps(fields, base64_text)
    except TypeError:  # orjson.JSONEncodeError is a TypeError
        line = orjson.dumps(snapshot(fields), base64_text)
    return without_commands(line) + b"\n"


def _rest(
    record: LogRecord, fields: Fields, *, logger: str, trace: str = "", span: str = ""
) -> Fields:
    """Add to ``fields`` the fields that most presets have, and return a copy of the attributes.

    ``logger``, ``trace`` and ``span`` are the preset's field names for the logger's name,
    the trace id and the span id.  If ``trace`` is "", the ids are not added.
    """
    if record.scope.name:
        fields[logger] = record.scope.name
    if record.trace_id and trace:
        fields[trace] = record.trace_id
        fields[span] = record.span_id
    if record.event_name:
        fields["event.name"] = record.event_name
    if record.dropped_attributes_count:
        fields["dropped_attributes_count"] = record.dropped_attributes_count
    return dict(record.attributes)


def _move(attributes: Fields, fields: Fields, names: Mapping[str, str]) -> bool:
    """Move to ``fields`` the attributes whose names are keys of ``names``, and rename them.

    The values of ``names`` are the new names.  Return whether an attribute was moved.
    """
    found = [name for name in names if name in attributes]
    for name in found:
        fields[names[name]] = attributes.pop(name)
    return bool(found)


def _merged(fields: Fields, attributes: Fields, collisions: str) -> Fields:
    """Add the attributes to ``fields``, and return ``fields``.

    An attribute that has the same name as a field is added to a nested object, whose name is
    the value of ``collisions``.
    """
    taken = fields.keys() | {collisions}
    clash = {name: value for name, value in attributes.items() if name in taken}
    fields.update((name, value) for name, value in attributes.items() if name not in taken)
    if clash:
        fields[collisions] = clash
    return fields


def _decimal(digits: str) -> str:
    try:
        return str(int(digits, 16))
    except ValueError:  # the id comes from another library and is not hexadecimal
        return digits


def _message(record: LogRecord) -> str:
    return record.event_name if record.body is None else _text(record.body)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _level(record: LogRecord) -> str:
    return range_name(record.severity_number) if record.severity_number else "INFO"


def _milliseconds(record: LogRecord) -> str:
    """Return the record's time with milliseconds, because some parsers reject nanoseconds."""
    return rfc3339(record.timestamp or record.observed_timestamp)[:-7] + "Z"
