"""Objects that try to break a log call in every way, thousands of them from one seed.

A hostile class has a base, and some of its methods misbehave: they raise, lie,
log, never end, or return the wrong type or too much.  These objects, oddities of
the standard library, numpy arrays of every dtype, models and exceptions are put
into containers of every kind, also cyclic ones.
"""

from __future__ import annotations

import array
import builtins
import collections
import contextlib
import ctypes
import dataclasses
import decimal
import enum
import itertools
import math
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pydantic

HUGE_TEXT = "huge ✓ " * 100_000
HUGE_NUMBER = 7**118_000  # about 100,000 decimal digits
SURROGATES = "lone \ud800 surrogate \udcff"
FORGED = 'ok\n12:00:00.000  INFO   hostile  forged\r\n{"scope":{"name":"hostile"}}\x1b[2J\x00\u2028'
DEPTH = 10_000

#: The methods that a hostile class may define.
METHODS = (
    "__repr__", "__str__", "__format__", "__iter__", "__next__", "__len__", "__length_hint__",
    "__getattr__", "__getattribute__", "__bool__", "__hash__", "__eq__", "__lt__", "__contains__",
    "__getitem__", "__index__", "__int__", "__float__", "__call__", "__dir__", "__enter__",
    "__reversed__", "__bytes__", "__fspath__", "__array__", "__buffer__", "__copy__", "__deepcopy__",
    "__reduce__", "__get__", "__set_name__", "__rich_repr__", "items", "keys", "values", "copy", "encode",
    "isoformat", "model_dump", "tolist", "dtype", "_fields", "_asdict", "__dict__", "__module__",
)  # fmt: skip
BASES = (
    object, object, object, str, bytes, int, float, dict, list, tuple, set, frozenset, bytearray,
    collections.OrderedDict, collections.deque, collections.UserDict, decimal.Decimal,
    Mapping, Sequence, AbstractSet,
)  # fmt: skip


#: Their built-in repr iterates, so its caller would hang on endless iteration.
ITERATED = (set, frozenset, collections.deque, collections.OrderedDict)


class RaisingMeta(type):
    """A class whose every attribute raises, and which has no hash."""

    def __getattribute__(cls, name: str) -> Any:
        raise ValueError(name)

    def __hash__(cls) -> int:
        raise ValueError


class LyingClass:
    """An object that does not report its class."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise OSError("no class")


class PretendsToBeAnException:
    """An object that reports an exception as its class."""

    __class__ = ValueError  # type: ignore[assignment]


class UnusableName(str):
    """A name that cannot be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")


@dataclasses.dataclass
class Box:
    """A dataclass around any value."""

    content: Any
    default: Any = None


class Model(pydantic.BaseModel):
    """A pydantic model around any value."""

    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    content: Any


class Colour(enum.Enum):
    """An enumeration of unusual values."""

    OBJECT = object()
    TUPLE = (1, [2, SURROGATES])
    NUMBER = HUGE_NUMBER


