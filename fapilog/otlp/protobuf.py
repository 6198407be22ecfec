"""Reads and writes the parts of protobuf's wire format that OTLP and Loki need.

With this module, fapilog can send logs without the package ``protobuf``.  Malformed messages raise
``ValueError``.  Specification: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: The value of a field: an unsigned integer if the field is a varint, otherwise bytes.
Field: TypeAlias = "int | bytes"

_KeyT = TypeVar("_KeyT")
_MadeT = TypeVar("_MadeT")

_MORE: Final = 0x80  # the bit that is set in every byte of a varint except the last
_TWO_DIGITS: Final = 1 << 14
_THREE_DIGITS: Final = 1 << 21
_MAX_VARINT: Final = 10  # the maximum length of a varint in bytes
_UINT64: Final = (1 << 64) - 1
_INT64_END: Final = 1 << 63

_VARINT: Final = 0
_DELIMITED: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}


class Memo(dict[_KeyT, _MadeT]):
    """A dict that computes and stores missing values with the function ``make``.

    When the dict has ``limit`` entries, it is cleared before it stores another entry.
    Thread-safe.  Two threads may compute the same value at the same time.
    """

    def __init__(self, make: Callable[[_KeyT], _MadeT], limit: int) -> None:
        self._make = make
        self._limit = limit

    def __missing__(self, key: _KeyT) -> _MadeT:
        made = self._make(key)
        if len(self) >= self._limit:
            self.clear()
        self[key] = made
        return made


def make_varint(number: int) -> bytes:
    """Encode a non-negative ``number`` as a varint: in base 128, lowest digit first."""
    # The two fast paths are for varints of two and three bytes, the most frequent lengths.
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
    """Encode a non-negative ``number`` as a varint.  Small numbers are encoded in advance."""
    return _short_varints[number] if 0 <= number < 1024 else make_varint(number)  # noqa: PLR2004


def delimited(tag: bytes, payload: bytes) -> bytes:
    """Encode a field of variable length: its tag, the length of ``payload``, and ``payload``."""
    return tag + varint(len(payload)) + payload


def fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """Yield the number and the value of each field in a serialised message.

    Raises:
        ValueError: the message is malformed.
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


def as_bytes(value: Field) -> bytes:
    """Return the value of a field that must be a string, bytes or a message.

    Raises:
        ValueError: the value is a number.
    """
    if isinstance(value, bytes):
        return value
    msg = "a number where a string or message should be"
    raise ValueError(msg)


def as_int64(value: Field) -> int:
    """Return the value of a field that must be an integer, as a signed number.

    Raises:
        ValueError: the value is not an integer.
    """
    if isinstance(value, bytes):
        msg = "a string or message where a number should be"
        raise ValueError(msg)  # noqa: TRY004 - the message is wrong, not the call
    return value - (1 << 64) if value >= _INT64_END else value


def messages(parts: Iterable[tuple[int, Field]], number: int) -> Iterator[bytes]:
    """Return the values of all fields whose number is ``number``: strings, bytes or messages.

    Iteration raises ValueError if one of these fields has a numeric type.
    """
    return (as_bytes(value) for found, value in parts if found == number)


def last(parts: Iterable[tuple[int, Field]], number: int) -> bytes:
    """Return the last value among the fields whose number is ``number``, or ``b""``.

    In protobuf, the last value overrides earlier values of the same field.
    """
    value = b""
    for value in messages(parts, number):  # noqa: B007 - only the last value is needed
        pass
    return value


def bytes_field(message: bytes, number: int) -> bytes:
    """Return the value of a string or message field, or ``b""`` if the field is missing.

    ``number`` is the field's number in the serialised ``message``.
    """
    return last(fields(message), number)


def int64_field(message: bytes, number: int) -> int:
    """Return the value of a signed integer field, or 0 if the field is missing.

    ``number`` is the field's number in the serialised ``message``.
    """
    return as_int64(dict(fields(message)).get(number, 0))
