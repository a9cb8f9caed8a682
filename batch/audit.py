"""Leak checks for an evaluation.

They replace the future and compare, and look for a single feature that leaks. What is as of a cut
must not move when the events after it do: that is proof, and a difference stops the evaluation.
Knowledge that came from elsewhere (a column of the items table that was filled in afterwards) does
not move either; it shows as a feature that separates held-out items from the other candidates
almost without error, which no honest one does. It is looked for among items that the user has not
met yet: that a cart is bought is no leak. An order of rows that was taken for time does not move
either; it shows in ties, where there is no order and chance should rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from shortlist.recsys.errors import LeakDetected
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import FEATURES, ItemTable, features
from shortlist.recsys.models.interactions import (
    MISSING,
    NEVER,
    Events,
    Float32,
    Int64,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ties import ties_with_previous
from shortlist.recsys.training.fit import item_table_of
from shortlist.recsys.training.split import before, moments_of

USERS = 500
"""Users whose feature rows are compared."""

SUSPICIOUS = 0.98
"""Mean area under a user's ROC curve above which a feature knows too much; honest ones: 0.7-0.9."""

MIN_HITS = 50
"""Held-out items among the candidates, below which a perfect feature may be chance."""

MAX_DEVIATIONS = 5.0
"""Standard deviations from one half beyond which the order within ties is no chance.

Chance exceeds them once in two million.
"""

HELD = "held"
SUSPECT = "suspicious"

Check = dict[str, str]
"""{"check", "outcome": HELD, SUSPECT or why it was not decided, "detail"}."""


def audit(
    dataset: Dataset,
    cut: Int64,
    past: Events,
    model: Model,
    truth: Truth,
    events_digest: Mapping[str, str] | None = None,
) -> list[Check]:
    """Runs every check.

    learnt_from: the `Events.digest` of what each part was trained on, by the part's name.

    Raises:
        LeakDetected: the past, a part's training events, the item table or feature rows depend on
            what came after the cut; or the truth has what was taken back.
    """
    events = dataset.events
    known = before(events, cut)
    parts = events_digest or {}
    has_meaning = len(events.kinds) > 1 or len(events.negatives.user) > 0
    return [
        _past_ends(past, known),
        *([_truth_stands(events, cut, truth)] if has_meaning else []),
        *(_same_events(part, digest, known) for part, digest in parts.items()),
        _counterfactual_future(dataset, cut, model, truth),
        _tie_order(events),
        _single_feature_leaks(model, truth),
    ]


def _past_ends(past: Events, known: Events) -> Check:
    if past.digest() != known.digest():
        raise LeakDetected(
            f"the past has {len(past)} events, and {len(known)} lie before the cuts: "
            "nothing but these may be learnt from"
        )
    return _check("The past ends at the cut", f"{len(past)} events, all before their user's cut")


def _same_events(part: str, digest: str, known: Events) -> Check:
    if digest != known.standing().digest():
        raise LeakDetected(
            f"the {part} learnt from other events than those before the cuts: train them again"
        )
    return _check(
        f"The {part} learnt from the past alone", "their training events are those before the cuts"
    )


def _truth_stands(events: Events, cut: Int64, truth: Truth) -> Check:
    """Checks that what is to be predicted was of a target kind, and not taken back."""
    later = events.take(events.to_predict & (np.arange(len(events)) >= cut[events.user]))
    wanted = later.user.astype(np.int64) * events.n_items + later.item
    owners = np.repeat(truth.users, truth.counts).astype(np.int64)
    others = ~np.isin(owners * events.n_items + truth.items, wanted)
    if others.any():
        raise LeakDetected(
            f"{int(others.sum())} of {len(others)} held-out items were taken back, or their events "
            "are of no kind to predict: only target events that stand may be held out"
        )
    return _check(
        "The truth was not taken back", f"{len(others)} held-out items are of target events"
    )


def _counterfactual_future(dataset: Dataset, cut: Int64, model: Model, truth: Truth) -> Check:
    """Puts random items, kinds and feedback after every cut.

    Item table, states and feature rows have to stay the same.
    """
    after = np.arange(len(dataset.events)) >= cut[dataset.events.user]
    other = _with_other_future(dataset, cut, after)
    table = item_table_of(other, before(other.events, cut))
    _compare_tables(model.table, table)
    users = truth.users[: min(len(truth), USERS)]
    starts = other.events.offsets()[:-1][users]
    states = states_at(other.events, starts, cut[users], dataset.attributes[users], users)
    states = replace(states, repeats=truth.states.repeats)
    rows = _feature_rows(model, truth.states.slice(0, len(users)))
    other_rows = _feature_rows(replace(model, table=table), states)
    if rows.shape != other_rows.shape or not _alike(rows, other_rows):
        raise LeakDetected(
            "feature rows changed with what came after the cut: "
            "states and features must be as of it"
        )
    return _check(
        "Another future changes nothing",
        f"{int(after.sum())} events replaced; item table and {len(rows)} feature rows as before",
    )


