"""Baseline: matrix factorisation for implicit feedback (ALS).

The classic that studies compare with, by the `implicit` library. Only the item factors are kept:
every user, also one of training, is folded in from all they have seen, so fresh users are served
alike. A user who has seen nothing is scored by popularity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.evaluation.baselines import Csr, by_scores, fit_popularity
from shortlist.recsys.models.regression import interaction_matrix

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

    from shortlist.recsys.models.interactions import Events, Float32, Recommend

FACTORS = 64
"""The default width of the towers; the library's default is 100, and Hu et al. tried 10 to 200."""

REGULARIZATION = 0.05
"""The library's default is 0.01; Hu et al. chose it by validation."""

ITERATIONS = 15
"""The library's default; Hu et al. did some 10."""

ALPHA = 10.0
"""Weight of a seen item, an unseen one having 1.

Between the library's default, 1, and the 40 of Hu et al.
"""


def fit_als(
    events: Events,
    factors: int = FACTORS,
    regularization: float = REGULARIZATION,
    iterations: int = ITERATIONS,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Recommend:
    """Items by the product of user and item factors (Hu, Koren and Volinsky 2008).

    The factors minimise sum c (p - x·y)² + regularization (sum |x|² + sum |y|²) over all users and
    items, with p = 1 and c = `alpha` where the user had the item, p = 0 and c = 1 elsewhere. One
    thread, so that a seed gives one result.

    Raises:
        InvalidSettings: a setting is out of range.
    """
    if min(factors, iterations) < 1 or min(regularization, alpha) <= 0:
        raise InvalidSettings(
            f"factors {factors}, iterations {iterations}, regularization {regularization}, "
            f"alpha {alpha}: must be >= 1, >= 1, > 0 and > 0; correct them"
        )
    if len(events) == 0:
        return fit_popularity(events)
    matrix = interaction_matrix(events.user, events.item, (events.n_users, events.n_items))
    model = _fitted(matrix, factors, regularization, iterations, alpha, seed)
    by_factor = np.ascontiguousarray(model.item_factors.T)  # [factors, n_items]
    counts = np.bincount(matrix.indices, minlength=events.n_items).astype(np.float32)

    def score(seen: Csr) -> Float32:
        users = model.recalculate_user(np.arange(seen.shape[0]), seen)
        # As in EASE, a sparse row times a dense matrix does not depend on the other rows; a dense
        # product would.
        scores: Float32 = sparse.csr_matrix(users) @ by_factor
        scores[np.diff(seen.indptr) == 0] = counts
        return scores

    return by_scores(events.n_items, score)


def _fitted(
    matrix: Csr,
    factors: int,
    regularization: float,
    iterations: int,
    alpha: float,
    seed: int,
) -> AlternatingLeastSquares:
    """The model, with the matrix that it caches for folding in users."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, "blas"):  # the library warns otherwise
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            iterations=iterations,
            num_threads=1,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)
        model.YtY  # noqa: B018 - cached here, on one thread, rather than at the first user
    return model
