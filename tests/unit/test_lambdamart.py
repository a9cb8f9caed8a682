"""Tests cross-validation of the ranker's number of trees.

It also decides whether there is a ranker at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from shortlist.recsys.evaluation.ranking_metrics import ndcg
from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.training import lambdamart
from shortlist.recsys.training.lambdamart import enough_trees, fit_ranker, train_ranker
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.ranking_groups import BINARY, Grades, RankingGroups, grades_of

PARAMS = RankerParams(estimators=60, min_rows_per_leaf=20, patience=20)
N_ROWS = 25


def groups_of(n_users: int, seed: int, told_by: str) -> RankingGroups:
    """A group a user: the label has the highest value of a feature, or is the first row."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_users, N_ROWS, len(FEATURES))).astype(np.float32)
    rows[:, :, 0] = -np.arange(N_ROWS)  # the retrieval score, by which the rows are sorted
    rows[:, :, list(FEATURES).index("had")] = 0
    labels = np.zeros((n_users, N_ROWS), np.float32)
    best = (
        np.zeros(n_users, int)
        if told_by == "nothing"
        else rows[:, :, list(FEATURES).index(told_by)].argmax(axis=1)
    )
    labels[np.arange(n_users), best] = 1
    flat = rows.reshape(-1, len(FEATURES))
    return RankingGroups(
        flat, labels.ravel(), np.full(n_users, N_ROWS, np.int64), np.arange(n_users, dtype=np.int64)
    )


def fitted(
    groups: RankingGroups, validation: RankingGroups, seed: int = 1
) -> lambdamart.FittedRanker:
    return fit_ranker(groups, validation, PARAMS, np.random.default_rng(seed), 1)


def test_own_items_raise_the_floor() -> None:
    """Trees are counted from what one tree, or the own items by number, find anyway."""
    had = list(FEATURES).index("had")
    groups, noise = groups_of(40, 3, "own_all"), groups_of(40, 3, "next_1")
    retriever = -np.arange(len(groups.rows), dtype=np.float64)
    by_retriever = float(lambdamart._ndcg(groups, retriever).mean())
    assert lambdamart._floor(groups, retriever, [0.7, 0.9]) == by_retriever < 0.7
    groups.rows[:, had] = noise.rows[:, had] = 1
    assert lambdamart._floor(groups, retriever, [0.7, 0.9]) == 1.0
    assert lambdamart._floor(noise, retriever, [0.7, 0.9]) == 0.7


def test_useful_rankers_are_kept() -> None:
    """Trees, groups and validation are recorded, and the text has as many trees."""
    groups = groups_of(120, 2, "next_1")
    ranker = fitted(groups, groups)
    assert ranker.validation is not None
    assert ranker.validation.ranker > ranker.validation.retriever + 0.3
    assert ranker.validation.n_users == 120
    assert (Ranker(ranker.text).n_trees, ranker.n_groups) == (ranker.trees, 120)
    assert ranker.trees == enough_trees(ranker.curve, ranker.validation.retriever)
    assert max(ranker.importances, key=ranker.importances.__getitem__) == "next_1"
    assert ranker.note.startswith(
        f"{ranker.trees} trees from 120 groups; validation NDCG@10 of 120 users"
    )


def test_no_gain_means_no_ranker() -> None:
    """The retriever's order is perfect: nothing can be added, and the note says so."""
    groups = groups_of(120, 3, "nothing")
    ranker = fitted(groups, groups)
    assert (ranker.text, ranker.trees, ranker.importances) == ("", 0, {})
    assert ranker.validation is not None
    assert ranker.validation.retriever == 1
    assert ranker.note.endswith("shows no gain: lists come in the retriever's order")


@pytest.mark.parametrize("n_users", [0, 1, lambdamart.MIN_VALIDATION_USERS - 1])
def test_too_few_users_show_nothing(n_users) -> None:
    """However well the ranker would do."""
    groups = groups_of(n_users, 4, "next_1")
    ranker = fitted(groups, groups)
    assert ranker.text == ""
    assert ranker.note.startswith(f"only {n_users} users have a label among their candidates")


