"""Tests the metrics against answers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shortlist.recsys.errors import InvalidRecommendations
from shortlist.recsys.evaluation import ranking_metrics
from shortlist.recsys.evaluation.ranking_metrics import ItemFacts, facts_of
from shortlist.recsys.evaluation.truth import Truth, truth_of
from shortlist.recsys.models.interactions import MISSING, Events, UserStates, states_at

N_ITEMS = 30


def states_of(seen: list[list[int]]) -> UserStates:
    users = np.repeat(np.arange(len(seen)), [len(s) for s in seen]).astype(np.int32)
    items = np.array([i for s in seen for i in s], np.int32)
    times = np.arange(len(items), dtype=np.int64)
    events = Events(
        users, items, times, np.full(len(items), np.nan, np.float32), len(seen), N_ITEMS
    )
    return states_at(events, events.offsets()[:-1], events.offsets()[1:])


def truth(seen: list[list[int]], held: list[list[int]]) -> Truth:
    offsets = np.concatenate(([0], np.cumsum([len(h) for h in held]))).astype(np.int64)
    users = np.arange(100, 100 + len(held), dtype=np.int32)
    return truth_of(
        users, states_of(seen), offsets, np.array([i for h in held for i in h], np.int32), N_ITEMS
    )


def facts(
    users: list[int] | None = None, n_users: int = 8, membership: list[list[float]] | None = None
) -> ItemFacts:
    """Facts of items that all have one user and no category, if nothing else is said."""
    counts = np.ones(N_ITEMS, np.int64) if users is None else np.array(users)
    categories = np.empty((len(counts), 0)) if membership is None else np.array(membership)
    return ItemFacts(counts, n_users, categories.astype(np.float32))


def test_truth_drops_seen_items_and_repeats() -> None:
    """Seen items and repeats of a raw hold-out are dropped, and the order is kept."""
    actual = truth([[1, 2], [], [5]], [[3, 1, 3, 0], [4, 4], [5]])
    assert (actual.offsets.tolist(), actual.items.tolist()) == ([0, 2, 3, 3], [3, 0, 4])


def test_truth_slice_keeps_its_users() -> None:
    """A slice keeps users, seen items and held-out items together."""
    part = truth([[1], [2, 3], [4]], [[5], [6, 7], [8]]).slice(1, 3)
    assert part.users.tolist() == [101, 102]
    assert (part.offsets.tolist(), part.items.tolist()) == ([0, 2, 3], [6, 7, 8])
    assert [part.states.seen(u).tolist() for u in range(len(part))] == [[2, 3], [4]]


def test_hits_mark_held_out_items() -> None:
    """Each user's list is compared with that user's items only, and padding never hits."""
    ranked = np.array([[5, 6, MISSING], [5, 6, 7]], np.int32)
    hits = ranking_metrics.hit_matrix(ranked, truth([[], []], [[6], [5, 7]]), N_ITEMS)
    assert hits.tolist() == [[False, True, False], [True, False, True]]


def test_padding_hits_nothing() -> None:
    """The key of a padded place is that of the former user's last item, and still is no hit."""
    ranked = np.array([[0, 1], [MISSING, MISSING]], np.int32)
    assert not ranking_metrics.hit_matrix(
        ranked, truth([[], []], [[N_ITEMS - 1], [3]]), N_ITEMS
    ).any()


def test_ndcg_by_hand() -> None:
    """DCG is 1 + 1/2 and the ideal 1 + 1/log2(3)."""
    hits = np.array([[True, False, True, False]])
    assert ranking_metrics.ndcg(hits, np.array([2]), 10).tolist() == [
        pytest.approx(1.5 / (1 + 1 / math.log2(3)))
    ]


def test_ndcg_is_cut_at_k() -> None:
    """At k = 2 the third rank is not seen, and five held-out items can fill but two ranks."""
    hits = np.array([[True, True, True], [False, False, True]])
    assert ranking_metrics.ndcg(hits, np.array([5, 5]), 2).tolist() == [1.0, 0.0]


def test_recall_divides_by_all_held_out() -> None:
    """One hit of four held-out items in the first two ranks is a quarter."""
    hits = np.array([[False, True, True, True]])
    assert ranking_metrics.recall(hits, np.array([4]), 2).tolist() == [0.25]


def test_reciprocal_rank_of_first_hit() -> None:
    """A first hit at rank three counts a third, and none at all counts nothing."""
    hits = np.array([[False, False, True, True], [False, False, False, False]])
    assert ranking_metrics.reciprocal_rank(hits, np.array([2, 1])).tolist() == [1 / 3, 0.0]


