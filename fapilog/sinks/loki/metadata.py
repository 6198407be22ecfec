"""Converts the fields of a record to labels of a Loki stream and to structured metadata.

Names are converted in the same way as Loki converts them.  If two names become equal, a number is
added to one of them, so that Loki stores both values.  The metadata stays within Loki's limits: a
value that is too long is truncated, and an attribute that does not fit is omitted and counted in
``dropped_attributes_count``.  Limits:
https://grafana.com/docs/loki/latest/configure/#limits_config
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fapilog.otlp.protobuf import Memo
from fapilog.severity import RANGES
from fapilog.sinks.lines import json_text
from fapilog.values.text import fit_redacted, utf8_size

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from fapilog.record import AnyValue, LogRecord, Resource, Scope

MAX_LABEL_VALUE: Final = 2048  # bytes
MAX_METADATA: Final = 64 << 10  # the maximum number of bytes of all names and values
MAX_ENTRIES: Final = 128

#: The name of the label that contains the severity of a record.
SEVERITY: Final = "severity"
OBSERVED: Final = "observed_timestamp"
DROPPED: Final = "dropped_attributes_count"
#: The name of the metadata that distinguishes equal records with the same time.
UID: Final = "log_record_uid"
#: The name of the label that a stream gets if it has no other label, because Loki requires at
#: least one label.  The label's value is ``unknown_service``.
_SERVICE: Final = "service_name"
_UNKNOWN_SERVICE: Final = "unknown_service"

#: The names of metadata for which space is reserved in every entry.  ``_RESERVE`` is the number of
#: reserved bytes.
_ALWAYS: Final = (OBSERVED, DROPPED, UID)
_RESERVE: Final = 160
#: The names of a record's metadata that do not come from its attributes.
_OWN: Final = frozenset({"trace_id", "span_id", "flags", "event_name", *_ALWAYS})
#: The metadata of a record is at most this many times as large as ``LogRecord.size``.
_GROWTH: Final = 8
_MAX_DEPTH: Final = 30

_NOT_IN_NAMES: Final = re.compile("[^a-zA-Z0-9]+")


def label_name(name: str) -> str:
    """Return Loki's form of ``name``, such as ``service_name`` for ``service.name``.

    Source: https://grafana.com/docs/loki/latest/get-started/labels/#label-format
    """
    clean = _NOT_IN_NAMES.sub("_", name)
    if clean[:1].isdigit():
        return f"key_{clean}"
    return clean if clean[:1].isalpha() else f"key_{clean.lstrip('_')}"


label_names: Final[Memo[str, str]] = Memo(label_name, 4096)


def free_name(name: str, *taken: Container[str]) -> str:
    """Return ``name``, with a number added if one of the containers ``taken`` contains it."""
    free, number = name, 2
    while any(free in names for names in taken):
        free = f"{name.rstrip('_')}_{number}"
        number += 1
    return free


def value_text(value: AnyValue) -> str:
    """Convert a value to text: a container to JSON, bytes to base64, None to ""."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return json_text(value)