def test_unsplittable_rows_make_no_ranker() -> None:
    """All features are alike: no tree grows, and the retriever's order is as good."""
    groups = groups_of(40, 4, "next_1")
    alike = RankingGroups(np.zeros_like(groups.rows), groups.labels, groups.sizes, groups.users)
    ranker = fitted(alike, alike)
    assert ranker.text == ""
    assert ranker.validation is not None
    assert ranker.validation.difference == 0


def test_gain_exceeds_its_standard_error() -> None:
    """At the error itself the simpler model is taken."""
    assert not lambdamart.Validation(0.3, 0.2, 0.1, 0.1, 50).shows_a_gain
    assert lambdamart.Validation(0.3, 0.2, 0.1, 0.09, 50).shows_a_gain
    assert not lambdamart.Validation(0.2, 0.3, -0.1, 0.01, 50).shows_a_gain


@pytest.mark.parametrize(("n_validated", "n_folds"), [(30, 1), (50, 2), (80, 3), (240, 4)])
def test_folds_validate_on_unseen_users(monkeypatch, n_validated, n_folds) -> None:
    """In each fold no user is in training and in validation; each is validated once.

    A few users in validation need no second fold: a ranker lacks a fifth of the groups at most.
    """
    groups = RankingGroups.joined(BINARY, [groups_of(80, 5, "next_1"), groups_of(240, 6, "next_1")])
    validation = groups_of(n_validated, 7, "next_1")
    pairs: list[set[int]] = []
    original = lambdamart._dataset

    def noted(groups: RankingGroups, threads: int) -> dict:
        pairs.append(set(groups.users.tolist()))
        return original(groups, threads)

    monkeypatch.setattr(lambdamart, "_dataset", noted)
    fitted(groups, validation)
    learnt, held, last = pairs[: 2 * n_folds : 2], pairs[1 : 2 * n_folds : 2], pairs[2 * n_folds :]
    assert len(held) == n_folds
    assert not any(one & other for one, other in zip(learnt, held, strict=True))
    assert sorted(user for fold in held for user in fold) == list(range(n_validated))
    # Users without validation are in the training of every fold.
    assert all(training >= set(range(n_validated, 240)) for training in learnt)
    # Several folds are followed by a ranker of everyone; a single fold's is taken as it is.
    assert last == ([] if n_folds == 1 else [set(range(240))])


def test_one_fold_is_the_ranker() -> None:
    """The validated figure is that of the very ranker, which lacks the validated users' groups."""
    groups, validation = groups_of(300, 6, "next_1"), groups_of(40, 7, "next_1")
    ranker = fitted(groups, validation)
    score = Ranker(ranker.text).predict(validation.rows)
    assert ranker.validation is not None
    assert ranker.validation.ranker == lambdamart._ndcg(validation, score).mean()
    assert (Ranker(ranker.text).n_trees, ranker.n_groups) == (ranker.trees, 260)
    assert ranker.trees < len(ranker.curve)
    assert sum(ranker.importances.values()) == pytest.approx(1)
    assert ranker.note.startswith(f"{ranker.trees} trees from 260 groups; validation")


