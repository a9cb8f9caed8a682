"""Collects the studio's facts while the batch has the data.

Everything is bounded: counts by period, the curves of the most popular items, at most PICKS users.
What takes a model was computed by the evaluation already.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.batch.studio.facts import (
    LISTED,
    MOST_BYTES,
    NEGATIVE,
    NO_TYPE,
    StudioFacts,
    digest_of,
    pack,
)
from shortlist.recsys.evaluation.figures import SECONDS_A_DAY
from shortlist.recsys.evaluation.ranking_metrics import ndcg
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.diversity import unit_vectors
from shortlist.recsys.models.interactions import (
    MISSING,
    NEVER,
    Events,
    Float32,
    Int32,
    Int64,
)
from shortlist.recsys.values import FIRST_CLOCK_TIME

PICKS = 20_000
"""Users that can be picked; of more, those of the smallest digests, which is by chance."""

MOST_HELD = 50
"""Held-out items that are kept of a user."""

MOST_DAYS = 2000
"""Days with events, above which months are counted: more are no chart."""

MOST_CURVE = 1_000_000
"""Entries of all items' curves; of more, the least popular items have none."""

SAMPLES = 3
"""Rejected rows that are kept of each reason."""

SHOWN_COLUMNS = {
    "interactions": ("item_id", "timestamp", "weight", "event_type"),
    "events": ("item_id", "timestamp", "weight", "event_type"),
    "items": None,
}
"""What a rejected row shows, by table; None for all. Nothing of it says who the user is."""

MOST_CHARACTERS = 200
"""Of a rejected row's value."""

SHARES = 100
"""Points of the long tail's curve."""


@dataclass(frozen=True, slots=True)
class Picks:
    """The users that can be picked.

    users: int64[p] user rows; digests: of each; sampled: whether these are not all with events.
    """

    users: Int64
    digests: list[bytes]
    sampled: bool


def drawn(dataset: Dataset) -> Picks:
    """The users of the smallest digests, which is by chance."""
    users = np.unique(dataset.events.user).astype(np.int64)
    digests = [digest_of(dataset.user_ids[user]) for user in users.tolist()]
    order = sorted(range(len(users)), key=digests.__getitem__)[:PICKS]
    return Picks(users[order], [digests[at] for at in order], len(users) > PICKS)


def collected(
    dataset: Dataset, picks: Picks, truth: Truth, lists: Int32, vectors: Float32, rejects: Path
) -> StudioFacts:
    """The facts of a run.

    truth: the hold-out; lists: int32[w, K], what the two stages listed for those of its users who
    can be picked, in its order; vectors: float32[n, d] of the released items; rejects: the file of
    rejected rows.
    """
    events = dataset.events
    has_clock = events.latest >= FIRST_CLOCK_TIME
    xy, explained = on_a_plane(unit_vectors(vectors))
    n = np.bincount(events.item, minlength=events.n_items)
    users = np.bincount(events.user, minlength=events.n_users)
    days, unit, types = _days(events, has_clock=has_clock)
    plain = {
        "types": types,
        "unit": unit,
        "activity": _activity(users),
        **_tail(n),
        "rejects": rejected_samples(rejects),
        "users_without_events": int((users == 0).sum()),
        "items_without_events": int((n == 0).sum()),
        "explained": explained,
        "sampled": picks.sampled,
    }
    arrays = days | {"item_n": n, "item_xy": xy.ravel()}
    arrays |= _first_and_last(events, has_clock=has_clock)
    arrays |= _curves(events, n, has_clock=has_clock)
    arrays |= _picked(events, picks, truth, lists)
    return StudioFacts(arrays, plain)


def packed(facts: StudioFacts) -> bytes:
    """Packs facts into at most MOST_BYTES, if need be without curves and users."""
    body = pack(facts)
    for without in (_no_curves(facts.n_items), _no_picks()):
        if len(body) <= MOST_BYTES:
            break
        facts = replace(facts, arrays=dict(facts.arrays) | without)
        body = pack(facts)
    return body


def on_a_plane(unit: Float32) -> tuple[Float32, list[float]]:
    """The first two principal components of vectors.

    unit: float32[n, d]. Gives float32[n, 2] and the shares of the variance that both explain. The
    sign of a component is that which makes its largest weight positive, so that two runs agree.
    """
    centred = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    best = directions[:, ::-1][:, :2]  # eigh's values rise
    largest = np.abs(best).argmax(axis=0)
    best = best * np.where(best[largest, np.arange(best.shape[1])] < 0, -1.0, 1.0)
    total = float(values.sum())
    shares = [float(value) / total if total > 0 else 0.0 for value in values[::-1][:2]]
    return (centred @ best).astype(np.float32), shares


