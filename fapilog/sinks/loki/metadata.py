"""What of a record goes where in Loki: labels of its stream, or structured metadata.

Of the way of a record to Loki this is what does not depend on the push format.
Names are made what Loki would make of them, because two attributes whose names
become the same would otherwise be one; values become text; and all of Loki's
limits are kept, so that it refuses no entry.  What does not fit is cut and
marked, or counted in the entry ``dropped_attributes_count``.
Limits: https://grafana.com/docs/loki/latest/configure/#limits_config
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fapilog.otlp.encode import Memo
from fapilog.severity import RANGES
from fapilog.sinks.lines import json_text
from fapilog.values.text import fit_redacted, utf8_size

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from fapilog.record import AnyValue, LogRecord, Resource, Scope

MAX_LABEL_VALUE: Final = 2048  # bytes
MAX_METADATA: Final = 64 << 10  # bytes of all names and values
MAX_ENTRIES: Final = 128

#: The label that is no attribute of the resource: the range of the severity.
SEVERITY: Final = "severity"
OBSERVED: Final = "observed_timestamp"
DROPPED: Final = "dropped_attributes_count"
#: What a record that Loki would take for the one before it gets in addition.
UID: Final = "log_record_uid"
#: The label where nothing else is one: Loki wants a stream to have some.
_SERVICE: Final = "service_name"
_UNKNOWN_SERVICE: Final = "unknown_service"

#: Names for which every record has room, and those that it may have of its own.
_ALWAYS: Final = (OBSERVED, DROPPED, UID)
_OWN: Final = frozenset({"trace_id", "span_id", "flags", "event_name", *_ALWAYS})
#: Bytes for the entries of the former.
_RESERVE: Final = 160
#: How many bytes a value can grow to that counts for one in ``LogRecord.size``.
_GROWTH: Final = 8
_MAX_DEPTH: Final = 30

_NOT_IN_NAMES: Final = re.compile("[^a-zA-Z0-9]+")


# ---- names


def label_name(name: str) -> str:
    """Return the name that Loki has for a label or an entry of structured metadata.

    ``service.name`` is ``service_name``.  Loki answers 500 to a whole push
    with a name of which nothing is left, so none begins with an underscore.
    Source: https://grafana.com/docs/loki/latest/get-started/labels/#label-format
    """
    clean = _NOT_IN_NAMES.sub("_", name)
    if clean[:1].isdigit():
        return f"key_{clean}"
    return clean if clean[:1].isalpha() else f"key_{clean.lstrip('_')}"


#: :func:`label_name` of the names in use.
label_names: Final[Memo[str, str]] = Memo(label_name, 4096)


def free_name(name: str, *taken: Container[str]) -> str:
    """Return ``name``, or with a number behind it where it is taken."""
    free, number = name, 2
    while any(free in names for names in taken):
        free = f"{name.rstrip('_')}_{number}"
        number += 1
    return free


# ---- values


def value_text(value: AnyValue) -> str:
    """Return a value as text: containers as JSON, bytes as base64, None as nothing."""
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
    """Yield name and value of every attribute, and of what is in mappings, by its path."""
    for name, value in values.items():
        if isinstance(value, dict) and value and depth < _MAX_DEPTH:
            yield from flattened(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, value


def fit_entries(entries: dict[str, str], size: int, count: int) -> int:
    """Cut ``entries`` in place to ``size`` bytes and ``count``; return how many were left out.

    Every entry may take an equal share; what small ones leave of theirs is for
    the large ones, whose values are cut and marked.
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
            if sizes[name] > share:  # not even the mark
                del entries[name]
                left_out += 1
                continue
        size -= sizes[name]
    return left_out


# ---- what records have in common


class Origin(NamedTuple):
    """What all records of one resource, scope and severity share.

    Attributes:
        labels: of the stream.
        metadata: the rest of resource and scope, and the severity.
        left_out: attributes of the resource and the scope that do not fit.
    """

    labels: dict[str, str]
    metadata: dict[str, str]
    left_out: int


def origin_of(
    resource: Resource, scope: Scope, number: int, text: str, allowed: Iterable[str]
) -> Origin:
    """Return what the records of this origin share.

    Args:
        resource: its attributes are labels where ``allowed`` names them.
        scope: the logger.
        number: of the severity.
        text: of the severity, the source's own.
        allowed: names that may be labels, :data:`SEVERITY` for the severity's range.
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
    return Origin(labels, entries, left_out)


class Room(NamedTuple):
    """What an origin leaves of Loki's limits for a record's attributes.

    Attributes:
        size: bytes.
        entries: how many of them.
        taken: names that an attribute may not have without a closer look.
        always_taken: those of them that are in every record.
        left_out: attributes of the origin that do not fit.
    """

    size: int
    entries: int
    taken: frozenset[str]
    always_taken: frozenset[str]
    left_out: int

    @classmethod
    def beside(cls, origin: Origin) -> Room:
        """Return the room that ``origin`` leaves."""
        used = sum(len(name) + utf8_size(text) for name, text in origin.metadata.items())
        always = frozenset({*origin.labels, *origin.metadata, *_ALWAYS})
        return cls(
            MAX_METADATA - used - _RESERVE,
            MAX_ENTRIES - len(origin.metadata) - len(_ALWAYS),
            always | _OWN,
            always,
            origin.left_out,
        )


# ---- records


def identity(trace_id: str, span_id: str, flags: int, event_name: str) -> dict[str, str]:
    """Return the metadata that the ids and the event's name of a normalised record are."""
    entries = {"trace_id": trace_id, "span_id": span_id} if trace_id else {}
    entries |= {"flags": str(flags) if flags else "", "event_name": event_name}
    return {name: text for name, text in entries.items() if text}


def metadata_of(record: LogRecord, attributes: Mapping[str, Any], room: Room) -> dict[str, str]:
    """Return the metadata that the attributes of a normalised record are.

    Args:
        record: for its other fields.
        attributes: those of its attributes that are not in the line already.
        room: what the origin leaves.
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
    """Do the same for a record with mappings, with names that meet, or with too much."""
    own = identity(record.trace_id, record.span_id, record.trace_flags, record.event_name)
    size = room.size - sum(len(name) + utf8_size(text) for name, text in own.items())
    count = room.entries - len(own)
    values = list(flattened(attributes))
    if len(values) > count:
        values = list(attributes.items())  # what would be too many entries is one of JSON
    entries: dict[str, str] = {}
    for name, value in values:
        free = free_name(label_names[name], entries, own, room.always_taken)
        entries[free] = value_text(value)
    left_out = fit_entries(entries, size, count)
    left_out += record.dropped_attributes_count + room.left_out
    if left_out:
        entries[DROPPED] = str(left_out)
    return entries
