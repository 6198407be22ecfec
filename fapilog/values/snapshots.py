"""Makes snapshots, which are copies of limited size, on the thread that logs.

A :class:`Walk` copies one body or one attribute value, and limits the number of values and bytes
in the copy.  A string that begins with ``…`` replaces the text or the items beyond a limit.
"""

from __future__ import annotations

from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from fapilog.values.limits import DEFAULT_LIMITS, Limits
from fapilog.values.objects import Items, Pairs, read
from fapilog.values.plain import INT64_MAX, INT64_MIN, MAX_NAME, copy_plain, measure
from fapilog.values.text import (
    fit,
    free_name,
    integer_text,
    name_of,
    non_finite_text,
    utf8_size,
    without_last_word,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.record import AnyValue

#: The number of bytes that ``Walk`` reserves for each value in a container.  They are enough for
#: the 8 bytes of ``plain.NODE_SIZE``, and for ``…`` if the value's text does not fit.
_NODE_CHARGE: Final = 12
#: The number of bytes that ``Walk`` reserves in each container for the text that replaces the last
#: items if there are too many, such as ``…(truncated, 5000 items)``.
MARK_CHARGE: Final = 64


def snapshot(value: Any, limits: Limits = DEFAULT_LIMITS) -> AnyValue:
    """Return a copy of ``value`` that has a limited size and consists of plain types only.

    The result consists of None, bool, int of 64 bits, finite float, str that UTF-8 can encode,
    bytes, list, and dict with non-empty str keys.  It shares no mutable object with ``value``.
    Other objects are replaced by their fields, their items or their ``repr``.  A snapshot never
    shows a field that an object hides from its ``repr``, and never consumes an iterator.  NaN and
    the infinities become the strings of the proto3 JSON mapping
    (https://protobuf.dev/programming-guides/json/).

    Never raises.  May run code of the value's class, and blocks only if that code blocks.
    Thread-safe.
    """
    try:
        return _snapshot(value, limits)
    except Exception:  # noqa: BLE001 - stack or memory is exhausted; the record shows it
        return "<snapshot failed>"


def plain_name(name: object) -> str:
    """Return the name of a logger or an event in a form that every sink can send.

    The result has at most 256 characters; None becomes "".
    """
    if type(name) is str and name.isascii() and len(name) <= MAX_NAME:
        return name
    plain = snapshot(name)
    return "" if plain is None or plain == "" else name_of(plain, ())


def _snapshot(value: Any, limits: Limits) -> AnyValue:
    copy: AnyValue = None
    if type(value) is dict or type(value) is list or type(value) is tuple:
        try:
            copy = copy_plain(value, limits.depth, [limits.nodes])
            if measure(copy, limits) > limits.record:
                copy = None
        except Exception:  # noqa: BLE001 - not plain, or of a class whose comparison raises
            copy = None
    return Walk(limits, limits.record).value(value) if copy is None else copy


def snapshot_attributes(
    fields: dict[str, Any], limits: Limits = DEFAULT_LIMITS
) -> dict[str, AnyValue]:
    """Return the keyword arguments of a log call, with a snapshot of each value.

    The attributes beyond ``limits.attributes`` get a placeholder as their value; later,
    :func:`normalise` drops them and counts them as dropped.  Never raises.  Thread-safe.
    """
    attributes: dict[str, AnyValue] = {}
    for name, value in fields.copy().items():
        if not _is_ordinary_name(name):
            plain = name if type(name) is str else snapshot(name)
            name = name_of(plain, attributes)  # noqa: PLW2901 - the valid name
        if len(attributes) >= limits.attributes:
            attributes[name] = "…(too many attributes)"
        elif type(value) is str and value.isascii() and len(value) <= limits.text:
            attributes[name] = value
        else:
            attributes[name] = snapshot(value, limits)
    return attributes


def _is_ordinary_name(name: object) -> bool:
    return type(name) is str and name.isascii() and 0 < len(name) <= MAX_NAME


class Walk:
    """Copies one value.  Not thread-safe, and not usable after an exception.

    Args:
        limits: the limits, of which ``depth``, ``nodes`` and ``text`` apply.
        room: the maximum size of the copy, in UTF-8 bytes.
    """

    __slots__ = ("_limits", "_nodes", "_path", "_room")

    def __init__(self, limits: Limits, room: int) -> None:
        self._limits = limits
        self._nodes = limits.nodes
        self._room = room
        self._path: set[int] = set()  # ids of the containers that enclose the current value

    def value(self, value: Any, depth: int = 0) -> AnyValue:  # noqa: C901 - one branch per type
        """Copy a value that is inside ``depth`` nested containers."""
        kind = type(value)
        copy: AnyValue = value
        if kind is str:
            if value.isascii() and len(value) <= self._limits.text and len(value) <= self._room:
                self._room -= len(value)
            else:
                copy = self._text(value)
        elif kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                copy = self._text(integer_text(value, self._limits.text))
        elif kind is float:
            if not isfinite(value):
                copy = self._text(non_finite_text(value))
        elif kind is dict:
            fits = len(value) <= self._nodes
            # Iterate over a copy of the dict, because another thread may change the original.
            pairs = value.copy().items() if fits else list(islice(value.items(), self._nodes))
            copy = self._container(value, Pairs(pairs, len(value)), depth)
        elif kind is list or kind is tuple:
            copy = self._container(value, Items(value[: self._nodes], len(value)), depth)
        elif kind is bytes:
            copy = self._bytes(value)
        elif value is not None and kind is not bool:
            copy = self._object(value, depth)
        return copy

    def _container(self, value: object, found: Pairs | Items, depth: int) -> AnyValue:
        if id(value) in self._path:
            return self._text("…(cycle)")
        if depth >= self._limits.depth:
            return self._text("…(too deep)")
        total = found.total
        count = min(total, self._nodes, max(self._room - MARK_CHARGE, 0) // _NODE_CHARGE)
        if count < total:
            count -= 1  # one value is the text that replaces the last items
            if count < 1:
                return self._text(_missing(found))
        # Before the first item is copied, count every item against the limit on the number of
        # values, and reserve the minimum number of bytes for it, so that a large item cannot use
        # the space of later items.
        self._nodes -= min(count + 1, total)
        self._room -= count * _NODE_CHARGE + MARK_CHARGE * (total > 0)
        self._path.add(id(value))
        copy: Any
        if isinstance(found, Pairs):
            copy = self._mapping(islice(found.parts, count), depth + 1)
            if len(copy) < total:
                copy[free_name("…", copy)] = fit(_missing(found), self._limits.text)
        else:
            copy = [self.value(part, depth + 1) for part in islice(found.parts, count)]
            if count < total:
                copy.append(fit(_missing(found), self._limits.text))
        self._path.discard(id(value))
        return copy  # type: ignore[no-any-return]

    def _mapping(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[str, AnyValue]:
        copy: dict[str, Any] = {}
        for key, value in pairs:
            if _is_ordinary_name(key) and key not in copy:
                name = key
            else:
                name = name_of(key if type(key) is str else self.value(key, depth), copy)
            self._room -= utf8_size(name)
            if self._room < 0:
                break
            copy[name] = value
        for name, value in copy.items():
            copy[name] = self.value(value, depth)
        return copy

    def _object(self, value: Any, depth: int) -> AnyValue:
        if id(value) in self._path:
            return self._text("…(cycle)")
        if depth > self._limits.depth:
            return self._text("…(too deep)")
        found = read(value, self._nodes)
        if isinstance(found, (Pairs, Items)):
            return self._container(value, found, depth)
        self._path.add(id(value))
        copy = self.value(found, depth + 1)
        self._path.discard(id(value))
        return copy

    def _text(self, text: str) -> str:
        text = fit(text, self._limits.text, self._room)
        self._room -= utf8_size(text)
        return text

    def _bytes(self, value: bytes) -> bytes:
        limit = min(self._limits.text, max(self._room, 3))
        if len(value) > limit:
            mark = f"…(truncated, {len(value)} bytes)".encode()
            mark = mark if len(mark) <= limit else "…".encode()[:limit]
            head = without_last_word(value[: limit - len(mark)].decode("latin-1"))
            value = head.encode("latin-1") + mark
        self._room -= len(value)
        return value


def _missing(found: Pairs | Items) -> str:
    return f"…(truncated, {found.total} items)"