def _with_other_future(dataset: Dataset, cut: Int64, after: np.ndarray) -> Dataset:
    """The data set with random items and kinds in later events and feedback.

    What stands at a cut is taken back at its moment, and what was taken back later stands.
    after: bool[n_events], the later events.
    """
    events, negatives, rng = dataset.events, dataset.events.negatives, np.random.default_rng(0)
    moments = moments_of(events, cut)
    # No other times or users: the cut itself would move.
    item = rng.integers(0, events.n_items, len(events)).astype(np.int32)
    kind = rng.integers(0, len(events.kinds), len(events)).astype(np.uint8)
    disliked = rng.integers(0, events.n_items, len(negatives.user)).astype(np.int32)
    moment = moments[negatives.user]
    other = replace(
        events,
        item=np.where(after, item, events.item),
        kind=np.where(after, kind, events.kind),
        cancelled=_otherwise(events.cancelled, moments[events.user]),
        negatives=replace(
            negatives,
            item=np.where(negatives.time >= moment, disliked, negatives.item),
            until=_otherwise(negatives.until, moment),
        ),
    )
    return replace(dataset, events=other)


def _otherwise(times: Int64, moments: Int64) -> Int64:
    """The times before the moments; in place of a later one NEVER, and of NEVER the moment."""
    return np.where(times < moments, times, np.where(times == NEVER, moments, NEVER))


def _compare_tables(table: ItemTable, other: ItemTable) -> None:
    others = other.arrays()
    moved = [name for name, array in table.arrays().items() if not _alike(array, others[name])]
    if moved:
        raise LeakDetected(
            f"the item table's {', '.join(moved)} changed with what came after the cut: "
            "compute them before it"
        )


def _tie_order(events: Events) -> Check:
    """Checks that ties have no order.

    Neighbours within ties must ascend half of the time, by item row, by weight and by kind.
    """
    check = "Ties are in no order"
    second = np.flatnonzero(ties_with_previous(events))
    details = []
    kind = events.kind.astype(np.int64)
    for name, values in (("item", events.item), ("weight", events.weight), ("kind", kind)):
        earlier, later = values[second - 1], values[second]
        comparable = (earlier != later) & ~np.isnan(earlier - later)
        n_pairs, n_ascending = int(comparable.sum()), int((earlier < later).sum())
        if n_pairs == 0:
            continue
        detail = f"by {name} {n_ascending / n_pairs:.1%} of {n_pairs} neighbours within ties ascend"
        details.append(detail)
        # n_ascending is binomial: its standard deviation is sqrt(n_pairs) / 2.
        if abs(2 * n_ascending - n_pairs) > MAX_DEVIATIONS * np.sqrt(n_pairs):
            remedy = "their order is that of a file, not of time; load them by `recsys.data`"
            return _check(check, f"{detail}, where one half would: {remedy}", SUSPECT)
    return _check(check, "; ".join(details) or "no two events of a user share a time")


def _single_feature_leaks(model: Model, truth: Truth) -> Check:
    name, area, hits = most_telling(model, truth.slice(0, min(len(truth), USERS)))
    check = "No feature knows the hold-out by itself"
    if hits < MIN_HITS:
        return _check(check, f"not decided: only {hits} held-out items among the candidates")
    detail = (
        f"{name} tells most: it puts a held-out item above another candidate in {area:.1%} of pairs"
    )
    if area < SUSPICIOUS:
        return _check(check, detail)
    return _check(check, f"{detail}; see where it comes from", SUSPECT)


def most_telling(model: Model, truth: Truth) -> tuple[str, float, int]:
    """Finds the feature that best separates held-out items.

    Gives its name, its mean AUC over users, and the number of held-out items among candidates.
    """
    areas, n_hits = [], 0
    for rows, hit in _labelled_rows(model, truth):
        if hit.any() and not hit.all():  # an area needs both
            areas.append(_areas(rows, hit))
            n_hits += int(hit.sum())
    if not areas:
        return next(iter(FEATURES)), 0.5, 0
    mean = np.mean(areas, axis=0)
    # A feature that puts held-out items last tells as much as one that puts them first.
    best = int(np.argmax(np.abs(mean - 0.5)))
    return list(FEATURES)[best], float(0.5 + abs(mean[best] - 0.5)), n_hits


def _labelled_rows(model: Model, truth: Truth) -> Iterator[tuple[Float32, np.ndarray]]:
    """Each user's candidates that they have not met: float32[c, F], and bool[c], if held out."""
    candidates = retrieve(model, truth.states)
    rows = features(truth.states, candidates, model.table)
    present = candidates.items != MISSING
    ends = np.cumsum(present.sum(axis=1))
    for user in range(len(truth)):
        held_out = truth.items[truth.offsets[user] : truth.offsets[user + 1]]
        items = candidates.items[user][present[user]]
        met = (truth.states.items[user], truth.states.seen(user))
        is_new = ~np.isin(items, np.concatenate(met))
        own = rows[ends[user] - len(items) : ends[user]]
        yield own[is_new], np.isin(items[is_new], held_out)


def _areas(rows: Float32, hit: np.ndarray) -> np.ndarray:
    """float64[F]: the area under each column's ROC curve.

    Ties count half (Mann and Whitney, 1947).
    """
    hits, misses = rows[hit][:, None], rows[~hit]
    above = (hits > misses).sum(axis=(0, 1))
    level = (hits == misses).sum(axis=(0, 1))
    return (above + level / 2) / (len(hits) * len(misses))


def _feature_rows(model: Model, states: UserStates) -> Float32:
    return features(states, retrieve(model, states), model.table)


def _alike(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two arrays are equal but for rounding.

    Another machine's arithmetic may move the last digits.
    """
    if one.shape != two.shape:
        return False
    return bool(np.allclose(one, two, rtol=1e-4, atol=1e-6, equal_nan=True))


def _check(check: str, detail: str, outcome: str = HELD) -> Check:
    return {"check": check, "outcome": outcome, "detail": detail}
