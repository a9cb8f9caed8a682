"""The two stages in their order: retrieve candidates, make their features, rank them, keep the best.

One implementation, for one user or many: the ranker's training, evaluation, precompute and the live
path call it, and a user's result does not depend on who else is in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models import neighbours
from shortlist.recsys.models.features import Candidates, ItemTable, features
from shortlist.recsys.models.index import search
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Recommend, UserStates
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.models.towers import Towers, user_vectors

NEW_ITEM_EVENTS = 10
"""An item of at most so many events, all of them recent, or of none, is new: it is what exploration shows."""

RESERVED = 3
"""The first places of a list, which are the ranker's own."""

PLACES = 1000
"""The longest list."""

EXPLORED = 50
"""Of how many new items, the best for the user by the retriever, exploration draws."""

USERS_AT_ONCE = 64
"""Users scored at once by `recommender`: enough to amortise, little enough to stay in cache."""


@dataclass(frozen=True, slots=True)
class Model:
    """All that recommending needs: towers, the index over their item vectors, the item table, and the ranker."""

    towers: Towers
    index: Any
    table: ItemTable
    ranker: Ranker | None
    n_candidates: int
    trending: Int32
    """Item rows by falling recent popularity."""
    exploration_share: float
    """The share of places, 0 to 1, that new items are put into."""
    new: Int32
    """Rows of the new items."""


@dataclass(frozen=True, slots=True)
class Recommended:
    """items: int32[U, k], best first, MISSING-padded; scores, retrieval: float32[U, k]; n_candidates: int32[U]."""

    items: Int32
    scores: Float32
    retrieval: Float32
    n_candidates: Int32


def by_trend(table: ItemTable) -> Int32:
    """int32[n]: all item rows by recent, then overall popularity, then row."""
    n = len(table.popularity) - 1
    return np.lexsort((np.arange(n), -table.popularity[:n], -table.recent[:n])).astype(np.int32)


def new_items(table: ItemTable) -> Int32:
    """int32[m]: the rows of the items that have had no chance yet: without an event, or with a few recent ones only."""
    popularity, recent = table.popularity[:-1], table.recent[:-1]
    return np.flatnonzero(
        (popularity <= np.log1p(NEW_ITEM_EVENTS)) & (recent >= popularity)
    ).astype(np.int32)


def retrieve(
    model: Model,
    states: UserStates,
    allowed: NDArray[np.bool_] | None = None,
    vectors: Float32 | None = None,
) -> Candidates:
    """Up to `n_candidates` unseen items for each user, by falling retrieval score.

    allowed: bool[n] masks the items that may appear at all, or None for all of them; vectors: those
    of the users, where they are known already.
    """
    vectors = user_vectors(model.towers, states) if vectors is None else vectors
    rows = [
        proposals(model, states, user, vectors[user], allowed)[0] for user in range(len(states))
    ]
    width = max((len(r) for r in rows), default=0)
    items = np.full((len(states), width), MISSING, np.int32)
    scores = np.full((len(states), width), -np.inf, np.float32)
    for user, row in enumerate(rows):
        with np.errstate(
            invalid="ignore"
        ):  # BLAS kernels may raise the flag over lanes that they throw away
            score = np.matmul(model.towers.items[row], vectors[user])
        order = np.lexsort((row, -score))
        items[user, : len(row)], scores[user, : len(row)] = row[order], score[order]
    return Candidates(items, scores)


@dataclass(frozen=True, slots=True)
class Query:
    """One user's retrieval, as the sources of candidates see it."""

    model: Model
    history: Int32
    """int32[N] item rows, oldest to newest, MISSING-padded."""
    nearest: Int32
    """Item rows by falling retrieval score: `n_candidates` open ones, unless there are fewer."""
    open: NDArray[np.bool_]
    """bool[n]: the items that are allowed and unseen."""


def _from_retriever(query: Query, _limit: int) -> Int32:
    return query.nearest