def test_ndcg_agrees_with_report_and_lightgbm() -> None:
    """NDCG@10 is that of the evaluation, and LightGBM's metric of a model's scores."""
    rng = np.random.default_rng(8)
    groups = groups_of(40, 9, "next_1")
    labels = (rng.random(groups.labels.shape) < 0.2).astype(np.float32)
    labels[::N_ROWS] = 1
    groups = RankingGroups(groups.rows, labels, groups.sizes, groups.users)
    score = rng.normal(size=len(groups.rows))
    order = np.argsort(-score.reshape(40, N_ROWS), axis=1)
    hits = np.take_along_axis(labels.reshape(40, N_ROWS) > 0, order, axis=1)
    expected = ndcg(hits, (labels.reshape(40, N_ROWS) > 0).sum(axis=1), 10)
    np.testing.assert_allclose(lambdamart._ndcg(groups, score), expected, atol=1e-12)
    data = lightgbm.Dataset(**lambdamart._dataset(groups, 1))
    booster = lightgbm.Booster(lambdamart._options(PARAMS, groups, len(labels), 1, 1), data)
    booster.add_valid(
        lightgbm.Dataset(**lambdamart._dataset(groups, 1), reference=data),
        "held out",
    )
    for _ in range(30):
        booster.update()
    own = lambdamart._ndcg(groups, booster.predict(groups.rows)).mean()
    # Rows of one score may stand in another order.
    assert booster.eval_valid()[0][2] == pytest.approx(own, abs=0.01)


def test_trees_suffice_at_the_plateau() -> None:
    """Nine tenths of the gain are enough; one high tree, or chance on the plateau, is not."""
    rising = 0.1 + 0.1 * np.minimum(np.arange(1, 151), 60) / 60
    assert abs(enough_trees(rising, 0.1) - 54) <= 2
    assert enough_trees(rising, 0.15) > enough_trees(rising, 0.1)
    spiked = rising.copy()
    spiked[25] = 0.5
    assert abs(enough_trees(spiked, 0.1) - 54) <= 6
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.003, len(rising))
        assert abs(enough_trees(rising + noise, 0.1) - 54) <= 5


def test_short_and_falling_curves() -> None:
    """A rising curve needs nearly all trees; where trees only harm, the best number counts."""
    assert [
        enough_trees(curve, 0.0) for curve in ([], [0.3], [0.3, 0.3, 0.3], [0.1, 0.2, 0.3, 0.4])
    ] == [0, 1, 1, 4]
    assert enough_trees([0.3, 0.2, 0.1], 0.5) == 1


def test_first_tree_has_its_own_gain_alone() -> None:
    """Where a few trees find most of it, later ones do not lend the first one theirs."""
    steep = [0.352, 0.358, 0.362, *np.full(50, 0.365)]
    assert 2 <= enough_trees(steep, 0.352) <= 12
    assert 2 <= enough_trees(steep, 0.30) <= 4
    assert lambdamart._smoothed(steep)[0] == steep[0]


def test_curve_is_smoothed_over_neighbours() -> None:
    """Ten on each side where there are as many; as many before as after at the start."""
    rising = np.minimum(np.arange(1, 101), 60) / 60
    smooth = lambdamart._smoothed(rising)
    assert smooth[50] == pytest.approx(rising[40:61].mean())
    assert (smooth[0], smooth[-1]) == pytest.approx((rising[0], rising[-11:].mean()))
    assert smooth[3] == pytest.approx(rising[:7].mean())
    assert lambdamart._smoothed([0.1, 0.2, 0.6]).tolist() == pytest.approx([0.1, 0.2, 0.6])


def test_training_again_takes_as_many_trees() -> None:
    """On other groups, and no validation decides."""
    again = train_ranker(groups_of(50, 10, "next_3"), 17, PARAMS, np.random.default_rng(1), 1)
    assert (Ranker(again.text).n_trees, again.trees, again.n_groups) == (17, 17, 50)


def test_sampled_groups_are_whole() -> None:
    """Rows, labels and users stay together; no more than there are; all parts have a share."""
    groups = groups_of(30, 11, "next_1")
    parts = [groups.take(groups.users < 12), groups.take(groups.users >= 12)]
    some = RankingGroups.sampled(parts, 7, np.random.default_rng(1))
    assert 0 < (some.users < 12).sum() < 7
    assert (np.diff(some.users) > 0).all()
    assert (len(some.sizes), len(some.rows), some.labels.sum()) == (7, 7 * N_ROWS, 7)
    for n, user in enumerate(some.users):
        np.testing.assert_array_equal(
            some.rows[n * N_ROWS : (n + 1) * N_ROWS],
            groups.rows[user * N_ROWS : (user + 1) * N_ROWS],
        )
    everything = RankingGroups.sampled(parts, 30, np.random.default_rng(1))
    np.testing.assert_array_equal(everything.rows, groups.rows)


