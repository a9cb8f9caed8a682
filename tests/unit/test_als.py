"""Implicit ALS in worlds small enough to know the answer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.evaluation.als import fit_als
from shortlist.recsys.models.interactions import MISSING, Events, UserStates, states_at

N = 12


def events_of(histories: list[list[int]], n_items: int = N) -> Events:
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories]).astype(np.int32)
    items = np.array([i for h in histories for i in h], np.int32)
    times = np.arange(len(items), dtype=np.int64)
    return Events(
        users, items, times, np.full(len(items), np.nan, np.float32), len(histories), n_items
    )


def states_of(histories: list[list[int]]) -> UserStates:
    events = events_of(histories)
    return states_at(events, events.offsets()[:-1], events.offsets()[1:])


def checkerboard() -> list[list[int]]:
    """User u has all items of their own parity, but for the one at u itself."""
    return [[i for i in range(N) if i % 2 == u % 2 and i != u] for u in range(N)]


def test_checkerboard_user_gets_the_missing_square() -> None:
    """The missing item of the user's own colour scores near 1, the other colour near 0."""
    items, scores = fit_als(events_of(checkerboard()), factors=2)(states_of(checkerboard()), 3)
    assert items[:, 0].tolist() == list(range(N))
    assert (scores[:, 0] > 0.5).all()
    assert (np.abs(scores[:, 1:]) < 0.1).all()


def test_unseen_users_are_served_alike() -> None:
    """A new user with two even items is offered the other even ones first."""
    items, _ = fit_als(events_of(checkerboard()), factors=2)(states_of([[0, 2]]), 4)
    assert sorted(items[0].tolist()) == [4, 6, 8, 10]


def test_users_fold_in_by_published_formula() -> None:
    """Where all items are equal, the score of a user of n items has a closed form.

    With y = v it is alpha n v² / (12 v² + (alpha - 1) n v² + l2).
    """
    method = fit_als(events_of([list(range(N))] * 5), factors=1, regularization=0.5, alpha=4.0)
    one, two = (float(method(states_of([history]), 1)[1][0, 0]) for history in ([0], [0, 1]))
    v2 = 0.5 * one / (4.0 - one * (N + 3.0))  # the formula at n = 1, solved for v²
    assert v2 > 0
    assert two == pytest.approx(8.0 * v2 / (N * v2 + 6.0 * v2 + 0.5), rel=1e-3)


def test_same_seed_gives_same_lists() -> None:
    """Fitted twice, lists and scores are equal bit for bit; another seed starts elsewhere."""
    events, states = events_of(checkerboard()), states_of(checkerboard())
    once, again, other = (fit_als(events, seed=seed)(states, N) for seed in (0, 0, 1))
    assert [a.tobytes() for a in once] == [a.tobytes() for a in again]
    assert once[1].tobytes() != other[1].tobytes()


def test_repeated_events_count_once() -> None:
    """A history that names its items twice gives the same lists and scores."""
    twice = [h + h[::-1] for h in checkerboard()]
    once = fit_als(events_of(checkerboard()))(states_of(checkerboard()), N)
    again = fit_als(events_of(twice))(states_of(twice), N)
    assert [a.tobytes() for a in once] == [a.tobytes() for a in again]


def test_user_without_history_gets_popular_items() -> None:
    """Nothing to fold in: popularity decides."""
    items, scores = fit_als(events_of([[4, 7], [4, 7], [4, 1]]))(states_of([[]]), 3)
    assert (items.tolist(), scores.tolist()) == ([[4, 7, 1]], [[3.0, 2.0, 1.0]])


def test_an_empty_world_gives_padding() -> None:
    """Without events, users or items nothing breaks."""
    assert fit_als(events_of([], 0))(states_of([[]]), 2)[0].tolist() == [[MISSING, MISSING]]
    assert fit_als(events_of([[]], 3))(states_of([]), 2)[0].shape == (0, 2)
    assert fit_als(events_of([[1]], 3))(states_of([]), 2)[0].shape == (0, 2)


def test_settings_out_of_range_are_refused() -> None:
    """The error says which value broke which rule."""
    with pytest.raises(InvalidSettings, match=r"factors 0, .* must be >= 1"):
        fit_als(events_of([[0]]), factors=0)
    with pytest.raises(InvalidSettings, match=r"alpha 0\.0: must be"):
        fit_als(events_of([[0]]), alpha=0.0)


def test_library_loads_on_fit_without_warning() -> None:
    """In a new process there is no warning of BLAS threads, and the import alone is light.

    The library would warn once in a process.
    """
    code = (
        "import sys, numpy as np\n"
        "from shortlist.recsys.evaluation.als import fit_als\n"
        "from shortlist.recsys.models.interactions import Events\n"
        "assert 'implicit' not in sys.modules\n"
        "one = np.zeros(1, np.int32)\n"
        "fit_als(Events(one, one, one.astype(np.int64), one.astype(np.float32), 1, 2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
