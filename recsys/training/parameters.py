"""The training parameters, checked by pydantic.

A parameter states its type, its bounds and its meaning. `batch/config.py` reads the bounds from
here, so a new parameter needs no other entry. This imports no training library, so that a wrong
value is refused at once.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass as checked_dataclass

from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.settings import Loss

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""

# Strict, or "3" and True would pass for 3 and 1; forbidding, or a misspelt name would do nothing.
CHECKED = ConfigDict(strict=True, extra="forbid")


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class TowerParams:
    """Shape and training of the towers."""

    dimension: PositiveInt = 64
    """Width of the embeddings."""
    hidden: PositiveInt = 256
    """Units of the hidden layer."""
    dropout: Share = 0.3
    """Share of the hidden units dropped in training."""
    history_dropout: Share = 0.1
    """Share of a history's embeddings dropped in training."""
    content_only: Share = 0.1
    """Share of items without their free embedding in training, so that content alone suffices."""
    attribute_dropout: Share = 0.5
    """Share of users without their attributes in training, so that attributes may be absent."""
    loss: Loss = "sampled_softmax"
    """What training minimises."""
    negatives: PositiveInt = 512
    """Negatives that a batch shares: uniform ones, or for `bpr` other targets of the batch."""
    full_softmax_items: PositiveInt = 4096
    """Catalogues up to this size use every item as a negative; larger ones are trained by rows."""
    batch_windows: PositiveInt = 16
    """Fewest windows of a batch, each of up to HISTORY_LENGTH positions."""
    batch_positions: PositiveInt = 512
    """Positions of a batch that short histories fill up with more windows."""
    learning_rate: PositiveFloat = 4e-3
    """Step size of AdamW after its warm-up."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of AdamW; biases and norms have none."""
    embedding_scale: PositiveFloat = 0.1
    """Standard deviation of the embeddings before training."""
    averaging: Share = 0.99
    """Share of itself that the running average of the weights keeps at each step."""
    rounds: PositiveInt = 40
    """Most rounds; each ends with a validation, and early stopping usually needs fewer."""
    round_steps: PositiveInt = 50
    """Fewest optimiser steps of a round, which passes over small data several times."""
    patience: PositiveInt = 3
    """Rounds without a better validation before training stops."""
    validation_users: PositiveInt = 2000
    """Most users whose last event is held out for validation."""
    max_positions: PositiveInt = 20_000_000
    """Most positions predicted in all rounds together: large data needs fewer passes."""
    temperature: PositiveFloat = 0.1
    """Divisor of the cosine in `bpr`."""


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class RankerParams:
    """Training of the ranker."""

    estimators: PositiveInt = 500
    """Most trees; early stopping usually needs fewer."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree's output that is added."""
    leaves: PositiveInt = 15
    """Most leaves of a tree."""
    min_rows_per_leaf: PositiveInt = 50
    """Fewest rows of a leaf."""
    # Below 1 for both, the ranker and the number of its trees became a matter of luck.
    feature_share: Share = 1.0
    """Share of the features that each tree sees."""
    row_share: Share = 1.0
    """Share of the rows that each tree sees."""
    l2: NonNegativeFloat = 5.0
    """L2 penalty of the leaves' values."""
    truncation: PositiveInt = 20
    """Rank below which pairs of rows add nothing to the gradient."""
    patience: PositiveInt = 40
    """Trees without a better smoothed validation NDCG@10 before training stops."""
    positions: PositiveInt = 5
    """Most label positions of a user."""
    max_groups: PositiveInt = 20_000
    """Most ranking groups."""
    # 150 took twice the time and memory, and validated no better on any data that were tried.
    negatives: PositiveInt = 75
    """Candidates without a label that each group keeps, drawn at random; twice as many where users
    are offered what they had."""


@checked_dataclass(frozen=True, slots=True, config=CHECKED)
class FitParams:
    """Everything that shapes a model, apart from the data."""

    towers: TowerParams = field(default_factory=TowerParams)
    """Shape and training of the towers."""
    ranker: RankerParams = field(default_factory=RankerParams)
    """Training of the ranker."""
    n_candidates: PositiveInt = 500
    """Candidates that are ranked for each user."""
    n_lists: PositiveInt = 100
    """Inverted lists of the index, once the catalogue is too large for exact search."""
    n_probe: PositiveInt = 10
    """Inverted lists searched for a user."""
    exploration_share: Share = 0.01
    """Chance of each place but the first few to go to a new item."""
    fresh_share: Share = 0.1
    """Share of the users held out from the first towers, for the ranker to learn cold start."""
    repeats: Repeats = Repeats.NEVER
    """Whether what a user had is offered to them again, and so learnt and evaluated."""
    seed: NonNegativeInt = 20260801
    """Seed of every draw in training."""
    threads: NonNegativeInt = 0
    """Threads of torch and LightGBM in training; 0 takes every core."""
