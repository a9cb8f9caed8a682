"""Torch trains and numpy scores, and both compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.interactions import MISSING, Events, Repeats, states_at
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.settings import Loss
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training import two_tower
from shortlist.recsys.training.fit import pinned_torch
from shortlist.recsys.training.parameters import TowerParams
from shortlist.recsys.training.targets import are_new, ranker_labels, tower_targets
from shortlist.recsys.training.two_tower import fit_towers


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size are faster on one thread, and waiting threads slow down everybody."""
    with pinned_torch(1):
        yield


def checkerboard(n_users: int, n_items: int, rng: np.random.Generator) -> Events:
    """Users of even rows have items of even rows, odd users odd items, in random order."""
    users, items = [], []
    for user in range(n_users):
        own = rng.permutation(np.arange(user % 2, n_items, 2))[: n_items // 2 - 1]
        users += [user] * len(own)
        items += own.tolist()
    n = len(users)
    return Events(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.arange(n, dtype=np.int64),
        np.full(n, np.nan, np.float32),
        n_users,
        n_items,
    )


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_towers_learn_a_checkerboard(loss) -> None:
    """A user of even items scores the last even item higher than any odd one."""
    events = checkerboard(60, 12, np.random.default_rng(0))
    params = TowerParams(
        dimension=16, hidden=32, loss=loss, learning_rate=4e-3, rounds=4, batch_windows=8
    )
    towers, losses, *_ = fit_towers(
        events,
        np.zeros((12, 0), np.float32),
        np.empty((60, 0), np.int32),
        0,
        params,
        np.random.default_rng(1),
    )
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:])
    scores = user_vectors(towers, states) @ towers.items.T
    own = (np.arange(12)[None, :] % 2) == (np.arange(60)[:, None] % 2)
    unseen = np.stack([~np.isin(np.arange(12), states.seen(u)) for u in range(60)])
    left = np.where(own & unseen, scores, -np.inf).max(axis=1)
    other = np.where(~own, scores, -np.inf).max(axis=1)
    assert (left > other).mean() > 0.95
    assert losses[-1] < losses[0]


def test_same_seed_gives_same_towers() -> None:
    """Training draws from the generator that it is passed, and from nothing else."""
    events = checkerboard(20, 8, np.random.default_rng(0))
    params = TowerParams(dimension=8, hidden=16, round_steps=10, rounds=2)
    empty = np.zeros((8, 0), np.float32), np.empty((20, 0), np.int32), 0, params
    first, *_ = fit_towers(events, *empty, np.random.default_rng(3))
    second, *_ = fit_towers(events, *empty, np.random.default_rng(3))
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])


def test_numpy_equals_torch_to_1e_5() -> None:
    """The numpy forward gives the torch network's user vectors, for histories of any length."""
    rng = np.random.default_rng(5)
    n_items, n_tokens, length = 50, 6, 130
    torch.manual_seed(0)
    counts, content = (
        (rng.random(n_items) < 0.8).astype(np.int64),
        rng.random((n_items, 4), dtype=np.float32),
    )
    net = two_tower._Net(counts, content, n_tokens, TowerParams(dimension=16, hidden=32))
    net.eval()
    towers = net.export()
    history = rng.integers(0, n_items, length)
    cuts = np.array([1, 2, 5, 40, HISTORY_LENGTH])
    events = Events(
        np.zeros(length, np.int32),
        history.astype(np.int32),
        np.arange(length),
        np.full(length, np.nan, np.float32),
        1,
        n_items,
    )
    attributes = np.array([[2, MISSING], [MISSING, MISSING], [0, 5], [1, 3], [4, 5]], np.int32)
    states = states_at(events, np.zeros(5, np.int64), cuts, attributes)
    ours = user_vectors(towers, states)[:, :-1]
    with torch.no_grad():
        for row, cut in enumerate(cuts):
            batch = two_tower._Batch(
                history[None, :cut],
                np.full((1, cut), MISSING),
                None,
                attributes[row : row + 1].astype(np.int64),
            )
            np.testing.assert_allclose(ours[row], net.users(batch)[0, -1].numpy(), atol=1e-5)


def test_given_epochs_use_all_events() -> None:
    """Nothing is held out: a user's last event is a target, too, and there is no validation."""
    events = checkerboard(20, 8, np.random.default_rng(0))
    params = TowerParams(dimension=8, hidden=16, round_steps=1)
    empty = np.zeros((8, 0), np.float32), np.empty((20, 0), np.int32), 0, params
    chosen = fit_towers(events, *empty, np.random.default_rng(3))
    assert 0 < chosen.epochs <= len(chosen.rounds)
    _, rounds, epochs, events_digest = fit_towers(
        events, *empty, np.random.default_rng(3), None, chosen.epochs
    )
    assert epochs == len(rounds) == chosen.epochs
    assert events_digest == chosen.events_digest == events.digest()
    assert np.isnan([r.validation for r in rounds]).all()
    seldom = replace(
        events,
        item=np.where(np.arange(len(events)) == len(events) - 1, 7, events.item % 7).astype(
            np.int32
        ),
    )
    once = fit_towers(seldom, *empty, np.random.default_rng(3), None, 2).towers
    assert (
        once.items[7, -1] != 0
    )  # its bias was learnt from the one event that would have been held back


