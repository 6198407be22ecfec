"""Copies and measures plain values: None, bool, int, float, str, bytes, list and dict.

A snapshot consists of plain values.  Most values of an application are plain, so a snapshot first
copies a container without checking every value, and then measures the copy, which shows whether
all values are plain.  The worker thread also measures every record, because processors may have
added values that are not plain.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.values.limits import Limits

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
#: The maximum number of characters in an attribute's name or in a key of a dict.
MAX_NAME: Final = 256
#: The number of bytes that each value in a container adds to the record's size, besides its text.
NODE_SIZE: Final = 8

_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes})


class NotPlainError(Exception):
    """A value is too large, or contains an object that is not plain.

    A plain object is None, or a valid bool, int, float, str, bytes, list or dict.  For example, an
    int of more than 64 bits is not valid.
    """


def copy_plain(value: Any, depth: int, nodes: list[int]) -> Any:
    """Copy a value of plain types without checking its strings and numbers.

    :func:`measure` can check the copy.  Runs no code of the application.

    Args:
        value: the value.
        depth: the maximum number of levels of nested containers in the copy.
        nodes: a list with one number: how many values the containers of the copy may still
            contain.  The function reduces the number.

    Raises:
        NotPlainError: the value contains an object of a type that is not plain, or is too large.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is not dict and kind is not list and kind is not tuple:
        raise NotPlainError
    nodes[0] -= len(value)
    if nodes[0] < 0 or not depth:
        raise NotPlainError
    if kind is dict:
        copy: Any = value.copy()
        for key, part in copy.items():
            if type(part) not in _LEAVES:
                if type(key) is not str:  # `copy[key] = x` would run the key's __hash__
                    raise NotPlainError
                copy[key] = copy_plain(part, depth - 1, nodes)
        return copy
    copy = list(value)
    for place, part in enumerate(copy):
        if type(part) not in _LEAVES:
            copy[place] = copy_plain(part, depth - 1, nodes)
    return copy


def measure(value: object, limits: Limits) -> int:  # noqa: C901, PLR0912 - inline, for speed
    """Return the number of bytes in all strings of a value, plus 8 per value in a container.

    Raises:
        NotPlainError: the value is not plain, or exceeds a limit.
    """
    size, nodes = 0, limits.nodes
    level: list[Any] = [value]
    for _ in range(limits.depth + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if len(item) > limits.text:
                    raise NotPlainError
                size += len(item) if item.isascii() else _encoded_size(item)
            elif kind is int:
                if not INT64_MIN <= item <= INT64_MAX:
                    raise NotPlainError
            elif kind is dict or kind is list:
                nodes -= len(item)
                if nodes < 0:
                    raise NotPlainError
                size += NODE_SIZE * len(item)
                if kind is dict:
                    size += names_size(item)
                    below += item.values()
                else:
                    below += item
            elif kind is bytes and len(item) <= limits.text:
                size += len(item)
            elif (
                item is not None and kind is not bool and (kind is not float or not isfinite(item))
            ):
                raise NotPlainError
        if not below:
            return size
        level = below
    raise NotPlainError


def names_size(names: Iterable[str]) -> int:
    """Return the number of bytes in the names of attributes or keys.

    Raises:
        NotPlainError: a name is not a plain str, is empty or too long, or cannot
            be encoded.
    """
    size = 0
    for name in names:
        if type(name) is not str or not 0 < len(name) <= MAX_NAME:
            raise NotPlainError
        size += len(name) if name.isascii() else _encoded_size(name)
    return size


def _encoded_size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise NotPlainError from None
