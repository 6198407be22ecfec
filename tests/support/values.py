"""Values of every kind, and the properties that any value must have after a snapshot."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import enum
import math
import types
import warnings
from typing import Any, NamedTuple

import numpy as np
import orjson
import pydantic
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1 import common_pb2

from fapilog.values import DEFAULT_LIMITS, Limits

SMALL = Limits(depth=4, nodes=20, text=50, record=4096, attributes=5)


# ---- the properties of a value, written without looking at the implementation


def check(value: Any, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise unless ``value`` is an AnyValue of exact types within the limits."""
    nodes = 0

    def visit(item: Any, depth: int) -> None:
        nonlocal nodes
        if type(item) is dict or type(item) is list:
            assert depth < limits.depth, "too deep"
            nodes += len(item)
            for key in item if type(item) is dict else ():
                assert type(key) is str
                assert 0 < len(key) <= 256
                key.encode()
            for part in item.values() if type(item) is dict else item:
                visit(part, depth + 1)
        elif type(item) is str:
            assert len(item) <= limits.text
            item.encode()
        elif type(item) is bytes:
            assert len(item) <= limits.text
        elif type(item) is int:
            assert -(2**63) <= item < 2**63
        elif type(item) is float:
            assert math.isfinite(item)
        else:
            assert item is None or type(item) is bool, type(item)

    visit(value, 0)
    assert nodes <= limits.nodes


def text_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(key.encode()) + text_bytes(part) for key, part in value.items())
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 0


def to_proto(value: Any) -> common_pb2.AnyValue:
    out = common_pb2.AnyValue()
    if isinstance(value, bool):
        out.bool_value = value
    elif isinstance(value, int):
        out.int_value = value
    elif isinstance(value, float):
        out.double_value = value
    elif isinstance(value, str):
        out.string_value = value
    elif isinstance(value, bytes):
        out.bytes_value = value
    elif isinstance(value, list):
        out.array_value.SetInParent()
        for item in value:
            out.array_value.values.append(to_proto(item))
    elif isinstance(value, dict):
        out.kvlist_value.SetInParent()
        for key, item in value.items():
            out.kvlist_value.values.append(common_pb2.KeyValue(key=key, value=to_proto(item)))
    return out


def check_encodes(value: Any) -> None:
    orjson.dumps(value, default=lambda data: data.hex())
    data = to_proto(value).SerializeToString()
    common_pb2.AnyValue.FromString(data)


# ---- kinds of values


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Mode(str, enum.Enum):
    FAST = "fast"


class Bits(enum.Flag):
    A = 1
    B = 2


class Name(str):
    __slots__ = ()


