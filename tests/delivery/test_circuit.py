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
    """Open the circuit and advance the clock to the first probe."""
    assert circuit.enter() == 0
    circuit.fail()
    clock.now += 1


# ---- the wait before a retry


def test_retry_after_is_obeyed_up_to_the_maximum():
    policy = RetryPolicy(maximum=30)
    assert policy.delay(1, retry_after=7.5) == 7.5
    assert policy.delay(1, retry_after=3.15e8) == 30
    for asked in (0, -5):  # never a busy loop
        assert policy.delay(1, retry_after=asked) == 0.05
        assert policy.delay(6, retry_after=asked) == 1.5


def test_backoff_grows_with_full_jitter_and_has_a_ceiling():
    policy = RetryPolicy(initial=1, maximum=8)
    for attempt, bound in ((1, 1), (2, 2), (3, 4), (4, 8), (50, 8), (10_000, 8)):
        delays = [policy.delay(attempt) for _ in range(200)]
        assert bound / 20 <= min(delays) <= max(delays) <= bound
        assert max(delays) - min(delays) > bound / 4


# ---- which thread may send


def test_while_it_is_closed_every_thread_may_send(circuit):
    assert [circuit.enter(), elsewhere(circuit.enter), circuit.enter()] == [0, 0, 0]
    assert (state_of(circuit), circuit.failures) == ("closed", 0)


def test_access_is_denied_until_the_next_result_of_another_kind(circuit):
    for report in (circuit.succeed, circuit.fail):
        circuit.fail(access_denied=True)
        assert circuit.access_denied
        report()
        assert not circuit.access_denied


def test_a_failure_opens_it_for_every_thread(circuit, clock):
    circuit.fail()
    assert state_of(circuit) == "open"
    assert 0 < circuit.enter() <= 1
    assert 0 < elsewhere(circuit.enter) <= 1


def test_after_the_wait_one_thread_probes_and_the_others_do_not_send(circuit, clock):
    open_and_wait(circuit, clock)
    assert circuit.enter() == 0
    assert state_of(circuit) == "half_open"
    assert elsewhere(circuit.enter) > 0
    assert elsewhere(circuit.enter) > 0


def test_a_probe_that_succeeds_closes_it_for_all(circuit, clock):
    open_and_wait(circuit, clock)
    circuit.enter()
    circuit.succeed()
    assert (state_of(circuit), circuit.failures) == ("closed", 0)
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


def test_after_it_has_closed_the_wait_starts_small_again(circuit, clock):
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


def test_the_backend_may_name_the_time_of_the_probe_up_to_the_maximum(circuit, clock):
    circuit.fail(retry_after=5)
    assert circuit.enter() == 5
    clock.now += 5
    assert circuit.enter() == 0
    circuit.fail(retry_after=3600)
    assert circuit.enter() == 8


def test_failures_of_attempts_from_before_it_opened_count_once(circuit, clock):
    circuit.fail(retry_after=5)
    for _ in range(10):
        elsewhere(circuit.fail)
    assert circuit.failures == 1
    assert circuit.enter() == 5
    clock.now += 5
    assert circuit.enter() == 0
    elsewhere(circuit.fail)  # the probe of this thread is still running
    assert state_of(circuit) == "half_open"


def test_an_answer_to_an_attempt_from_before_it_opened_closes_it(circuit):
    circuit.fail()
    elsewhere(circuit.succeed)
    assert state_of(circuit) == "closed"


def test_after_a_probe_that_does_not_return_another_thread_probes(circuit, clock):
    open_and_wait(circuit, clock)
    assert elsewhere(circuit.enter) == 0
    clock.now += 59
    assert circuit.enter() > 0
    clock.now += 1
    assert circuit.enter() == 0
    circuit.succeed()
    assert state_of(circuit) == "closed"


def test_a_shutdown_shortens_every_wait(circuit, clock):
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


def test_a_shutdown_does_not_override_a_wait_that_the_backend_asked_for(circuit):
    circuit.fail(retry_after=5)
    circuit.hurry()
    assert circuit.enter() == 5


def test_a_shutdown_leaves_a_closed_circuit_closed(circuit):
    circuit.hurry()
    assert circuit.enter() == 0
    assert state_of(circuit) == "closed"


def test_exactly_one_of_many_threads_probes(circuit, clock):
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