def test_a_repeat_is_no_target() -> None:
    """An item that the user has had already is nothing to predict."""
    events = Events(
        np.zeros(4, np.int32),
        np.array([3, 1, 3, 2], np.int32),
        np.arange(4),
        np.full(4, np.nan, np.float32),
        1,
        4,
    )
    windows = two_tower._Windows(events, np.empty((1, 0), np.int32), Repeats.NEVER)
    batch = next(windows.epoch(4, np.random.default_rng(0)))
    assert batch.inputs.tolist() == [[3, 1, 3]]
    assert batch.targets.tolist() == [[1, MISSING, 2]]


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_windows_of_repeats_alone_teach_nothing(loss) -> None:
    """A user who plays one item for ever leaves finite weights."""
    n = 3 * HISTORY_LENGTH
    events = Events(
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.arange(n),
        np.full(n, np.nan, np.float32),
        1,
        4,
    )
    params = TowerParams(
        dimension=8, hidden=16, loss=loss, batch_windows=1, round_steps=2, rounds=2
    )
    towers, *_ = fit_towers(
        events,
        np.zeros((4, 0), np.float32),
        np.empty((1, 0), np.int32),
        0,
        params,
        np.random.default_rng(0),
    )
    assert all(np.isfinite(array).all() for array in towers.arrays().values())


def test_new_items_get_content_vectors() -> None:
    """Users of even items score a new even item above a new odd one; unknown items come last."""
    events = checkerboard(60, 12, np.random.default_rng(0))
    events = replace(
        events, n_items=15
    )  # 12 is of the even kind, 13 of the odd, of 14 nothing is known
    kind = np.append(np.arange(14) % 2, 2)
    content = (kind[:, None] == np.arange(2)).astype(np.float32)
    params = TowerParams(
        dimension=16, hidden=32, learning_rate=4e-3, rounds=6, batch_windows=8, content_only=0.3
    )
    towers, *_ = fit_towers(
        events, content, np.empty((60, 0), np.int32), 0, params, np.random.default_rng(1)
    )
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:])
    scores = user_vectors(towers, states) @ towers.items.T
    users = np.arange(60)
    assert (scores[users, 12 + users % 2] > scores[users, 13 - users % 2]).mean() > 0.95
    assert not towers.history[14].any()
    assert towers.items[14, -1] == towers.items[:12, -1].min()


KINDS = (
    EventKind("purchase", 1.0, is_target=True),
    EventKind("view", 0.25, is_target=False),
)


def funnel(items: list[int], kinds: list[int]) -> Events:
    """One user's events, one a second."""
    n = len(items)
    return Events(
        np.zeros(n, np.int32),
        np.array(items, np.int32),
        np.arange(n),
        np.full(n, np.nan, np.float32),
        1,
        9,
        np.array(kinds, np.uint8),
        kinds=KINDS,
    )


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        (Repeats.NEVER, [True, False, True, False, False, True, False]),
        (Repeats.ALLOW, [True, False, True, False, True, True, True]),
    ],
)
def test_labels_are_stronger_than_before(repeats: Repeats, expected: list[bool]) -> None:
    """A purchase after a view is a label; a view after either, or a purchase again, is none.

    Where repeats are allowed, each purchase is one.
    """
    events = funnel([1, 1, 1, 1, 1, 2, 2], [1, 1, 0, 1, 0, 0, 0])
    assert ranker_labels(events, repeats).tolist() == expected


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        (Repeats.NEVER, [1, 0, 0, 0, 0, 1, 0, 0.25]),
        (Repeats.ALLOW, [1, 0, 0, 1, 0, 1, 1, 0.25]),
    ],
)
def test_funnels_are_predicted_at_once(repeats: Repeats, expected: list[float]) -> None:
    """The first view of what is bought counts as a purchase; its later steps are no targets."""
    events = funnel([1, 1, 1, 1, 1, 2, 2, 3], [1, 1, 0, 1, 0, 0, 0, 1])
    is_target, strength = tower_targets(events, repeats)
    assert np.where(is_target, strength, 0).tolist() == expected
    assert are_new(events).tolist() == [True, True, True, False, False, True, False, True]


def test_targets_are_of_each_user() -> None:
    """What another user had, or another item, makes no event old."""
    events = funnel([1, 2, 1, 2], [1, 1, 1, 0])
    events = replace(events, user=np.array([0, 0, 1, 1], np.int32), n_users=2)
    assert tower_targets(events, Repeats.NEVER)[0].all()
    assert ranker_labels(events, Repeats.NEVER).all()
    assert are_new(events).all()


