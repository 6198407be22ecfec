"""No object, whatever its code does, can make a snapshot fail or share what may change."""

from __future__ import annotations

import decimal
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog import values
from fapilog.values import DEFAULT_LIMITS
from tests.support.values import (
    Order,
    Plain,
    anything,
    check,
    check_encodes,
    hostile,
    limits_of_any_size,
    relaxed,
)

snapshot: Any = values.snapshot  # of any type: the tests know which


@pytest.mark.parametrize("position", range(len(hostile())))
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"k": v}, lambda v: (v, 1)])
def test_no_object_can_make_a_snapshot_fail(position, wrap):
    result = snapshot(wrap(hostile()[position]))
    check(result)
    check_encodes(result)
    assert result != "<snapshot failed>"


def test_a_failing_repr_is_named_with_its_type_and_error():
    value = hostile()[0]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    assert snapshot(value) == f"<{name} (repr failed: RuntimeError)>"


def test_hostile_objects_as_keys_are_harmless():
    class Key:
        def __hash__(self):
            return 1

        def __repr__(self):
            raise ValueError

    result = snapshot({Key(): 1, "a": {"b": {Key(): [Key()]}}})
    check(result)
    assert 1 in result.values()


def test_iterators_are_not_consumed():
    numbers = (n for n in range(3))
    lines = iter(["a", "b"])
    assert "generator" in snapshot(numbers)
    snapshot({"lines": lines})
    assert [*numbers] == [0, 1, 2]
    assert [*lines] == ["a", "b"]


def test_a_record_logged_by_a_repr_does_not_recurse():
    seen = []

    class Chatty:
        def __repr__(self):
            seen.append(snapshot({"me": self, "n": 1, "plain": {"a": [1]}}))
            return "Chatty()"

    assert snapshot(Chatty()) == "Chatty()"
    assert seen == [
        {
            "me": f"<{Chatty.__module__}.{Chatty.__qualname__} (logged while an object was being read)>",
            "n": 1,
            "plain": {"a": [1]},
        }
    ]
    assert snapshot(Plain()) == "Plain()", "the guard is lifted afterwards"


def test_cycles_are_marked():
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    assert snapshot(loop) == {"a": 1, "self": "…(cycle)"}
    items: list[Any] = [1]
    items.append((items,))
    assert snapshot(items) == [1, ["…(cycle)"]]
    order = Order("a", decimal.Decimal(1))
    order.id = order  # type: ignore[assignment]
    assert snapshot(order) == {"id": "…(cycle)", "price": "1"}


def test_the_same_object_twice_is_no_cycle():
    part = {"n": 1}
    assert snapshot([part, part, (part,)]) == [part, part, [part]]


def test_keyboard_interrupt_passes():
    class Interrupts:
        def __repr__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot(Interrupts())
    assert snapshot(Plain()) == "Plain()"


def test_a_snapshot_near_the_end_of_the_stack_does_not_raise():
    def dive(depth: int) -> Any:
        try:
            return dive(depth + 1)
        except RecursionError:
            return snapshot({"a": [Plain(), {"b": Plain()}]}) if depth else None

    check(dive(1))


# ---- any value at all


@relaxed
@given(value=anything, limits=st.one_of(st.just(DEFAULT_LIMITS), limits_of_any_size))
def test_any_snapshot_is_valid_within_limits_and_encodable(value, limits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = snapshot(value, limits)
    check(result, limits)
    check_encodes(result)
    assert repr(snapshot(result, limits)) == repr(result), "a snapshot of a snapshot is the same"


@relaxed
@given(value=anything)
def test_any_snapshot_shares_nothing_that_can_change(value):
    def containers(item: Any, found: dict[int, Any]) -> dict[int, Any]:
        if issubclass(type(item), (list, dict, bytearray)):
            found[id(item)] = item
        if issubclass(type(item), (list, tuple)):
            for part in item:
                containers(part, found)
        elif issubclass(type(item), dict):
            for part in item.values():
                containers(part, found)
        return found

    assert not containers(value, {}).keys() & containers(snapshot(value), {}).keys()
