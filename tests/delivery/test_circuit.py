from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from fapilog.delivery.circuit import Circuit, RetryPolicy
from tests.support.queues import state_of

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(RetryPolicy(initial=1, maximum=8), 60, clock=clock)


def elsewhere(call: Callable[[], T]) -> T:
    """Return what ``call`` returns on another thread."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def open_and_wait(circuit: Circuit, clock: Clock) -> None:
    """Open it and let the time of the first probe come."""
    assert circuit.enter() == 0
    circuit.fail()
    clock.now += 1


def test_while_it_is_closed_every_thread_may_send(circuit):
    assert [circuit.enter(), elsewhere(circuit.enter), circuit.enter()] == [0, 0, 0]
    assert (state_of(circuit), circuit.open_for, circuit.failures) == ("closed", 0, 0)


def test_a_failure_opens_it_for_every_thread(circuit, clock):
    circuit.fail()
    assert state_of(circuit) == "open"
    assert 0 < circuit.enter() <= 1
    assert 0 < elsewhere(circuit.enter) <= 1
    clock.now += 0.25
    assert circuit.open_for == 0.25


def test_when_the_time_has_come_one_thread_probes_and_the_others_hold_back(circuit, clock):
    open_and_wait(circuit, clock)
    assert circuit.enter() == 0
    assert state_of(circuit) == "half_open"
    assert elsewhere(circuit.enter) > 0
    assert elsewhere(circuit.enter) > 0


def test_a_probe_that_succeeds_closes_it_for_all(circuit, clock):
    open_and_wait(circuit, clock)
    circuit.enter()
    circuit.succeed()
    assert (state_of(circuit), circuit.open_for, circuit.failures) == ("closed", 0, 0)
    assert elsewhere(circuit.enter) == 0


def test_each_probe_that_fails_doubles_the_wait_up_to_the_maximum(circuit, clock):
    opened_at = clock.now
    circuit.fail()
    for bound in (1, 2, 4, 8, 8, 8):
        assert 0 < circuit.enter() <= bound
        clock.now += bound
        assert circuit.enter() == 0
        circuit.fail()
        assert state_of(circuit) == "open"
    assert circuit.failures == 7
    assert circuit.opened_at == opened_at
    assert circuit.open_for == clock.now - opened_at


def test_after_it_has_closed_the_wait_begins_anew(circuit, clock):
    circuit.fail()
    for _ in range(5):
        clock.now += 8
        circuit.enter()
        circuit.fail()
    clock.now += 8
    circuit.enter()
    circuit.succeed()
    circuit.fail()
    assert circuit.failures == 1
    assert circuit.enter() <= 1


def test_a_backend_says_itself_when_to_probe_up_to_the_maximum(circuit, clock):
    circuit.fail(retry_after=5)
    assert circuit.enter() == 5
    clock.now += 5
    assert circuit.enter() == 0
    circuit.fail(retry_after=3600)
    assert circuit.enter() == 8


def test_failures_of_what_was_sent_before_it_opened_are_one_failure(circuit, clock):
    circuit.fail(retry_after=5)
    for _ in range(10):
        elsewhere(circuit.fail)
    assert circuit.failures == 1
    assert circuit.enter() == 5
    clock.now += 5
    assert circuit.enter() == 0
    elsewhere(circuit.fail)  # the probe of this thread is still under way
    assert state_of(circuit) == "half_open"


def test_an_answer_to_what_was_sent_before_it_opened_closes_it(circuit):
    circuit.fail()
    elsewhere(circuit.succeed)
    assert state_of(circuit) == "closed"


def test_a_probe_that_does_not_come_back_gives_way_to_another(circuit, clock):
    open_and_wait(circuit, clock)
    assert elsewhere(circuit.enter) == 0
    clock.now += 59
    assert circuit.enter() > 0
    clock.now += 1
    assert circuit.enter() == 0
    circuit.succeed()
    assert state_of(circuit) == "closed"


def test_a_shutdown_cuts_the_backoff_short_again_and_again(circuit, clock):
    circuit.fail()
    for _ in range(6):
        clock.now += 8
        circuit.enter()
        circuit.fail()
    circuit.hurry()
    for _ in range(3):
        assert circuit.enter() <= 0.25
        clock.now += 0.25
        assert circuit.enter() == 0
        circuit.fail()


def test_a_shutdown_does_not_override_what_a_backend_asked_for(circuit):
    circuit.fail(retry_after=5)
    circuit.hurry()
    assert circuit.enter() == 5


def test_a_shutdown_leaves_a_closed_circuit_closed(circuit):
    circuit.hurry()
    assert circuit.enter() == 0
    assert state_of(circuit) == "closed"


def test_of_many_threads_exactly_one_is_let_in_to_probe(circuit, clock):
    open_and_wait(circuit, clock)
    barrier = threading.Barrier(16)
    waits: list[float] = []

    def try_to_enter() -> None:
        barrier.wait()
        waits.append(circuit.enter())

    threads = [threading.Thread(target=try_to_enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits.count(0) == 1
