"""Asks of every evaluation whether anything in it knew the future: by giving it another one, and by looking at its features.

What is as of a cut must not move when the events after it do: that is proof, and a difference stops
the evaluation. Knowledge that came from elsewhere (a column of the items table that was filled in
afterwards) does not move either; it shows by a feature that tells held-out items from the other
candidates almost without error, which no honest one does. Nor does an order
of rows that was taken for time: it shows in ties, where there is no order, and rows follow one
another by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from shortlist.recsys.errors import LeakDetected
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import FEATURES, ItemTable, features
from shortlist.recsys.models.interactions import MISSING, Events, Float32, Int64, states_at
from shortlist.recsys.models.neighbours import Neighbours
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ties import ties_with_previous
from shortlist.recsys.training.fit import item_table_of
from shortlist.recsys.training.split import before

USERS = 500
"""Users whose feature rows are looked at."""

SUSPICIOUS = 0.98
"""The mean area under a user's ROC curve above which a single feature knows too much; honest ones reach 0.7 to 0.9."""

MIN_HITS = 50
"""Held-out items among the candidates, below which a perfect feature may be chance."""

MAX_DEVIATIONS = 5.0
"""Standard deviations from one half, beyond which the order within ties is no draw: chance does that once in two million."""

HELD = "held"

Check = dict[str, str]
"""{"check", "outcome": "held" or what else, "detail"}."""


def audit(
    dataset: Dataset,
    cut: Int64,
    past: Events,
    model: Model,
    truth: Truth,
    events_digest: Mapping[str, str] | None = None,
) -> list[Check]:
    """What was checked, and how it came out; `events_digest` tells by `Events.digest` what each part was trained on.

    Raises:
        LeakDetected: the past, a part's training events, the item table or feature rows depend on
            what came after the cut.
    """
    known = before(dataset.events, cut)
    return [
        _past_ends(past, known),
        *(_same_events(part, told, known) for part, told in (events_digest or {}).items()),
        _counterfactual_future(dataset, cut, model, truth),
        _tie_order(dataset.events),
        _single_feature_leaks(model, truth),
    ]


def _past_ends(past: Events, known: Events) -> Check:
    if past.digest() != known.digest():
        raise LeakDetected(
            f"the past has {len(past)} events, and {len(known)} lie before the cuts: nothing but these may be learnt from"
        )
    return _check("The past ends at the cut", f"{len(past)} events, all before their user's cut")


def _same_events(part: str, told: str, known: Events) -> Check:
    if told != known.digest():
        raise LeakDetected(
            f"the {part} learnt from other events than those before the cuts: train them again"
        )
    return _check(
        f"The {part} learnt from the past alone", "their training events are those before the cuts"
    )


def _counterfactual_future(dataset: Dataset, cut: Int64, model: Model, truth: Truth) -> Check:
    """Puts random items after every cut; the item table, the states and the feature rows have to stay as they are."""
    events = dataset.events
    after = np.arange(len(events)) >= cut[events.user]
    drawn = np.random.default_rng(0).integers(0, events.n_items, len(events)).astype(np.int32)
    other = replace(dataset, events=replace(events, item=np.where(after, drawn, events.item)))
    table = item_table_of(other, before(other.events, cut))
    moved = [
        name for name, one in _arrays(model.table).items() if not _alike(one, _arrays(table)[name])
    ]
    if moved:
        raise LeakDetected(
            f"the item table's {', '.join(moved)} changed with what came after the cut: compute them before it"
        )
    users = truth.users[: min(len(truth), USERS)]
    states = states_at(
        other.events, other.events.offsets()[:-1][users], cut[users], dataset.attributes[users]
    )
    rows = [
        _rows(m, s)
        for m, s in (
            (model, truth.states.slice(0, len(users))),
            (replace(model, table=table), states),
        )
    ]
    if rows[0].shape != rows[1].shape or not _alike(*rows):
        raise LeakDetected(
            "feature rows changed with what came after the cut: states and features must be as of it"
        )
    detail = (
        f"{int(after.sum())} events replaced; item table and {len(rows[0])} feature rows as before"
    )
    return _check("Another future changes nothing", detail)