class Hostility:
    """Makes hostile objects; the same seed makes the same objects.

    Args:
        seed: the seed of the random choices.
        chat: a function that some objects call while they are read.
    """

    def __init__(self, seed: int, chat: Callable[[object], None]) -> None:
        self._random = Random(seed)
        self._chat = chat
        self._arrays = every_array()

    def value(self, depth: int = 0) -> Any:
        """Return a hostile object, or a container with several."""
        choices = (self._simple, self._object, self._object, self._odd, self._array)
        nested = (self._container, self._container, self._around)
        return self._pick(choices if depth > 2 else choices + nested)(depth + 1)

    def name(self) -> Any:
        """Return a hostile attribute name."""
        return self._pick(
            (
                "", " ", "a b", "a\nb", FORGED, SURROGATES, "é", "\x00", "self", "message", "name",
                "exception.type", "exception.stacktrace", "event_name", "trace_id", "body", "__class__",
                "scope", "…", "x" * 300, HUGE_TEXT, UnusableName("x"), UnusableName("event_name"),
                UnusableName("exception.type"), UnusableName(""), self._subclass_of(str, "name"),
            )
        )  # fmt: skip

    def fields(self, count: int, value: Any) -> dict[str, Any]:
        """Return hostile values under hostile names, without the names that a dict refuses."""
        made: dict[str, Any] = {}
        while len(made) < count:
            with contextlib.suppress(Exception):
                made = {**made, self.name(): value}
        return made

    def exception(self, depth: int = 0) -> BaseException:
        """Return an exception with hostile parts, raised or not."""
        kind = self._pick(
            (
                ValueError, KeyError, OSError, ImportError, AttributeError, NameError, StopIteration, KeyboardInterrupt,
                SystemExit, self._class(Exception), self._class(ValueError), self._class(BaseException), UnfairError,
            )
        )  # fmt: skip
        error: BaseException = make(
            kind, *(self.value(1) for _ in range(self._random.randrange(3)))
        )
        if self._random.random() < 0.3:
            error = self._pick(EXCEPTIONS)()
        if depth < 2 and self._random.random() < 0.3:
            error.__cause__ = self._pick((error, self.exception(depth + 1)))
            error.__context__ = self._pick((error, self.exception(depth + 1)))
        if depth < 2 and self._random.random() < 0.1:
            error.__notes__ = self.value(1)  # type: ignore[attr-defined]
        if self._random.random() < 0.5:
            try:
                raise error
            except BaseException as raised:
                return raised
        return error

    def exc_info(self) -> object:
        """Return a value for ``exc_info=``, valid or not."""
        error = self.exception()
        return self._pick(
            (
                error, error, error, error, (type(error), error, None), (None, None, None), (),
                True, self.value(), (1, self.value(), 3), LyingClass(), PretendsToBeAnException(), NotImplemented,
                self._subclass_of(tuple, (ValueError, error, None)), RaisingMetaError(), dead_proxy(),
            )
        )  # fmt: skip

    # ---- kinds of values

    def _pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self._random.random() * len(choices))]

    def _simple(self, _depth: int) -> Any:
        return self._pick(
            (
                None, True, 0, -1, 2**63, -(2**63) - 1, HUGE_NUMBER, -HUGE_NUMBER, 1.5, -0.0, math.nan, math.inf,
                -math.inf, "", "text", SURROGATES, FORGED, "\x00", "password=hunter2", b"", b"\xff\xfe", bytes(range(256)),
                complex(math.nan, math.inf), decimal.Decimal("sNaN"), decimal.Decimal("1e999999"), Ellipsis, NotImplemented,
                self._rarely(HUGE_TEXT), self._rarely(HUGE_TEXT.encode()), self._rarely(SURROGATES * 20_000),
            )
        )  # fmt: skip

    def _rarely(self, value: Any) -> Any:
        return value if self._random.random() < 0.2 else type(value)()

    def _object(self, _depth: int) -> Any:
        base = self._pick(BASES)
        arguments = {
            int: (7,),
            str: (SURROGATES,),
            dict: ({"a": 1},),
            list: ([1, 2],),
            tuple: ((1, 2),),
        }
        return self._subclass_of(base, *arguments.get(base, ()))

    def _subclass_of(self, base: type, *arguments: Any) -> Any:
        return make(self._class(base), *arguments)

    def _class(self, base: type) -> type:
        """Return a subclass in which some methods misbehave."""
        count = self._pick((1, 2, 4, 12))
        body: dict[str, Any] = {
            name: self._misbehaviour() for name in self._random.sample(METHODS, count)
        }
        if issubclass(base, ITERATED):
            body = {name: body[name] for name in body.keys() - {"__iter__", "__next__", "items"}}
        if self._random.random() < 0.1:
            body["__class__"] = property(self._misbehaviour())
        if "__eq__" in body:
            body.setdefault("__hash__", base.__hash__)
        body.setdefault("__abstractmethods__", frozenset())
        kind = types.new_class(
            "Hostile", (base,), exec_body=lambda namespace: namespace.update(body)
        )
        if issubclass(base, (Mapping, Sequence, AbstractSet)):
            kind.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
        return kind

    def _misbehaviour(self) -> Any:
        error = self._pick(
            (
                ValueError,
                RecursionError,
                MemoryError,
                OSError,
                AttributeError,
                StopIteration,
                UnfairError,
            )
        )

        def raises(*_: Any, **__: Any) -> Any:
            raise error(SURROGATES)

        def chats(this: Any = None, *_: Any, **__: Any) -> Any:
            self._chat(this)
            return "chatty"

        def recurses(this: Any = None, *_: Any, **__: Any) -> Any:
            return f"{this!r}{this}"

        def never_ends(*_: Any, **__: Any) -> Any:
            return itertools.repeat(b"again")

        def returns_itself(this: Any = None, *_: Any, **__: Any) -> Any:
            return this

        answers = (1 << 62, -1, HUGE_TEXT, SURROGATES, None, 3.5, [1], {"a": 1}, object(), b"bytes")
        answer = self._pick(answers)
        return self._pick(
            (
                raises,
                raises,
                raises,
                chats,
                chats,
                recurses,
                never_ends,
                returns_itself,
                lambda *_, **__: answer,
                answer,
            )
        )

    def _odd(self, _depth: int) -> Any:
        return self._pick(ODD)()

    def _array(self, _depth: int) -> Any:
        return self._pick(self._arrays)

    def _container(self, depth: int) -> Any:
        """Return several values in a container, or a container that is hard to traverse."""
        values = [self.value(depth) for _ in range(self._pick((0, 1, 2, 5)))]
        keys = [
            self._pick((None, True, 1.5, b"k", (1, "t"), "", FORGED, SURROGATES, i))
            for i, _ in enumerate(values)
        ]
        by_key = dict(zip(keys, values, strict=True))
        return self._pick(
            (
                lambda: values, lambda: tuple(values), lambda: by_key, lambda: collections.deque(values),
                lambda: {k: i for i, k in enumerate(keys)}.keys(), lambda: {1, "1", b"1", None, 1.5, (1,), math.nan},
                lambda: types.MappingProxyType(by_key), lambda: collections.ChainMap(by_key),
                lambda: types.SimpleNamespace(content=values), lambda: collections.UserList(values),
                lambda: object_array(values), lambda: cyclic(values), lambda: (value for value in values),
                lambda: nested(self._pick((list, dict, tuple, Box))) if self._random.random() < 0.05 else [values],
            )
        )()  # fmt: skip

    def _around(self, depth: int) -> Any:
        """Return a model, an exception or a similar object with a value inside."""
        inside = self.value(depth)
        broken = Box(1)
        del broken.content
        return self._pick(
            (
                lambda: Box(inside, [inside]), lambda: Model(content=inside), lambda: Model.model_construct(content=1, extra=inside),
                lambda: broken, lambda: Model.__new__(Model), lambda: Colour.OBJECT, lambda: self._pick((*Colour,)),
                lambda: ValueError(inside), lambda: types.SimpleNamespace(**{SURROGATES: inside, "": inside}),
                lambda: weakref.WeakValueDictionary({1: Box(1)}), lambda: lambda: inside,
            )
        )()  # fmt: skip


