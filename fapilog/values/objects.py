"""Reads the fields or the items of an object of any class, without reading nested objects.

``fapilog.values.snapshots`` copies values of built-in types itself, and calls :func:`read` for all
other objects.  Methods of the application's classes (``__repr__``, ``items``, properties) are
called only in this module, which catches their errors.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections import UserString, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time, timedelta
from enum import Enum
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final


@dataclass
class Pairs:
    """The fields of an object.

    Attributes:
        parts: the names and values of the fields.  The last fields are missing if the object has
            more fields than :func:`read` should return.
        total: the number of fields, or 0 if it is unknown.
    """

    parts: Iterable[tuple[Any, Any]]
    total: int = 0


@dataclass
class Items:
    """The items of an object, in order.

    Attributes:
        parts: the items.  The last items are missing if the object has more items than
            :func:`read` should return.
        total: the number of items, or 0 if it is unknown.
    """

    parts: Iterable[Any]
    total: int = 0


Reader = Callable[[Any], object]

# True while code of an object's class runs.  During this time, read() returns placeholders,
# because a __repr__ that logs its own object would recurse without end.
_reading: ContextVar[bool] = ContextVar("fapilog_reading", default=False)


def read(value: Any, room: int) -> object:
    """Return a simpler value for an object, or its fields as ``Pairs``, or its items as ``Items``.

    Never raises: if the code of the class fails, the result is the object's ``repr``, and if the
    ``repr`` fails too, the name of its type.  If the code of the class itself logs objects, the
    log records contain placeholders instead of these objects.

    Args:
        value: an object of any class.
        room: the maximum number of fields or items that the caller uses.  The result may contain
            one field or item more.
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
    """Return the function that :func:`read` calls for the objects of a class."""
    for bases, reader in _BY_BASE:
        if issubclass(kind, bases):
            return reader
    for base in kind.__mro__:
        by_name = _BY_NAME.get(f"{base.__module__}.{base.__qualname__}")
        if by_name is not None:
            return by_name
    return _structural_reader(kind)


_NAMED_TUPLE: Final[Any] = type(_reader.cache_info())


def _structural_reader(kind: type) -> Reader:
    """Return the function that reads the objects of a class, chosen by the class's methods.

    This is for classes whose base classes are neither in ``_BY_BASE`` nor in ``_BY_NAME``.
    """
    if hasattr(kind, "__fspath__"):
        # Use __fspath__ only if the class has no __str__, because the __fspath__ of a path in
        # cloud storage may download the file.
        text: Any = kind.__str__
        return os.fspath if text is object.__str__ else str
    if hasattr(kind, "__next__"):
        return _describe  # reading an iterator would consume it
    is_attrs = isinstance(getattr(kind, "__attrs_attrs__", None), tuple)
    if is_dataclass(kind) or is_attrs:
        reader: Reader = _read_dataclass if is_dataclass(kind) else _read_attrs
        return reader if _has_generated_repr(kind) else _describe
    # A database row of asyncpg has the methods of a Mapping, but it is not a Mapping: iteration
    # yields the values.
    is_row = all(callable(getattr(kind, name, None)) for name in _ROW_METHODS)
    if is_row or issubclass(kind, Mapping):
        return lambda value: Pairs(value.items())
    if issubclass(kind, Sequence) and (hasattr(kind, "keys") or hasattr(kind, "_fields")):
        return _read_row
    return Items if issubclass(kind, (Sequence, AbstractSet, MappingView)) else _describe


#: An object that has all these methods is read as a mapping, even if it is not a Mapping.  An
#: object that has only some of them may be a database client, where a call would run a query.
_ROW_METHODS: Final = ("keys", "values", "items", "__getitem__", "__len__")


def _has_generated_repr(kind: type) -> bool:
    """Return whether dataclasses, attrs or namedtuple generated the ``__repr__`` of a class.

    A ``__repr__`` that was written by hand may hide a field on purpose.
    """
    code = kind.__repr__.__code__ if isinstance(kind.__repr__, types.FunctionType) else None
    # A generated __repr__ is recognised by its code object.  All dataclasses share the code object
    # of a wrapper that prevents recursion, and all named tuples share the code object of one
    # function.
    return code is not None and (
        code is Pairs.__repr__.__code__
        or code is _NAMED_TUPLE.__repr__.__code__
        or code.co_filename.startswith("<attrs generated")
    )