def _tie_order(events: Events) -> Check:
    """Looks whether neighbours within ties ascend half of the time, by item row and by weight."""
    what = "Ties are in no order"
    second = np.flatnonzero(ties_with_previous(events))
    details = []
    for name, values in (("item", events.item), ("weight", events.weight)):
        one, two = values[second - 1], values[second]
        n_pairs, n_ascending = (
            int((one != two).sum() - np.isnan(one - two).sum()),
            int((one < two).sum()),
        )
        if n_pairs == 0:
            continue
        details.append(
            f"by {name} {n_ascending / n_pairs:.1%} of {n_pairs} neighbours within ties ascend"
        )
        if abs(2 * n_ascending - n_pairs) > MAX_DEVIATIONS * np.sqrt(n_pairs):
            said = f"{details[-1]}, where one half would: their order is that of a file, not of time; load them by `recsys.data`"
            return _check(what, said, "suspicious")
    return _check(what, "; ".join(details) or "no two events of a user share a time")


def _single_feature_leaks(model: Model, truth: Truth) -> Check:
    name, area, hits = most_telling(model, truth.slice(0, min(len(truth), USERS)))
    what = "No feature knows the hold-out by itself"
    detail = (
        f"{name} tells most: it puts a held-out item above another candidate in {area:.1%} of pairs"
    )
    if hits < MIN_HITS:
        return _check(what, f"not decided: only {hits} held-out items among the candidates")
    if area < SUSPICIOUS:
        return _check(what, detail)
    return _check(what, f"{detail}; see where it comes from", "suspicious")


def most_telling(model: Model, truth: Truth) -> tuple[str, float, int]:
    """The feature that best tells held-out items from other candidates, its mean AUC over users, and the number of hits."""
    candidates = retrieve(model, truth.states)
    rows = features(truth.states, candidates, model.table)
    present = candidates.items != MISSING
    ends = np.cumsum(present.sum(axis=1))
    areas, found = [], 0
    for user in range(len(truth)):
        held = truth.items[truth.offsets[user] : truth.offsets[user + 1]]
        hit = np.isin(candidates.items[user][present[user]], held)
        if hit.any() and not hit.all():
            areas.append(_areas(rows[ends[user] - len(hit) : ends[user]], hit))
            found += int(hit.sum())
    if not areas:
        return next(iter(FEATURES)), 0.5, 0
    mean = np.mean(areas, axis=0)
    best = int(np.argmax(np.abs(mean - 0.5)))
    return list(FEATURES)[best], float(0.5 + abs(mean[best] - 0.5)), found


def _areas(rows: Float32, hit: np.ndarray) -> np.ndarray:
    """float64[F]: the area under the ROC curve of each column, ties counting half (Mann and Whitney, 1947)."""
    n_hits = int(hit.sum())
    ranks = rankdata(rows, axis=0)[hit].sum(axis=0)
    return (ranks - n_hits * (n_hits + 1) / 2) / (n_hits * (len(hit) - n_hits))


def _rows(model: Model, states: Any) -> Float32:  # noqa: ANN401 - states of any number of users
    return features(states, retrieve(model, states), model.table)


def _arrays(table: ItemTable) -> dict[str, np.ndarray]:
    told = {f.name: getattr(table, f.name) for f in fields(table)}
    own = {
        name: np.asarray(value) for name, value in told.items() if not isinstance(value, Neighbours)
    }
    return own | {
        "neighbours": table.neighbours.rows,
        "neighbours' weights": table.neighbours.weights,
    }


def _alike(one: np.ndarray, two: np.ndarray) -> bool:
    """Equal but for the last digits, which another machine's arithmetic may move."""
    return one.shape == two.shape and bool(
        np.allclose(one, two, rtol=1e-4, atol=1e-6, equal_nan=True)
    )


def _check(what: str, detail: str, outcome: str = HELD) -> Check:
    return {"check": what, "outcome": outcome, "detail": detail}
