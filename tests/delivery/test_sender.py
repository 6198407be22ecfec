from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.sender import MAX_CUTS, SAMPLES
from fapilog.errors import (
    AccessDeniedError,
    InvalidDataError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.protocols import Outcome
from tests.support.ledger import wait_for
from tests.support.queues import Sending, state_of
from tests.support.sinks import Gate, ScriptedSink


class Picky(ScriptedSink):
    """Refuses requests with more than ``limit`` records, or with a bad record."""

    def __init__(self, bad: Sequence[int] = (), limit: int = 1 << 30) -> None:
        super().__init__()
        self.bad = set(bad)
        self.limit = limit
        self.requests = 0

    def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
        self.requests += 1
        if len(batch) > self.limit:
            raise TooLargeError("413")
        if not self.bad.isdisjoint(batch):
            raise InvalidDataError("400 a timestamp is too old")
        return super().send(batch, timeout)


# ---- what each answer means


@pytest.mark.parametrize(
    ("answers", "counts", "sends", "retries"),
    [
        ([None], (3, 0, 0, 0), 1, 0),
        ([Outcome()], (3, 0, 0, 0), 1, 0),
        ([Outcome(message="a warning")], (3, 0, 0, 0), 1, 0),
        ([Outcome(rejected=1)], (2, 1, 0, 0), 1, 0),
        ([Outcome(rejected=99)], (0, 3, 0, 0), 1, 0),
        ([Outcome(rejected=-1)], (3, 0, 0, 0), 1, 0),
        ([RetryableError("503")], (3, 0, 0, 0), 2, 1),
        ([RetryableError("429", retry_after=0.01)] * 30, (3, 0, 0, 0), 31, 30),
        ([AccessDeniedError("401")] * 30, (3, 0, 0, 0), 31, 30),
        ([PermanentError("404")], (0, 3, 0, 0), 1, 0),
        ([ValueError("?")] * 4, (3, 0, 0, 0), 5, 4),
        ([ValueError("?")] * 5, (0, 0, 0, 3), 5, 4),
        ([ValueError("?"), RetryableError("503")] * 4, (3, 0, 0, 0), 9, 8),
        ([TooLargeError("413")], (3, 0, 0, 0), 3, 0),
        ([TooLargeError("413")] * 3, (2, 1, 0, 0), 5, 0),
        ([InvalidDataError("400")] * 5, (0, 3, 0, 0), 5, 0),
        ([InvalidDataError("400"), PermanentError("404")], (2, 1, 0, 0), 3, 0),
    ],
)
def test_after_every_answer_each_record_is_counted_once(
    answers: list[object], counts: tuple[int, ...], sends: int, retries: int
) -> None:
    delivery = Sending(ScriptedSink(*answers))
    batch = delivery.deliver(3)
    assert delivery.counts == counts
    assert (delivery.ledger.sends, delivery.ledger.retries) == (sends, retries)
    assert (batch.parts, delivery.in_flight) == ([], [])
    assert state_of(delivery.circuit) == "closed"


def test_a_batch_in_quarantine_counts_as_quarantined_and_when_that_is_full_as_rejected(capsys):
    delivery = Sending(ScriptedSink(*[PermanentError("400 no")] * 3), quarantine=2)
    for _ in range(3):
        delivery.deliver(2)
    assert delivery.quarantine.kept == [([0, 1], "400 no")] * 2
    assert delivery.counts == (0, 2, 4, 0)
    announced = capsys.readouterr().err
    assert "backend: 2 records refused for good are in quarantine: 400 no" in announced
    assert "backend: 2 records lost: 400 no" in announced


def test_with_bad_credentials_records_are_kept_and_an_alarm_is_raised(capsys):
    gate = Gate()
    sink = ScriptedSink(AccessDeniedError("HTTP 401 Unauthorized"), AccessDeniedError("403"))
    delivery = Sending(sink)
    sink._on_send = lambda: gate() if not sink.answers else None
    thread = threading.Thread(target=delivery.deliver, args=(3,))
    thread.start()
    assert gate.entered.wait(20)
    assert delivery.is_denied()
    assert state_of(delivery.circuit) == "half_open"
    gate.opened.set()
    thread.join(20)
    assert not delivery.is_denied()
    assert delivery.counts == (3, 0, 0, 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "ALARM" in line
    assert "backend: " in line
    assert "HTTP 401 Unauthorized" in line


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RetryableError("HTTP 503 busy"), "backend: will try again: HTTP 503 busy"),
        (Outcome(rejected=2, message="too old"), "backend: 2 records lost: too old"),
        (Outcome(message="use the other port"), "backend: use the other port"),
        (PermanentError("HTTP 404"), "backend: 3 records lost: HTTP 404"),
        (OSError("no route"), "backend: will try again: OSError: no route"),
    ],
)
def test_the_backends_message_is_announced(answer, words, capsys):
    Sending(ScriptedSink(answer)).deliver(3)
    assert words in capsys.readouterr().err


