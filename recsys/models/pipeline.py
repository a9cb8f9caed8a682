"""Recommends in two stages: retrieve candidates, then rank them.

The ranker's training, evaluation, precompute and the live path call this one implementation, for
one user or many, and a user's result does not depend on who else is in the batch. A source of
candidates is one entry of `CANDIDATE_SOURCES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models import neighbours
from shortlist.recsys.models.decay import decayed
from shortlist.recsys.models.features import Candidates, ItemTable, features
from shortlist.recsys.models.index import search
from shortlist.recsys.models.interactions import (
    MISSING,
    Float32,
    Int32,
    Recommend,
    Repeats,
    UserStates,
)
from shortlist.recsys.models.neighbours import PROPOSING_HALF_LIFE
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.models.towers import Towers, user_vectors

NEW_ITEM_EVENTS = 10
"""Most events of a new item, all of them recent: exploration shows such items."""

RESERVED = 3
"""The first places of a list, which exploration leaves to the ranker."""

PLACES = 1000
"""The longest list."""

EXPLORED = 50
"""Exploration draws from this many new items, those that the retriever scores best for the user."""

USERS_AT_ONCE = 64
"""Users scored at once by `recommender`: enough to amortise, little enough to stay in cache."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that recommending needs."""

    towers: Towers
    index: Any
    """FAISS's, over the item vectors of the towers."""
    table: ItemTable
    ranker: Ranker | None
    n_candidates: int
    trending: Int32
    """Item rows by falling recent popularity."""
    exploration_share: float
    """The share of places, 0 to 1, that new items are put into."""
    new: Int32
    """Rows of the new items."""
    repeats: Repeats = Repeats.NEVER
    """What it was trained to offer; a list follows the `repeats` of the state it is asked for."""


@dataclass(frozen=True, slots=True)
class Recommended:
    """The lists of U users.

    items: int32[U, k], best first, MISSING-padded; scores, retrieval: float32[U, k], -inf-padded.
    n_candidates: int32[U].
    """

    items: Int32
    scores: Float32
    retrieval: Float32
    n_candidates: Int32


def by_trend(table: ItemTable) -> Int32:
    """int32[n]: all item rows by recent, then overall popularity, then row."""
    popularity, recent = table.popularity[:-1], table.recent[:-1]
    return np.lexsort((np.arange(len(recent)), -popularity, -recent)).astype(np.int32)


def new_items(table: ItemTable) -> Int32:
    """int32[m]: rows of items with no event, or a few recent ones."""
    popularity, recent = table.popularity[:-1], table.recent[:-1]
    is_new = (popularity <= np.log1p(NEW_ITEM_EVENTS)) & (recent >= popularity)
    return np.flatnonzero(is_new).astype(np.int32)


def retrieve(
    model: Model,
    states: UserStates,
    allowed: NDArray[np.bool_] | None = None,
    vectors: Float32 | None = None,
) -> Candidates:
    """Up to `n_candidates` items that are open to each user, by falling retrieval score.

    allowed: bool[n], the items that may appear, or None for all of them.
    vectors: the users' vectors, where they are known already.
    """
    return retrieved(model, states, allowed, vectors)[0]


def retrieved(
    model: Model,
    states: UserStates,
    allowed: NDArray[np.bool_] | None = None,
    vectors: Float32 | None = None,
) -> tuple[Candidates, Int32]:
    """The candidates of `retrieve`, and the source of each.

    The sources are int32[U, C] indices into CANDIDATE_SOURCES, MISSING-padded.
    """
    vectors = user_vectors(model.towers, states) if vectors is None else vectors
    proposed = [
        proposals(model, states, user, vectors[user], allowed) for user in range(len(states))
    ]
    width = max((len(row) for row, _ in proposed), default=0)
    items = np.full((len(states), width), MISSING, np.int32)
    sources = np.full((len(states), width), MISSING, np.int32)
    scores = np.full((len(states), width), -np.inf, np.float32)
    # BLAS kernels may raise the flag over lanes that they throw away.
    with np.errstate(invalid="ignore"):
        for user, (row, source) in enumerate(proposed):
            # `take` is faster here than brackets.
            score = np.matmul(model.towers.items.take(row, axis=0), vectors[user])
            # Ties go by row: the order does not depend on which source proposed an item.
            order = np.lexsort((row, -score))
            items[user, : len(row)] = row[order]
            sources[user, : len(row)] = source[order]
            scores[user, : len(row)] = score[order]
    return Candidates(items, scores), sources