def make(kind: type, *arguments: Any) -> Any:
    """Return an instance, even if its class refuses to be instantiated."""
    try:
        return kind(*arguments)
    except BaseException:
        base: Any = kind.__mro__[1]
        return base.__new__(kind)


class UnfairError(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise UnfairError

    __repr__ = __str__


class RaisingMetaError(Exception, metaclass=RaisingMeta):
    """An exception without a name."""


class HugeError(Exception):
    """An exception with a long text, in a subclass of str."""

    def __str__(self) -> str:
        return UnusableName(HUGE_TEXT)


def long_chain() -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(500):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    return error


def long_traceback() -> BaseException:
    def dive(depth: int) -> None:
        if not depth:
            raise ValueError(FORGED)
        dive(depth - 1)

    try:
        dive(300)
    except ValueError as error:
        return error
    raise AssertionError


def group() -> BaseException:
    kind = getattr(builtins, "ExceptionGroup", None)
    if kind is None:  # Python 3.10 has no groups
        return ValueError("no groups")
    inner = kind(FORGED, [UnfairError(), long_traceback()])
    return cast("BaseException", kind(SURROGATES, [inner, KeyError({})]))


def noted() -> BaseException:
    error = ValueError("noted")
    error.__notes__ = [7, LyingClass(), SURROGATES, FORGED]  # type: ignore[attr-defined]
    return error


#: Exceptions that are hard to format.
EXCEPTIONS: tuple[Callable[[], BaseException], ...] = (
    HugeError, RaisingMetaError, UnfairError, long_chain, long_traceback, group, noted,
    lambda: SyntaxError("bad", (SURROGATES, -3, 1 << 40, FORGED)),
    lambda: UnicodeDecodeError("utf-8", b"\xff" * 1000, 0, 999, "bad"),
    lambda: OSError(LyingClass(), SURROGATES, LyingClass()),
    lambda: AttributeError("no", name="x", obj=LyingClass()),
    lambda: ImportError("no", name=SURROGATES, path=FORGED),
)  # fmt: skip


def dead_proxy() -> Any:
    box = Box(1)
    proxy = weakref.proxy(box)
    del box
    return proxy


def released() -> memoryview:
    view = memoryview(bytearray(8))
    view.release()
    return view


def cyclic(values: list[Any]) -> Any:
    loop: dict[str, Any] = {"list": values, "box": Box(values)}
    loop["self"] = loop
    loop["box"].default = [loop, (loop,)]
    loop["array"] = object_array([loop])
    return loop


def nested(kind: Callable[[Any], Any]) -> Any:
    """Return containers in containers, thousands of levels deep."""
    value: Any = "the end"
    for _ in range(DEPTH):
        value = {"k": value} if kind is dict else kind([value])
    return value


def object_array(values: Sequence[Any]) -> np.ndarray:
    made = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        made[place] = value
    return made


def every_array() -> list[Any]:
    """Return arrays and scalars of every dtype of numpy, also of unusual shapes."""
    codes = [*np.typecodes["All"], ">i4", ">f8", "S3", "U3", "V5", "M8[ns]", "m8[D]"]
    structured = np.dtype([("a", "i4"), ("b", object), ("c", [("d", "f2", (2, 2))]), ("", "S2")])
    arrays: list[Any] = []
    for kind in [*map(np.dtype, codes), structured]:
        zeros = np.zeros(3, kind)
        arrays += [
            zeros,
            zeros[1],
            zeros.reshape(1, 3),
            np.zeros((), kind),
            np.zeros((0, 2), kind),
            zeros[::-1],
        ]
    arrays += [
        np.full(1_000_000, math.nan),
        np.zeros((2,) * 32, bool)[(0,) * 25],
        np.ma.masked_array([1, 2], [True, False]),
        np.rec.array([(1, "a"), (2, "b")], dtype=[("x", int), ("y", "U1")]),
        np.array([SURROGATES, "x"]),
        np.array(["NaT"], "M8[ns]"),
        np.broadcast_to(np.float32(1), (1 << 20, 1 << 20)),
        object_array([LyingClass(), dead_proxy(), UnfairError()]),
        np.longdouble("1e4000"),
        np.dtype(structured),
    ]
    return arrays


def async_generator() -> Any:
    async def numbers() -> Any:
        yield 1

    return numbers()


#: Oddities of the language and its library.
ODD: tuple[Callable[[], Any], ...] = (
    LyingClass, PretendsToBeAnException, RaisingMetaError, UnfairError, lambda: UnusableName("odd"), dead_proxy, released,
    lambda: RaisingMeta("Hidden", (), {}), MagicMock, threading.Lock, threading.local, object, async_generator,
    lambda: sys, lambda: sys._getframe(), lambda: len, lambda: Hostility.value, lambda: type, lambda: list[int],
    lambda: memoryview(bytes(8))[::2], lambda: memoryview(bytes(8)).cast("d"), lambda: array.array("d", [math.nan]),
    lambda: ctypes.c_char_p(b"x"), lambda: (ctypes.c_int * 3)(), lambda: range(10**18), lambda: iter(range(9)),
    lambda: zip("ab", "cd", strict=False), lambda: re.match(".", FORGED), lambda: itertools.count(), lambda: open,
    lambda: collections.Counter("aab"), lambda: collections.defaultdict(list, {1: [2]}), lambda: property(len),
)  # fmt: skip