def test_average_precision_by_hand() -> None:
    """The precisions at the hits are 1 and 2/3, and two held-out items could give two hits."""
    hits = np.array([[True, False, True, False]])
    assert ranking_metrics.average_precision(hits, np.array([2]), 10).tolist() == [
        pytest.approx((1 + 2 / 3) / 2)
    ]


def test_average_precision_divisor_is_capped() -> None:
    """At k = 2 two hits are perfect for five held-out items, and a third rank counts nothing."""
    hits = np.array([[True, True, False], [False, False, True]])
    assert ranking_metrics.average_precision(hits, np.array([5, 5]), 2).tolist() == [1.0, 0.0]


def test_hit_rate_by_hand() -> None:
    """Two hits in the first two ranks count once, and one at the third rank not at all."""
    hits = np.array([[True, True, False], [False, False, True]])
    assert ranking_metrics.hit_rate(hits, np.array([2, 1]), 2).tolist() == [1.0, 0.0]


def test_stratified_recall_weighs_rare_items_more() -> None:
    """Items of 4, 16 and no users weigh 1/2, 1/4 and 1: hits of two of them are 1.5 of 1.75."""
    ranked = np.array([[0, 3, 2]], np.int32)
    held = truth([[]], [[0, 1, 2]])
    hits = ranking_metrics.hit_matrix(ranked, held, 4)
    values = ranking_metrics.stratified_recall(ranked, hits, held, facts([4, 16, 0, 1]), 20)
    assert values.tolist() == [pytest.approx(1.5 / 1.75)]


def test_complete_stratified_recall_is_one() -> None:
    """All hits are exactly 1 in any order; ranks beyond k do not count."""
    ranked = np.array([[2, 1, 0], [3, 3, 0]], np.int32)
    held = truth([[], []], [[0, 1, 2], [0]])
    hits = ranking_metrics.hit_matrix(ranked, held, N_ITEMS)
    crowd = facts([3, 7, 11, *[1] * (N_ITEMS - 3)])
    assert ranking_metrics.stratified_recall(ranked, hits, held, crowd, 3).tolist() == [1.0, 1.0]
    assert ranking_metrics.stratified_recall(ranked, hits, held, crowd, 2)[1] == 0.0


def test_novelty_is_mean_self_information() -> None:
    """Of eight users, items of 8, 2 and no users have 0, 2 and 3 bits; padding has none."""
    known = facts([8, 2, 0])
    ranked = np.array([[0, 1, 2], [1, MISSING, MISSING], [MISSING] * 3], np.int32)
    np.testing.assert_allclose(ranking_metrics.novelty(ranked, known, 10), [5 / 3, 2.0, np.nan])
    assert ranking_metrics.novelty(ranked, known, 2)[0] == 1.0


def test_diversity_is_mean_pair_distance() -> None:
    """Two equal items (0), each at 1 - 1/sqrt(2) from the one with both categories."""
    known = facts([1] * 4, membership=[[1, 0], [1, 0], [1, 1], [0, 1]])
    ranked = np.array([[0, 1, 2, MISSING], [0, 1, MISSING, MISSING], [0, 3, 1, 2]], np.int32)
    far = 1 - 1 / math.sqrt(2)
    np.testing.assert_allclose(
        ranking_metrics.diversity(ranked, known, 10)[:2], [2 * far / 3, 0.0], atol=1e-15
    )
    assert ranking_metrics.diversity(ranked, known, 2)[2] == 1.0


def test_diversity_leaves_out_items_without_categories() -> None:
    """An item without categories makes no pair; without a pair diversity is unknown."""
    known = facts([1] * 3, membership=[[1, 0], [0, 1], [0, 0]])
    ranked = np.array([[0, 2, 1], [0, 2, MISSING]], np.int32)
    np.testing.assert_array_equal(ranking_metrics.diversity(ranked, known, 10), [1.0, np.nan])
    assert np.isnan(ranking_metrics.diversity(ranked, facts([1] * 3), 10)).all()


def test_facts_count_distinct_past_users() -> None:
    """A repeated event counts once, and a user without a past event is not among the users."""
    user, item = np.array([0, 0, 0, 2], np.int32), np.array([1, 1, 3, 1], np.int32)
    past = Events(user, item, np.arange(4), np.full(4, np.nan, np.float32), 4, 5)
    actual = facts_of(past, np.zeros((5, 2), np.float32))
    assert (actual.users.tolist(), actual.n_users, len(actual)) == ([0, 2, 0, 1, 0], 2, 5)


def test_no_held_out_items_no_accuracy() -> None:
    """Where nothing is held out every accuracy is NaN, not 0; novelty is known."""
    ranked = np.array([[0, 1]], np.int32)
    values = ranking_metrics.per_user(ranked, truth([[3]], [[3]]), facts())[0].tolist()
    known = [
        name
        for name, value in zip(ranking_metrics.PER_USER, values, strict=True)
        if not math.isnan(value)
    ]
    assert known == ["novelty@10"]


