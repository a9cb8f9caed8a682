"""Baselines: popularity, item-based neighbours and EASE.

Each gives a `Recommend`, those of item weights by `plain`, that scores from everything the user has
seen (not only the window of the last events), so a user who was not in training is served like one
who was. A repeated (user, item) counts once. The settings are those of the literature and the same
for all data: a baseline tuned on the hold-out would be no yardstick. Users are scored in chunks.
The arithmetic of one user does not involve the others of the chunk, so that a list is the same bit
for bit however users are grouped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from shortlist.recsys.errors import InvalidRecommendations, InvalidSettings
from shortlist.recsys.models import regression
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int32,
    Recommend,
    UserStates,
)
from shortlist.recsys.models.least import least
from shortlist.recsys.models.recent import recent_events
from shortlist.recsys.models.regression import interaction_matrix, item_regression

Csr = Any  # scipy.sparse carries no types
Score = Callable[[Csr], Float32]
"""A csr float32[u, n_items] of the items had, 1 or a weight -> float32[u, n_items] of scores."""

Rows = Callable[[UserStates, int], Csr]
"""(states, n_items) -> the csr float32[U, n_items] that a `Score` takes."""

CHUNK_CELLS = 2**22
"""Scores held at once: 16 MiB, and below 100 MiB with the copies that ranking makes."""


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """Fitted item-item weights, for `plain` and for its recency-weighted form, `recent`."""

    score: Score
    n_items: int


def plain(weights: ItemWeights) -> Recommend:
    """The method that weighs all seen items alike."""
    return by_scores(weights.n_items, weights.score)


def fit_popularity(events: Events) -> Recommend:
    """Items by the number of distinct users who had them."""
    matrix = interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    counts = _user_counts(matrix)
    return by_ranking(counts)


def item_knn_weights(
    events: Events, n_neighbours: int = 100, shrinkage: float = 10.0
) -> ItemWeights:
    """Items most similar to those the user has seen.

    score(u, j) = sum over seen i among the `n_neighbours` nearest of j of sim(i, j), and
    sim(i, j) = users of both / (sqrt(users of i * users of j) + shrinkage), the shrunk cosine
    (Deshpande and Karypis 2004, with the shrinkage of Ferrari Dacrema et al. 2019). Items without
    such a neighbour follow, by popularity.

    Shrinkage weakens similarities that rest on a few users: at 10, that of two items of ten users
    each is halved. 100 neighbours lies well within the range searched there (5 to 1000).
    """
    if n_neighbours < 1 or shrinkage < 0:
        raise InvalidSettings(
            f"n_neighbours {n_neighbours}, shrinkage {shrinkage}: must be >= 1 and >= 0; "
            "correct them"
        )
    matrix = interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    nearest = _similarities(matrix, n_neighbours, shrinkage)
    similar = nearest.T.tocsr()  # rows: items had; columns: items scored
    by_popularity = falling_popularity(events)

    def score(had: Csr) -> Float32:
        sums: Float32 = (had @ similar).toarray()
        return np.where(sums > 0, sums, by_popularity)

    return ItemWeights(score, events.n_items)


def ease_weights(events: Events, l2: float = 250.0) -> ItemWeights:
    """EASE, the closed-form linear autoencoder; `MAX_REGRESSION_ITEMS` bounds its cost.

    B = I - P / diag(P) with P = (XᵀX + l2 I)⁻¹, whose diagonal is zero, and score = x B (Steck
    2019, "Embarrassingly Shallow Autoencoders for Sparse Data"). There the best l2 lay between 200
    and 1000 according to the data; 250 is also the usual default of evaluation libraries. A user
    who has seen nothing is scored by popularity.
    """
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


def falling_popularity(events: Events) -> Float32:
    """float32[n_items]: popularity within [-1, 0), to come after all scores above 0."""
    shape = (events.n_users, events.n_items)
    counts = _user_counts(interaction_matrix(events.user, events.item, shape))
    return counts / (counts.max(initial=0.0) + 1.0) - 1.0


def fit_recent_popularity(events: Events) -> Recommend:
    """Items by the number of distinct users in the recent events, then by popularity."""
    is_recent = recent_events(events)
    shape = (events.n_users, events.n_items)
    overall = _user_counts(interaction_matrix(events.user, events.item, shape))
    recent = _user_counts(interaction_matrix(events.user[is_recent], events.item[is_recent], shape))
    rank = np.empty(events.n_items, np.float32)
    rank[np.lexsort((-np.arange(events.n_items), overall, recent))] = np.arange(events.n_items)
    return by_ranking(rank)


def by_ranking(scores: Float32) -> Recommend:
    """A `Recommend` that offers everybody the same items, by these scores, float32[n_items].

    It gives what `by_scores` would, without ranking all items again for each user.
    """
    order = np.argsort(-scores, kind="stable")

    def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
        items = np.full((len(states), k), MISSING, np.int32)
        best = np.full((len(states), k), -np.inf, np.float32)
        for user in range(len(states)):
            is_open = states.open_to(user, len(order))
            closed = len(order) - int(np.count_nonzero(is_open))
            first = order[: k + closed]
            rows = first[is_open[first]][:k]
            items[user, : len(rows)], best[user, : len(rows)] = rows, scores[rows]
        return items, best

    return recommend


def seen_rows(states: UserStates, n_items: int) -> Csr:
    """A csr float32[U, n_items]: 1 for each item the user has seen."""
    users = np.repeat(np.arange(len(states)), np.diff(states.seen_offsets))
    return interaction_matrix(users, states.seen_rows, (len(states), n_items))


def by_scores(n_items: int, score: Score, rows: Rows = seen_rows) -> Recommend:
    """A `Recommend` that scores all items for a chunk of users, from the rows of their states."""

    def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
        items = np.full((len(states), k), MISSING, np.int32)
        scores = np.full((len(states), k), -np.inf, np.float32)
        chunk = max(1, CHUNK_CELLS // max(n_items, 1))
        for start in range(0, len(states), chunk):
            stop = min(start + chunk, len(states))
            part = states.slice(start, stop)
            all_scores = score(rows(part, n_items))
            items[start:stop], scores[start:stop] = top_k_open(all_scores, part, k)
        return items, scores

    return recommend


def top_k_open(scores: Float32, states: UserStates, k: int) -> tuple[Int32, Float32]:
    """The k best items that are open to each user, best first; equal scores by item row.

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
    for user, row in enumerate(loss):
        row[~states.open_to(user, scores.shape[1])] = np.inf
    items = np.full((len(scores), k), MISSING, np.int32)
    best = np.full((len(scores), k), -np.inf, np.float32)
    m = min(k, scores.shape[1])
    columns = least(loss, m)
    losses = np.take_along_axis(loss, columns, axis=1)
    items[:, :m] = np.where(np.isposinf(losses), MISSING, columns)
    best[:, :m] = -losses
    return items, best


