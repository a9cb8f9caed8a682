"""Tests the circuit breaker for Redis on a simulated clock.

Only the test moves the clock.
"""

from __future__ import annotations

import math
import threading

import pytest

from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.circuit import (
    MAX_FAILURES,
    MAX_TIMEOUTS,
    WINDOW_SECONDS,
    CallPolicy,
    CircuitBreaker,
)


class Clock:
    """Seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock) -> CircuitBreaker:
    return CircuitBreaker(2.0, clock)


def elsewhere(circuit: CircuitBreaker) -> float:
    """The seconds that another thread has to wait."""
    waits: list[float] = []
    thread = threading.Thread(target=lambda: waits.append(circuit.wait()))
    thread.start()
    thread.join()
    return waits[0]


def opened(circuit: CircuitBreaker) -> CircuitBreaker:
    for _ in range(MAX_FAILURES):
        circuit.failed()
    return circuit


def test_single_failures_leave_it_closed(circuit) -> None:
    """However many there are, with a success between them."""
    for _ in range(10):
        circuit.failed()
        circuit.failed(timed_out=True)
        assert circuit.wait() == 0.0
        circuit.succeeded()


def test_failures_in_a_row_open_it(circuit) -> None:
    """For the cooldown that was given, and for every thread."""
    for _ in range(MAX_FAILURES - 1):
        circuit.failed()
    assert circuit.wait() == 0.0
    circuit.failed()
    assert (circuit.wait(), elsewhere(circuit)) == (2.0, 2.0)


def test_waits_in_vain_open_it_sooner(circuit) -> None:
    """Since each costs a timeout."""
    assert MAX_TIMEOUTS < MAX_FAILURES
    for _ in range(MAX_TIMEOUTS):
        circuit.failed(timed_out=True)
    assert circuit.wait() == 2.0


def test_failures_far_apart_do_not_add(circuit, clock) -> None:
    """An hour-old one says nothing of now."""
    for _ in range(3 * MAX_FAILURES):
        circuit.failed()
        clock.now += WINDOW_SECONDS + 1
        assert circuit.wait() == 0.0


def test_after_the_cooldown_one_thread_tries(circuit, clock) -> None:
    """The others are refused until it has its answer, which closes the circuit for all."""
    opened(circuit)
    clock.now += 2.0
    assert (circuit.wait(), elsewhere(circuit), circuit.wait()) == (0.0, 2.0, 0.0)
    circuit.succeeded()
    assert elsewhere(circuit) == 0.0


def test_failed_trial_opens_again(circuit, clock) -> None:
    """At its first failure, for a whole cooldown."""
    opened(circuit)
    clock.now += 2.0
    assert circuit.wait() == 0.0
    circuit.failed()
    assert (circuit.wait(), elsewhere(circuit)) == (2.0, 2.0)


def test_endless_trial_gives_way(circuit, clock) -> None:
    """To another thread, after a further cooldown."""
    opened(circuit)
    clock.now += 2.0
    assert circuit.wait() == 0.0
    clock.now += 2.0
    assert (elsewhere(circuit), circuit.wait()) == (0.0, 2.0)


def test_without_a_cooldown_nobody_waits(clock) -> None:
    """As in a batch, which has nothing to fall back on."""
    assert opened(CircuitBreaker(0.0, clock)).wait() == 0.0


def test_request_end_is_no_redis_failure() -> None:
    """A request that came with no time to spare does not close Redis to the others."""
    left = 0.0
    policy = CallPolicy(2.0, lambda: left)
    for _ in range(10):
        policy.failed(timed_out=True)
    left = math.inf
    policy.check()


def test_an_allowance_is_what_is_left() -> None:
    """Of the command's own time and of the request's, and none while the circuit is open."""
    left = 0.3
    policy = CallPolicy(2.0, lambda: left)
    assert (policy.allowance(0.1), policy.allowance(0.5)) == (0.1, 0.3)
    for _ in range(MAX_TIMEOUTS):
        policy.failed(timed_out=True)
    assert policy.allowance(0.1) == 0.0
    with pytest.raises(StoreUnavailable, match=r"asked again in 2\.0 s"):
        policy.check()
