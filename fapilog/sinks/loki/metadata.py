"""Where the fields of a record go in Loki: labels of its stream, or structured metadata.

Nothing here depends on the push format.  Names become the names that Loki would give
them, so that two attributes which Loki would merge stay apart.  Values become text.  All
of Loki's limits are kept, so that Loki refuses no entry: a value that does not fit is cut
and marked, and an attribute that does not fit is counted in ``dropped_attributes_count``.
Limits: https://grafana.com/docs/loki/latest/configure/#limits_config
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
MAX_METADATA: Final = 64 << 10  # bytes of all names and values
MAX_ENTRIES: Final = 128

#: The only label that is not an attribute of the resource: the range of the severity.
SEVERITY: Final = "severity"
OBSERVED: Final = "observed_timestamp"
DROPPED: Final = "dropped_attributes_count"
#: The entry that distinguishes a record from an equal one of the same nanosecond.
UID: Final = "log_record_uid"
#: The label of a stream without other labels: Loki requires one.
_SERVICE: Final = "service_name"
_UNKNOWN_SERVICE: Final = "unknown_service"

#: Entries for which every record keeps room, and all entries that are not attributes.
_ALWAYS: Final = (OBSERVED, DROPPED, UID)
_OWN: Final = frozenset({"trace_id", "span_id", "flags", "event_name", *_ALWAYS})
#: Bytes that the entries of ``_ALWAYS`` take together.
_RESERVE: Final = 160
#: Bytes of metadata for one byte of ``LogRecord.size``, at most.
_GROWTH: Final = 8
_MAX_DEPTH: Final = 30

_NOT_IN_NAMES: Final = re.compile("[^a-zA-Z0-9]+")


def label_name(name: str) -> str:
    """Return Loki's name for a label or an entry of structured metadata.

    ``service.name`` becomes ``service_name``.  No name begins with an underscore: Loki
    answers 500 to a whole push if one name has no letter or digit.
    Source: https://grafana.com/docs/loki/latest/get-started/labels/#label-format
    """
    clean = _NOT_IN_NAMES.sub("_", name)
    if clean[:1].isdigit():
        return f"key_{clean}"
    return clean if clean[:1].isalpha() else f"key_{clean.lstrip('_')}"


#: The results of :func:`label_name` for the names in use.
label_names: Final[Memo[str, str]] = Memo(label_name, 4096)


def free_name(name: str, *taken: Container[str]) -> str:
    """Return ``name``, with a number after it if the name is taken."""
    free, number = name, 2
    while any(free in names for names in taken):
        free = f"{name.rstrip('_')}_{number}"
        number += 1
    return free


def value_text(value: AnyValue) -> str:
    """Return a value as text: a container as JSON, bytes as base64, None as ""."""
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
    """Yield name and value of every attribute; a value in a mapping has its path as name."""
    for name, value in values.items():
        if isinstance(value, dict) and value and depth < _MAX_DEPTH:
            yield from flattened(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, value


def fit_entries(entries: dict[str, str], size: int, count: int) -> int:
    """Cut ``entries`` in place to ``size`` bytes and ``count``; return how many were left out.

    Each entry may take an equal share.  Large entries share the room that small ones do
    not use; if that is not enough, their values are cut and marked.
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
            if sizes[name] > share:  # not even the mark fits
                del entries[name]
                left_out += 1
                continue
        size -= sizes[name]
    return left_out


class Room(NamedTuple):
    """The room for a record's attributes that an origin leaves within Loki's limits.

    Attributes:
        size: the number of bytes.
        entries: the number of entries.
        taken: the names that other entries of the record may have.
        always_taken: the names among them that an entry of every record has.
        left_out: the number of attributes of the origin that do not fit.
    """

    size: int
    entries: int
    taken: frozenset[str]
    always_taken: frozenset[str]
    left_out: int


class Origin(NamedTuple):
    """The fields that all records of one resource, scope and severity share.

    Attributes:
        labels: the labels of the stream.
        metadata: the rest of resource and scope, and the severity.
        room: the room that they leave.
    """

    labels: dict[str, str]
    metadata: dict[str, str]
    room: Room


def origin_of(
    resource: Resource, scope: Scope, number: int, text: str, allowed: Iterable[str]
) -> Origin:
    """Return the fields that all records of this origin share.

    Args:
        resource: the resource; the attributes that ``allowed`` names become labels.
        scope: the scope, which names the logger.
        number: the severity number.
        text: the severity text of the source.
        allowed: the names that may be labels; :data:`SEVERITY` is the severity's range.
    """
    attributes = dict(resource.attributes)
    labels: dict[str, str] = {}
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
    """Return the ids and the event's name of a normalised record as metadata."""
    entries = {"trace_id": trace_id, "span_id": span_id} if trace_id else {}
    entries |= {"flags": str(flags) if flags else "", "event_name": event_name}
    return {name: text for name, text in entries.items() if text}


def metadata_of(record: LogRecord, attributes: Mapping[str, Any], room: Room) -> dict[str, str]:
    """Return the attributes of a normalised record as metadata.

    Args:
        record: the record.
        attributes: the record's attributes without those that the line shows.
        room: the room that the record's origin leaves.
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
    """Do the same for a record with mappings, with equal names, or near Loki's limits."""
    own = identity(record.trace_id, record.span_id, record.trace_flags, record.event_name)
    size, count = room.size - _size(own), room.entries - len(own)
    values = list(flattened(attributes))
    if len(values) > count:
        values = list(attributes.items())  # a mapping is one entry of JSON then
    entries: dict[str, str] = {}
    for name, value in values:
        free = free_name(label_names[name], entries, own, room.always_taken)
        entries[free] = value_text(value)
    left_out = fit_entries(entries, size, count)
    left_out += record.dropped_attributes_count + room.left_out
    if left_out:
        entries[DROPPED] = str(left_out)
    return entries
