"""OTLP protobuf, read back: what a sink has written to disk becomes records again.

The way back of ``encode.py``, for the spool and for people who look into the
quarantine.  A spooled request is only cut into its records, whose bytes stay
as they are; resource and scope are decoded because batches are grouped by them.
Bytes that are no such request raise ``ValueError`` and nothing else.
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fapilog.otlp.protobuf import fields
from fapilog.record import EMPTY_SCOPE, LogRecord, Resource, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fapilog.otlp.encode import Item

_Field: TypeAlias = "int | bytes"

#: Values inside one another; parsers of protobuf allow fewer.
MAX_DEPTH: Final = 50

_INT64_END: Final = 1 << 63
_UINT64_END: Final = 1 << 64


def decode_record(encoded: bytes) -> LogRecord:
    """Return the record that :func:`~fapilog.otlp.encode.encode_record` has encoded.

    Resource and scope are not part of it.  Does not block; thread-safe.

    Raises:
        ValueError: ``encoded`` is no serialised ``logs.v1.LogRecord``.
    """
    record = LogRecord()
    for number, value in fields(encoded):
        if number == _ATTRIBUTES:
            name, content = _key_value(_bytes(value), 0)
            record.attributes[name] = content
        elif number in _RECORD_FIELDS:
            field, decode = _RECORD_FIELDS[number]
            setattr(record, field, decode(value))
    return record


def decode_request(request: bytes) -> list[LogRecord]:
    """Return the records of a serialised ``ExportLogsServiceRequest``, in its order.

    Raises:
        ValueError: ``request`` is none.
    """
    records = []
    for resource, scope, encoded in split_request(request):
        record = decode_record(encoded)
        record.resource, record.scope = resource, scope
        records.append(record)
    return records


def split_request(request: bytes) -> list[Item]:
    """Return the encoded records of a request with their resources and scopes, in its order.

    Equal resources are one object, and so are equal scopes.

    Raises:
        ValueError: ``request`` is no serialised ``ExportLogsServiceRequest``.
    """
    items: list[Item] = []
    for resource_logs in _messages(fields(request), 1):
        logs = list(fields(resource_logs))
        resource = _resource(_last(logs, 1), _last(logs, 3))
        for scope_logs in _messages(logs, 2):
            of_scope = list(fields(scope_logs))
            scope = _scope(_last(of_scope, 1), _last(of_scope, 3))
            items += [(resource, scope, record) for record in _messages(of_scope, 2)]
    return items


# -- resources and scopes -----------------------------------------------------


@lru_cache(maxsize=64)
def _resource(encoded: bytes, schema_url: bytes) -> Resource:
    attributes = dict(_key_value(pair, 0) for pair in _messages(fields(encoded), 1))
    return Resource(attributes, schema_url.decode())


@lru_cache(maxsize=1024)
def _scope(encoded: bytes, schema_url: bytes) -> Scope:
    if not encoded and not schema_url:
        return EMPTY_SCOPE
    parts = list(fields(encoded))
    attributes = dict(_key_value(pair, 0) for pair in _messages(parts, 3))
    name, version = _last(parts, 1).decode(), _last(parts, 2).decode()
    return Scope(name, version, schema_url.decode(), attributes)


# -- values -------------------------------------------------------------------


def _any_value(encoded: bytes, depth: int) -> Any:
    """Return what an ``AnyValue`` holds; of several values the last one, as protobuf has it."""
    if depth > MAX_DEPTH:
        msg = f"values nested more than {MAX_DEPTH} deep"
        raise ValueError(msg)
    value: Any = None
    for number, field in fields(encoded):
        decode = _VALUE_FIELDS.get(number)
        if decode is not None:
            value = decode(field, depth + 1)
    return value


def _array(value: _Field, depth: int) -> list[Any]:
    return [_any_value(inner, depth) for inner in _messages(fields(_bytes(value)), 1)]


def _mapping(value: _Field, depth: int) -> dict[str, Any]:
    return dict(_key_value(pair, depth) for pair in _messages(fields(_bytes(value)), 1))


def _key_value(encoded: bytes, depth: int) -> tuple[str, Any]:
    parts = list(fields(encoded))
    return _last(parts, 1).decode(), _any_value(_last(parts, 2), depth)


# -- fields -------------------------------------------------------------------


def _messages(parts: Iterable[tuple[int, _Field]], wanted: int) -> Iterator[bytes]:
    """Yield every field ``wanted``, messages all of them."""
    for number, value in parts:
        if number == wanted:
            yield _bytes(value)


def _last(parts: Iterable[tuple[int, _Field]], wanted: int) -> bytes:
    """Return the last field ``wanted``, a string or message, or ``b""``."""
    found = list(_messages(parts, wanted))
    return found[-1] if found else b""


def _bytes(value: _Field) -> bytes:
    if isinstance(value, bytes):
        return value
    msg = "a number where a string or message should be"
    raise ValueError(msg)


def _text(value: _Field) -> str:
    return _bytes(value).decode()


def _integer(value: _Field) -> int:
    if isinstance(value, bytes):
        msg = "a string or message where a number should be"
        raise ValueError(msg)  # noqa: TRY004 - the message is wrong, not the call
    return value - _UINT64_END if value >= _INT64_END else value


def _number_of(layout: struct.Struct, value: _Field) -> Any:
    raw = _bytes(value)
    if len(raw) != layout.size:
        msg = f"{len(raw)} bytes where {layout.size} should be"
        raise ValueError(msg)
    return layout.unpack(raw)[0]


_double = partial(_number_of, struct.Struct("<d"))
_fixed64 = partial(_number_of, struct.Struct("<Q"))
_fixed32 = partial(_number_of, struct.Struct("<I"))

#: Fields of logs/v1/logs.proto, but the attributes.
_RECORD_FIELDS: Final[dict[int, tuple[str, Callable[[_Field], Any]]]] = {
    1: ("timestamp", _fixed64),
    2: ("severity_number", _integer),
    3: ("severity_text", _text),
    5: ("body", lambda value: _any_value(_bytes(value), 0)),
    7: ("dropped_attributes_count", _integer),
    8: ("trace_flags", lambda value: _fixed32(value) & 0xFF),
    9: ("trace_id", lambda value: _bytes(value).hex()),
    10: ("span_id", lambda value: _bytes(value).hex()),
    11: ("observed_timestamp", _fixed64),
    12: ("event_name", _text),
}
_ATTRIBUTES: Final = 6
#: Fields of AnyValue in common/v1/common.proto, given with the depth of what is inside.
_VALUE_FIELDS: Final[dict[int, Callable[[_Field, int], Any]]] = {
    1: lambda value, _depth: _text(value),
    2: lambda value, _depth: bool(_integer(value)),
    3: lambda value, _depth: _integer(value),
    4: lambda value, _depth: _double(value),
    5: _array,
    6: _mapping,
    7: lambda value, _depth: _bytes(value),
}
