"""Tests the order of items that the ranker scores alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from shortlist.recsys.models import bundle
from shortlist.recsys.models.fingerprint import feature_hash
from shortlist.recsys.models.interactions import Float32, UserStates
from shortlist.recsys.models.pipeline import Model, ranked_among, recommend, retrieve
from shortlist.recsys.store.records import UserRecord

FROZEN = Path(__file__).parents[1] / "golden" / "bundles" / feature_hash()


@dataclass(frozen=True)
class Indifferent:
    """A ranker that scores every candidate alike."""

    def predict(self, rows: Float32) -> Float32:
        """Zeros."""
        return np.zeros(len(rows), np.float32)


@pytest.fixture(scope="module")
def setting() -> tuple[Model, UserStates]:
    """A frozen model whose ranker is indifferent, and a user with two events."""
    loaded = bundle.load(FROZEN)
    model = replace(loaded.model, ranker=Indifferent(), exploration_share=0.0)
    ids = loaded.catalogue.ids[:2]
    state, _ = bundle.state_of(loaded, UserRecord(ids, (1, 2), (None, None), 2))
    return model, state


def test_retriever_decides_ties(setting) -> None:
    """A list is in the retriever's order, and not in the catalogue's."""
    model, state = setting
    expected = retrieve(model, state).items[0, :10]
    assert recommend(model, state, 10).items[0].tolist() == expected.tolist()
    assert expected.tolist() != sorted(expected.tolist())


def test_given_items_tie_alike(setting) -> None:
    """Items that a request names are ranked by the same rule."""
    model, state = setting
    items = np.sort(retrieve(model, state).items[0, :10])
    ranked = ranked_among(model, state, items)
    assert (np.diff(ranked.retrieval[0]) <= 0).all()
