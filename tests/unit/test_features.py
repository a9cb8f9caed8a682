"""Tests the one feature function by known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models import features as module
from shortlist.recsys.models.catalogue import Catalogue
from shortlist.recsys.models.features import (
    FEATURES,
    Candidates,
    ItemLabels,
    ItemTable,
    feature_table,
    features,
)
from shortlist.recsys.models.feedback import with_feedback
from shortlist.recsys.models.interactions import MISSING, Events, states_at
from shortlist.recsys.models.neighbours import Relation
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import fit_item_table

NAN = np.float32(np.nan)
CATALOGUE = Catalogue(
    tuple("abcde"),
    tuple("ABCDE"),
    (("x",), ("x",), ("y",), (), ("y",)),
    ("x", "y"),
    np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 1]], np.float32),
    np.array([1990, 1994, 2000, NAN, 2010], np.float32),
)
# user 0: a b c; user 1: a b; user 2: b c a. Nobody had d or e.
EVENTS = Events(
    np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32),
    np.array([0, 1, 2, 0, 1, 1, 2, 0], np.int32),
    np.arange(8),
    np.full(8, NAN),
    3,
    5,
)


def column(name: str, rows: np.ndarray) -> list[float]:
    """A feature's values."""
    return rows[:, list(FEATURES).index(name)].tolist()


@pytest.fixture(scope="module")
def table() -> ItemTable:
    """The item table of the five items."""
    return fit_item_table(EVENTS, CATALOGUE, fit_neighbours(EVENTS))


def made(table: ItemTable, user: int, items: list[int]) -> np.ndarray:
    """The rows of one user's candidates."""
    offsets = EVENTS.offsets()
    states = states_at(EVENTS, offsets[user : user + 1], offsets[user + 1 : user + 2])
    scores = np.linspace(1, 0, len(items), dtype=np.float32)
    return features(states, Candidates(np.array([items], np.int32), scores[None, :]), table)


def test_transitions_are_counted() -> None:
    """After a came b twice at once; counts are normalised by the source's events and one more."""
    neighbours = fit_neighbours(EVENTS)
    rows, weights = neighbours.of(Relation.NEXT_1, np.array([0], np.int32))
    after_a = dict(zip(rows[0].tolist(), weights[0].tolist(), strict=True))
    assert after_a[1] == pytest.approx(2 / (3 + 1))
    assert neighbours.rows[0, 3].tolist() == [5] * neighbours.rows.shape[2]
    assert neighbours.rows[:, 5].min() == 5


def test_neighbour_sums_decay_by_age(table) -> None:
    """User 1 had a, then b: c followed b in two of three cases, and nothing else says so."""
    rows = made(table, 1, [2, 3])
    assert column("next_1", rows) == pytest.approx([2 / (3 + 1), 0.0])


def test_content_and_popularity(table) -> None:
    """Categories by cosine with the history, years by distance, popularity by logarithm."""
    rows = made(table, 1, [2, 4, 3])
    assert column("popularity", rows) == pytest.approx([np.log1p(2), 0.0, 0.0])
    assert column("category_all", rows) == pytest.approx(
        [0.0, 0.0, FEATURES["category_all"].default]
    )
    assert column("year", rows) == [2000.0, 2010.0, FEATURES["year"].default]
    assert column("year_distance", rows)[2] == FEATURES["year_distance"].default
    assert 0 < column("year_distance", rows)[0] < column("year_distance", rows)[1]


def test_unknowns_get_declared_defaults(table) -> None:
    """No weights anywhere: the features of weights are at their defaults, and nothing is NaN."""
    rows = made(table, 0, [3, 4])
    assert column("history_weight", rows) == [FEATURES["history_weight"].default] * 2
    assert np.isfinite(rows).all()


def test_padding_makes_no_row(table) -> None:
    """Rows are the real candidates, user by user."""
    assert made(table, 0, [3, 4, MISSING]).shape == (2, len(FEATURES))


def test_empty_history_has_finite_features(table) -> None:
    """A user of whom nothing is known has features, all finite."""
    states = states_at(EVENTS, np.array([0]), np.array([0]))
    rows = features(
        states, Candidates(np.array([[0, 1]], np.int32), np.zeros((1, 2), np.float32)), table
    )
    assert np.isfinite(rows).all()
    assert column("history_length", rows) == [0.0, 0.0]


