"""Compares holds with a model: any blocks in any order, released or not, with small bounds."""

from __future__ import annotations

from collections import deque
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import fapilog
from fapilog import Runtime
from fapilog.engine import hold_buffer
from fapilog.sinks import MemorySink
from tests.support.ledger import balanced


class Block:
    """The model of a hold."""

    def __init__(self, level: int, records: int) -> None:
        self.level = level
        self.held: deque[int] = deque(maxlen=records)
        self.lost = 0
        self.released = False


class Holds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sink = MemorySink()
        self.runtime = Runtime(sinks=[self.sink], level="info", otel_provider=False)
        self.log = self.runtime.get_logger("t")
        self.blocks: list[tuple[Any, Block]] = []
        self.expected: list[int] = []
        self.full = self.unwanted = self.n = 0

    @rule(number=st.sampled_from([1, 4, 5, 8, 9, 17]))
    def log_one(self, number: int) -> None:
        self.n += 1
        self.log.log(number, "x", n=self.n)
        taker = next((b for _, b in reversed(self.blocks) if number >= b.level), None)
        if number >= 9 or (taker is not None and taker.released):
            self.expected.append(self.n)
        elif taker is not None:
            self.full += len(taker.held) == taker.held.maxlen
            taker.held.append(self.n)

    @precondition(lambda self: len(self.blocks) < 4)
    @rule(level=st.sampled_from([1, 5, 9]), records=st.integers(1, 4))
    def enter(self, level: int, records: int) -> None:
        hold = fapilog.hold(fapilog.Severity(level), records=records)
        hold.__enter__()
        self.blocks.append((hold, Block(level, records)))

    @precondition(lambda self: self.blocks)
    @rule()
    def leave(self) -> None:
        hold, block = self.blocks.pop()
        hold.__exit__(None, None, None)
        self.unwanted += len(block.held)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold, block = data.draw(st.sampled_from(self.blocks))
        hold.release()
        self.expected += block.held
        block.held.clear()
        block.released = True

    @invariant()
    def every_record_is_where_the_model_has_it(self) -> None:
        assert [len(hold) for hold, _ in self.blocks] == [len(b.held) for _, b in self.blocks]
        stats = self.runtime.stats()
        assert balanced(stats)
        assert stats.accepted == len(self.expected) + self.full + self.unwanted
        assert sum(stats.drops.get("hold_full", {}).values()) == self.full
        assert sum(stats.drops.get("not_released", {}).values()) == self.unwanted

    def teardown(self) -> None:
        while self.blocks:
            self.leave()
        assert self.runtime.flush(10)
        assert [record.attributes["n"] for record in self.sink.records] == self.expected
        self.runtime.shutdown()
        assert hold_buffer.budget.used == 0


TestHolds = Holds.TestCase
TestHolds.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