@dataclass(frozen=True, slots=True)
class Query:
    """One user's retrieval, as the sources of candidates see it."""

    model: Model
    history: Int32
    """int32[N] item rows, oldest to newest, MISSING-padded."""
    nearest: Int32
    """Item rows by falling retrieval score; enough that `n_candidates` of them are open."""
    open: NDArray[np.bool_]
    """bool[n]: the items that are allowed, and may be offered to the user."""


def _from_history(query: Query, _limit: int) -> Int32:
    """What the user had or met, by the number of events, which count less with age."""
    age = np.arange(len(query.history) - 1, -1, -1, dtype=np.float64)
    offered = query.history != MISSING
    offered &= query.open[query.history]  # padding reads the last item, and is masked
    if not offered.any():
        return np.empty(0, np.int32)
    items, inverse = np.unique(query.history[offered], return_inverse=True)
    total = np.bincount(inverse.ravel(), decayed(age[offered], PROPOSING_HALF_LIFE))
    return items[np.lexsort((items, -total))]


def _from_retriever(query: Query, _limit: int) -> Int32:
    return query.nearest


def _from_neighbours(query: Query, limit: int) -> Int32:
    return neighbours.proposed(query.model.table.neighbours, query.history, limit, query.open)


def _from_trending(query: Query, _limit: int) -> Int32:
    return query.model.trending


class Source(NamedTuple):
    """A source of candidates."""

    share: float
    """Of the candidates, 0 to 1; but for the history's, of those that the history leaves."""
    propose: Callable[[Query, int], Int32]
    """(query, limit) -> distinct item rows, best first; the closed and those beyond are dropped."""


HISTORY, RETRIEVER = "history", "retriever"

CANDIDATE_SOURCES: dict[str, Source] = {
    # Of a user's window, all items fit in: the ranker decides which of them are due again.
    HISTORY: Source(0.5, _from_history),
    RETRIEVER: Source(0.7, _from_retriever),
    "neighbours": Source(0.25, _from_neighbours),
    "trending": Source(0.05, _from_trending),
}
"""All sources, in the order in which they take their share.

Of two that propose an item, the first has it. What a source lacks goes to the
retriever, whose supply has no end.
"""


def proposals(
    model: Model, states: UserStates, user: int, vector: Float32, allowed: NDArray[np.bool_] | None
) -> tuple[Int32, Int32]:
    """One user's candidates.

    Returns int32[c] item rows, and int32[c] the source of each as an index into CANDIDATE_SOURCES.
    """
    wanted = model.n_candidates
    query = _query(model, states, user, vector, allowed)
    untaken = query.open.copy()
    closed = len(untaken) - int(np.count_nonzero(untaken))
    rows: list[Int32] = []
    origins: list[int] = []

    def take(origin: int, proposed: Int32, limit: int) -> int:
        n_taken = sum(map(len, rows))
        limit = min(limit, wanted - n_taken)
        # What is closed or taken cannot fill more places than there is of it.
        proposed = proposed[: closed + n_taken + limit]
        taken = proposed[untaken.take(proposed)][:limit]
        untaken[taken] = False
        rows.append(taken)
        origins.append(origin)
        return len(taken)

    # Each source has its turn, and then the retriever fills what is left.
    shared = wanted
    for origin, (name, source) in enumerate(CANDIDATE_SOURCES.items()):
        limit = int(shared * source.share)
        n_taken = take(origin, source.propose(query, limit), limit)
        if name == HISTORY:
            shared -= n_taken
    take(list(CANDIDATE_SOURCES).index(RETRIEVER), query.nearest, wanted)
    sources = np.repeat(np.array(origins, np.int32), [len(taken) for taken in rows])
    return np.concatenate(rows), sources