@pytest.mark.parametrize("weight", [0.0, np.finfo(np.float32).max])
def test_the_largest_weight_overflows_nothing(weight) -> None:
    """Of a user whose every event has it, where the others' weights hardly differ."""
    weights = np.where(EVENTS.user == 0, np.float32(weight), np.float32(3)).astype(np.float32)
    usual = replace(EVENTS, weight=np.linspace(3, 3.001, 8, dtype=np.float32))
    table = fit_item_table(usual, CATALOGUE, fit_neighbours(usual))
    offsets = EVENTS.offsets()
    states = states_at(replace(EVENTS, weight=weights), offsets[:1], offsets[1:2])
    rows = features(
        states, Candidates(np.array([[3, 4]], np.int32), np.zeros((1, 2), np.float32)), table
    )
    assert np.isfinite(rows).all()
    assert abs(column("history_weight", rows)[0]) == pytest.approx(module.MAX_DEVIATIONS, rel=0.8)


def test_every_feature_has_its_sentence() -> None:
    """The documentation's table has one row a feature: name, default and a sentence."""
    rows = feature_table()
    assert [name for name, _, _ in rows] == list(FEATURES)
    assert [float(default) for _, default, _ in rows] == [f.default for f in FEATURES.values()]
    sentences = [sentence for _, _, sentence in rows]
    assert all(sentence.endswith(".") for sentence in sentences)
    assert len(set(sentences)) == len(sentences)


def test_one_entry_adds_a_feature(table, monkeypatch) -> None:
    """A feature is its entry: rows have one more column, and unknowns its default."""
    year = module.Feature(
        -7.0, "Decade of the item.", lambda inputs: inputs.table.year[inputs.items] // 10
    )
    monkeypatch.setattr(module, "FEATURES", FEATURES | {"decade": year})
    rows = made(table, 1, [2, 4, 3])
    assert rows.shape == (3, len(FEATURES) + 1)
    assert rows[:, -1].tolist() == [200.0, 201.0, -7.0]


KINDS = (
    EventKind("purchase", 1.0, is_target=True),
    EventKind("cart", 0.5, is_target=False),
    EventKind("view", 0.25, is_target=False),
)
# user 0 views a, puts it into the cart, views a again, views b, and buys c.
SHOP = replace(
    EVENTS,
    user=np.array([0, 0, 0, 0, 0, 1, 1, 2], np.int32),
    item=np.array([0, 0, 0, 1, 2, 2, 1, 2], np.int32),
    kind=np.array([2, 1, 2, 2, 0, 0, 2, 0], np.uint8),
    kinds=KINDS,
)


def of_shop(events: Events, items: list[int]) -> np.ndarray:
    """The rows of user 0's candidates."""
    states = states_at(events, np.array([0]), np.array([5]), users=np.array([0]))
    candidates = Candidates(np.array([items], np.int32), np.zeros((1, len(items)), np.float32))
    return features(states, candidates, fit_item_table(events, CATALOGUE, fit_neighbours(events)))


def test_met_features_know_the_funnel() -> None:
    """How often, how strongly and how long ago an item was viewed; what was bought is no view."""
    rows = of_shop(SHOP, [0, 1, 2, 3])
    assert column("met_count", rows) == pytest.approx([np.log1p(3), np.log1p(1), 0, 0])
    assert column("met_strongest", rows) == [0.5, 0.25, 0, 0]
    assert column("met_last", rows) == [0.25, 0.25, 0, 0]
    assert column("met_age", rows) == pytest.approx([np.log1p(2), np.log1p(1), -1, -1])


def test_popularity_is_of_target_events() -> None:
    """Views make no item popular; the share of purchases among its events is a feature."""
    rows = of_shop(SHOP, [0, 1, 2])
    assert column("popularity", rows) == pytest.approx([0, 0, np.log1p(3)])
    overall = 3 / 8
    assert column("item_target_share", rows) == pytest.approx(
        [5 * overall / (3 + 5), 5 * overall / (2 + 5), (3 + 5 * overall) / (3 + 5)]
    )


def test_dislikes_are_features() -> None:
    """Items near what the user disliked, of its categories, and often disliked themselves."""
    one = np.zeros(1, np.int32)
    disliked = with_feedback(SHOP, one, one, np.array([4]))
    rows = of_shop(disliked, [1, 2, 3])
    table = fit_item_table(SHOP, CATALOGUE, fit_neighbours(SHOP))
    nearest, weights = table.neighbours.of(Relation.NEAR, np.zeros(1, np.int32))
    near = dict(zip(nearest[0].tolist(), weights[0].tolist(), strict=True))
    assert column("near_disliked", rows) == pytest.approx([near[1], near[2], 0])
    assert column("category_disliked", rows) == [1.0, 0.0, -1.0]
    overall = 1 / 4
    assert column("item_negative_share", of_shop(disliked, [0, 2, 4])) == pytest.approx(
        [(1 + 5 * overall) / (1 + 5), 5 * overall / (3 + 5), overall]
    )


def test_one_kind_has_constant_meaning(table) -> None:
    """Without kinds and feedback the features of meaning are alike for all: trees cannot split."""
    rows = made(table, 0, [1, 3, 4])
    for name in (
        "met_count",
        "met_strongest",
        "met_last",
        "met_age",
        "item_target_share",
        "item_negative_share",
        "near_disliked",
        "category_disliked",
    ):
        assert len(set(column(name, rows))) == 1