def _describe(value: Any) -> str:
    """Return an object's ``repr``, or its ``str`` if the ``repr`` contains no more information.

    For example, ``IPv4Address('10.0.0.1')`` becomes ``10.0.0.1``.
    """
    described = str.__str__(repr(value))  # __repr__ may return a subclass of str
    kind: Any = type(value)
    # Call str() only if the repr ends with a quoted string, because the str() of an object that
    # loads lazily may query a database.
    if kind.__str__ is not object.__str__ and described.rstrip(")>").endswith(("'", '"')):
        with contextlib.suppress(Exception):  # if str() fails, the repr is enough
            text = str.__str__(str(value))
            if _only_quotes(described, text):
                return text
    return described


def _only_quotes(described: str, text: str) -> bool:
    """Return whether a ``repr`` has the form ``Name('text')`` or ``<Name(key='text')>``."""
    before, quoted, after = described.rpartition(repr(text))
    return bool(quoted) and not after.strip(")>") and not any(map(before.__contains__, "'\","))


def _read_str(value: str) -> str:
    text = str.__str__(value)
    own = type(value).__repr__
    if own is str.__repr__ or str.__repr__(text[:64])[1:-1] in repr(value):
        return text
    # The repr of this str subclass hides the text, so the snapshot must not show the text.
    return _describe(value)


def _read_exception(value: BaseException) -> str:
    name, message = type_name(type(value)), str(value)
    return f"{name}: {message}" if message else name


def _read_tuple(value: tuple[Any, ...]) -> object:
    names = getattr(type(value), "_fields", None)
    if isinstance(names, tuple) and len(names) == tuple.__len__(value):
        if not _has_generated_repr(type(value)):
            return _describe(value)
        return Pairs(zip(names, tuple.__iter__(value)))  # noqa: B905 - lengths are equal
    return Items(tuple.__iter__(value))


def _read_row(value: Any) -> Pairs | Items:
    """Read a database row (sqlite3, SQLAlchemy), in which two columns may have the same name."""
    names = value._fields if hasattr(value, "_fields") else value.keys()
    same = len(names) == len(value)
    return Pairs(zip(names, value, strict=True), len(value)) if same else Items(value)


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
    """Read the fields of a pydantic v2 model, except fields that its ``repr`` or dump excludes."""
    kind = type(value)
    for method in ("__repr__", "__repr_args__", "__str__"):
        if not getattr(kind, method).__module__.startswith("pydantic"):
            return _describe(value)
    hidden = {name for name, field in kind.model_fields.items() if not field.repr or field.exclude}
    own = ((name, part) for name, part in value.__dict__.items() if name not in hidden)
    return Pairs(chain(own, (value.__pydantic_extra__ or {}).items()))


def _read_numpy_scalar(value: Any) -> object:
    if value.dtype.names:  # a row of a structured array
        return Pairs([(name, value[name]) for name in value.dtype.names])
    if value.dtype.kind in "mM":
        return str(value)  # item() would lose the unit of a date or duration
    # Use float(), because item() of an extended-precision number returns a numpy scalar again.
    return float(value) if value.dtype.kind == "f" else value.item()


def _read_numpy_array(value: Any) -> object:
    if value.ndim == 0:
        return value[()]
    if value.ndim > 1 or value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:  # noqa: PLR2004 - bytes
        return Items(value)
    # Converting slices of 256 numbers is faster than converting single numbers.
    slices = (value[start : start + 256].tolist() for start in range(0, len(value), 256))
    return Items(chain.from_iterable(slices))


#: The maximum number of bytes that are copied from bytes, a bytearray or a memoryview.  Later,
#: ``snapshots.Walk`` truncates the copy to ``Limits.text`` bytes.
_MAX_OCTETS: Final = 1 << 20
_CODE: Final = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)

# Maps base classes to the functions that read their instances.  The first matching entry is used.
# Enum is the first entry, because an Enum may also be a str or an int.  The methods of int and
# float themselves are called, because a subclass may override them.
_BY_BASE: Final[tuple[tuple[type | tuple[type, ...], Reader], ...]] = (
    (Enum, lambda value: value._value_),  # the property `value` may be overridden
    (str, _read_str),
    (int, int.__index__),
    (float, float.__float__),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    ((complex, UserString), str),
    (BaseException, _read_exception),
    (_CODE, type_name),
    (tuple, _read_tuple),
    (range, _describe),
    ((bytes, bytearray, memoryview), lambda value: bytes(value[:_MAX_OCTETS])),
    ((list, deque, set, frozenset), Items),
)

# Maps base classes to the functions that read their instances.  The classes are recognised by
# their names, because importing their modules would slow the import of fapilog or load an optional
# library.
_BY_NAME: Final[dict[str, Reader]] = {
    "decimal.Decimal": str,
    "fractions.Fraction": str,
    "numpy.generic": _read_numpy_scalar,
    "numpy.ndarray": _read_numpy_array,
    "pydantic.main.BaseModel": _read_pydantic,
    "uuid.UUID": str,
}
