"""The methods that a recommender has to beat: popularity, item-based neighbours, and EASE.

Each `fit_…` returns a `Recommend` that scores from everything the user has seen (not only the
window of the last events), so a user who was not in training is served like one who was. A repeated
(user, item) counts once. The settings are those of the literature and the same for all data: a
baseline tuned on the hold-out would be no yardstick. Users are scored in chunks, each by arithmetic
that does not look at the other users of its chunk, so that one user's list is the same bit for bit
however users are grouped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.recsys.errors import InvalidRecommendations, InvalidSettings
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int32,
    Int64,
    Recommend,
    UserStates,
)
from shortlist.recsys.models.regression import (
    BLOCK,
    MAX_REGRESSION_ITEMS,
    interaction_matrix,
    item_regression,
)

Float64 = NDArray[np.float64]
Csr = Any  # scipy.sparse carries no types
Score = Callable[[Csr], Float32]
"""A csr float32[u, n_items] of what each user had, 1 or a weight a cell -> float32[u, n_items] of scores."""

Rows = Callable[[UserStates, int], Csr]
"""(states, n_items) -> the csr float32[U, n_items] that a `Score` takes."""

CHUNK_CELLS = 2**22
"""Scores held at once: 16 MiB, and below 100 MiB with the copies that ranking makes."""

RECENT_SHARE = 0.1
"""Share of the latest events that `fit_recent_popularity` counts."""


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """Fitted item-item weights: one fit serves the plain method, by `plain`, and its recency-weighted form, by `recent`."""

    score: Score
    n_items: int


def plain(weights: ItemWeights) -> Recommend:
    """The method that weighs all a user has seen alike."""
    return by_scores(weights.n_items, weights.score)


def fit_popularity(events: Events) -> Recommend:
    """Items by how many distinct users had them."""
    counts = _user_counts(
        interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    )
    return by_scores(events.n_items, lambda seen: np.broadcast_to(counts, seen.shape))


def fit_item_knn(events: Events, n_neighbours: int = 100, shrinkage: float = 10.0) -> Recommend:
    """Items most similar to those the user has seen; items that have no such neighbour follow, by popularity.

    score(u, j) = sum over seen i among the `n_neighbours` nearest of j of sim(i, j), and
    sim(i, j) = users of both / (sqrt(users of i * users of j) + shrinkage), the shrunk cosine
    (Deshpande and Karypis 2004, with the shrinkage of Ferrari Dacrema et al. 2019). Shrinkage takes
    the weight off similarities that rest on a
    few users: at 10, that of two items of ten users each is halved. 100 neighbours lies well within
    the range searched there (5 to 1000).
    """
    return plain(item_knn_weights(events, n_neighbours, shrinkage))


def item_knn_weights(
    events: Events, n_neighbours: int = 100, shrinkage: float = 10.0
) -> ItemWeights:
    """The similarities of `fit_item_knn`, with its settings."""
    if n_neighbours < 1 or shrinkage < 0:
        raise InvalidSettings(
            f"n_neighbours {n_neighbours}, shrinkage {shrinkage}: must be >= 1 and >= 0; correct them"
        )
    matrix = interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    similar = _similarities(
        matrix, n_neighbours, shrinkage
    ).T.tocsr()  # row i, had, and column j, scored
    counts = _user_counts(matrix)
    last = (
        counts / (counts.max(initial=0.0) + 1.0) - 1.0
    )  # [-1, 0): below every sum of similarities

    def score(had: Csr) -> Float32:
        sums: Float32 = (had @ similar).toarray()
        return np.where(sums > 0, sums, last)

    return ItemWeights(score, events.n_items)


def fit_ease(
    events: Events, l2: float = 250.0, max_items: int = MAX_REGRESSION_ITEMS
) -> Recommend | None:
    """EASE, the closed-form linear autoencoder with a zero diagonal; None where the catalogue exceeds `max_items`.

    B = I - P / diag(P) with P = (XᵀX + l2 I)⁻¹, score = x B (Steck 2019, "Embarrassingly Shallow
    Autoencoders for Sparse Data"). There the best l2 lay between 200 and 1000 according to the
    data; 250 is also the usual default of evaluation libraries. A user who has seen nothing is
    scored by popularity.
    """
    return None if events.n_items > max_items else plain(ease_weights(events, l2))


def ease_weights(events: Events, l2: float = 250.0) -> ItemWeights:
    """The weights B of `fit_ease`: one solve, of the cost in time and memory that `MAX_REGRESSION_ITEMS` states."""
    if l2 <= 0:
        raise InvalidSettings(
            f"l2 {l2}: must be positive, or the matrix may have no inverse; 250 is the default"
        )
    matrix = interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    weights, counts = item_regression(matrix, l2), _user_counts(matrix)

    def score(had: Csr) -> Float32:
        # A sparse row times a dense matrix adds in the row's own order; a dense product would
        # depend on the chunk.
        scores: Float32 = had @ weights
        scores[np.diff(had.indptr) == 0] = counts
        return scores

    return ItemWeights(score, events.n_items)


def fit_recent_popularity(events: Events) -> Recommend:
    """Items by how many distinct users had them in the latest tenth of the time-ordered events, then by popularity."""
    late = (
        events.time >= np.quantile(events.time, 1 - RECENT_SHARE, method="nearest")
        if len(events)
        else np.empty(0, bool)
    )
    shape = (events.n_users, events.n_items)
    overall = _user_counts(interaction_matrix(events.user, events.item, shape))
    recent = _user_counts(interaction_matrix(events.user[late], events.item[late], shape))
    rank = np.empty(events.n_items, np.float32)
    rank[np.lexsort((-np.arange(events.n_items), overall, recent))] = np.arange(events.n_items)
    return by_scores(events.n_items, lambda seen: np.broadcast_to(rank, seen.shape))


def seen_rows(states: UserStates, n_items: int) -> Csr:
    """A csr float32[U, n_items]: 1 for each item the user has seen."""
    users = np.repeat(np.arange(len(states)), np.diff(states.seen_offsets))
    return interaction_matrix(users, states.seen_rows, (len(states), n_items))


def by_scores(n_items: int, score: Score, rows: Rows = seen_rows) -> Recommend:
    """A `Recommend` that scores all items for a chunk of users at a time, from what `rows` makes of their states."""

    def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
        items = np.full((len(states), k), MISSING, np.int32)
        scores = np.full((len(states), k), -np.inf, np.float32)
        chunk = max(1, CHUNK_CELLS // max(n_items, 1))
        for start in range(0, len(states), chunk):
            part = states.slice(start, min(start + chunk, len(states)))
            stop = start + len(part)
            items[start:stop], scores[start:stop] = top_k_unseen(
                score(rows(part, n_items)), part, k
            )
        return items, scores

    return recommend


def top_k_unseen(scores: Float32, states: UserStates, k: int) -> tuple[Int32, Float32]:
    """The k best items of each user that are not in the user's seen, best first; equal scores by item row.

    scores: float32[U, n_items], not changed; an item at -inf is never recommended. Returns items
    int32[U, k], padded with MISSING, and scores float32[U, k], padded with -inf. Takes some four
    times the memory of `scores`.
    """
    loss = -scores
    if np.isnan(loss).any():
        row, item = (int(i) for i in np.argwhere(np.isnan(loss))[0])
        raise InvalidRecommendations(
            f"the score of item row {item} for the user at {row} is NaN: mend the method's scores"
        )
    loss[np.repeat(np.arange(len(states)), np.diff(states.seen_offsets)), states.seen_rows] = np.inf
    items = np.full((len(scores), k), MISSING, np.int32)
    best = np.full((len(scores), k), -np.inf, np.float32)
    columns = _least(loss, min(k, scores.shape[1]))
    least = np.take_along_axis(loss, columns, axis=1)
    items[:, : columns.shape[1]] = np.where(np.isposinf(least), MISSING, columns)
    best[:, : columns.shape[1]] = -least
    return items, best


def _least(loss: Float32, m: int) -> Int64:
    """int64[U, m]: the columns of the m least values of each row, least first, equal ones by column."""
    chosen = np.ones(loss.shape, bool)
    if m == 0:
        return np.empty((len(loss), 0), np.int64)
    if m < loss.shape[1]:
        bound = np.partition(loss, m - 1, axis=1)[:, m - 1 : m]
        chosen = loss <= bound
        crowded = np.flatnonzero(chosen.sum(axis=1) > m)
        chosen[crowded] = _without_surplus(loss[crowded], bound[crowded], m)
    columns = np.nonzero(chosen)[1].reshape(len(loss), m)
    order = np.argsort(np.take_along_axis(loss, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _without_surplus(loss: Float32, bound: Float32, m: int) -> NDArray[np.bool_]:
    """A mask like `loss`: exactly m per row, all below `bound` and the first of those at it."""
    below, at = loss < bound, loss == bound
    room = m - below.sum(axis=1, keepdims=True)
    chosen: NDArray[np.bool_] = below | (at & (np.cumsum(at, axis=1, dtype=np.int32) <= room))
    return chosen


def _user_counts(matrix: Csr) -> Float32:
    """float32[n_items]: how many users had each item."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float32)


def _similarities(matrix: Csr, n_neighbours: int, shrinkage: float) -> Csr:
    """A csr float32[n_items, n_items]: each row the shrunk cosines to the item's nearest others."""
    n_items = matrix.shape[1]
    norms = np.sqrt(_user_counts(matrix))
    transposed = matrix.T.tocsr()
    blocks = [sparse.csr_matrix((0, n_items), dtype=np.float32)]
    step = max(1, min(BLOCK, CHUNK_CELLS // max(n_items, 1)))
    for start in range(0, n_items, step):
        stop = min(start + step, n_items)
        both = (transposed[start:stop] @ matrix).toarray()  # [block, n_items] users of both items
        np.divide(
            both, norms[start:stop, None] * norms + np.float32(shrinkage), out=both, where=both > 0
        )
        both[np.arange(stop - start), np.arange(start, stop)] = 0.0
        columns = _least(-both, min(n_neighbours, n_items))
        rows = np.repeat(np.arange(stop - start), columns.shape[1])
        values = np.take_along_axis(both, columns, axis=1).ravel()
        block = sparse.csr_matrix((values, (rows, columns.ravel())), shape=both.shape)
        block.eliminate_zeros()
        blocks.append(block)
    return sparse.vstack(blocks, format="csr")