class Hidden(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "Hidden(***)"


class Count(int):
    def __add__(self, other: int) -> int:
        raise ValueError


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Order:
    id: str
    price: decimal.Decimal
    token: str = dataclasses.field(default="tok-123", repr=False)


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("a",)
    a: int


@dataclasses.dataclass
class OwnRepr:
    password: str

    def __repr__(self) -> str:
        return "OwnRepr(password=***)"


@dataclasses.dataclass(repr=False)
class WithoutRepr:
    password: str


class User(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    password: pydantic.SecretStr
    key: pydantic.SecretBytes = pydantic.SecretBytes(b"k3y")
    card: str = pydantic.Field("4111", repr=False)
    cvv: str = pydantic.Field("999", exclude=True)


class Masked(pydantic.BaseModel):
    password: str

    def __repr_args__(self):
        yield "password", "***"


@pydantic.dataclasses.dataclass
class Basket:
    items: list[int]


class Plain:
    def __repr__(self) -> str:
        return "Plain()"


# ---- objects that misbehave


def hostile() -> list[Any]:
    class RaisingRepr:
        def __repr__(self):
            raise RuntimeError("no")

    class NotText:
        def __repr__(self):
            return 7

    class LyingClass:
        @property  # type: ignore[misc]
        def __class__(self):
            raise ValueError("no class")

    class Pretender:
        __class__ = dict  # type: ignore[assignment]

    class Attributes:
        def __getattribute__(self, name):
            raise KeyError(name)

    class RaisingItems(collections.abc.Mapping[str, int]):
        def __getitem__(self, key):
            raise ValueError

        def __iter__(self):
            raise ValueError

        def __len__(self):
            raise ValueError

        def __repr__(self):
            raise ValueError

    class LongLength(collections.abc.Sequence[Any]):
        def __len__(self):
            return 2**40

        def __getitem__(self, index):
            return self

    class Endless(collections.abc.Set[int]):
        def __contains__(self, item):
            return True

        def __iter__(self):
            while True:
                yield 1

        def __len__(self):
            return 1

    class Pairs(collections.abc.Mapping[str, int]):
        def __getitem__(self, key):
            return 1

        def __iter__(self):
            return iter("a")

        def __len__(self):
            return 1

        def items(self):
            return [1, 2, 3]

    class Exits:
        def __repr__(self):
            return f"{self!r}"

    class Meta(type):
        def __getattribute__(cls, name):
            raise ValueError(name)

        def __hash__(cls):
            raise ValueError

    class BadMeta(metaclass=Meta):
        pass

    class Unhashable(str):
        __hash__ = None  # type: ignore[assignment]
        __slots__ = ()

        def __eq__(self, other):
            raise ValueError

        def __len__(self):
            return -1  # noqa: PLE0303

        def __repr__(self):
            raise ValueError

    class BadError(Exception):
        def __str__(self):
            raise BadError

    class Warns:
        def __repr__(self):
            warnings.warn("do not print me", UserWarning, stacklevel=1)
            return "Warns()"

    class Partial(pydantic.BaseModel):
        a: int

    released = memoryview(bytearray(8))
    released.release()
    broken = Order("a", decimal.Decimal(1))
    del broken.id
    self_made = types.new_class("", (), {})()
    return [
        RaisingRepr(), NotText(), LyingClass(), Pretender(), Attributes(), RaisingItems(), LongLength(),
        Endless(), Pairs(), Exits(), BadMeta(), BadMeta, Unhashable("u"), BadError(), Warns(), released,
        broken, Partial.__new__(Partial), self_made, object(), NotImplemented, ..., iter([1]), np.void(b"x"),
    ]  # fmt: skip


# ---- any value at all

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**60, 2**70), st.floats(), st.text(), st.binary(),
    st.text(alphabet=st.characters()), st.text(alphabet=st.characters(categories=["Cs"])), st.decimals(), st.fractions(),
    st.uuids(), st.datetimes(), st.dates(), st.timedeltas(), st.complex_numbers(), st.ip_addresses(),
    st.sampled_from([*Colour, *Level, *Mode, Plain(), Plain, len, Name("n"), Hidden("h"), ValueError("v"), np.float64("nan")]),
    st.integers(0, len(hostile()) - 1).map(lambda n: hostile()[n]),
    st.builds(Order, st.text(), st.decimals()), st.builds(bytearray, st.binary()), st.builds(range, st.integers(0, 9)),
)  # fmt: skip


def object_array(value: Any) -> np.ndarray:
    made = np.empty(2, dtype=object)
    made[0] = value
    return made


hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.tuples(st.integers(), st.text()),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(hashable, inner, max_size=6),
        st.tuples(inner, inner),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(Point, inner, inner),
        st.builds(lambda v: Order(v, v), inner),
        st.sets(hashable, max_size=4),
        st.builds(object_array, inner),
    ),
    max_leaves=25,
)
limits_of_any_size = st.builds(
    Limits,
    depth=st.integers(1, 6),
    nodes=st.integers(1, 40),
    text=st.integers(1, 120),
    record=st.integers(4096, 8192),
    attributes=st.integers(0, 6),
)
relaxed = settings(suppress_health_check=[HealthCheck.too_slow])
