"""Writes the line of an entry: the message, or text for Loki's parsers json and logfmt.

No line exceeds Loki's limit.  A long message is truncated and marked.  A long line in the
other two formats omits its attributes and truncates its body, so that it remains valid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from fapilog.sinks.lines import json_text
from fapilog.sinks.loki.metadata import flattened, free_name, label_names, value_text
from fapilog.values.text import fit_redacted, utf8_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.record import LogRecord

MAX_LINE: Final = 256 << 10  # bytes
#: A line, and the attributes for the structured metadata.
Line: TypeAlias = "tuple[str, dict[str, Any]]"

_STACKTRACE: Final = "exception.stacktrace"

#: The maximum number of body characters in a shortened line; JSON uses up to 6 bytes for each.
_SHORT_BODY: Final = 32_768
_MAX_CHARACTER: Final = 4  # bytes

#: Matches values that need no quotes in logfmt.
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")


def message_line(record: LogRecord) -> Line:
    """Return the body as text, followed by the exception's stack trace if there is one."""
    body, attributes = record.body, record.attributes
    line = body if type(body) is str else _body(record)
    trace = attributes.get(_STACKTRACE)
    if type(trace) is str and trace:
        line = f"{line}\n{trace}" if line else trace
        attributes = attributes.copy()
        del attributes[_STACKTRACE]
    if len(line) * _MAX_CHARACTER > MAX_LINE:
        line = fit_redacted(line, MAX_LINE, MAX_LINE)
    return line, attributes


def json_line(record: LogRecord) -> Line:
    """Return the record as a JSON object with the names of the OpenTelemetry data model."""
    fields: dict[str, Any] = {"severity_text": record.severity_text, "body": record.body}
    fields["scope"] = {"name": record.scope.name}
    fields |= _identity(record)
    line = json_text({**fields, "attributes": record.attributes})
    if not _fits(line):
        line = json_text({**fields, **_shortened(record)})
    return line, record.attributes


def logfmt_line(record: LogRecord) -> Line:
    """Return the record as ``name=value`` pairs, with Loki's names for the attributes."""
    fields = {"severity_text": record.severity_text, "body": _body(record)}
    fields["scope_name"] = record.scope.name
    fields |= _identity(record)
    pairs = dict(fields)
    for name, value in flattened(record.attributes):
        pairs[free_name(label_names[name], pairs)] = value_text(value)
    line = _logfmt(pairs)
    if not _fits(line):
        line = _logfmt({**fields, **_shortened(record)})
    return line, record.attributes


#: The line formats by name.
LINES: Final[dict[str, Callable[[LogRecord], Line]]] = {
    "message": message_line,
    "json": json_line,
    "logfmt": logfmt_line,
}


def _body(record: LogRecord) -> str:
    """Return the body as text, or the event's name if the record has no body."""
    body = record.body
    if type(body) is str:
        return body
    return record.event_name if body is None else value_text(body)


def _identity(record: LogRecord) -> dict[str, str]:
    named = {name: getattr(record, name) for name in ("event_name", "trace_id", "span_id")}
    return {name: value for name, value in named.items() if value}


def _fits(line: str) -> bool:
    return len(line) * _MAX_CHARACTER <= MAX_LINE or utf8_size(line) <= MAX_LINE


def _shortened(record: LogRecord) -> dict[str, Any]:
    """Return a truncated body and the number of omitted attributes."""
    left_out = len(record.attributes) + record.dropped_attributes_count
    return {
        "body": fit_redacted(_body(record), _SHORT_BODY),
        "dropped_attributes_count": str(left_out),
    }


def _logfmt(pairs: dict[str, str]) -> str:
    return " ".join([f"{name}={_quoted(text)}" for name, text in pairs.items()])


def _quoted(text: str) -> str:
    """Return a value of logfmt, quoted as in JSON if necessary."""
    return text if _BARE.fullmatch(text) else orjson.dumps(text).decode()