def test_targets_count_by_strength() -> None:
    """Views and one that leads to a purchase: it weighs four others, and the mean is 1."""
    windows = two_tower._Windows(
        funnel([1, 2, 3, 4, 4, 5], [1, 1, 1, 1, 0, 1]), np.empty((1, 0), np.int32), Repeats.NEVER
    )
    batch = next(windows.epoch(4, np.random.default_rng(0)))
    assert batch.targets.tolist() == [[2, 3, 4, MISSING, 5]]
    assert batch.weights is not None
    assert (batch.weights / batch.weights[0, 0]).tolist() == [[1, 1, 4, 0, 1]]
    assert windows.weights is not None
    assert windows.weights.sum() / 5 == pytest.approx(1)


@pytest.mark.parametrize("loss", ["sampled_softmax", "bpr"])
def test_strong_targets_are_learnt_first(loss: Loss) -> None:
    """Everybody views item 1 as often as they buy item 2 after item 0: 2 is scored higher."""
    user = np.repeat(np.arange(80), 2).astype(np.int32)
    after = np.where(np.arange(80) % 2, 1, 2)
    item = np.stack((np.zeros(80, int), after), axis=1).ravel().astype(np.int32)
    kind = np.where(item == 2, 0, 1).astype(np.uint8)
    unrated = np.full(160, np.nan, np.float32)
    events = Events(user, item, np.arange(160), unrated, 80, 9, kind, kinds=KINDS)
    params = TowerParams(dimension=8, hidden=16, loss=loss, rounds=6, dropout=0.0)
    towers = fit_towers(
        events,
        np.zeros((9, 0), np.float32),
        np.empty((80, 0), np.int32),
        0,
        params,
        np.random.default_rng(1),
    ).towers
    state = states_at(events, np.array([0]), np.array([1]))
    scores = user_vectors(towers, state)[0] @ towers.items.T
    assert scores[2] > scores[1] + 0.2


def test_validation_predicts_target_events() -> None:
    """The last purchase is held out with its view and what follows, and asked for before these."""
    events = funnel([5, 6, 8, 1, 2, 3, 2, 3, 4], [0, 1, 0, 1, 1, 1, 0, 1, 1])
    for repeats, item in ((Repeats.NEVER, 2), (Repeats.ALLOW, 2)):
        validation, learnt = two_tower._hold_out_last(
            events, np.empty((1, 0), np.int32), 9, np.random.default_rng(0), repeats
        )
        assert validation.targets.tolist() == [item]
        assert learnt.item.tolist() == [5, 6, 8]
        assert validation.states.n_events.tolist() == [3]


def test_validation_of_repeats_ranks_own_items() -> None:
    """A purchase again is held out only where it may be recommended."""
    events = funnel([5, 6, 0, 1, 5], [0, 1, 0, 1, 0])
    sizes = [
        len(
            two_tower._hold_out_last(
                events, np.empty((1, 0), np.int32), 9, np.random.default_rng(0), repeats
            )[0].states
        )
        for repeats in (Repeats.NEVER, Repeats.ALLOW)
    ]
    assert sizes == [0, 1]


@pytest.mark.parametrize("whole", [True, False])
def test_large_catalogues_learn_alike(whole) -> None:
    """The rows in use give what the whole table of past items would, padding included."""
    rng = np.random.default_rng(5)
    params = TowerParams(dimension=4, hidden=8, full_softmax_items=1000 if whole else 10)
    content = (rng.random((30, 6)) < 0.3).astype(np.float32)
    torch.manual_seed(0)
    net = two_tower._Net(np.r_[np.zeros(5, np.int64), np.ones(25, np.int64)], content, 1, params)
    inputs = np.array([[3, 7, 7, 30], [29, 0, 30, 30]], np.int64)
    expected = net.past_table()[torch.from_numpy(inputs)]
    torch.testing.assert_close(net._past(inputs), expected)


def test_sparse_content_gives_equal_products(monkeypatch) -> None:
    """Cells of content that are not zero give the products and gradients of all cells."""
    rng = np.random.default_rng(6)
    cells = np.where(rng.random((20, 7)) < 0.2, rng.random((20, 7)), 0).astype(np.float32)
    cells[3] = 0
    rows = torch.tensor([3, 0, 19, 3, 7])
    found = []
    for most in (0.0, 1.0):
        monkeypatch.setattr(two_tower, "FEW_CELLS", most)
        content = two_tower._Content(cells)
        rng = np.random.default_rng(7)
        for shape in ((7, 4), (7,)):
            table = torch.from_numpy(rng.random(shape)).float().requires_grad_()
            product = content.times(table, rows)
            product.square().sum().backward()
            found.append((product.detach(), table.grad))
        assert content.is_empty().tolist() == (~cells.any(axis=1)).tolist()
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])


def test_averages_copy_weights_alone() -> None:
    """A step does not copy the content, which is no weight."""
    net = two_tower._Net(np.ones(30, np.int64), np.ones((30, 6), np.float32), 1, TowerParams())
    assert list(net.buffers()) == []
