"""Writes the line of an entry: the message, or text for Loki's parsers json and logfmt.

No line exceeds Loki's limit.  A message that is too long is truncated.  A JSON or logfmt line that
is too long gets a truncated body and no attributes, so that it remains valid.

If Loki does not accept structured metadata, the line also contains the metadata.  A plain message
then becomes logfmt, so that ``| logfmt`` in a query extracts the metadata.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from fapilog.sinks.lines import json_text
from fapilog.sinks.loki.metadata import (
    DROPPED,
    MAX_ENTRIES,
    fit_entries,
    flattened,
    free_name,
    label_names,
    value_text,
)
from fapilog.values.text import fit_redacted, utf8_size

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from fapilog.record import LogRecord

MAX_LINE: Final = 256 << 10  # bytes
#: A line, and the attributes that become structured metadata.
Line: TypeAlias = "tuple[str, dict[str, Any]]"

_STACKTRACE: Final = "exception.stacktrace"

#: The maximum number of body characters in a shortened line.  JSON needs up to 6 bytes per
#: character, so such a body stays below MAX_LINE.
_SHORT_BODY: Final = 32_768
_MAX_CHARACTER: Final = 4  # the maximum number of bytes per character in UTF-8

#: A field of a JSON line has the same name in the metadata, unless its name is in this set.
_NO_METADATA: Final = frozenset({"body", "scope", "attributes"})
#: The maximum number of bytes that JSON needs for one escaped character.
_ESCAPED: Final = 6
#: The number of bytes reserved for the quotes and separators of 128 name-value pairs, because Loki
#: accepts at most 128 pairs of metadata per entry.
_QUOTES: Final = 1024

#: Matches a ``name=value`` pair in a logfmt line that this module has written.
_PAIR: Final = re.compile(r'(?<!\S)(\w+)=(?:"(?:[^"\\]|\\.)*"|\S*)')
#: Matches values that need no quotes in logfmt.
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")


def message_line(record: LogRecord) -> Line:
    """Return the body as text, followed by the exception's stack trace if there is one.

    Also return the record's attributes, without this stack trace.
    """
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
    """Return the record as a JSON object with the names of the OpenTelemetry data model.

    Also return the record's attributes.
    """
    fields: dict[str, Any] = {"severity_text": record.severity_text, "body": record.body}
    fields["scope"] = {"name": record.scope.name}
    fields |= _identity(record)
    line = json_text({**fields, "attributes": record.attributes})
    if not _fits(line):
        line = json_text({**fields, **_shortened(record)})
    return line, record.attributes


def logfmt_line(record: LogRecord) -> Line:
    """Return the record as ``name=value`` pairs, with Loki's names for the attributes.

    Also return the record's attributes.
    """
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


#: Maps each value of the option ``line`` to the function that writes such a line.
LINES: Final[dict[str, Callable[[LogRecord], Line]]] = {
    "message": message_line,
    "json": json_line,
    "logfmt": logfmt_line,
}


def metadata_line(kind: str, line: str, metadata: Mapping[str, str]) -> str:
    """Return a line that also contains the structured metadata of its entry.

    ``kind`` is the format of ``line``: ``"message"``, ``"json"`` or ``"logfmt"``.  Values that the
    line already contains are not repeated.  Metadata that does not fit is truncated, or it is
    omitted and counted in ``dropped_attributes_count``.
    """
    is_json = kind == "json"
    base, names, present = (_json_base if is_json else _logfmt_base)(kind, line)
    pairs: dict[str, str] = {}
    for name, text in metadata.items():
        if name in names and name not in present:
            pairs[free_name(name, names, metadata)] = text
        elif name not in present:
            pairs[name] = text
    joined = _joined_json if is_json else _joined_logfmt
    whole = joined(base, pairs)
    if not _fits(whole):
        room = (MAX_LINE - utf8_size(base) - _QUOTES) // _ESCAPED
        left_out = int(pairs.pop(DROPPED, 0)) + fit_entries(pairs, room, MAX_ENTRIES)
        if left_out and DROPPED not in names:
            pairs[DROPPED] = str(left_out)
        whole = joined(base, pairs)
    return whole


#: A line to which metadata will be added, the names of the fields in the line, and the names of
#: the metadata whose values the line already contains.
_Base: TypeAlias = "tuple[str, Container[str], Container[str]]"


def _logfmt_base(kind: str, line: str) -> _Base:
    if kind == "logfmt":
        names = frozenset(_PAIR.findall(line))
        return line, names, names
    return _with_body(line, lambda body: _logfmt({"body": body})), ("body",), ()


def _json_base(_kind: str, line: str) -> _Base:
    fields: Any = None
    with suppress(ValueError):
        fields = orjson.loads(line)
    if not isinstance(fields, dict) or "body" not in fields:
        # The line is a plain message.  An earlier process stored it on disk when the option
        # ``line`` had a different value.
        return _with_body(line, lambda body: json_text({"body": body})), ("body",), ()
    attributes = fields.get("attributes")
    present = {"scope_name", *(fields.keys() - _NO_METADATA)}
    if isinstance(attributes, dict):
        present |= {label_names[name] for name, _ in flattened(attributes)}
    return line, fields, present


def _with_body(body: str, line_of: Callable[[str], str]) -> str:
    """Return the line that ``line_of`` makes.  Truncate ``body`` if the line would be too long."""
    line = line_of(body)
    return line if _fits(line) else line_of(fit_redacted(body, _SHORT_BODY))


def _joined_logfmt(base: str, pairs: dict[str, str]) -> str:
    return f"{base} {_logfmt(pairs)}" if pairs else base


def _joined_json(base: str, pairs: dict[str, str]) -> str:
    return f"{base[:-1]},{orjson.dumps(pairs).decode()[1:]}" if pairs else base


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
    """Return the fields that replace the body and the attributes in a line that is too long.

    They are a truncated body and the number of omitted attributes.
    """
    left_out = len(record.attributes) + record.dropped_attributes_count
    return {
        "body": fit_redacted(_body(record), _SHORT_BODY),
        "dropped_attributes_count": str(left_out),
    }


def _logfmt(pairs: dict[str, str]) -> str:
    return " ".join([f"{name}={_quoted(text)}" for name, text in pairs.items()])


def _quoted(text: str) -> str:
    """Return ``text`` as a logfmt value, quoted as in JSON if necessary."""
    return text if _BARE.fullmatch(text) else orjson.dumps(text).decode()
