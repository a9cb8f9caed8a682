"""Fits the item-item ridge regression with a zero diagonal (EASE).

It is a baseline, and one of the neighbour relations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.recsys.models.interactions import Float32, Int32

Float64 = NDArray[np.float64]
Csr = Any  # scipy.sparse carries no types

MAX_REGRESSION_ITEMS = 12_000
"""Items of the largest catalogue that gets a regression.

A dense [items, items] matrix is inverted in double precision and kept in single. 12,000 items need
1.2 + 0.6 GB (3,700 items: 0.1 + 0.06 GB and 4 seconds), and time grows with the cube of the
catalogue.
"""

BLOCK = 512
"""Rows of an [items, items] matrix treated at once."""


def interaction_matrix(rows: NDArray[Any], columns: Int32, shape: tuple[int, int]) -> Csr:
    """A csr float32 of ones, each cell once, columns ascending within a row."""
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def item_regression(matrix: Csr, l2: float) -> Float32:
    """float32[n_items, n_items]: the weights B of EASE.

    A user's items x score as x B. P = (XᵀX + l2 I)⁻¹, and B = -P / diag(P) off the diagonal, 0 on
    it (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data").
    matrix: csr[n_users, n_items] of ones.
    """
    n_items = matrix.shape[1]
    weights = np.zeros((n_items, n_items), np.float32)
    if n_items == 0:
        return weights
    inverse = _inverse(_gram(matrix, l2))
    diagonal = inverse.diagonal().copy()
    for start in range(0, n_items, BLOCK):
        weights[start : start + BLOCK] = inverse[start : start + BLOCK] / -diagonal
    np.fill_diagonal(weights, 0.0)
    return weights


def _gram(matrix: Csr, l2: float) -> Float64:
    """float64[n_items, n_items]: XᵀX + l2 I."""
    n_items = matrix.shape[1]
    gram = np.empty((n_items, n_items), np.float64)
    transposed = matrix.T.tocsr()
    # In blocks: the whole product as a sparse matrix would be larger than the dense one.
    for start in range(0, n_items, BLOCK):
        gram[start : start + BLOCK] = (transposed[start : start + BLOCK] @ matrix).toarray()
    gram[np.diag_indices(n_items)] += l2
    return gram


def _inverse(matrix: Float64) -> Float64:
    """Inverts a symmetric positive definite matrix in place, by blocked Gauss-Jordan.

    No pivoting is needed for such a matrix, all work is matrix products, and one block row is the
    only other memory. LAPACK's Cholesky inverse does half the arithmetic, but its threads were
    measured 16 times slower than this on two shared cores.
    """
    n = len(matrix)
    starts = range(0, n, BLOCK)
    for start in starts:
        stop = min(start + BLOCK, n)
        pivot = np.linalg.inv(matrix[start:stop, start:stop])
        rows = pivot @ matrix[start:stop]
        rows[:, start:stop] = pivot
        for other in starts:
            if other == start:
                continue
            block = matrix[other : other + BLOCK]
            left = block[:, start:stop].copy()
            block[:, start:stop] = 0.0
            block -= left @ rows
        matrix[start:stop] = rows
    return matrix