def _user_counts(matrix: Csr) -> Float32:
    """float32[n_items]: the number of users who had each item."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float32)


def _similarities(matrix: Csr, n_neighbours: int, shrinkage: float) -> Csr:
    """A csr float32[n_items, n_items]: each row the shrunk cosines to the item's nearest others."""
    n_items = matrix.shape[1]
    norms = np.sqrt(_user_counts(matrix))
    transposed = matrix.T.tocsr()
    blocks = [sparse.csr_matrix((0, n_items), dtype=np.float32)]
    step = max(1, min(regression.BLOCK, CHUNK_CELLS // max(n_items, 1)))
    for start in range(0, n_items, step):
        stop = min(start + step, n_items)
        both = (transposed[start:stop] @ matrix).toarray()  # [block, n_items] users of both items
        shrunk = norms[start:stop, None] * norms + np.float32(shrinkage)
        np.divide(both, shrunk, out=both, where=both > 0)
        both[np.arange(stop - start), np.arange(start, stop)] = 0.0  # no item is its neighbour
        blocks.append(_largest(both, min(n_neighbours, n_items)))
    return sparse.vstack(blocks, format="csr")


def _largest(values: Float32, m: int) -> Csr:
    """A csr float32 of the m largest values of each row, without zeros."""
    columns = least(-values, m)
    rows = np.repeat(np.arange(len(values)), m)
    kept = np.take_along_axis(values, columns, axis=1).ravel()
    block = sparse.csr_matrix((kept, (rows, columns.ravel())), shape=values.shape)
    block.eliminate_zeros()
    return block
