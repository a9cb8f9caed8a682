"""Fits the item-item ridge regression with a zero diagonal (EASE).

It is a baseline, and one of the neighbour relations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.recsys.models.interactions import Float32, Int32

Csr = Any  # scipy.sparse carries no types

MAX_REGRESSION_ITEMS = 20_000
"""Items of the largest catalogue that gets a regression.

A dense [items, items] matrix is inverted in place in single precision. 20,000 items need 1.6 GB
(3,700 items: 0.06 GB), and time grows with the cube of the catalogue.
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
    if matrix.shape[1] == 0:
        return np.zeros((0, 0), np.float32)
    weights = _negative_inverse(_gram(matrix, l2))
    weights /= -weights.diagonal()
    np.fill_diagonal(weights, 0.0)
    return weights


def _gram(matrix: Csr, l2: float) -> Float32:
    """float32[n_items, n_items]: XᵀX + l2 I."""
    n_items = matrix.shape[1]
    gram = np.empty((n_items, n_items), np.float32)
    transposed = matrix.T.tocsr()
    # In blocks: the whole product as a sparse matrix would be larger than the dense one.
    for start in range(0, n_items, BLOCK):
        gram[start : start + BLOCK] = (transposed[start : start + BLOCK] @ matrix).toarray()
    gram[np.diag_indices(n_items)] += l2
    return gram


def _negative_inverse(matrix: Float32) -> Float32:
    """Inverts a symmetric positive definite matrix in place, and changes its sign.

    The sweep operator (Goodnight 1979, "A Tutorial on the SWEEP Operator") by blocks: with its sign
    the matrix stays symmetric, so that one triangle is enough until the end. No pivoting is needed
    for such a matrix, and all work is matrix products. What a block inverts and multiplies is in
    double precision: of items that always come together, the differences would be lost. LAPACK's
    Cholesky inverse does as much arithmetic, but its threads wait for each other: on two shared
    cores it was many times slower.
    """
    n = len(matrix)
    starts = range(0, n, BLOCK)
    column = np.empty((n, BLOCK))
    for start in starts:
        stop = min(start + BLOCK, n)
        swept = column[:, : stop - start]
        swept[:start] = matrix[start:stop, :start].T
        swept[start:] = matrix[start:, start:stop]
        pivot = np.linalg.inv(swept[start:stop])
        scaled = (swept @ pivot).astype(np.float32)
        single = swept.astype(np.float32)
        for other in starts:
            end = min(other + BLOCK, n)
            if other != start:
                matrix[other:end, :end] -= scaled[other:end] @ single[:end].T
        matrix[start:stop, :start] = scaled[:start].T
        matrix[stop:, start:stop] = scaled[stop:]
        matrix[start:stop, start:stop] = -pivot
    for start in starts:
        stop = min(start + BLOCK, n)
        matrix[:start, start:stop] = matrix[start:stop, :start].T
    return matrix
