"""Tests the baselines in worlds with known answers.

The worlds are small enough for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from shortlist.batch import offline_evaluation
from shortlist.batch.offline_evaluation import baselines as fitted_baselines
from shortlist.batch.progress import silent_reporter
from shortlist.recsys.errors import InvalidRecommendations, InvalidSettings
from shortlist.recsys.evaluation import baselines
from shortlist.recsys.models import regression
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Recommend,
    Repeats,
    UserStates,
    states_at,
)

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


def item_knn(events: Events, n_neighbours: int = 100) -> Recommend:
    return baselines.plain(baselines.item_knn_weights(events, n_neighbours))


def ease(events: Events) -> Recommend:
    return baselines.plain(baselines.ease_weights(events, l2=1.0))


@pytest.mark.parametrize("fit", [item_knn, ease])
def test_checkerboard_user_gets_the_missing_square(fit: object) -> None:
    """The unseen item of the user's colour comes first, and alone has a positive score."""
    assert callable(fit)
    items, scores = fit(events_of(checkerboard()))(states_of(checkerboard()), 3)
    assert items[:, 0].tolist() == list(range(N))
    assert (scores[:, 0] > 0).all()
    assert (scores[:, 1:] <= 0).all()


def test_unseen_users_are_served_alike() -> None:
    """A new user with two even items is offered the other even ones first."""
    for method in (
        item_knn(events_of(checkerboard())),
        ease(events_of(checkerboard())),
    ):
        items, _ = method(states_of([[0, 2]]), 4)
        assert sorted(items[0].tolist()) == [4, 6, 8, 10]


def test_popularity_ranks_by_distinct_users() -> None:
    """A user who has an item four times counts once; equal counts are ordered by item row."""
    items, scores = baselines.fit_popularity(events_of([[5, 5, 5, 5], [3, 2], [3, 2], [3]], 6))(
        states_of([[]]), 5
    )
    assert items.tolist() == [[3, 2, 5, 0, 1]]
    assert scores.tolist() == [[3.0, 2.0, 1.0, 0.0, 0.0]]


def test_item_knn_sums_shrunk_cosines() -> None:
    """Items 0 and 1 share two users of two and three: 2 / (sqrt(6) + 10)."""
    method = item_knn(events_of([[0, 1], [0, 1], [1, 2]], 3))
    items, scores = method(states_of([[0]]), 2)
    assert items.tolist() == [[1, 2]]
    assert scores[0, 0] == pytest.approx(2 / (np.sqrt(6) + 10), rel=1e-6)


def test_item_knn_uses_nearest_neighbours_only() -> None:
    """With one neighbour, item 2 listens to item 1 and no longer to item 0."""
    events = events_of([[0, 1], [0, 1, 2], [1, 2], [1, 2]], 3)
    assert item_knn(events, n_neighbours=1)(states_of([[0]]), 3)[1][0, 1] < 0
    assert item_knn(events, n_neighbours=2)(states_of([[0]]), 3)[1][0, 1] > 0


def test_item_knn_is_independent_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Similarities made two items at a time are those made at once."""
    whole = item_knn(events_of(checkerboard()))(states_of(checkerboard()), 5)
    monkeypatch.setattr(regression, "BLOCK", 2)
    parts = item_knn(events_of(checkerboard()))(states_of(checkerboard()), 5)
    assert [a.tobytes() for a in whole] == [a.tobytes() for a in parts]


def test_user_without_history_gets_popular_items() -> None:
    """Where neither neighbours nor EASE have anything to go by, popularity decides."""
    events = events_of([[4, 7], [4, 7], [4, 1]])
    for method in (item_knn(events), ease(events)):
        assert method(states_of([[]]), 3)[0].tolist() == [[4, 7, 1]]


def test_ease_weights_are_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The in-place inverse by blocks gives the weights that the published formula gives."""
    rng = np.random.default_rng(0)
    X = (rng.random((50, 9)) < 0.3).astype(float)
    events = events_of([np.flatnonzero(x).tolist() for x in X], 9)
    monkeypatch.setattr(regression, "BLOCK", 4)
    had = regression.interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    weights = regression.item_regression(had, 3.0)
    np.testing.assert_allclose(weights, closed_form(X, 3.0), atol=1e-6)


def closed_form(X: np.ndarray, l2: float) -> np.ndarray:
    """The weights by the published formula, in double precision."""
    P = np.linalg.inv(X.T.astype(float) @ X + l2 * np.eye(X.shape[1]))
    expected = -P / np.diag(P)
    np.fill_diagonal(expected, 0.0)
    return expected


def test_ease_is_exact_at_any_popularity() -> None:
    """Items of a dozen users, and one that nearly everybody had."""
    rng = np.random.default_rng(0)
    share = np.geomspace(0.97, 0.0006, 12)
    X = (rng.random((20_000, 12)) < share).astype(np.float32)
    weights = regression.item_regression(sparse.csr_matrix(X), 3.0)
    np.testing.assert_allclose(weights, closed_form(X, 3.0), rtol=1e-4, atol=1e-6)


