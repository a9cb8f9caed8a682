"""Properties of the metrics for any list and any hold-out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shortlist.recsys.evaluation import bootstrap, ranking_metrics
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Int32, UserStates

N_ITEMS = 25
K = 22

user = st.tuples(
    st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=K),
    st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=N_ITEMS),
)
"""(ranked items, held-out items)."""
users = st.lists(user, min_size=1, max_size=8)
World = list[tuple[list[int], list[int]]]


FACTS = ranking_metrics.ItemFacts(
    np.arange(N_ITEMS) // 2, 12, np.eye(3, dtype=np.float32)[np.arange(N_ITEMS) % 3]
)
"""Facts of items with up to twelve of twelve users, each in one of three categories."""
ACCURACY = len(ranking_metrics.PER_USER) - 2
"""Columns that are shares of held-out items: all but novelty and diversity."""


def arrays(world: World) -> tuple[Int32, Truth]:
    n = len(world)
    ranked = np.full((n, K), MISSING, np.int32)
    for row, (items, _) in enumerate(world):
        ranked[row, : len(items)] = items
    offsets = np.concatenate(([0], np.cumsum([len(held) for _, held in world]))).astype(np.int64)
    none, nothing = np.empty((n, 0), np.int32), np.zeros(n + 1, np.int64)
    weights, rows = np.empty((n, 0), np.float32), np.empty(0, np.int32)
    states = UserStates(
        none, none.astype(np.int64), weights, np.zeros(n, np.int32), none, rows, nothing
    )
    return ranked, Truth(
        np.arange(n, dtype=np.int32),
        states,
        offsets,
        np.array([i for _, h in world for i in h], np.int32),
    )


def measured(world: World) -> ranking_metrics.Float64:
    ranked, truth = arrays(world)
    return ranking_metrics.per_user(ranked, truth, FACTS)


@given(users)
def test_accuracies_are_shares_or_unknown(world: World) -> None:
    """Accuracies lie in [0, 1], and are NaN exactly where nothing is held out."""
    values = measured(world)[:, :ACCURACY]
    empty = np.array([not held for _, held in world])
    assert (np.isnan(values) == empty[:, None]).all()
    assert ((values[~empty] >= 0) & (values[~empty] <= 1)).all()


@given(users)
def test_novelty_and_diversity_have_bounds(world: World) -> None:
    """Novelty of an item or more lies in [0, log2 users]; diversity of two or more in [0, 1]."""
    novelty, diversity = measured(world)[:, ACCURACY:].T
    lengths = np.array([len(items) for items, _ in world])
    assert (np.isnan(novelty) == (lengths < 1)).all()
    assert (np.isnan(diversity) == (lengths < 2)).all()
    assert (
        (novelty[lengths > 0] >= 0) & (novelty[lengths > 0] <= np.log2(FACTS.n_users) + 1e-12)
    ).all()
    assert ((diversity[lengths > 1] >= 0) & (diversity[lengths > 1] <= 1)).all()


@given(st.lists(st.integers(0, N_ITEMS - 1), unique=True, min_size=2, max_size=10))
def test_diversity_is_the_mean_over_pairs(items: list[int]) -> None:
    """The closed form equals a loop over pairs: the share of pairs of different categories."""
    pairs = [a % 3 != b % 3 for i, a in enumerate(items) for b in items[:i]]
    np.testing.assert_allclose(measured([(items, [])])[0, -1], np.mean(pairs), atol=1e-12)


@given(users, st.randoms(use_true_random=False))
def test_user_order_does_not_matter(world: World, random: object) -> None:
    """A user's figures and the coverage are the same bit for bit in any order of users."""
    order = list(range(len(world)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = [world[i] for i in order]
    assert measured(shuffled).tobytes() == measured(world)[order].tobytes()
    assert ranking_metrics.coverage(arrays(shuffled)[0], N_ITEMS) == ranking_metrics.coverage(
        arrays(world)[0], N_ITEMS
    )


@given(users)
def test_one_user_equals_many(world: World) -> None:
    """A user measured alone has the figures they have among others."""
    alone = np.concatenate([measured([one]) for one in world])
    assert alone.tobytes() == measured(world).tobytes()


@given(st.lists(st.booleans(), min_size=K, max_size=K), st.integers(0, K - 1), st.integers(0, 5))
def test_more_hits_never_lower_metrics(row: list[bool], place: int, more: int) -> None:
    """With the number of held-out items unchanged, a hit in the place of a miss is never worse."""
    before = np.array([row])
    after = before.copy()
    after[0, place] = True
    n_truth = np.array([K + more])
    for k in (1, 10, 20):
        assert ranking_metrics.ndcg(after, n_truth, k) >= ranking_metrics.ndcg(before, n_truth, k)
        assert ranking_metrics.recall(after, n_truth, k) >= ranking_metrics.recall(
            before, n_truth, k
        )
        assert ranking_metrics.average_precision(
            after, n_truth, k
        ) >= ranking_metrics.average_precision(before, n_truth, k)
        assert ranking_metrics.hit_rate(after, n_truth, k) >= ranking_metrics.hit_rate(
            before, n_truth, k
        )
    assert ranking_metrics.reciprocal_rank(after, n_truth) >= ranking_metrics.reciprocal_rank(
        before, n_truth
    )


@given(st.lists(st.booleans(), min_size=2, max_size=K), st.data())
def test_earlier_hits_never_lower_ndcg(row: list[bool], data: st.DataObject) -> None:
    """Exchanging a hit with a miss above it is never worse."""
    high = data.draw(st.integers(0, len(row) - 2))
    low = data.draw(st.integers(high + 1, len(row) - 1))
    worse, better = np.array([row]), np.array([row])
    worse[0, [high, low]] = [False, True]
    better[0, [high, low]] = [True, False]
    n_truth = np.array([K])
    assert ranking_metrics.ndcg(better, n_truth, 10) >= ranking_metrics.ndcg(worse, n_truth, 10)
    assert ranking_metrics.reciprocal_rank(better, n_truth) >= ranking_metrics.reciprocal_rank(
        worse, n_truth
    )


@given(st.lists(st.integers(0, N_ITEMS - 1), unique=True, min_size=1, max_size=K))
def test_listing_the_truth_is_perfect(held: list[int]) -> None:
    """Held-out items first give exactly 1 of all metrics that reach it, and the best recall."""
    values = dict(
        zip(
            ranking_metrics.PER_USER[:ACCURACY],
            measured([(held, held)])[0, :ACCURACY].tolist(),
            strict=True,
        )
    )
    stratified = values.pop("stratified_recall@20")
    assert stratified == 1.0 if len(held) <= 20 else 0.0 < stratified < 1.0
    greatest = {f"recall@{k}": min(k, len(held)) / len(held) for k in (10, 20)}
    assert values == {"ndcg@10": 1.0, "mrr": 1.0, "map@10": 1.0, "hit_rate@10": 1.0, **greatest}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 2**32))
def test_an_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    """No resample's mean leaves the range of what was measured, and low is not above high."""
    column = np.array(values)[:, None]
    drawn = bootstrap.resampled(
        bootstrap.means(column), len(column), np.random.default_rng(seed), 50
    )
    low, high = bootstrap.interval(drawn)
    assert min(values) - 1e-12 <= low[0] <= high[0] <= max(values) + 1e-12
