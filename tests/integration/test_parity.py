"""Tests that every path gives the same answer.

The user and the release are the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch.precompute import read_shards, user_record
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models import bundle, neighbours
from shortlist.recsys.models.feedback import with_feedback
from shortlist.recsys.models.interactions import MISSING, states_at
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.store.records import pack_user, unpack_list, unpack_user
from shortlist.recsys.store.release_facts import ReleaseFacts

RULES = EventRules({"view": 1.0, "buy": 5.0}, negative=("return",))


@pytest.fixture(scope="module")
def loaded(published):
    return bundle.load(published.work / "bundle")


def test_lists_equal_live_answers(published, loaded) -> None:
    """Items are the same exactly, scores at half precision, from the stored record."""
    for user in read_shards(published.work / "lists", published.version):
        stored = unpack_list(user.packed)
        record = unpack_user(pack_user(user.record))
        state, unknown = bundle.state_of(loaded, record)
        live = recommend(loaded.model, state, published.settings.list_length)
        kept = live.items[0] != MISSING
        assert unknown == 0
        assert stored.rows == tuple(live.items[0, kept].tolist())
        assert stored.scores == tuple(live.scores[0, kept].astype(np.float16).tolist())
        assert stored.n_candidates == int(live.n_candidates[0])


def test_one_user_equals_many_users(published, loaded) -> None:
    """A user's items and scores do not depend on who else is in the batch."""
    events, attributes = published.dataset.events, published.dataset.attributes
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], attributes)
    together = recommend(loaded.model, states, 30)
    for user in range(len(states)):
        alone = recommend(loaded.model, states.slice(user, user + 1), 30)
        np.testing.assert_array_equal(alone.items[0], together.items[user])
        np.testing.assert_array_equal(
            alone.scores[0].view(np.int32), together.scores[user].view(np.int32)
        )


def test_sparse_and_dense_sums_agree(published, loaded, monkeypatch) -> None:
    """A catalogue too large to sum over as a whole gets the same lists, bit for bit."""
    events = published.dataset.events
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:])
    dense = recommend(loaded.model, states, 30)
    monkeypatch.setattr(neighbours, "DENSE_ITEMS", 0)
    sparse = recommend(loaded.model, states, 30)
    np.testing.assert_array_equal(dense.items, sparse.items)
    np.testing.assert_array_equal(dense.scores.view(np.int32), sparse.scores.view(np.int32))


def test_no_list_holds_seen_items(published) -> None:
    """Seen items are never recommended."""
    events = published.dataset.events
    rows = {user_id: row for row, user_id in enumerate(published.dataset.user_ids)}
    for user in read_shards(published.work / "lists", published.version):
        had = set(events.item[events.user == rows[user.user_id]].tolist())
        assert had.isdisjoint(unpack_list(user.packed).rows)


def test_states_of_records_equal_the_batch(published, loaded) -> None:
    """With types and negative feedback too, every array of every user's state."""
    rng = np.random.default_rng(7)
    plain = published.dataset.events
    kind = rng.integers(0, 2, len(plain)).astype(np.uint8)
    rows = np.sort(rng.choice(len(plain), len(plain) // 5, replace=False))
    later = plain.time[rows] + rng.integers(-1, 3, len(rows))
    typed = replace(plain, kind=kind, kinds=RULES.kinds)
    events = with_feedback(typed, plain.user[rows], plain.item[rows], later)
    dataset = replace(published.dataset, events=events)
    offsets, users = events.offsets(), np.arange(events.n_users)
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes, users)
    assert len(states.disliked_rows) > 100
    shop = replace(loaded, facts=ReleaseFacts(RULES))
    batch = bundle.asked_at(shop, states)
    for user in users.tolist():
        record = unpack_user(pack_user(user_record(dataset, states, user, user)))
        state, unknown = bundle.state_of(shop, record)
        assert unknown == 0
        for name in ("items", "times", "weights", "kinds", "n_events", "attributes", "now"):
            expected = getattr(batch, name)[user : user + 1]
            np.testing.assert_array_equal(getattr(state, name), expected, err_msg=name)
        assert set(state.seen(0).tolist()) == set(batch.seen(user).tolist())
        assert set(state.disliked(0).tolist()) == set(batch.disliked(user).tolist())
        assert state.repeats is batch.repeats