def test_ease_of_items_that_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles that many users had, of which single precision alone would lose the differences."""
    rng = np.random.default_rng(0)
    bundles = rng.random((60_000, 4)) < 0.5
    X = np.repeat(bundles, 25, axis=1)[:, rng.permutation(100)].astype(np.float32)
    monkeypatch.setattr(regression, "BLOCK", 64)
    weights = regression.item_regression(sparse.csr_matrix(X), 10.0)
    np.testing.assert_allclose(weights, closed_form(X, 10.0), atol=1e-3)


def test_large_catalogues_have_no_ease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound there is no EASE rather than a machine without memory."""
    events = events_of(checkerboard())
    assert {"ease", "recent_ease"} <= fitted_baselines(events, silent_reporter()).keys()
    monkeypatch.setattr(offline_evaluation, "MAX_REGRESSION_ITEMS", N - 1)
    few = fitted_baselines(events, silent_reporter())
    assert list(few) == ["popularity", "recent_popularity", "item_knn", "recent_item_knn"]


def test_settings_out_of_range_are_refused() -> None:
    """The error says which value broke which rule."""
    with pytest.raises(InvalidSettings, match=r"l2 0\.0: must be positive"):
        baselines.ease_weights(events_of([[0]]), l2=0.0)
    with pytest.raises(InvalidSettings, match="n_neighbours 0"):
        baselines.item_knn_weights(events_of([[0]]), n_neighbours=0)


def test_repeated_events_count_once() -> None:
    """A history that names its items twice gives the same lists and scores."""
    twice = [h + h[::-1] for h in checkerboard()]
    for fit in (baselines.fit_popularity, item_knn, ease):
        once = fit(events_of(checkerboard()))(states_of(checkerboard()), N)
        again = fit(events_of(twice))(states_of(twice), N)
        assert [a.tobytes() for a in once] == [a.tobytes() for a in again]


def test_all_seen_items_count() -> None:
    """An item that left the window of events still counts for the scores."""
    long = [0] + [1] * 150
    for fit in (item_knn, ease):
        method = fit(events_of([[0, 5], [0, 5], [1, 6]]))
        assert method(states_of([long]), 1)[0].tolist() == [[5]]


def test_top_k_breaks_ties_by_row() -> None:
    """Of five equal items at the bound the first rows are taken."""
    scores = np.array([[1, 2, 1, 1, 3, 1, 1]], np.float32)
    items, best = baselines.top_k_open(scores, states_of([[0]]), 4)
    assert (items.tolist(), best.tolist()) == ([[4, 1, 2, 3]], [[3, 2, 1, 1]])


def test_top_k_equals_stable_sort() -> None:
    """On random scores with many ties the selection is what sorting everything gives."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (40, N)).astype(np.float32)
    seen = [rng.choice(N, rng.integers(0, N), replace=False).tolist() for _ in range(40)]
    for k in (1, 5, N):
        items, _ = baselines.top_k_open(scores, states_of(seen), k)
        for user in range(40):
            order = [
                i for i in np.argsort(-scores[user], kind="stable").tolist() if i not in seen[user]
            ][:k]
            assert items[user].tolist() == order + [MISSING] * (k - len(order))


@pytest.mark.parametrize("n", [1, 7, 100, 16 * 20, 16 * 20 + 5, 2000])
@pytest.mark.parametrize("kind", ["distinct", "tied", "mostly zero", "mostly closed", "equal"])
def test_least_equals_stable_sort(kind: str, n: int) -> None:
    """In wide and narrow rows, and where many values equal the last that is taken."""
    rng = np.random.default_rng(n)
    loss = rng.standard_normal((40, n)).astype(np.float32)
    if kind == "tied":
        loss = np.round(loss)
    elif kind == "mostly zero":
        loss[rng.random(loss.shape) > 0.02] = 0.0
    elif kind == "mostly closed":
        loss[rng.random(loss.shape) > 0.02] = np.inf
    elif kind == "equal":
        loss[:] = 0.5
    m = min(10, n)
    expected = np.argsort(loss, axis=1, kind="stable")[:, :m]
    np.testing.assert_array_equal(baselines.least(loss, m), expected)


@pytest.mark.parametrize("repeats", list(Repeats))
def test_a_ranking_is_scores_for_all(repeats: Repeats) -> None:
    """Bit for bit, with equal scores, closed items and lists that are too long."""
    scores = np.array([0, 3, 1, 3, 0, 2, 0, 1, 3, 2, 0, 5], np.float32)
    states = replace(states_of([*checkerboard(), [], [11, 1, 3]]), repeats=repeats)
    for_all = baselines.by_scores(N, lambda had: np.broadcast_to(scores, had.shape))
    for k in (1, 3, N + 2):
        for found, expected in zip(
            baselines.by_ranking(scores)(states, k), for_all(states, k), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_top_k_pads_and_keeps_scores() -> None:
    """Seen items and items at -inf leave padded places; the caller's array does not change."""
    scores = np.array([[1, -np.inf, 3]], np.float32)
    before = scores.copy()
    items, best = baselines.top_k_open(scores, states_of([[2, 2]]), 5)
    assert items.tolist() == [[0, MISSING, MISSING, MISSING, MISSING]]
    assert best.tolist() == [[1.0, *[-np.inf] * 4]]
    np.testing.assert_array_equal(scores, before)


def test_top_k_refuses_nan_scores() -> None:
    """NaN has no place in an order."""
    with pytest.raises(InvalidRecommendations, match="item row 1 for the user at 0 is NaN"):
        baselines.top_k_open(np.array([[1, np.nan]], np.float32), states_of([[]]), 1)


def test_an_empty_world_gives_padding() -> None:
    """Without events, users or items nothing breaks."""
    for fit in (baselines.fit_popularity, item_knn, ease):
        assert fit(events_of([], 0))(states_of([[]]), 2)[0].tolist() == [[MISSING, MISSING]]
        assert fit(events_of([[]], 3))(states_of([]), 2)[0].shape == (0, 2)
