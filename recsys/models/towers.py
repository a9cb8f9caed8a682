"""Averages histories under HALF_LIVES into user vectors.

The user tower sees no user id: exponentially decayed means of the history's item embeddings, at
several half-lives counted in events, pass through a skip connection next to a one-hidden-layer MLP.
What torch learnt is handed over as arrays, and everything that scores uses this forward pass. Each
user is multiplied on their own (stacked `matmul`), so that the bits of an answer do not depend on
who else is in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from shortlist.recsys.models.decay import position_weights
from shortlist.recsys.models.interactions import MISSING, Float32, Int64, UserStates

HALF_LIVES = (0.0, 1.0, 3.0, 10.0, 40.0, math.inf)
"""Half-lives of the decayed means, in events: 0 is the last item alone, infinity the plain mean."""

LAYER_NORM_EPSILON = 1e-5
"""torch's default, which the towers are trained with."""


@dataclass(frozen=True, slots=True)
class Towers:
    """Trained weights.

    n items, d dimensions, S half-lives, T attribute tokens, H hidden units.
    history: float32[n + 1, d], embeddings of the items as history, the last row zero (padding).
    items: float32[n, d + 1], item vectors, whose last column is the bias.
    attributes: float32[T + 1, d], the last row zero.
    skip_w: float32[S * d, d]; norm_g, norm_b: float32[S * d + d].
    hidden_w: float32[S * d + d, H]; hidden_b: float32[H].
    out_w: float32[H, d]; out_b: float32[d].
    """

    history: Float32
    items: Float32
    attributes: Float32
    skip_w: Float32
    norm_g: Float32
    norm_b: Float32
    hidden_w: Float32
    hidden_b: Float32
    out_w: Float32
    out_b: Float32

    @property
    def dimension(self) -> int:
        """The width d of the embeddings, without the bias column."""
        return self.history.shape[1]

    @property
    def vectors(self) -> Float32:
        """float32[n, d]: the item vectors without their biases."""
        return self.items[:, :-1]

    def arrays(self) -> dict[str, Float32]:
        """The weights by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


_DECAY = position_weights(HALF_LIVES)


def decayed_means(towers: Towers, states: UserStates) -> Float32:
    """float32[U, S * d]: mean embeddings of the history under each half-life.

    An empty history has zeros.
    """
    present = states.items != MISSING  # [U, N]
    weights = _DECAY[None] * present[:, None, :]  # [U, S, N]
    total = weights.sum(axis=2, keepdims=True)
    weights /= np.where(total > 0, total, 1)
    embeddings = towers.history[states.items]  # [U, N, d]; MISSING reads the zero row
    return np.matmul(weights, embeddings).reshape(len(states), -1)


def user_vectors(towers: Towers, states: UserStates) -> Float32:
    """float32[U, d + 1]: user vectors; the last column is 1, for the bias."""
    means = decayed_means(towers, states)[:, None, :]  # [U, 1, S * d]
    attributes = towers.attributes[states.attributes].sum(axis=1)[:, None, :]  # [U, 1, d]
    return _forward(towers, means, attributes)[:, 0]


def falls_without(towers: Towers, state: UserStates, places: Int64) -> Float32:
    """float32[h, d + 1]: one user's vector less that of the history without each of some events.

    places: int64[h], positions in the history that hold an event. What is older than an event moves
    up by a place without it. The last column, the bias's, is zero.
    """
    is_held = state.items[0] != MISSING  # [N]
    # The first row leaves nothing out: in one product with the others it is rounded as they are.
    left_out = np.concatenate(([MISSING], places))[:, None]  # [h + 1, 1]
    is_older = np.arange(len(is_held)) < left_out  # [h + 1, N]
    moved = np.roll(_DECAY, -1, axis=1)  # the newest, whose weight would be wrong, never moves
    weights = np.where(is_older, (moved * is_held)[:, None], (_DECAY * is_held)[:, None])
    weights[:, np.arange(1, len(left_out)), places] = 0  # [S, h + 1, N]
    ones = np.ones((len(is_held), 1), np.float32)
    sums = np.matmul(weights, np.hstack((towers.history[state.items[0]], ones)))
    total = sums[..., -1:]
    means = sums[..., :-1] / np.where(total > 0, total, 1)  # [S, h + 1, d]
    # One product for all: these rows are of one user, whom no other's bits can depend on.
    means = means.swapaxes(0, 1).reshape(1, len(left_out), -1)
    attributes = towers.attributes[state.attributes].sum(axis=1)  # [1, d]
    repeated = np.broadcast_to(attributes, (1, len(left_out), towers.dimension))
    vectors = _forward(towers, means, repeated)[0]
    return vectors[0] - vectors[1:]


def _forward(towers: Towers, means: Float32, attributes: Float32) -> Float32:
    """float32[U, h, d + 1]: vectors of means [U, h, S * d] and attributes [U, h, d].

    Each U is a product of its own.
    """
    inputs = np.concatenate((means, attributes), axis=2)
    centred = inputs - inputs.mean(axis=2, keepdims=True)
    variance = np.square(centred).mean(axis=2, keepdims=True)
    deviation = np.sqrt(variance + np.float32(LAYER_NORM_EPSILON))
    normal = centred / deviation * towers.norm_g + towers.norm_b
    hidden = gelu(np.matmul(normal, towers.hidden_w) + towers.hidden_b)
    skip = np.matmul(means, towers.skip_w)
    out = skip + np.matmul(hidden, towers.out_w) + towers.out_b  # [U, h, d]
    ones = np.ones((*out.shape[:2], 1), np.float32)
    return np.concatenate((out, ones), axis=2).astype(np.float32)


def gelu(x: Float32) -> Float32:
    """The Gaussian error linear unit in its tanh form (Hendrycks and Gimpel, 2016)."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return (np.float32(0.5) * x * (1 + np.tanh(inner))).astype(np.float32)