def rejected_samples(path: Path) -> dict[str, list[dict[str, Any]]]:
    """{reason: a few rejected rows}, without anything that says who a user is."""
    frame = pl.read_parquet(path)
    first = frame.group_by("table", "reason", maintain_order=True).head(SAMPLES)
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in first.iter_rows(named=True):
        table = str(row["table"])
        reason = row["reason"] if table == "interactions" else f"{table}: {row['reason']}"
        shown = {"source": row["source"], "row": row["row"], "values": _shown(table, row["record"])}
        samples.setdefault(reason, []).append(shown)
    return samples


def _shown(table: str, record: str) -> dict[str, Any]:
    columns = SHOWN_COLUMNS.get(table, ())
    values = json.loads(record)
    kept = values if columns is None else {name: values[name] for name in columns if name in values}
    return {name: _short(value) for name, value in kept.items()}


def _short(value: Any) -> Any:  # noqa: ANN401 - whatever a table has
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _days(
    events: Events, *, has_clock: bool
) -> tuple[dict[str, NDArray[Any]], str | None, list[str]]:
    """Events by period and type, the unit of a period, and the names of the types.

    Where times are sequence numbers, all events are of one period, 0, and there is no unit.
    """
    negatives = events.negatives
    times = np.concatenate((events.time, negatives.time))
    of_negatives = np.full(len(negatives.time), len(events.kinds), np.int64)
    types = np.concatenate((events.kind.astype(np.int64), of_negatives))
    unit, starts = None, np.zeros(len(times), np.int64)
    if has_clock:
        unit, starts = "day", times // SECONDS_A_DAY * SECONDS_A_DAY
        if len(np.unique(starts)) > MOST_DAYS:
            unit, starts = "month", _months(times)
    # One key for a period and a type; the periods are made small first.
    periods, places = np.unique(starts, return_inverse=True)
    width = len(events.kinds) + 1
    keys, counts = np.unique(places * width + types, return_counts=True)
    names = [kind.name or NO_TYPE for kind in events.kinds]
    arrays = {"day": periods[keys // width], "day_type": keys % width, "day_n": counts}
    return arrays, unit, [*names, NEGATIVE] if len(of_negatives) else names


def _months(times: Int64) -> Int64:
    """The starts of the times' months, in unix seconds."""
    months = times.astype("datetime64[s]").astype("datetime64[M]")
    return months.astype("datetime64[s]").astype(np.int64)


def _activity(users: Int64) -> list[list[int]]:
    """[from, to, users] by events a user, in classes that double."""
    present = users[users > 0]
    if not len(present):
        return []
    classes = np.bincount(np.log2(present).astype(np.int64))
    return [[2**at, 2 ** (at + 1) - 1, n] for at, n in enumerate(classes.tolist())]


def _tail(n: Int64) -> dict[str, Any]:
    """The share of the events that the most popular items have, and their Gini coefficient."""
    falling = np.sort(n)[::-1].astype(np.float64)
    total = float(falling.sum())
    if total == 0:
        return {"tail": [], "gini": None}
    summed = np.concatenate(([0.0], np.cumsum(falling))) / total
    places = np.unique(np.rint(np.linspace(0, len(n), SHARES + 1)).astype(np.int64))
    tail = [[at / len(n), float(summed[at])] for at in places.tolist()]
    ranks = np.arange(1, len(n) + 1)
    gini = 1 + 1 / len(n) - 2 * float((falling * ranks).sum()) / (len(n) * total)
    return {"tail": tail, "gini": max(0.0, gini)}


def _first_and_last(events: Events, *, has_clock: bool) -> dict[str, NDArray[Any]]:
    """Days since 1970 of each item's first and last event, -1 for none."""
    first = np.full(events.n_items, NEVER)
    last = np.full(events.n_items, -1, np.int64)
    if has_clock:
        np.minimum.at(first, events.item, events.time // SECONDS_A_DAY)
        np.maximum.at(last, events.item, events.time // SECONDS_A_DAY)
    return {"item_first": np.where(last < 0, -1, first), "item_last": last}


def _curves(events: Events, n: Int64, *, has_clock: bool) -> dict[str, NDArray[Any]]:
    """Events by item and month, of the most popular items as far as there is room."""
    if not has_clock:
        return _no_curves(events.n_items)
    periods, places = np.unique(_months(events.time), return_inverse=True)
    keys, counts = np.unique(
        events.item.astype(np.int64) * len(periods) + places, return_counts=True
    )
    items = keys // len(periods)
    entries = np.bincount(items, minlength=events.n_items)
    popular = np.argsort(-n, kind="stable")
    has_room = np.zeros(events.n_items, np.bool_)
    has_room[popular] = np.cumsum(entries[popular]) <= MOST_CURVE
    kept = has_room[items]
    offsets = np.concatenate(([0], np.cumsum(np.where(has_room, entries, 0))))
    return {
        "month": periods,
        "curve_offsets": offsets,
        "curve_month": (keys % len(periods))[kept],
        "curve_n": counts[kept],
    }


def _no_curves(n_items: int) -> dict[str, NDArray[Any]]:
    none = np.empty(0, np.int64)
    offsets = np.zeros(n_items + 1, np.int64)
    return {"month": none, "curve_offsets": offsets, "curve_month": none, "curve_n": none}


def _picked(events: Events, picks: Picks, truth: Truth, lists: Int32) -> dict[str, NDArray[Any]]:
    """The users' counts, what was held out of them, and what was listed for them."""
    offsets = events.offsets()
    starts, stops = offsets[picks.users], offsets[picks.users + 1]
    position = np.full(events.n_users, MISSING, np.int64)
    position[truth.users] = np.arange(len(truth))
    positions = position[picks.users]
    # Which of `lists` is whose: they are in the order of the truth.
    row_of = np.searchsorted(np.sort(positions[positions != MISSING]), positions)
    held = [
        [] if at == MISSING else _held(truth, lists[row], at)
        for at, row in zip(positions.tolist(), row_of.tolist(), strict=True)
    ]
    known = positions != MISSING
    listed = np.full((len(positions), LISTED), MISSING, np.int32)
    listed[known] = _padded(lists[row_of[known], :LISTED])
    return {
        "pick_digest": np.frombuffer(b"".join(picks.digests), np.uint8),
        "pick_n": stops - starts,
        "pick_first": events.time[starts],
        "pick_last": events.time[stops - 1],
        "pick_ndcg": _ndcg(held, np.where(known, truth.counts[positions], 0)),
        "held_offsets": np.concatenate(([0], np.cumsum([len(each) for each in held]))),
        "held_item": np.array([item for each in held for item, _ in each], np.int32),
        "held_rank": np.array([rank for each in held for _, rank in each], np.int16),
        "listed": listed.ravel(),
    }


def _ndcg(held: list[list[tuple[int, int]]], n_truth: Int64) -> NDArray[np.float64]:
    """float64[p]: NDCG of the first LISTED ranks, NaN where nothing was held out."""
    hits = np.zeros((len(held), LISTED), np.bool_)
    for user, pairs in enumerate(held):
        hits[user, [rank - 1 for _, rank in pairs if 0 < rank <= LISTED]] = True
    return ndcg(hits, n_truth, LISTED)


def _padded(lists: Int32) -> Int32:
    """Lists of LISTED places."""
    lacking = LISTED - lists.shape[1]
    return np.pad(lists, ((0, 0), (0, lacking)), constant_values=MISSING) if lacking > 0 else lists


def _held(truth: Truth, listed: Int32, position: int) -> list[tuple[int, int]]:
    """A user's held-out items with their ranks, the best rank first; 0 for none."""
    start, stop = truth.offsets[position : position + 2]
    rank_of = {item: rank for rank, item in enumerate(listed.tolist(), 1)}
    pairs = [(item, rank_of.get(item, 0)) for item in truth.items[start:stop].tolist()]
    pairs.sort(key=lambda pair: (pair[1] == 0, pair[1]))
    return pairs[:MOST_HELD]


def _no_picks() -> dict[str, NDArray[Any]]:
    none = np.empty(0, np.int64)
    names = ("digest", "n", "first", "last", "ndcg")
    return dict.fromkeys([f"pick_{name}" for name in names], none) | {
        "held_offsets": np.zeros(1, np.int64),
        "held_item": none,
        "held_rank": none,
        "listed": none,
    }