def test_attempts_after_an_unknown_error_are_counted_per_part_of_a_batch():
    odd = ValueError("?")
    sink = ScriptedSink(TooLargeError("413"), *[odd] * 4, None, *[odd] * 4, None)
    delivery = Sending(sink)
    delivery.deliver(2)
    assert delivery.counts == (2, 0, 0, 0)


def test_after_a_batch_is_given_up_the_next_one_is_sent_at_once():
    sink = ScriptedSink(*[ValueError("?")] * 2)
    delivery = Sending(sink, retry=RetryPolicy(initial=0.001, maximum=0.01, unknown_attempts=2))
    delivery.deliver(1)
    assert delivery.circuit.enter() == 0
    delivery.deliver(1)
    assert delivery.counts == (1, 0, 0, 1)


def test_retry_after_is_obeyed_only_if_the_error_is_retryable():
    error = OSError("a foreign error")
    error.retry_after = 3600  # type: ignore[attr-defined]
    delivery = Sending(ScriptedSink(error))
    delivery.deliver(1)
    assert delivery.counts == (1, 0, 0, 0)


def test_an_error_class_that_never_calls_its_base_is_retryable_too():
    class BareError(RetryableError):
        def __init__(self) -> None:
            pass

    delivery = Sending(ScriptedSink(BareError()))
    delivery.deliver(1)
    assert delivery.counts == (1, 0, 0, 0)


# ---- splitting


@given(
    count=st.integers(1, 60),
    bad=st.sets(st.integers(0, 59)),
    limit=st.integers(1, 64),
    quarantine=st.booleans(),
)
def test_good_records_are_delivered_once_in_order_and_bad_ones_refused_alone(
    count: int, bad: set[int], limit: int, quarantine: bool
) -> None:
    sink = Picky(sorted(bad), limit)
    delivery = Sending(sink, quarantine=100 if quarantine else 0)
    delivery.deliver(count)
    refused = [number for number in range(count) if number in bad]
    good = [number for number in range(count) if number not in bad]
    assert sink.records == good  # at most 59 cuts
    if quarantine:
        assert [items for items, _ in delivery.quarantine.kept] == [[number] for number in refused]
        assert delivery.counts == (len(good), 0, len(refused), 0)
    else:
        assert delivery.counts == (len(good), len(refused), 0, 0)


@given(
    count=st.integers(MAX_CUTS, 1200), bad=st.sets(st.integers(0, 1199)), limit=st.integers(1, 64)
)
def test_after_the_last_cut_parts_are_refused_whole_and_no_record_is_lost(
    count: int, bad: set[int], limit: int
) -> None:
    sink = Picky(sorted(bad), limit)
    delivery = Sending(sink, quarantine=1 << 30)
    delivery.deliver(count)
    kept = [number for items, _ in delivery.quarantine.kept for number in items]
    assert sorted([*sink.records, *kept]) == list(range(count))
    assert sink.records[1:] == sorted(sink.records[1:]), "only a sample may arrive early"
    assert bad.isdisjoint(sink.records)
    assert sink.requests <= 2 * MAX_CUTS + 1
    assert sum(delivery.counts) == count
    if sink.requests <= MAX_CUTS:
        kept_alone = [one for one in delivery.quarantine.kept if "sent alone" not in one[1]]
        assert all(len(items) == 1 for items, _ in kept_alone)