def _from_neighbours(query: Query, limit: int) -> Int32:
    return neighbours.proposed(query.model.table.neighbours, query.history, limit, query.open)


def _from_trending(query: Query, _limit: int) -> Int32:
    return query.model.trending


class Source(NamedTuple):
    """A source of candidates."""

    share: float
    """Of the candidates, 0 to 1."""
    propose: Callable[[Query, int], Int32]
    """(query, limit) -> item rows, best first; closed items and those over the limit are dropped."""


CANDIDATE_SOURCES: dict[str, Source] = {
    "retriever": Source(0.7, _from_retriever),
    "neighbours": Source(0.25, _from_neighbours),
    "trending": Source(0.05, _from_trending),
}
"""All sources, in the order in which they take their share: of two that propose an item, the first
has it. What a source lacks goes to the first one, the retriever, whose supply has no end."""


def proposals(
    model: Model, states: UserStates, user: int, vector: Float32, allowed: NDArray[np.bool_] | None
) -> tuple[Int32, Int32]:
    """One user's candidates: int32[c] item rows, and int32[c] the index of the source of each."""
    wanted = model.n_candidates
    query = _query(model, states, user, vector, allowed)
    limits = [int(wanted * source.share) for source in CANDIDATE_SOURCES.values()]
    lists = [
        source.propose(query, limit)
        for source, limit in zip(CANDIDATE_SOURCES.values(), limits, strict=True)
    ]
    untaken = query.open.copy()
    rows: list[Int32] = []
    origins: list[Int32] = []
    # Each source has its turn, and then the first one fills what is left.
    turns = [*zip(range(len(lists)), lists, limits, strict=True), (0, query.nearest, wanted)]
    for source, proposed, limit in turns:
        left = wanted - sum(map(len, rows))
        taken = proposed[untaken[proposed]][: min(limit, left)]
        untaken[taken] = False
        rows.append(taken)
        origins.append(np.full(len(taken), source, np.int32))
    return np.concatenate(rows), np.concatenate(origins)


def _query(
    model: Model, states: UserStates, user: int, vector: Float32, allowed: NDArray[np.bool_] | None
) -> Query:
    n = len(model.towers.items)
    is_open = np.ones(n, np.bool_) if allowed is None else allowed.copy()
    is_open[states.seen(user)] = False
    # The index knows no filter: as many more are asked for as could be closed.
    closed = n - int(is_open.sum())
    nearest = search(model.index, vector, model.n_candidates + closed)
    return Query(model, states.items[user], nearest, is_open)


Observe = Callable[[str, float], None]
"""Is told the name of a step (retrieval, features, ranking) and the seconds that it took."""


def unobserved(_step: str, _seconds: float) -> None:
    """Nobody asks how long a step took."""


Sample = Callable[[Candidates, Float32], None]
"""Is shown the candidates, and their feature rows, float32[candidates, F], that the ranker sees."""


def unsampled(_candidates: Candidates, _rows: Float32) -> None:
    """Nobody looks at the rows."""


def recommend(
    model: Model,
    states: UserStates,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    observe: Observe = unobserved,
    sample: Sample = unsampled,
) -> Recommended:
    """The best k unseen, allowed items of each user, out of `n_candidates`; fewer only where there are no more."""
    started = time.perf_counter()
    vectors = user_vectors(model.towers, states)
    candidates = retrieve(model, states, allowed, vectors)
    observe("retrieval", time.perf_counter() - started)
    present = candidates.items != MISSING
    ranked = np.full(present.shape, -np.inf, np.float32)
    if model.ranker is None:
        ranked = candidates.scores
    else:
        ranked[present] = _ranked(model.ranker, states, candidates, model.table, observe, sample)
    items = np.full((len(states), k), MISSING, np.int32)
    scores = np.full((len(states), k), -np.inf, np.float32)
    retrieval = np.full((len(states), k), -np.inf, np.float32)
    exploring = model.exploration_share > 0 and len(model.new) > 0
    for user in range(len(states)):
        order = np.lexsort((candidates.items[user], -ranked[user]))[: 2 * k if exploring else k]
        order = order[present[user, order]]
        found = [candidates.items[user, order], ranked[user, order], candidates.scores[user, order]]
        if exploring and len(order):
            entries = list(zip(*(column.tolist() for column in found), strict=True))
            entries = _explored(model, states, user, vectors[user], entries, k, allowed)
            found = [np.array(column) for column in zip(*entries, strict=True)]
        width = min(k, len(found[0]))
        items[user, :width], scores[user, :width], retrieval[user, :width] = (
            column[:k] for column in found
        )
    return Recommended(items, scores, retrieval, present.sum(axis=1).astype(np.int32))


