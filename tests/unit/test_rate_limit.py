"""Tests a caller's tokens, on the test's own clock."""

from __future__ import annotations

from shortlist.lambda_handler.rate_limit import RateLimit


class Clock:
    """Seconds that only the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_burst_of_two_seconds() -> None:
    """Two seconds' worth may come at once; then each must wait for the next token."""
    clock = Clock()
    limit = RateLimit(4.0, clock)
    assert [limit.seconds_to_wait("a") for _ in range(8)] == [0.0] * 8
    assert limit.seconds_to_wait("a") == 0.25
    clock.now += 0.125
    assert limit.seconds_to_wait("a") == 0.125
    clock.now += 0.125
    assert limit.seconds_to_wait("a") == 0.0
    assert limit.seconds_to_wait("a") > 0


def test_tokens_do_not_pile_up() -> None:
    """After an hour of silence there are no more than at the start."""
    clock = Clock()
    limit = RateLimit(1.0, clock)
    assert limit.seconds_to_wait("a") == 0.0
    clock.now += 3600
    assert [limit.seconds_to_wait("a") > 0 for _ in range(4)] == [False, False, True, True]


def test_callers_have_their_own() -> None:
    """One who asks too much takes nothing from another."""
    limit = RateLimit(0.5, Clock())
    assert [limit.seconds_to_wait(caller) > 0 for caller in ("a", "a", "b")] == [False, True, False]
