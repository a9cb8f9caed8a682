"""Tests the share of places that new items get.

Lists still keep what they promise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch.job import load_fold
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import MISSING, UserStates, states_at
from shortlist.recsys.models.pipeline import Model, Recommended, new_items, recommend

K = 40


@pytest.fixture(scope="module")
def setting(published) -> tuple[Model, UserStates]:
    """A released model, and all of its users."""
    model = bundle.load(published.work / "bundle").model
    events = published.dataset.events
    offsets = events.offsets()
    return model, states_at(events, offsets[:-1], offsets[1:], published.dataset.attributes)


def with_share(setting: tuple[Model, UserStates], share: float, k: int = K) -> Recommended:
    """The lists when new items get this share."""
    model, states = setting
    return recommend(replace(model, exploration_share=share), states, k)


def test_new_items_have_no_past(setting, published) -> None:
    """An item without events is new; one with events before the last tenth of time is not."""
    events = published.dataset.events
    late = events.time >= np.quantile(events.time, 0.9, method="nearest")
    counts = np.bincount(events.item, minlength=events.n_items)
    early = np.bincount(events.item[~late], minlength=events.n_items)
    new = set(new_items(setting[0].table).tolist())
    assert set(np.flatnonzero(counts == 0).tolist()) <= new
    assert len(new) > 0
    assert not new & set(np.flatnonzero(early).tolist())


def test_without_a_share_nothing_is_explored(setting) -> None:
    """A share of 0 gives the ranker's own lists."""
    model, states = setting
    none = with_share(setting, 0.0)
    bare = recommend(replace(model, new=np.empty(0, np.int32), exploration_share=0.5), states, K)
    np.testing.assert_array_equal(none.items, bare.items)


def test_share_holds_over_all_users(setting) -> None:
    """At most a tenth of the places holds items put in; the rest keeps its order."""
    model, _ = setting
    own, explored = with_share(setting, 0.0), with_share(setting, 0.1)
    put_in = np.isin(explored.items, model.new) & (explored.items != own.items)
    assert 0 < put_in.mean() < 0.13
    for before, after in zip(own.items, explored.items, strict=True):
        kept = [i for i in after.tolist() if i not in model.new]
        assert kept == [i for i in before.tolist() if i not in model.new][: len(kept)]


def test_explored_list_is_sorted_and_prefixed(setting) -> None:
    """Scores never rise, nothing is repeated or seen, and 15 items are the first 15 of 40."""
    _, states = setting
    whole, part = with_share(setting, 0.3), with_share(setting, 0.3, 15)
    assert (np.diff(np.where(whole.items == MISSING, -1e9, whole.scores), axis=1) <= 0).all()
    np.testing.assert_array_equal(whole.items[:, :15], part.items)
    np.testing.assert_array_equal(whole.scores[:, :15], part.scores)
    for user, row in enumerate(whole.items):
        items = row[row != MISSING].tolist()
        assert len(set(items)) == len(items)
        assert not set(items) & set(states.seen(user).tolist())


def test_fold_explores_as_settings_say(published) -> None:
    """The report's model explores like the released one: what is measured is what is served."""
    from shortlist.batch.job import Job
    from shortlist.batch.progress import ProgressReporter

    job = Job(
        "",
        None,
        None,
        published.work,
        replace(published.settings, exploration_share=0.07),
        ProgressReporter(),
    )
    assert load_fold(job, 1).exploration_share == 0.07
