"""Torch trains and numpy scores, and both compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from shortlist.recsys.models.interactions import MISSING, Events, states_at
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training import two_tower
from shortlist.recsys.training.fit import pinned_torch
from shortlist.recsys.training.two_tower import TowerParams, fit_towers


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
    windows = two_tower._Windows(events, np.empty((1, 0), np.int32))
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
