"""The wire format of protobuf, as far as OTLP needs it: varints and fields.

The encoder of records writes with it and the delivery reads three small
answers, so that sending logs loads no protobuf runtime.
Specification: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MORE: Final = 0x80  # this bit of a varint's byte says that another follows
_TWO_DIGITS: Final = 1 << 14
_THREE_DIGITS: Final = 1 << 21
_MAX_VARINT: Final = 10  # bytes
_UINT64: Final = (1 << 64) - 1
_INT64_END: Final = 1 << 63

_VARINT: Final = 0
_DELIMITED: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}


def make_varint(number: int) -> bytes:
    """Return ``number``, 0 or more, in base 128, the lowest digits first."""
    # Lengths and most numbers of applications are among these.
    if _MORE <= number < _TWO_DIGITS:
        return bytes((number & 0x7F | _MORE, number >> 7))
    if _TWO_DIGITS <= number < _THREE_DIGITS:
        return bytes((number & 0x7F | _MORE, number >> 7 & 0x7F | _MORE, number >> 14))
    digits = bytearray()
    while number >= _MORE:
        digits.append(number & 0x7F | _MORE)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_short_varints: Final = tuple(make_varint(number) for number in range(1024))


def varint(number: int) -> bytes:
    """Return :func:`make_varint` of ``number``, small numbers at once."""
    return _short_varints[number] if 0 <= number < 1024 else make_varint(number)  # noqa: PLR2004


def delimited(tag: bytes, payload: bytes) -> bytes:
    """Return a length-delimited field: a string, bytes or a message."""
    return tag + varint(len(payload)) + payload


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values, unsigned for varints, of a serialised message.

    Raises:
        ValueError: it is malformed.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            number, at = _read_varint(message, at)
            yield tag >> 3, number
            continue
        if wire_type == _DELIMITED:
            length, at = _read_varint(message, at)
        elif wire_type in _FIXED_SIZES:
            length = _FIXED_SIZES[wire_type]
        else:
            msg = f"unknown wire type {wire_type}"
            raise ValueError(msg)
        if at + length > len(message):
            msg = "truncated field"
            raise ValueError(msg)
        yield tag >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(message[at : at + _MAX_VARINT]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < _MORE:
            return number & _UINT64, at + index + 1
    msg = "truncated or endless varint"
    raise ValueError(msg)


def bytes_field(message: bytes, number: int) -> bytes:
    """Return the last field ``number`` of a message, a string or message, or ``b""``.

    Raises:
        ValueError: the message is malformed or the field is a number.
    """
    value = dict(fields(message)).get(number, b"")
    if isinstance(value, int):
        msg = f"field {number} is a number"
        raise ValueError(msg)  # noqa: TRY004 - the message is wrong, not the call
    return value


def int64_field(message: bytes, number: int) -> int:
    """Return the last field ``number`` of a message, a signed integer, or 0.

    Raises:
        ValueError: the message is malformed or the field is no varint.
    """
    value = dict(fields(message)).get(number, 0)
    if isinstance(value, bytes):
        msg = f"field {number} is not a number"
        raise ValueError(msg)  # noqa: TRY004 - the message is wrong, not the call
    return value - (1 << 64) if value >= _INT64_END else value