def flattened(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[Any]:
    """Yield the name and value of every attribute.

    Instead of a mapping, yield the mapping's values, with names such as ``outer.inner``.  Only the
    recursive calls for mappings pass ``prefix`` and ``depth``.
    """
    for name, value in values.items():
        if isinstance(value, dict) and value and depth < _MAX_DEPTH:
            yield from flattened(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, value


def fit_entries(entries: dict[str, str], size: int, count: int) -> int:
    """Reduce ``entries`` in place to at most ``count`` entries and ``size`` bytes.

    Return the number of removed entries.  Short entries are not changed.  Long values are
    truncated to equal shares of the remaining bytes.
    """
    beyond = list(entries)[max(count, 0) :]
    for name in beyond:
        del entries[name]
    left_out = len(beyond)
    sizes = {name: len(name) + utf8_size(text) for name, text in entries.items()}
    if sum(sizes.values()) <= size:
        return left_out
    for done, name in enumerate(sorted(sizes, key=sizes.__getitem__)):
        share = max(size, 0) // (len(sizes) - done)
        if sizes[name] > share:
            room = share - len(name)
            entries[name] = fit_redacted(entries[name], len(entries[name]), room)
            sizes[name] = len(name) + utf8_size(entries[name])
            if sizes[name] > share:  # even a value truncated to "…" does not fit
                del entries[name]
                left_out += 1
                continue
        size -= sizes[name]
    return left_out


class Room(NamedTuple):
    """The space that Loki's limits leave for the attributes of one record.

    Attributes:
        size: the maximum number of bytes.
        entries: the maximum number of attributes.
        taken: the names that the attributes must not get, because labels or other metadata of the
            record may have these names.
        always_taken: the names in ``taken`` that every record uses, unlike ``trace_id``, which
            only some records have.
        left_out: the number of attributes of the resource and the scope that did not fit.
    """

    size: int
    entries: int
    taken: frozenset[str]
    always_taken: frozenset[str]
    left_out: int


class Origin(NamedTuple):
    """The labels and metadata that all records of one resource, scope and severity share.

    ``room`` is the space that is available for the attributes of each record.
    """

    labels: dict[str, str]
    metadata: dict[str, str]
    room: Room


def origin_of(
    resource: Resource,
    scope: Scope,
    number: int,
    text: str,
    allowed: Iterable[str],
    *,
    static: Mapping[str, str],
) -> Origin:
    """Return the labels and metadata of a resource, a scope and a severity.

    ``number`` and ``text`` are the severity number and the severity text.  ``allowed`` contains
    the names of the resource attributes that become labels, and ``static`` contains labels with
    fixed values.  If ``allowed`` contains :data:`SEVERITY`, the value of this label is the
    severity range, such as ``WARN``.
    """
    attributes = dict(resource.attributes)
    labels: dict[str, str] = dict(static)
    for name in allowed:
        if name == SEVERITY and name not in attributes:
            value = RANGES[(number - 1) // 4] if number else ""
        else:
            value = value_text(attributes.pop(name, None))
        if value:
            free = free_name(label_names[name], labels)
            labels[free] = fit_redacted(value, MAX_LABEL_VALUE, MAX_LABEL_VALUE)
    own: dict[str, Any] = {"severity_text": text, "scope_name": scope.name}
    own |= {"severity_number": number or None, "scope_version": scope.version}
    if not labels:
        labels[_SERVICE] = _UNKNOWN_SERVICE
    entries = {name: value_text(value) for name, value in own.items() if value}
    for group in (attributes, scope.attributes):
        for name, value in flattened(group):
            entries[free_name(label_names[name], entries, labels, _OWN)] = value_text(value)
    left_out = fit_entries(entries, MAX_METADATA // 2, MAX_ENTRIES // 2)
    size = MAX_METADATA - _size(entries) - _RESERVE
    always = frozenset({*labels, *entries, *_ALWAYS})
    count = MAX_ENTRIES - len(entries) - len(_ALWAYS)
    return Origin(labels, entries, Room(size, count, always | _OWN, always, left_out))


def _size(entries: Mapping[str, str]) -> int:
    return sum(len(name) + utf8_size(text) for name, text in entries.items())


def identity(trace_id: str, span_id: str, flags: int, event_name: str) -> dict[str, str]:
    """Return the ids, flags and event name of a record as metadata."""
    entries = {"trace_id": trace_id, "span_id": span_id} if trace_id else {}
    entries |= {"flags": str(flags) if flags else "", "event_name": event_name}
    return {name: text for name, text in entries.items() if text}


def metadata_of(record: LogRecord, attributes: Mapping[str, Any], room: Room) -> dict[str, str]:
    """Return the attributes of a record as metadata.

    ``fapilog.values.normalise`` must have corrected the record.  ``attributes`` are the record's
    attributes, without a stack trace that is already in the entry's line.  ``room`` is the space
    that is available for them.
    """
    if (
        record.size * _GROWTH > room.size
        or len(attributes) + len(_OWN) > room.entries
        or record.dropped_attributes_count
        or room.left_out
    ):
        return _with_care(record, attributes, room)
    entries: dict[str, str] = {}
    names = label_names
    for name, value in attributes.items():
        kind = type(value)
        if kind is str:
            entries[names[name]] = value
        elif kind is int or kind is float:
            entries[names[name]] = str(value)
        elif kind is dict and value:
            return _with_care(record, attributes, room)
        else:
            entries[names[name]] = value_text(value)
    if len(entries) == len(attributes) and room.taken.isdisjoint(entries):
        return entries
    return _with_care(record, attributes, room)


def _with_care(record: LogRecord, attributes: Mapping[str, Any], room: Room) -> dict[str, str]:
    """Return the same result as :func:`metadata_of` for records that need a slower path.

    These records contain mappings or a count of dropped attributes, or two of their attributes get
    the same name in Loki, or they may exceed Loki's limits.
    """
    own = identity(record.trace_id, record.span_id, record.trace_flags, record.event_name)
    size, count = room.size - _size(own), room.entries - len(own)
    values = list(flattened(attributes))
    if len(values) > count:
        values = list(attributes.items())  # each mapping becomes one entry, encoded as JSON
    entries: dict[str, str] = {}
    for name, value in values:
        free = free_name(label_names[name], entries, own, room.always_taken)
        entries[free] = value_text(value)
    left_out = fit_entries(entries, size, count)
    left_out += record.dropped_attributes_count + room.left_out
    if left_out:
        entries[DROPPED] = str(left_out)
    return entries