def test_a_backend_that_refuses_every_record_for_one_reason_gets_few_requests(capsys):
    sink = Picky(range(1000))
    delivery = Sending(sink, quarantine=1 << 30)
    delivery.deliver(1000)
    assert delivery.counts == (0, 0, 1000, 0)
    assert sink.requests == 1 + SAMPLES
    *alone, (rest, reason) = delivery.quarantine.kept
    samples = [number for items, _ in alone for number in items]
    assert [number // 62 for number in samples] == list(range(SAMPLES)), "from all over the batch"
    assert sorted([*rest, *samples]) == [*range(1000)]
    assert reason == (
        "400 a timestamp is too old "
        "(16 records sent alone were refused for this reason, so the rest was not)"
    )
    assert "records refused for good are in quarantine" in capsys.readouterr().err


def test_a_reason_is_the_same_although_it_quotes_the_record(capsys):
    class Quoting(Picky):
        def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
            self.requests += 1
            stream = f'{{service_name="web", n="{batch[0]}"}}'
            raise InvalidDataError(
                f"HTTP 400 Bad Request: entry for stream '{stream}' has timestamp too old: "
                f"2026-11-{batch[0] % 30:02}T00:00:00Z"
            )

    sink = Quoting()
    Sending(sink).deliver(1000)
    assert sink.requests == 1 + SAMPLES


@pytest.mark.parametrize(
    "bad", [range(40), range(960, 1000), [0], [0, 62, 124], range(0, 1000, 31), range(0, 200, 2)]
)
def test_good_records_arrive_although_the_samples_before_them_were_refused(bad):
    sink = Picky(bad)
    delivery = Sending(sink)
    delivery.deliver(1000)
    assert sorted(sink.records) == sorted(set(range(1000)) - {*bad})
    assert delivery.counts == (1000 - len(bad), len(bad), 0, 0)


def test_records_that_are_refused_for_different_reasons_are_all_found():
    class Verbose(Picky):
        def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
            self.requests += 1
            why = ("too old", "too new")[batch[0] // 100 % 2] if len(batch) == 1 else "some"
            raise InvalidDataError(f"400 {why}")

    sink = Verbose()
    delivery = Sending(sink, quarantine=1 << 30)
    delivery.deliver(200)
    assert delivery.counts == (0, 0, 200, 0)
    assert [len(items) for items, _ in delivery.quarantine.kept] == [1] * 200
    assert {reason for _, reason in delivery.quarantine.kept} == {"400 too old", "400 too new"}


def test_a_backend_that_refuses_everything_does_not_get_a_request_per_record():
    sink = Picky(range(5000), limit=1)
    delivery = Sending(sink)
    delivery.deliver(5000)
    assert delivery.counts == (0, 5000, 0, 0)
    assert sink.requests == 2 * MAX_CUTS + 1


@given(answers=st.lists(st.sampled_from(["ok", "503", "413", "400", "404", "odd", "partial"])))
def test_with_any_sequence_of_answers_every_record_is_settled_once(answers: list[str]) -> None:
    meaning: dict[str, object] = {
        "ok": None,
        "503": RetryableError("503"),
        "413": TooLargeError("413"),
        "400": InvalidDataError("400"),
        "404": PermanentError("404"),
        "odd": ValueError("odd"),
        "partial": Outcome(rejected=1),
    }
    sink = ScriptedSink(*[meaning[answer] for answer in answers])
    delivery = Sending(sink, retry=RetryPolicy(initial=1e-6, maximum=1e-6), quarantine=2)
    delivery.deliver(7)
    assert sum(delivery.counts) == 7
    assert delivery.in_flight == []
    assert len(sink.records) == len(set(sink.records))
    assert sink.records == sorted(sink.records)


# ---- several threads


def side_by_side(delivery: Sending, batches: int) -> Iterator[threading.Thread]:
    for _ in range(batches):
        thread = threading.Thread(target=delivery.deliver, args=(2,))
        thread.start()
        yield thread


def test_while_the_circuit_is_open_one_of_many_threads_probes():
    gate = Gate()
    at_once: list[int] = []
    under_way = 0
    lock = threading.Lock()

    class Watched(ScriptedSink):
        def send(self, batch: Sequence[Any], timeout: float) -> Outcome | None:
            nonlocal under_way
            with lock:
                under_way += 1
                at_once.append(under_way)
            try:
                if not gate.opened.is_set():
                    raise RetryableError("503")
                return super().send(batch, timeout)
            finally:
                with lock:
                    under_way -= 1

    sink = Watched()
    delivery = Sending(sink)
    delivery.circuit.fail()
    threads = list(side_by_side(delivery, 8))
    wait_for(lambda: delivery.ledger.retries > 20)
    assert set(at_once) == {1}
    gate.opened.set()
    for thread in threads:
        thread.join(30)
    assert delivery.counts == (16, 0, 0, 0)


def test_a_send_that_hangs_while_the_circuit_is_open_does_not_stop_the_others(monkeypatch):
    gate = Gate()
    sink = ScriptedSink()
    delivery = Sending(sink)
    delivery.circuit._probe_timeout = 0.05
    delivery.circuit.fail()
    hung = threading.Thread(target=delivery.deliver, args=(2,))
    sink._on_send = gate
    hung.start()
    assert gate.entered.wait(20)
    sink._on_send = None
    delivery.deliver(2)
    assert delivery.counts == (2, 0, 0, 0)
    gate.opened.set()
    hung.join(20)
    assert delivery.counts == (4, 0, 0, 0)


# ---- the end


def test_each_attempt_gets_its_time_limit_or_the_time_to_the_deadline():
    sink = ScriptedSink()
    delivery = Sending(sink)
    delivery.deliver(1)
    delivery.state.deadline = time.monotonic() + 5
    delivery.deliver(1)
    delivery.state.deadline = time.monotonic() - 5
    delivery.deliver(1)
    first, second, last = sink.timeouts
    assert first == 30
    assert 0 < second <= 5
    assert 0 < last < 0.1


def test_at_the_deadline_an_open_circuit_ends_the_delivery_and_the_rest_stays_with_the_batch():
    sink = ScriptedSink(TooLargeError("413"), None, *[RetryableError("503")] * 10_000)
    delivery = Sending(sink)
    delivery.state.deadline = time.monotonic() + 0.3
    batch = delivery.deliver(4)
    assert delivery.counts == (2, 0, 0, 0)
    assert [part.items for part in batch.parts] == [[2, 3]]
    assert delivery.in_flight == [batch]
    assert batch.rest().items == [2, 3]


def test_with_a_spool_a_shutdown_does_not_wait_for_an_open_circuit():
    delivery = Sending(ScriptedSink(*[RetryableError("503", retry_after=3600)] * 10))
    delivery.circuit.retry = RetryPolicy(maximum=3600)
    delivery.state.deadline = time.monotonic() + 3600
    delivery.state.spool = object()  # type: ignore[assignment]
    batch = delivery.deliver(4)
    assert batch.parts
    assert delivery.ledger.sends == 1


@pytest.mark.parametrize(
    "answer",
    [None, Outcome(rejected=1), PermanentError("404"), InvalidDataError("400"),
     RetryableError("503"), ValueError("?")],
)  # fmt: skip
def test_an_answer_after_the_delivery_was_abandoned_does_not_count(answer):
    gate = Gate()
    delivery = Sending(ScriptedSink(answer, on_send=gate))
    thread = threading.Thread(target=delivery.deliver, args=(3,))
    thread.start()
    assert gate.entered.wait(20)
    delivery.state.abandoned = True
    gate.opened.set()
    thread.join(20)
    assert delivery.counts == (0, 0, 0, 0)
    assert len(delivery.in_flight) == 1


def test_an_abandoned_delivery_sends_nothing():
    sink = ScriptedSink()
    delivery = Sending(sink)
    delivery.state.abandoned = True
    batch = delivery.deliver(3)
    assert sink.timeouts == []
    assert batch.parts == [batch]


def test_a_probe_that_fails_waits_and_a_shutdown_cuts_the_wait_short():
    sink = ScriptedSink(*[RetryableError("503")] * 3)
    delivery = Sending(sink, retry=RetryPolicy(initial=3600, maximum=3600))
    thread = threading.Thread(target=delivery.deliver, args=(3,))
    thread.start()
    wait_for(lambda: delivery.ledger.retries == 1)
    delivery.state.deadline = time.monotonic() + 60
    delivery.circuit.hurry()
    thread.join(50)
    assert delivery.counts == (3, 0, 0, 0)


class BackendDownError(BaseException):
    """Not even an Exception."""


def test_a_base_exception_does_not_end_the_thread():
    delivery = Sending(ScriptedSink(BackendDownError(), KeyboardInterrupt(), SystemExit()))
    delivery.deliver(1)
    assert delivery.counts == (1, 0, 0, 0)
