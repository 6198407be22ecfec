"""Snapshots are bounded, and what was cut off is marked."""

from __future__ import annotations

import decimal
import threading
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from fapilog import values
from fapilog.errors import ConfigurationError
from fapilog.values import DEFAULT_LIMITS, Limits, snapshot_attributes
from tests.support.values import SMALL, Colour, Order, Plain, check, text_bytes, to_proto

snapshot: Any = values.snapshot  # of any type: the tests know which


# ---- bounds


def test_long_text_is_cut_and_marked():
    result = snapshot("x" * 100_000)
    assert result.endswith("…(truncated, 100000 characters)")
    assert DEFAULT_LIMITS.text - 512 <= len(result) <= DEFAULT_LIMITS.text
    assert snapshot("é" * 60, SMALL) == "é" * 17 + "…(truncated, 60 characters)"
    check(snapshot("é" * 60, SMALL), SMALL)
    assert snapshot("\ud800" * 30, SMALL).endswith("…(truncated, 30 characters)")
    assert snapshot("x" * 20, Limits(text=5)) == "xxx…"
    words = snapshot("word " * 20_000)
    assert words.endswith("word …(truncated, 100000 characters)")


def test_long_bytes_are_cut_and_marked():
    assert snapshot(b"x" * 100, SMALL).endswith("…(truncated, 100 bytes)".encode())
    check(snapshot(bytearray(5_000_000)))
    check(snapshot([memoryview(bytes(3_000_000))]))


def test_a_gigantic_repr_is_cut():
    class Big:
        def __repr__(self):
            return "y" * 10_000_000

    assert DEFAULT_LIMITS.text - 512 <= len(snapshot(Big())) <= DEFAULT_LIMITS.text


def test_too_many_values_are_cut_and_marked():
    result = snapshot(list(range(5000)))
    assert result[:3] == [0, 1, 2]
    assert result[-1] == "…(truncated, 5000 items)"
    assert len(result) == DEFAULT_LIMITS.nodes
    result = snapshot({str(n): n for n in range(5000)})
    assert result["…"] == "…(truncated, 5000 items)"
    assert snapshot(np.arange(10**6))[-1] == "…(truncated, 1000000 items)"


def test_a_large_neighbour_does_not_take_a_values_place():
    result = snapshot({"user": {"id": 7}, "large": list(range(5000)), "last": True})
    assert result["user"] == {"id": 7}
    assert result["last"] is True
    assert result["large"][-1] == "…(truncated, 5000 items)"


def test_deep_values_are_cut_and_marked():
    value: Any = "bottom"
    for _ in range(100_000):
        value = [value]
    result = snapshot(value)
    check(result)
    assert "…(too deep)" in repr(result)
    del value
    enums = snapshot({"a": {"b": {"c": [Colour.RED]}}}, Limits(depth=4))
    assert enums == {"a": {"b": {"c": ["red"]}}}


def test_a_value_of_many_texts_stays_within_the_record():
    result = snapshot({str(n): "z" * 60_000 for n in range(100)})
    check(result)
    assert text_bytes(result) <= DEFAULT_LIMITS.record
    assert len(result) == 100
    result = snapshot({f"{n}" * 60: "z" for n in range(10**4)}, Limits(nodes=10**6))
    assert text_bytes(result) <= DEFAULT_LIMITS.record
    assert result["…"] == "…(truncated, 10000 items)"


@pytest.mark.parametrize(
    ("option", "value"), [("depth", 0), ("depth", 31), ("nodes", 0), ("text", -1), ("record", 100), ("attributes", -1), ("text", 1.5)]
)  # fmt: skip
def test_a_limit_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(ConfigurationError, match=option):
        Limits(**{option: value})


def test_the_deepest_value_the_limits_allow_can_be_parsed():
    value: Any = "bottom"
    for _ in range(30):
        value = {"k": value}
    result = snapshot(value, Limits(depth=30))
    assert result == value
    record = logs_pb2.LogRecord(body=to_proto(result))
    record.attributes.append(common_pb2.KeyValue(key="a", value=to_proto(result)))
    data = logs_pb2.LogsData(
        resource_logs=[logs_pb2.ResourceLogs(scope_logs=[logs_pb2.ScopeLogs(log_records=[record])])]
    ).SerializeToString()
    logs_pb2.LogsData.FromString(data)


def test_a_snapshot_does_not_change_with_its_source():
    source: dict[str, Any] = {
        "list": [1],
        "dict": {"a": 1},
        "bytes": bytearray(b"a"),
        "order": Order("A", decimal.Decimal(1)),
    }
    result = snapshot(source)
    before = repr(result)
    source["list"].append(2)
    source["dict"]["b"] = 2
    source["bytes"][:] = b"zz"
    source["order"].id = "B"
    source.clear()
    assert repr(result) == before


def test_other_threads_may_change_a_value_meanwhile():
    value: dict[Any, Any] = {n: [n] for n in range(300)}
    stop = threading.Event()

    def churn() -> None:
        n = 300
        while not stop.is_set():
            n += 1
            value[n] = [n]
            value.pop(n - 300, None)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            assert isinstance(snapshot(value), dict)
    finally:
        stop.set()
        thread.join()


def test_attributes_keep_scalars_and_copy_the_rest():
    text, items = "x" * 100, [1]
    result = snapshot_attributes({"text": text, "n": 1, "items": items, "o": Plain()})
    assert result == {"text": text, "n": 1, "items": [1], "o": "Plain()"}
    assert result["text"] is text
    assert result["items"] is not items


def test_attributes_beyond_the_limit_are_not_read():
    class Unread:
        def __repr__(self):
            raise AssertionError

    result = snapshot_attributes({f"a{n}": Unread() if n >= 5 else n for n in range(9)}, SMALL)
    assert [*result] == [f"a{n}" for n in range(9)]
    assert "…(too many attributes)" in result.values()
