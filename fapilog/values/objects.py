"""Reads the parts of an object of any class, one level deep.

A snapshot walks plain containers itself and calls :func:`read` for all other
objects.  The code of the application's classes (``__repr__``, ``items``,
properties) runs only here, so the guards against that code are here too.
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
    """The named parts of an object, and the number of parts if it is known."""

    parts: Iterable[tuple[Any, Any]]
    total: int = 0


@dataclass
class Items:
    """The parts of an object in order, and the number of parts if it is known."""

    parts: Iterable[Any]
    total: int = 0


Reader = Callable[[Any], object]

# Set while the code of an object's class runs: if a __repr__ logs a record that
# contains its object, reading the object again would recurse without end.
_reading: ContextVar[bool] = ContextVar("fapilog_reading", default=False)


def read(value: Any, room: int) -> object:
    """Return a simpler value for ``value``, or its parts as :class:`Pairs` or :class:`Items`.

    Never raises: if the code of the class fails, the result is the object's
    ``repr``, and if that fails too, the name of its type.  Records that the code of
    the class logs contain placeholders instead of objects.

    Args:
        value: an object of any class.
        room: the number of parts that the caller can use; the result has at
            most one more.
    """
    kind = type(value)
    if _reading.get():
        return f"<{type_name(kind)} (logged while an object was being read)>"
    token = _reading.set(True)
    try:
        try:
            return _parts(value, kind, room)
        except Exception:  # noqa: BLE001 - the class may raise anything; its repr is the fallback
            return _describe(value)
    except Exception as error:  # noqa: BLE001 - the record shows it in place of the value
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


def type_name(kind: Any) -> str:
    """Return ``module.QualName`` of a class or a function.  Never raises.

    The name of a built-in class or function does not include its module.
    """
    try:
        module, name = kind.__module__, kind.__qualname__
        prefix = "" if module in {None, "builtins"} else f"{module}."
        name = f"{prefix}{name}"
    except Exception:  # noqa: BLE001 - a metaclass may make both attributes raise
        name = "object"
    return name


@lru_cache(maxsize=512)
def _reader(kind: type) -> Reader:
    """Return the reader for all objects of a class."""
    for bases, reader in _BY_BASE:
        if issubclass(kind, bases):
            return reader
    for base in kind.__mro__:
        by_name = _BY_NAME.get(f"{base.__module__}.{base.__qualname__}")
        if by_name is not None:
            return by_name
    return _structural_reader(kind)


def _structural_reader(kind: type) -> Reader:
    """Choose the reader of a class by its attributes, because it has no known base class."""
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
    """Whether ``__repr__`` was generated from the fields.

    A ``__repr__`` that the author of the class wrote may hide a field, so the
    snapshot shows the ``repr`` instead of the fields.
    """
    code = kind.__repr__.__code__ if isinstance(kind.__repr__, types.FunctionType) else None
    # All reprs generated by @dataclass share the code of one recursion guard.
    return code is not None and (
        code is Pairs.__repr__.__code__ or code.co_filename.startswith("<attrs generated")
    )


def _describe(value: Any) -> str:
    return str.__str__(repr(value))  # a plain str even if __repr__ returns a subclass


def _read_str(value: str) -> str:
    text = str.__str__(value)
    own = type(value).__repr__
    if own is str.__repr__ or str.__repr__(text[:64])[1:-1] in repr(value):
        return text
    return _describe(value)  # the repr hides the text, so the snapshot does too


def _read_exception(value: BaseException) -> str:
    name, message = type_name(type(value)), str(value)
    return f"{name}: {message}" if message else name


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
    """Read the fields of a pydantic v2 model, except those hidden from its repr or dump."""
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
    # For an extended precision type, item() returns a numpy scalar again.
    return float(value) if value.dtype.kind == "f" else value.item()


def _read_numpy_array(value: Any) -> object:
    if value.ndim == 0:
        return value[()]
    if value.ndim > 1 or value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:  # noqa: PLR2004 - bytes
        return Items(value)
    # Slices are converted faster than single numbers, and only as far as they are needed.
    slices = (value[start : start + 256].tolist() for start in range(0, len(value), 256))
    return Items(chain.from_iterable(slices))


def _seconds(value: timedelta) -> float:
    return value.total_seconds()


def _iso(value: date | time) -> str:
    return value.isoformat()


def _read_octets(value: Any) -> bytes:
    """Read at most 1 MiB of an object that holds bytes; the caller applies its own limit."""
    if not isinstance(value, memoryview):
        return bytes(value[:_MAX_OCTETS])
    if value.nbytes <= _MAX_OCTETS:
        return value.tobytes()
    return value[:_MAX_OCTETS].tobytes()


_MAX_OCTETS: Final = 1 << 20
#: The classes whose objects are read with ``str()``.
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

# The order matters: an Enum may be a str or an int, numpy's float64 is a float,
# and a datetime is a date.  Methods of the base type are called directly, so that
# a subclass cannot change the result.
_BY_BASE: Final[tuple[tuple[type | tuple[type, ...], Reader], ...]] = (
    (Enum, lambda value: value._value_),  # the property `value` may be overridden
    (str, _read_str),
    (int, int.__index__),
    (float, float.__float__),
    ((datetime, date, time), _iso),
    (timedelta, _seconds),
    (_TEXTUAL, str),
    (BaseException, _read_exception),
    (_CODE, type_name),
    (tuple, _read_tuple),
    (range, _describe),
    ((bytes, bytearray, memoryview), _read_octets),
    ((list, deque, set, frozenset), Items),
)

# Base classes from optional libraries are recognised by name, because reading a
# value must not import a library.
_BY_NAME: Final[dict[str, Reader]] = {
    "numpy.generic": _read_numpy_scalar,
    "numpy.ndarray": _read_numpy_array,
    "pydantic.main.BaseModel": _read_pydantic,
}
