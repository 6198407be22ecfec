"""Plain values: what a snapshot consists of, and how to tell and measure it.

Most values are plain from the start and take the quick way: copied without a
look inside, then measured.  Measuring is also how the worker makes sure, for
every record, that all of it is plain still.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.values.limits import Limits

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
#: Characters of the name of an attribute, or of a key further inside.
MAX_NAME: Final = 256
#: What a value inside a container counts for, in bytes, beside its text.
NODE_SIZE: Final = 8

_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes})


class NotPlainError(Exception):
    """A value is not made of plain types only, or is beyond the limits."""


def copy_plain(value: Any, limits: Limits) -> Any:
    """Copy a value of built-in containers, without a look at what it holds.

    Most values are no more than this; :func:`measure` tells whether the copy
    can stand as it is.  Runs no code of the application.

    Raises:
        NotPlainError: there are other objects in it, or it is too large.
    """
    return _copy_plain(value, limits.depth, [limits.nodes])


def _copy_plain(value: Any, depth: int, nodes: list[int]) -> Any:
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
                if type(key) is not str:  # to store it again would run its __hash__
                    raise NotPlainError
                copy[key] = _copy_plain(part, depth - 1, nodes)
        return copy
    copy = list(value)
    for place, part in enumerate(copy):
        if type(part) not in _LEAVES:
            copy[place] = _copy_plain(part, depth - 1, nodes)
    return copy


def measure(value: object, limits: Limits) -> int:  # noqa: C901, PLR0912 - in line, for speed
    """Return the bytes of text in a value, with 8 more for every value in a container.

    Raises:
        NotPlainError: the value is not as a walk makes it, or beyond depth,
            nodes or text.
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
    """Return the bytes of the names of attributes or keys.

    Raises:
        NotPlainError: one is no plain str, empty, too long, or cannot be encoded.
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