def test_per_user_gives_the_declared_columns() -> None:
    """A hit at rank eleven counts for the recalls at 20 and the reciprocal rank only."""
    ranked = np.arange(25, dtype=np.int32)[None]
    alike = facts(membership=[[1.0]] * N_ITEMS)
    values = ranking_metrics.per_user(ranked, truth([[]], [[10]]), alike)[0].tolist()
    assert dict(zip(ranking_metrics.PER_USER, values, strict=True)) == {
        "ndcg@10": 0.0,
        "recall@10": 0.0,
        "recall@20": 1.0,
        "mrr": 1 / 11,
        "map@10": 0.0,
        "hit_rate@10": 0.0,
        "stratified_recall@20": 1.0,
        "novelty@10": 3.0,
        "diversity@10": 0.0,
    }


def test_mrr_ends_at_the_hundredth_rank() -> None:
    """A first hit at rank 101 counts as none."""
    ranked = np.arange(101, dtype=np.int32)[None]
    offsets, held = np.array([0, 1]), np.array([100], np.int32)
    deep = Truth(np.zeros(1, np.int32), states_of([[]]), offsets, held)
    assert ranking_metrics.per_user(ranked, deep, facts([1] * 200))[0, 3] == 0.0


def test_coverage_counts_items_once() -> None:
    """Two users who are shown twelve items, two of them at rank eleven, cover ten of thirty."""
    ranked = np.array([[*range(10), 10], [*range(9), MISSING, 11]], np.int32)
    assert ranking_metrics.coverage(ranked, N_ITEMS) == 10 / 30


def test_coverage_of_nobody_is_unknown() -> None:
    """Without users or without items there is no share."""
    assert math.isnan(ranking_metrics.coverage(np.empty((0, 10), np.int32), N_ITEMS))
    assert math.isnan(ranking_metrics.coverage(np.empty((2, 0), np.int32), 0))


def test_means_over_nobody_warn() -> None:
    """No users give NaN and a warning that says why, never 0."""
    with pytest.warns(RuntimeWarning, match="no user has a held-out item"):
        means = ranking_metrics.mean_over_users(np.empty((0, 4)))
    assert means.shape == (4,)
    assert np.isnan(means).all()


def test_means_leave_out_unknown_values() -> None:
    """A mean is over users with a known value; without any it is unknown, with no warning."""
    means = ranking_metrics.mean_over_users(np.array([[1.0, np.nan, np.nan], [2.0, 4.0, np.nan]]))
    np.testing.assert_array_equal(means, [1.5, 4.0, np.nan])


FAULTY = {
    "already seen": ([[2, 1, 3]], [[3, 2, 1]]),
    "same item twice": ([[2, 4, 2]], [[3, 2, 1]]),
    "outside the catalogue": ([[2, 3, N_ITEMS]], [[3, 2, 1]]),
    "after padding": ([[2, MISSING, 3]], [[3, -np.inf, -np.inf]]),
    "greater than the one before": ([[2, 3, 4]], [[3, 1, 2]]),
    "NaN": ([[2, 3, 4]], [[3, np.nan, 2]]),
    "not -inf": ([[2, 3, MISSING]], [[3, 2, 1]]),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_invalid_lists_are_refused(fault: str) -> None:
    """The error names the fault, the method and the user, so that the method can be fixed."""
    items, scores = (np.array(a) for a in FAULTY[fault])
    with pytest.raises(InvalidRecommendations, match=f"method 'mine' gave user row 100 .*{fault}"):
        ranking_metrics.check_recommendations(
            "mine", items.astype(np.int32), scores.astype(np.float32), truth([[1]], [[5]]), N_ITEMS
        )


def test_lists_of_wrong_shape_are_refused() -> None:
    """Scores for fewer ranks than items, or lists of too few users, are refused."""
    for items, scores in (
        (np.zeros((1, 2)), np.zeros((1, 3))),
        (np.zeros((2, 2)), np.zeros((2, 2))),
    ):
        with pytest.raises(InvalidRecommendations, match="must be"):
            ranking_metrics.check_recommendations(
                "mine",
                items.astype(np.int32),
                scores.astype(np.float32),
                truth([[1]], [[5]]),
                N_ITEMS,
            )


def test_an_honest_list_passes() -> None:
    """Equal scores and padding at the end are no faults."""
    items = np.array([[2, 3, MISSING, MISSING]], np.int32)
    scores = np.array([[1, 1, -np.inf, -np.inf]], np.float32)
    ranking_metrics.check_recommendations("mine", items, scores, truth([[1]], [[5]]), N_ITEMS)
