"""Corrects records, so that the encoders of the sinks need not check them.

The worker thread does this after the processors have run, and before it passes the record to the
sinks.  Nearly every record needs no change, and only its size is measured.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from fapilog.values.limits import DEFAULT_LIMITS, Limits
from fapilog.values.plain import INT64_MAX, INT64_MIN, NotPlainError, measure, names_size
from fapilog.values.snapshots import MARK_CHARGE, Walk, plain_name, snapshot
from fapilog.values.text import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.record import AnyValue, LogRecord

# The number of bytes that ``record.size`` counts for every record, besides its contents.
_RECORD_SIZE: Final = 64
# The number of bytes that each attribute adds to ``record.size``, besides its name and value.
_ATTRIBUTE_SIZE: Final = 16

_MAX_COUNT: Final = (1 << 32) - 1
_MAX_SEVERITY: Final = 24
_MAX_FLAGS: Final = 255

# Caches the results of attribute_size().  The keys are names of attributes, and an application
# uses few different names.
_name_sizes: dict[str, int] = {}
_MAX_NAMES: Final = 4096


def normalise(record: LogRecord, limits: Limits = DEFAULT_LIMITS) -> None:
    """Correct a record in place, so that every sink can encode it, and set ``record.size``.

    Afterwards the body and the attributes consist of plain types, as :func:`snapshot` returns
    them, and are within ``limits``; names are not empty; ids are valid or empty; and the other
    fields are in the ranges of the log data model
    (https://opentelemetry.io/docs/specs/otel/logs/data-model/).  Attributes that exceed the limits
    are dropped and counted in ``dropped_attributes_count``.

    Never raises or blocks.  Not thread-safe.
    """
    try:
        size = header_size(record) + ordinary_size(record, limits, _name_sizes, set())
    except Exception:  # noqa: BLE001 - the correction removes every cause
        _clean_header(record)
        _clean_values(record, limits)
        size = _fit_values(record, limits)
    record.size = size


def ordinary_size(
    record: LogRecord,
    limits: Limits,
    name_sizes: Mapping[str, int],
    texts: set[str],
    *,
    flat: bool = False,
) -> int:
    """Return the size of a record if its body and attributes need no change.

    The function does not compare the length of each string with its limit.  It compares only the
    size of the record with ``limits.shortest``, the lowest limit for a string, because no string
    is larger than the record.  So it raises an exception for every record that exceeds this
    limit, even if the record needs no change.

    Args:
        record: the record.  The size of the fields other than the body and the attributes is not
            included; :func:`header_size` returns it.
        limits: the size limits of one record.
        name_sizes: the :func:`attribute_size` of attribute names that need no change.
        texts: a set.  This function adds the body and the attribute values to the set, if they are
            strings.
        flat: whether to raise an exception if a value is a container or bytes.

    Raises:
        Exception: the record may need a change, or ``name_sizes`` lacks the name of an attribute.
    """
    attributes, body = record.attributes, record.body
    if type(attributes) is not dict or len(attributes) > limits.attributes:
        raise NotPlainError
    size = _RECORD_SIZE
    if type(body) is str:
        size += len(body) if body.isascii() else measure(body, limits)
        texts.add(body)
    elif body is not None:
        size += _rare_size(body, limits, flat=flat)
    for name, value in attributes.items():
        if type(name) is not str:
            raise NotPlainError
        kind = type(value)
        if kind is str and value.isascii():
            size += name_sizes[name] + len(value)
            texts.add(value)
        elif (
            (kind is int and INT64_MIN <= value <= INT64_MAX)
            or (kind is float and isfinite(value))
            or kind is bool
            or value is None
        ):
            size += name_sizes[name]
        else:
            if kind is str:
                texts.add(value)
            size += name_sizes[name] + _rare_size(value, limits, flat=flat)
    if size > limits.shortest:
        raise NotPlainError
    return size


def _rare_size(value: object, limits: Limits, *, flat: bool) -> int:
    if flat and type(value) is not str:
        raise NotPlainError
    return measure(value, limits)


def header_size(record: LogRecord) -> int:
    """Check all fields of a record except its body and attributes, and return their size.

    The size is the number of UTF-8 bytes in the event name.  The other fields do not add to it.

    Raises:
        Exception: a field is not valid.
    """
    number, flags = record.severity_number, record.trace_flags
    text, event, dropped = record.severity_text, record.event_name, record.dropped_attributes_count
    together = record.timestamp | record.observed_timestamp | number | flags | dropped
    if type(together) is not int or type(number) is not int or not 0 <= together <= INT64_MAX:
        raise NotPlainError
    if number > _MAX_SEVERITY or flags > _MAX_FLAGS or dropped > _MAX_COUNT:
        raise NotPlainError
    if type(text) is not str or type(event) is not str:
        raise NotPlainError
    return _header_text_size(text, event, record.trace_id, record.span_id)


@lru_cache(maxsize=1024)
def _header_text_size(severity_text: str, event_name: str, trace_id: str, span_id: str) -> int:
    """Check the strings and ids of a record, and return the event name's size in bytes."""
    if trace_id != _id(trace_id, 32) or span_id != _id(span_id, 16):
        raise NotPlainError
    names_size([severity_text] if severity_text else [])
    return names_size([event_name] if event_name else [])


def _clean_header(record: LogRecord) -> None:
    time, observed = record.timestamp, record.observed_timestamp
    record.timestamp, record.observed_timestamp = _time(time, observed), _time(observed, time)
    record.severity_number = min(_integer(record.severity_number), _MAX_SEVERITY)
    record.trace_flags = _integer(record.trace_flags) & _MAX_FLAGS
    record.dropped_attributes_count = min(_integer(record.dropped_attributes_count), _MAX_COUNT)
    record.severity_text = plain_name(record.severity_text)
    record.event_name = plain_name(record.event_name)
    record.trace_id = _id(record.trace_id, 32)
    record.span_id = _id(record.span_id, 16)


def _time(value: object, other: object) -> int:
    """Return ``value`` if it is a valid time, otherwise ``other``.

    The value 0 is valid: it stands for an unknown time.
    """
    is_unknown = type(value) is int and value == 0
    return 0 if is_unknown else _integer(value) or _integer(other)


def _integer(value: object) -> int:
    """Return a number from 0 to 2**63 - 1 as an int, or 0 for any other value."""
    plain = snapshot(value)
    number = int(plain) if isinstance(plain, (int, float)) else 0
    return number if 0 <= number <= INT64_MAX else 0


_is_hex: Final = re.compile("[0-9a-f]+").fullmatch


def _id(value: object, digits: int) -> str:
    """Return an id of ``digits`` hexadecimal digits in lower case, or "" if it is not valid.

    Source: https://www.w3.org/TR/trace-context/#trace-id and
    https://www.w3.org/TR/trace-context/#parent-id
    """
    plain = snapshot(value)
    text = plain.lower() if isinstance(plain, str) else ""
    return text if len(text) == digits and _is_hex(text) and text.strip("0") else ""


def _clean_values(record: LogRecord, limits: Limits) -> None:
    record.body = _clean(record.body, limits)
    attributes: Any = {} if record.attributes is None else record.attributes
    if type(attributes) is not dict:
        plain = snapshot(attributes, limits)
        attributes = plain if isinstance(plain, dict) else {"attributes": plain}
    clean: dict[str, AnyValue] = {}
    for name, value in attributes.items():
        if len(clean) >= limits.attributes:
            break
        plain = name if type(name) is str else snapshot(name)
        clean[name_of(plain, clean)] = _clean(value, limits.for_attributes)
    record.dropped_attributes_count += len(attributes) - len(clean)
    record.attributes = clean


def _clean(value: Any, limits: Limits) -> AnyValue:
    try:
        measure(value, limits)
    except NotPlainError:
        return snapshot(value, limits)
    return value  # type: ignore[no-any-return]


def attribute_size(name: str) -> int:
    """Return the number of bytes that an attribute adds to ``record.size``, without its value.

    Raises:
        NotPlainError: the name is not valid.
    """
    return _ATTRIBUTE_SIZE + names_size([name])


def _noted_size(name: str) -> int:
    """Return the :func:`attribute_size` of a name, and cache it."""
    if len(_name_sizes) >= _MAX_NAMES:
        _name_sizes.clear()
    size = _name_sizes[name] = attribute_size(name)
    return size


def _fit_values(record: LogRecord, limits: Limits) -> int:
    """Truncate the largest values until the record's size is within the limit.

    Return the new size.  The body and every attribute may use an equal share of the limit.  Large
    values also get the bytes that small values do not use.
    """
    sizes: dict[str | None, int] = {None: measure(record.body, limits)}
    for name, value in record.attributes.items():
        sizes[name] = _noted_size(name) + measure(value, limits)
    taken = _RECORD_SIZE + header_size(record)
    left = limits.record - taken
    if sum(sizes.values()) > left:
        smallest_first = sorted(sizes, key=sizes.__getitem__)
        for done, key in enumerate(smallest_first):
            share = left // (len(sizes) - done)
            if sizes[key] > share:
                sizes[key] = _cut(record, key, share, limits)
            left -= sizes[key]
    return taken + sum(sizes.values())


def _cut(record: LogRecord, name: str | None, share: int, limits: Limits) -> int:
    """Truncate an attribute, or the body if ``name`` is None, to ``share`` bytes.

    Return its new size.  If ``share`` is too small for the attribute's name and a truncated value,
    the attribute is dropped.
    """
    if name is None:
        record.body = Walk(limits, share).value(record.body) if share >= MARK_CHARGE else "…"
        return measure(record.body, limits)
    room = share - _noted_size(name)
    if room < MARK_CHARGE:
        del record.attributes[name]
        record.dropped_attributes_count += 1
        return 0
    value = record.attributes[name] = Walk(limits, room).value(record.attributes[name])
    return share - room + measure(value, limits)