def test_own_labels_and_numbers(table) -> None:
    """Rare labels that the history has count most; prices by their distance in rank."""
    labels = np.array([[0, 2], [0, 3], [1, 2], [1, 3], [3, 3], [3, 3]], np.int32)
    rarity = np.array([1.0, 1.0, 0.5, 0.0], np.float32)
    numbers = np.array([[0.1], [0.3], [0.5], [NAN], [0.9], [NAN]], np.float32)
    own = replace(table, labels=ItemLabels(labels, rarity), numbers=numbers)
    rows = made(own, 1, [0, 2, 3, 4])  # the user had a, then b, so that label 0 is their taste
    recent = column("attributes_recent", rows)
    assert recent[0] > recent[1] > recent[2] == pytest.approx(0.0)
    assert recent[3] == FEATURES["attributes_recent"].default
    early, late = 0.5 ** (1 / 5), 1.0
    mean = (0.1 * early + 0.3 * late) / (early + late)
    expected = [mean - 0.1, 0.5 - mean, FEATURES["number_distance"].default, 0.9 - mean]
    assert column("number_distance", rows) == pytest.approx(expected, abs=1e-6)


def test_no_own_columns_give_defaults(table) -> None:
    """Data without columns of their own have constant features, which no tree splits on."""
    rows = made(table, 1, [2, 3])
    for name in ("attributes_recent", "attributes_all", "number_distance"):
        assert column(name, rows) == [FEATURES[name].default] * 2


def test_some_candidates_keep_their_rows(table) -> None:
    """Features of some of the candidates have the bits that they have among all, in their order."""
    offsets = EVENTS.offsets()
    states = states_at(EVENTS, offsets[:2], offsets[1:3])
    items = np.array([[3, 4, 0, 2], [4, 2, 3, MISSING]], np.int32)
    scores = np.array([[0.9, 0.7, 0.4, 0.1], [0.8, 0.3, 0.2, -np.inf]], np.float32)
    wanted = np.array([[False, True, False, True], [True, False, True, False]])
    everything = Candidates(items, scores)
    rows = features(states, everything, table)
    some = features(states, everything.only(wanted), table)
    np.testing.assert_array_equal(some, rows[wanted[items != MISSING]])
    wanted = np.array([[False, False, False, False], [True, True, True, False]])
    np.testing.assert_array_equal(features(states, everything.only(wanted), table), rows[4:])


def test_categories_are_listed() -> None:
    """Those of each item, in order; shorter rows, and items without any, are padded."""
    membership = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0] * 4])
    table = fit_item_table(
        EVENTS, replace(CATALOGUE, membership=membership), fit_neighbours(EVENTS)
    )
    assert table.categories.rows.tolist() == [[1, 3], [4, 4], [0, 4], [3, 4], [4, 4], [4, 4]]
    assert table.categories.weights.tolist() == [1, 1, 1, 1, 0]
    without = replace(CATALOGUE, membership=np.zeros((5, 0)))
    none = fit_item_table(EVENTS, without, fit_neighbours(EVENTS)).categories
    assert (none.rows.shape, none.weights.tolist()) == ((6, 0), [0])


def test_rarest_of_many_categories_are_kept() -> None:
    """One item with very many would make all others slow."""
    membership = np.zeros((5, 60))
    membership[0] = membership[1, :15] = 1
    catalogue = replace(CATALOGUE, membership=membership)
    rows = fit_item_table(EVENTS, catalogue, fit_neighbours(EVENTS)).categories.rows
    assert rows.shape == (6, 50)
    assert rows[0].tolist() == [*range(5), *range(15, 60)]  # the first 15 are item 1's as well
    assert rows[1, :16].tolist() == [*range(15), 60]


def test_categories_match_by_cosine() -> None:
    """Category features are cosines of vectors of categories."""
    rng = np.random.default_rng(4)
    membership = (rng.random((5, 40)) < 0.3).astype(np.float32)
    catalogue = replace(CATALOGUE, membership=membership)
    rows = features(
        states_at(EVENTS, EVENTS.offsets()[:1], EVENTS.offsets()[1:2]),
        Candidates(np.array([[3, 4, 2]], np.int32), np.zeros((1, 3), np.float32)),
        fit_item_table(EVENTS, catalogue, fit_neighbours(EVENTS)),
    )
    history, offered = membership[:3], membership[[3, 4, 2]]  # the user had a, b and c
    taste = module.halving(module.RECENT)[-3:] @ history
    length = np.linalg.norm(offered, axis=1) * np.linalg.norm(taste)
    assert column("category_recent", rows) == pytest.approx(offered @ taste / length, abs=1e-6)