def _query(
    model: Model, states: UserStates, user: int, vector: Float32, allowed: NDArray[np.bool_] | None
) -> Query:
    n = len(model.towers.items)
    is_open = states.open_to(user, n)
    if allowed is not None:
        is_open &= allowed
    # The index knows no filter: it gives as many more as could be closed.
    closed = n - int(np.count_nonzero(is_open))
    nearest = search(model.index, vector, model.n_candidates + closed)
    return Query(model, states.items[user], nearest, is_open)


Observe = Callable[[str, float], None]
"""Called with the name of a step (retrieval, features, ranking) and its seconds."""


def unobserved(_step: str, _seconds: float) -> None:
    """Ignores the times."""


Sample = Callable[[Candidates, Float32], None]
"""Takes candidates and their feature rows, float32[candidates, F], as the ranker sees them."""


def unsampled(_candidates: Candidates, _rows: Float32) -> None:
    """Ignores the rows."""


def recommend(
    model: Model,
    states: UserStates,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    candidates: Candidates | None = None,
    observe: Observe = unobserved,
    sample: Sample = unsampled,
) -> Recommended:
    """Recommends k items to each user, of those that are open to them.

    allowed: bool[n], the items that may appear, or None for all of them. A list is shorter only
    where there are no more. candidates: those of `retrieve`, where they are known already.
    """
    started = time.perf_counter()
    vectors = user_vectors(model.towers, states)
    if candidates is None:
        candidates = retrieve(model, states, allowed, vectors)
    observe("retrieval", time.perf_counter() - started)
    present = candidates.items != MISSING
    n_candidates = present.sum(axis=1).astype(np.int32)
    if model.ranker is None:
        ranked = candidates.scores
    else:
        ranked = np.full(present.shape, -np.inf, np.float32)
        ranked[present] = _ranked(model.ranker, states, candidates, model.table, observe, sample)

    @cache  # for a block of users once, and only where a user explores
    def new_vectors() -> Float32:
        return model.towers.items.take(model.new, axis=0)

    shape = (len(states), k)
    items = np.full(shape, MISSING, np.int32)
    scores, retrieval = np.full(shape, -np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    for user, vector in enumerate(vectors):
        own = slice(int(n_candidates[user]))
        columns = [column[user, own] for column in (candidates.items, ranked, candidates.scores)]
        columns = _best(model, states, user, vector, columns, k, allowed, new_vectors)
        width = len(columns[0])
        for table, column in zip((items, scores, retrieval), columns, strict=True):
            table[user, :width] = column
    return Recommended(items, scores, retrieval, n_candidates)


def _best(
    model: Model,
    states: UserStates,
    user: int,
    vector: Float32,
    columns: Sequence[NDArray[Any]],
    k: int,
    allowed: NDArray[np.bool_] | None,
    new_vectors: Callable[[], Float32],
) -> list[NDArray[Any]]:
    """One user's list, up to k of [candidates] items, scores and retrieval scores, best first.

    The columns are in the retriever's order, which decides where the ranker scores alike: new items
    mostly differ in nothing that its trees have split on. So it was when the ranker was validated.
    """
    scores = columns[1]
    explores = model.exploration_share > 0 and len(model.new) > 0
    # An explored item that was in the list already leaves its place, which the next one fills.
    depth = 2 * k if explores else k
    order = np.argsort(-scores, kind="stable")[:depth]
    best = [column[order] for column in columns]
    if explores and len(order):
        chance = _chance(states, user)
        places = _places(chance, k, model.exploration_share)
        if places:
            affinity = np.matmul(new_vectors(), vector)
            drawn = _drawn_items(model, states, user, affinity, allowed, chance)
            ranking = list(zip(*(column.tolist() for column in best), strict=True))
            ranking = _explored(ranking, places, drawn)
            best = [np.array(column) for column in zip(*ranking, strict=True)]
    return [column[:k] for column in best]


def _ranked(
    ranker: Ranker,
    states: UserStates,
    candidates: Candidates,
    table: ItemTable,
    observe: Observe,
    sample: Sample,
) -> NDArray[np.float64]:
    """float64[candidates]: the ranker's scores."""
    started = time.perf_counter()
    rows = features(states, candidates, table)
    computed = time.perf_counter()
    scores = ranker.predict(rows)
    observe("features", computed - started)
    observe("ranking", time.perf_counter() - computed)
    sample(candidates, rows)
    return scores


def ranked_among(model: Model, states: UserStates, items: Int32) -> Recommended:
    """Ranks given items for one user, closed ones too, without exploration.

    items: int32[c] distinct rows.
    """
    affinity = np.matmul(model.towers.items[items], user_vectors(model.towers, states)[0])
    order = np.lexsort((items, -affinity))
    candidates = Candidates(items[order][None, :], affinity[order].astype(np.float32)[None, :])
    scores = candidates.scores[0]
    if model.ranker is not None:
        scores = model.ranker.predict(features(states, candidates, model.table)).astype(np.float32)
    best = np.argsort(-scores, kind="stable")  # ties in the retriever's order, as in a list
    return Recommended(
        items=candidates.items[:, best],
        scores=scores[None, best],
        retrieval=candidates.scores[:, best],
        n_candidates=np.array([len(items)], np.int32),
    )


RankedItem = tuple[int, float, float]
"""An item row, its score and its retrieval score."""


def _chance(states: UserStates, user: int) -> np.random.Generator:
    """Seeded by the history: a user sees the same list on every path until they do something."""
    return np.random.default_rng(np.ascontiguousarray(states.items[user]).view(np.uint32))


def _places(chance: np.random.Generator, k: int, share: float) -> list[int]:
    """The places after the RESERVED, of k, that new items are put into.

    All PLACES are drawn, whatever k is, so that a shorter list is the beginning of a longer one.
    """
    draws = chance.random(PLACES)[RESERVED:k]
    places: list[int] = (np.flatnonzero(draws < share) + RESERVED).tolist()
    return places


def _explored(
    ranking: list[RankedItem], places: list[int], drawn: list[tuple[int, float]]
) -> list[RankedItem]:
    """Puts the drawn new items into the places.

    An item put in takes the score of the one that makes room for it.
    """
    waiting = iter(drawn)
    for place in places:
        above = {row for row, _, _ in ranking[:place]}
        item = next(((row, affinity) for row, affinity in waiting if row not in above), None)
        if item is None or place > len(ranking):
            break
        row, affinity = item
        ranking = [entry for entry in ranking if entry[0] != row]
        score = ranking[min(place, len(ranking) - 1)][1] if ranking else affinity
        ranking.insert(place, (row, score, affinity))
    return ranking


def _drawn_items(
    model: Model,
    states: UserStates,
    user: int,
    affinity: Float32,
    allowed: NDArray[np.bool_] | None,
    chance: np.random.Generator,
) -> list[tuple[int, float]]:
    """The user's best new items, shuffled, with their retrieval scores.

    affinity: float32[m], the retrieval scores of all new items.
    """
    # What the user had needs no exploration, even where it may be offered.
    is_open = states.open_to(user, len(model.towers.items))
    is_open[states.seen(user)] = False
    if allowed is not None:
        is_open &= allowed
    places = np.flatnonzero(is_open.take(model.new))
    best = neighbours.strongest(places, affinity[places], EXPLORED)
    best = best[np.argsort(chance.random(EXPLORED)[: len(best)])]
    return list(zip(model.new[best].tolist(), affinity[best].tolist(), strict=True))


def recommender(model: Model) -> Recommend:
    """The model as a method to evaluate, with both stages or, without a ranker, the first."""

    def method(states: UserStates, k: int) -> tuple[Int32, Float32]:
        starts = range(0, len(states), USERS_AT_ONCE)
        parts = [recommend(model, states.slice(s, s + USERS_AT_ONCE), k) for s in starts]
        if not parts:
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        return np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts])

    return method