def _ranked(
    ranker: Ranker,
    states: UserStates,
    candidates: Candidates,
    table: ItemTable,
    observe: Observe,
    sample: Sample,
) -> NDArray[np.float64]:
    started = time.perf_counter()
    rows = features(states, candidates, table)
    made = time.perf_counter()
    scores = ranker.predict(rows)
    observe("features", made - started)
    observe("ranking", time.perf_counter() - made)
    sample(candidates, rows)
    return scores


def ranked_among(model: Model, states: UserStates, items: Int32) -> Recommended:
    """These very items, int32[c] distinct rows, for one user in the ranker's order, seen ones too; nothing is explored."""
    affinity = np.matmul(model.towers.items[items], user_vectors(model.towers, states)[0])
    order = np.lexsort((items, -affinity))
    candidates = Candidates(items[order][None, :], affinity[order].astype(np.float32)[None, :])
    scores = candidates.scores[0]
    if model.ranker is not None:
        scores = model.ranker.predict(features(states, candidates, model.table)).astype(np.float32)
    best = np.lexsort((candidates.items[0], -scores))
    told = (candidates.items[:, best], scores[None, best], candidates.scores[:, best])
    return Recommended(*told, np.array([len(items)], np.int32))


Entry = tuple[int, float, float]
"""An item row, its score and its retrieval score."""


def _explored(
    model: Model,
    states: UserStates,
    user: int,
    vector: Float32,
    ranking: list[Entry],
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> list[Entry]:
    """The ranking with new items at some of its first k places after the RESERVED, as chance has it; the rest moves down.

    Chance is drawn from the history, so that a user sees the same list until they do something, on
    every path, and a shorter list is the beginning of a longer one. An item put in takes the score
    of the one that makes room for it.
    """
    chance = np.random.default_rng(np.ascontiguousarray(states.items[user]).view(np.uint32))
    places = (
        np.flatnonzero(chance.random(PLACES)[RESERVED:k] < model.exploration_share) + RESERVED
    ).tolist()
    if not places:
        return ranking
    pool = np.setdiff1d(model.new, states.seen(user))
    pool = pool if allowed is None else pool[allowed[pool]]
    affinity = np.matmul(model.towers.items[pool], vector)
    best = np.lexsort((pool, -affinity))[:EXPLORED]
    best = best[np.argsort(chance.random(EXPLORED)[: len(best)])]
    drawn = iter(zip(pool[best].tolist(), affinity[best].tolist(), strict=True))
    for place in places:
        taken = {row for row, _, _ in ranking[:place]}
        item = next(((row, near) for row, near in drawn if row not in taken), None)
        if item is None or place > len(ranking):
            break
        ranking = [entry for entry in ranking if entry[0] != item[0]]
        score = ranking[min(place, len(ranking) - 1)][1] if ranking else item[1]
        ranking.insert(place, (item[0], score, item[1]))
    return ranking


def recommender(model: Model) -> Recommend:
    """The model as a method to evaluate: the two stages, or the retriever alone where the model has no ranker."""

    def method(states: UserStates, k: int) -> tuple[Int32, Float32]:
        parts = [
            recommend(model, states.slice(s, s + USERS_AT_ONCE), k)
            for s in range(0, len(states), USERS_AT_ONCE)
        ]
        if not parts:
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        return np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts])

    return method
