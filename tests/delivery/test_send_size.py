"""A backend that does not answer in time gets less at once; possible copies are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fapilog.delivery.sender import SendSize
from fapilog.errors import NoAnswerError, RetryableError
from fapilog.protocols import Outcome
from tests.support.queues import Sending
from tests.support.sinks import ScriptedSink


class Slow(ScriptedSink):
    """Takes every batch, but does not answer those of more than ``most`` records."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sent: list[int] = []

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        self.sent.append(len(batch))
        super().send(batch, timeout)
        if len(batch) > self.most:
            raise NoAnswerError("no answer")
        return None


def test_a_backend_that_is_too_slow_for_a_batch_gets_smaller_ones() -> None:
    delivery = Sending(Slow(most=10))
    batch = delivery.deliver(64)
    assert batch.parts == []
    assert delivery.counts == (64, 0, 0, 0)
    assert delivery.sink.sent[:4] == [64, 32, 16, 8]
    assert sorted(set(delivery.sink.records)) == list(range(64))


def test_the_records_of_a_batch_stay_in_order_when_it_is_sent_in_parts() -> None:
    delivery = Sending(Slow(most=10))
    delivery.deliver(64)
    answered = [batch for batch in delivery.sink.batches if len(batch) <= 10]
    assert [record for batch in answered for record in batch] == list(range(64))


def test_copies_that_the_backend_may_hold_are_counted() -> None:
    delivery = Sending(Slow(most=10))
    delivery.deliver(64)
    copies = len(delivery.sink.records) - len(set(delivery.sink.records))
    assert copies > 0
    assert delivery.ledger.resent == copies


def test_the_next_batch_begins_with_the_size_that_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SendSize, "grow", lambda *_: None)
    delivery = Sending(Slow(most=10))
    delivery.deliver(64)
    delivery.sink.sent.clear()
    delivery.deliver(64)
    assert delivery.sink.sent == [8] * 8


def test_batches_grow_again_when_the_backend_answers_fast() -> None:
    sink = Slow(most=10)
    delivery = Sending(sink)
    delivery.deliver(64)
    sink.most = 1 << 30
    for _ in range(20):
        delivery.deliver(512)
    assert sink.sent[-1] == 512


def test_a_size_that_failed_is_tried_less_and_less_often() -> None:
    delivery = Sending(Slow(most=10))
    for _ in range(100):
        delivery.deliver(64)
    late = [n for n in delivery.sink.sent if n > 10]
    assert len(late) < 20
    assert delivery.ledger.resent < 300


def test_a_backend_that_answers_just_in_time_is_not_given_more() -> None:
    size = SendSize()
    size.shrink(64, 10.0)
    assert size.most == 32
    size.grow(32, 9.0)
    assert size.most == 32
    size.grow(4, 0.1)  # tells nothing of larger ones
    assert size.most == 32
    for _ in range(4):
        size.grow(32, 1.0)
    assert size.most == 64


def test_a_refusal_is_no_reason_for_smaller_batches_and_leaves_no_copies() -> None:
    sink = ScriptedSink(RetryableError("busy"), RetryableError("busy"))
    delivery = Sending(sink)
    delivery.deliver(64)
    assert [len(batch) for batch in sink.batches] == [64]
    assert delivery.ledger.resent == 0


def test_a_single_record_without_an_answer_is_sent_again() -> None:
    delivery = Sending(ScriptedSink(NoAnswerError("late"), NoAnswerError("late")))
    delivery.deliver(1)
    assert delivery.counts == (1, 0, 0, 0)
    assert delivery.ledger.resent == 2