def test_grades_ascend_by_strength() -> None:
    """Kinds of one strength share a grade, unless only one of them is to be predicted."""
    kinds = (
        EventKind("purchase", 1.0, is_target=True),
        EventKind("cart", 0.5, is_target=False),
        EventKind("like", 0.5, is_target=True),
        EventKind("save", 0.5, is_target=False),
        EventKind("view", 0.1, is_target=False),
    )
    grades, of_kind = grades_of(kinds)
    assert grades == Grades((0.0, 0.1, 0.5, 0.5, 1.0), (False, False, False, True, True))
    assert of_kind.tolist() == [4, 2, 3, 2, 1]


def graded(n_users: int, seed: int) -> RankingGroups:
    """A view where next_1 is highest and a purchase where next_3 is, of each user."""
    one, two = (groups_of(n_users, seed, name) for name in ("next_1", "next_3"))
    rows = one.rows.copy()
    column = list(FEATURES).index("next_3")
    rows[:, column] = two.rows[:, column]
    labels = np.maximum(one.labels, 2 * two.labels)
    return replace(
        one, rows=rows, labels=labels, grades=Grades((0.0, 0.1, 1.0), (False, False, True))
    )


def test_stronger_labels_come_first() -> None:
    """What is bought is put above what is looked at; both above the rest."""
    groups = graded(150, 12)
    ranker = Ranker(train_ranker(groups, 60, PARAMS, np.random.default_rng(1), 1).text)
    score = ranker.predict(groups.rows).reshape(150, N_ROWS)
    labels = groups.labels.reshape(150, N_ROWS)
    means = [float(score[labels == grade].mean()) for grade in range(3)]
    assert means == sorted(means)


def test_validation_asks_for_what_is_predicted() -> None:
    """A ranker is judged by the purchases alone, whatever it does to views."""
    groups = graded(120, 13)
    asked = groups.to_predict()
    assert (asked.grades, set(asked.labels.tolist())) == (BINARY, {0.0, 1.0})
    np.testing.assert_array_equal(asked.labels == 1, groups.labels == 2)
    validation = fitted(groups, groups).validation
    assert validation is not None
    assert validation.ranker > validation.retriever + 0.3
    assert groups_of(9, 1, "next_1").to_predict().grades == BINARY


def trees_of(ranker: lambdamart.FittedRanker) -> str:
    """The text up to the parameters, which say the number of threads."""
    return ranker.text.partition("parameters:")[0]


def test_threads_change_no_digit() -> None:
    """The curve, the trees and the figures are the same on one thread and on two."""
    groups = groups_of(200, 14, "next_1")
    groups.labels[np.random.default_rng(2).random(len(groups.labels)) < 0.05] = 1
    params = replace(PARAMS, estimators=15)
    one, two = (
        fit_ranker(groups, groups, params, np.random.default_rng(1), threads) for threads in (1, 2)
    )
    assert len(one.curve) == 15
    assert (two.curve, two.validation) == (one.curve, one.validation)
    assert trees_of(two) == trees_of(one)


STARTED = """
import os
import numpy as np
import lightgbm
from tests.unit.test_lambdamart import PARAMS, fit_ranker, groups_of

before = len(os.listdir("/proc/self/task"))
groups = groups_of(60, 2, "next_1")
fit_ranker(groups, groups, PARAMS, np.random.default_rng(1), int(os.environ["WANTED"]))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_training_takes_the_threads_given(threads) -> None:
    """All of cross-validation too: LightGBM starts no thread beyond them."""
    environ = os.environ | {"OMP_NUM_THREADS": "2", "WANTED": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env=environ, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == threads - 1
