"""Freezes a small bundle and its answers for later versions.

This command makes them for the features of this code:

    python tests/golden/freeze_bundle.py

Run it once after a change of `feature_hash`, and commit the new directory under `bundles/`; older
ones stay, to be refused. It is not run by the tests: a bundle that is made again on each run would
prove nothing about later versions.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np

from shortlist.recsys.models import bundle
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue
from shortlist.recsys.models.features import ItemTable, features
from shortlist.recsys.models.fingerprint import feature_hash
from shortlist.recsys.models.index import build_index
from shortlist.recsys.models.interactions import Events, Float32, states_at
from shortlist.recsys.models.neighbours import Neighbours
from shortlist.recsys.models.pipeline import Model, by_trend, new_items, recommend, retrieve
from shortlist.recsys.models.ranker import stamp
from shortlist.recsys.models.towers import HALF_LIVES, Towers
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import fit_item_table

BUNDLES = Path(__file__).parent / "bundles"
ANSWERS = "answers.json"
K = 20
"""Items of each frozen list."""

N_ITEMS, N_USERS, D, HIDDEN = 60, 40, 4, 6
N_NEIGHBOURS = 10
"""Kept of each item's neighbours, which keeps the files small."""

VOCABULARY = AttributeVocabulary(
    ("region", "age"), ({"north": 0, "south": 1}, {"0": 2, "1": 3}), (None, (30.0,))
)
GENRES = ("comedy", "drama", "thriller")


def catalogue(rng: np.random.Generator) -> Catalogue:
    """Items with categories and years, of which some have none."""
    membership = (rng.random((N_ITEMS, len(GENRES))) < 0.4).astype(np.float32)
    years = rng.integers(1950, 2020, N_ITEMS).astype(np.float32)
    years[::9] = np.nan
    return Catalogue(
        tuple(f"i{row}" for row in range(N_ITEMS)),
        tuple(f"Item {row}" for row in range(N_ITEMS)),
        tuple(tuple(np.array(GENRES)[row > 0].tolist()) for row in membership),
        GENRES,
        membership,
        years,
    )


def events(rng: np.random.Generator) -> Events:
    """Interactions of users with histories of up to 130 events; the last items are new."""
    lengths = rng.integers(5, 130, N_USERS)
    n = int(lengths.sum())
    weights = np.where(rng.random(n) < 0.8, rng.integers(1, 6, n), np.nan).astype(np.float32)
    return Events(
        np.repeat(np.arange(N_USERS), lengths).astype(np.int32),
        rng.integers(0, N_ITEMS - 5, n).astype(np.int32),
        np.sort(rng.integers(0, 10_000, n)),
        weights,
        N_USERS,
        N_ITEMS,
    )


def towers(rng: np.random.Generator) -> Towers:
    """Towers that learnt nothing, with weights of the size that training gives."""

    def noise(*shape: int) -> Float32:
        return rng.normal(size=shape).astype(np.float32)

    width = len(HALF_LIVES) * D
    history, attributes = noise(N_ITEMS + 1, D), noise(VOCABULARY.size + 1, D)
    history[-1], attributes[-1] = 0, 0
    return Towers(
        history=history,
        items=noise(N_ITEMS, D + 1),
        attributes=attributes,
        skip_w=noise(width, D),
        norm_g=noise(width + D),
        norm_b=noise(width + D),
        hidden_w=noise(width + D, HIDDEN),
        hidden_b=noise(HIDDEN),
        out_w=noise(HIDDEN, D),
        out_b=noise(D),
    )


def small_table(past: Events, items: Catalogue) -> ItemTable:
    """The item table with few neighbours."""
    table = fit_item_table(past, items, fit_neighbours(past))
    neighbours = table.neighbours
    rows, weights = (
        np.ascontiguousarray(array[:, :, :N_NEIGHBOURS])
        for array in (neighbours.rows, neighbours.weights)
    )
    return replace(table, neighbours=Neighbours(rows, weights, neighbours.units))


def ranker_text(model: Model, past: Events, rng: np.random.Generator) -> str:
    """A few trees over every feature, with labels by chance."""
    offsets = past.offsets()
    states = states_at(past, offsets[:-1], offsets[1:] - 2, np.zeros((N_USERS, 2), np.int32))
    candidates = retrieve(model, states)
    rows = features(states, candidates, model.table)
    sizes = (candidates.items >= 0).sum(axis=1)
    options = {
        "objective": "lambdarank",
        "verbosity": -1,
        "num_threads": 1,
        "num_leaves": 15,
        "min_data_in_leaf": 5,
        "feature_fraction": 0.5,
        "seed": 1,
    }
    data = lightgbm.Dataset(rows, rng.integers(0, 2, len(rows)), group=sizes)
    return stamp(lightgbm.train(options, data, 12).model_to_string())


def questions(past: Events) -> list[dict[str, object]]:
    """States of which answers are frozen: nobody, newcomers, and users of long histories."""
    offsets = past.offsets()
    nobody = {"items": [], "times": [], "weights": [], "n_events": 0, "seen": [], "attributes": {}}
    asked: list[dict[str, object]] = [nobody, nobody | {"attributes": {"region": "south"}}]
    for user in range(6):
        rows = slice(offsets[user], offsets[user + 1])
        weights = past.weight[rows].tolist()
        asked.append(
            {
                "items": [f"i{row}" for row in past.item[rows].tolist()][-20 * (user + 1) :],
                "times": past.time[rows].tolist()[-20 * (user + 1) :],
                "weights": [None if w != w else w for w in weights][-20 * (user + 1) :],  # noqa: PLR0124 - NaN
                "n_events": int(offsets[user + 1] - offsets[user]),
                "seen": ["i1", "i2"],
                "attributes": {"region": "north", "age": 20.0 + 3 * user},
            }
        )
    return asked


def answer(loaded: bundle.Bundle, question: dict[str, object]) -> dict[str, object]:
    """The list of one state, as ids, scores and retrieval scores."""
    state, _ = bundle.state_of(loaded, UserRecord(**question))  # type: ignore[arg-type]
    best = recommend(loaded.model, state, K)
    kept = best.items[0] >= 0
    return {
        "items": [loaded.catalogue.ids[row] for row in best.items[0, kept].tolist()],
        "scores": best.scores[0, kept].tolist(),
        "retrieval": best.retrieval[0, kept].tolist(),
        "n_candidates": int(best.n_candidates[0]),
    }


def freeze(directory: Path) -> None:
    """Writes a bundle and its answers."""
    shutil.rmtree(directory, ignore_errors=True)  # its answers are no files of the new bundle
    rng = np.random.default_rng(20260801)
    items, past, learnt = catalogue(rng), events(rng), towers(rng)
    table = small_table(past, items)
    index = build_index(learnt.items, 1, 1)
    model = Model(learnt, index, table, None, 30, by_trend(table), 0.1, new_items(table))
    text = ranker_text(model, past, rng)
    fields = {"version": "golden", "created_at": 1785542400, "as_of": int(past.time.max())}
    bundle.save(directory, model, text, items, VOCABULARY, fields)
    loaded = bundle.load(directory)
    cases = [{"state": state, "answer": answer(loaded, state)} for state in questions(past)]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (directory / ANSWERS).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    freeze(BUNDLES / feature_hash())
