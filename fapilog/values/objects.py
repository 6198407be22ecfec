"""Reads an object of any class, one step deep, into plainer parts.

A snapshot walks plain containers itself and comes here for everything else.
Only here does code of the application's own objects run - ``__repr__``,
``items``, properties - so the guards against what it may do are here too.
"""

from __future__ import annotations

import types
from collections import UserString, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID


@dataclass
class Pairs:
    """Named parts of an object, and how many there are, as far as it is known."""

    parts: Iterable[tuple[Any, Any]]
    total: int = 0


@dataclass
class Items:
    """Parts of an object in a row, and how many there are, as far as it is known."""

    parts: Iterable[Any]
    total: int = 0


Reader = Callable[[Any], object]

# Set while an object's own code runs, so that a record logged by a __repr__
# does not read objects again and again without end.
_reading: ContextVar[bool] = ContextVar("fapilog_reading", default=False)


def read(value: Any, room: int) -> object:
    """Return what ``value`` consists of: a simpler value, :class:`Pairs` or :class:`Items`.

    Total: an object whose own code fails is described by its ``repr``, and by
    its type's name if that fails too.  What its code logs meanwhile is logged,
    with placeholders for objects.

    Args:
        value: an object of any class.
        room: how many parts the caller has use for; parts come as lists of at
            most one more.
    """
    kind = type(value)
    if _reading.get():
        return f"<{type_name(kind)} (logged while an object was being read)>"
    token = _reading.set(True)
    try:
        try:
            return _parts(value, kind, room)
        except Exception:  # noqa: BLE001 - its code may raise anything; its repr tells more
            return _describe(value)
    except Exception as error:  # noqa: BLE001 - announced in the record, where the value would be
        return f"<{type_name(kind)} (repr failed: {type_name(type(error))})>"
    finally:
        _reading.reset(token)


def _parts(value: Any, kind: type, room: int) -> object:
    reader: Reader = _reader(kind)
    found = reader(value)
    if not isinstance(found, (Pairs, Items)):
        return found
    taken = list(islice(found.parts, room + 1))
    total = len(taken) if len(taken) <= room else max(len(taken), len(value))
    if isinstance(found, Items):
        return Items(taken, total)
    return Pairs([(key, part) for key, part in taken], total)


def type_name(kind: type) -> str:
    """Return the qualified name of a class, without ``builtins``.  Never raises."""
    try:
        name = f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # noqa: BLE001 - a metaclass may make both of them raise
        return "object"
    return name.removeprefix("builtins.")


@lru_cache(maxsize=512)
def _reader(kind: type) -> Reader:
    """Choose how objects of a class are read; the choice never depends on the object."""
    for bases, reader in _BY_BASE:
        if issubclass(kind, bases):
            return reader
    for base in kind.__mro__:
        by_name = _BY_NAME.get(f"{base.__module__}.{base.__qualname__}")
        if by_name is not None:
            return by_name
    return _structural_reader(kind)


def _structural_reader(kind: type) -> Reader:
    """Choose by what the class offers, where none of its bases is known."""
    if hasattr(kind, "__next__"):
        return _describe  # reading an iterator would consume it
    if is_dataclass(kind):
        return _read_dataclass if _has_generated_repr(kind) else _describe
    if isinstance(getattr(kind, "__attrs_attrs__", None), tuple):
        return _read_attrs if _has_generated_repr(kind) else _describe
    if issubclass(kind, Mapping):
        return _read_mapping
    return Items if issubclass(kind, (Sequence, AbstractSet, MappingView)) else _describe


def _has_generated_repr(kind: type) -> bool:
    """Whether ``__repr__`` was generated from the fields, not written by the author.

    An author's own may be there to hide a field, and then has the last word.
    """
    code = kind.__repr__.__code__ if isinstance(kind.__repr__, types.FunctionType) else None
    # All reprs that @dataclass makes share the code of one recursion guard.
    return code is not None and (
        code is Pairs.__repr__.__code__ or code.co_filename.startswith("<attrs generated")
    )


def _describe(value: Any) -> str:
    return str.__str__(repr(value))  # a plain str even where __repr__ returns a subclass


def _read_str(value: str) -> str:
    text = str.__str__(value)
    own = type(value).__repr__
    if own is str.__repr__ or str.__repr__(text[:64])[1:-1] in repr(value):
        return text
    return _describe(value)  # its repr hides the text: so do we


def _read_exception(value: BaseException) -> str:
    name, message = type_name(type(value)), str(value)
    return f"{name}: {message}" if message else name


def _read_named(value: Any) -> str:
    module = value.__module__
    return (
        f"{module}.{value.__qualname__}" if module not in {None, "builtins"} else value.__qualname__
    )


def _read_tuple(value: tuple[Any, ...]) -> Pairs | Items:
    names = getattr(type(value), "_fields", None)
    if isinstance(names, tuple) and len(names) == tuple.__len__(value):
        return Pairs(zip(names, tuple.__iter__(value)))  # noqa: B905 - lengths are equal
    return Items(tuple.__iter__(value))


def _read_mapping(value: Mapping[Any, Any]) -> Pairs:
    return Pairs(value.items())


def _read_dataclass(value: Any) -> Pairs:
    return Pairs((field.name, getattr(value, field.name)) for field in fields(value) if field.repr)


def _read_attrs(value: Any) -> Pairs:
    def parts() -> Iterator[tuple[str, Any]]:
        for field in type(value).__attrs_attrs__:
            if field.repr is not False:
                part = getattr(value, field.name)
                yield field.name, field.repr(part) if callable(field.repr) else part

    return Pairs(parts())


def _read_pydantic(value: Any) -> object:
    """Read a pydantic v2 model by its fields, without those it keeps from its repr or dump."""
    kind = type(value)
    for method in ("__repr__", "__repr_args__", "__str__"):
        if not getattr(kind, method).__module__.startswith("pydantic"):
            return _describe(value)
    hidden = {name for name, field in kind.model_fields.items() if not field.repr or field.exclude}
    own = ((name, part) for name, part in value.__dict__.items() if name not in hidden)
    return Pairs(chain(own, (value.__pydantic_extra__ or {}).items()))


def _read_numpy_scalar(value: Any) -> object:
    if value.dtype.kind in "mM":
        return str(value)  # item() would lose the unit
    # item() of an extended precision type returns that very type.
    return float(value) if value.dtype.kind == "f" else value.item()


def _read_numpy_array(value: Any) -> object:
    if value.ndim == 0:
        return value[()]
    if value.ndim > 1 or value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:  # noqa: PLR2004 - bytes
        return Items(value)
    # Ordinary numbers in slices: quicker than one by one, and never the whole array.
    slices = (value[start : start + 256].tolist() for start in range(0, len(value), 256))
    return Items(chain.from_iterable(slices))


def _seconds(value: timedelta) -> float:
    return value.total_seconds()


def _iso(value: date | time) -> str:
    return value.isoformat()


def _read_octets(value: Any) -> bytes:
    """Read at most 1 MiB of what holds bytes; the walk cuts it to its limit."""
    if not isinstance(value, memoryview):
        return bytes(value[:_MAX_OCTETS])
    if value.nbytes <= _MAX_OCTETS:
        return value.tobytes()
    return value[:_MAX_OCTETS].tobytes()


_MAX_OCTETS: Final = 1 << 20
#: Read as their text.
_TEXTUAL: Final = (
    Decimal, Fraction, complex, UUID, PurePath, UserString,
    IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network,
)  # fmt: skip
_CODE: Final = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)

# In order: an Enum may be a str or an int, numpy's float64 is a float, a
# datetime is a date.  Slots of the base type are called directly, so that no
# subclass decides what an int is.
_BY_BASE: Final[tuple[tuple[type | tuple[type, ...], Reader], ...]] = (
    (Enum, lambda value: value._value_),  # the property `value` may be overridden
    (str, _read_str),
    (int, int.__index__),
    (float, float.__float__),
    ((datetime, date, time), _iso),
    (timedelta, _seconds),
    (_TEXTUAL, str),
    (BaseException, _read_exception),
    (_CODE, _read_named),
    (tuple, _read_tuple),
    (range, _describe),
    ((bytes, bytearray, memoryview), _read_octets),
    ((list, deque, set, frozenset), Items),
)

# Optional libraries are known by the names of their base classes: a value of
# theirs must not be the reason to import them.
_BY_NAME: Final[dict[str, Reader]] = {
    "numpy.generic": _read_numpy_scalar,
    "numpy.ndarray": _read_numpy_array,
    "pydantic.main.BaseModel": _read_pydantic,
}
