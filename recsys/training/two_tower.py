"""Trains the two towers with torch, and hands back arrays.

Every position of every window of a user's events predicts the next one (sampled softmax with shared
uniform negatives and the log-correction of Bengio and Senecal, 2008; the whole catalogue where it
is no larger than the sample), or, with `bpr`, ranks it above the other targets of its batch (Rendle
et al., 2009, on L2-normalised vectors). A next item that the
user has already had is no target: seen items are never recommended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int32,
    Int64,
    UserStates,
    states_at,
)
from shortlist.recsys.models.ties import steps_of
from shortlist.recsys.models.towers import HALF_LIVES, LAYER_NORM_EPSILON, Towers, user_vectors
from shortlist.recsys.settings import Loss
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training.split import before

Progress = Callable[[float, str], None]
"""Called with the share done and a short note."""

MIN_EVENTS_LEFT = 2
"""Events of a user that are left to learn from where the last ones are held back."""

UNVALIDATED_ROUNDS = 8
"""Rounds where no user has enough events to validate on."""

VALIDATION_CELLS = 2**22
"""Scores held at once in validation: 16 MiB."""


@dataclass(frozen=True, slots=True)
class TowerParams:
    """How the towers are shaped and trained."""

    dimension: int = 64
    """Width of the embeddings."""
    hidden: int = 256
    """Units of the hidden layer."""
    dropout: float = 0.3
    """Share of the hidden units dropped in training."""
    history_dropout: float = 0.1
    """Share of a history's embeddings dropped in training."""
    content_only: float = 0.1
    """Share of items whose free embedding is dropped in training, so that content alone can stand for an item."""
    attribute_dropout: float = 0.5
    """Share of users whose attributes are dropped in training, so that they may be absent."""
    loss: Loss = "sampled_softmax"
    negatives: int = 512
    """Shared negatives a batch: uniform ones, or for `bpr` other targets of the batch."""
    full_softmax_items: int = 4096
    """Catalogues up to this size use every item as a negative."""
    batch_windows: int = 16
    """Windows a batch, each of up to HISTORY_LENGTH positions."""
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    embedding_scale: float = 0.1
    averaging: float = 0.99
    """What the running average of the weights keeps of itself at each step."""
    rounds: int = 40
    """Most rounds; each ends with a validation, and usually it ends training sooner."""
    round_steps: int = 50
    """Least optimiser steps of a round, which passes over small data several times."""
    patience: int = 3
    """Rounds without a better validation before training stops."""
    validation_users: int = 2000
    """Users whose last event is held back to validate on, at most."""
    max_positions: int = 20_000_000
    """Upper bound on predicted positions in all rounds together: large data needs fewer passes."""
    temperature: float = 0.1
    """Divides the cosine of `bpr`."""


def fit_towers(
    events: Events,
    content: Float32,
    attributes: Int32,
    n_tokens: int,
    params: TowerParams,
    rng: np.random.Generator,
    progress: Progress | None = None,
    epochs: int | None = None,
) -> Trained:
    """Trained towers, and how each round went.

    events: what may be learnt from, nothing later; content: float32[n_items, M]; attributes:
    int32[n_users, A] tokens below n_tokens, or MISSING. The weights are running averages over the
    steps (Izmailov et al., 2018). Without `epochs` some last events are held back, and the weights
    that foretold them best are kept (Prechelt, 1998, on stopping); with them everything is learnt
    from, for as many passes.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    validation, learnt = _hold_back(
        events, attributes, params.validation_users if epochs is None else 0, rng
    )
    net = _Net(np.bincount(learnt.item, minlength=events.n_items), content, n_tokens, params)
    windows = _Windows(learnt, attributes)
    batches = windows.batches(params.batch_windows)
    if batches == 0:
        return Trained(net.export(), [], UNVALIDATED_ROUNDS, events.digest())
    # Fused: at 100 000 items most of a step is the optimiser's walk over the embeddings, and this
    # walks once.
    optimiser = torch.optim.AdamW(
        net.groups(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    passes = math.ceil(params.round_steps / batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, total_iters=passes * batches)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(params.averaging))  # type: ignore[no-untyped-call]
    best, best_round, history = net.export(), 0, list[Round]()
    most = _most_rounds(windows, passes, params) if len(validation.states) else UNVALIDATED_ROUNDS
    most = most if epochs is None else max(1, round(epochs / passes))
    for number in range(most):
        net.train()
        losses = []
        for batch in windows.several(passes, params.batch_windows, rng):
            losses.append(_step(net, batch, optimiser, schedule, params, rng))
            averaged.update_parameters(net)
        towers = cast("_Net", averaged.module).export()
        history.append(
            Round(float(np.mean(losses)) if losses else math.nan, validation.score(towers))
        )
        if progress is not None:
            progress((number + 1) / most, history[-1].note())
        if (
            number == 0 or not history[-1].validation <= history[best_round].validation
        ):  # NaN: the last is the best
            best, best_round = towers, number
        if number - best_round >= params.patience:
            break
    return Trained(best, history, (best_round + 1) * passes, events.digest())


class Trained(NamedTuple):
    """What training gave.

    towers: the weights kept; rounds: how each round went; epochs: how many passes over the data
    such towers take;
    learnt_from: the digest of all events that training was given, by which an evaluation knows that
    none was of its hold-out.
    """

    towers: Towers
    rounds: list[Round]
    epochs: int
    learnt_from: str


class Round(NamedTuple):
    """loss: the mean over a round's steps; validation: NDCG of the held-back events, NaN where none were."""

    loss: float
    validation: float

    def note(self) -> str:
        """For the narrator."""
        return f"loss {self.loss:.3f}" + (
            "" if math.isnan(self.validation) else f", validation {self.validation:.3f}"
        )


def _most_rounds(windows: _Windows, passes: int, params: TowerParams) -> int:
    return max(1, min(params.rounds, params.max_positions // max(1, passes * windows.n_positions)))


@dataclass(frozen=True, slots=True)
class _Validation:
    """The last events of some users, which decide when training stops.

    states: as of just before these and what shares their time; targets: int32[V] item rows, none of
    which the state has seen.
    """

    states: UserStates
    targets: Int32

    def score(self, towers: Towers) -> float:
        """The mean of 1 / log2(1 + rank) of the targets among all unseen items: NDCG without a cut-off."""
        gains = [np.empty(0)]
        chunk = max(1, VALIDATION_CELLS // len(towers.items))
        for start in range(0, len(self.states), chunk):
            part = self.states.slice(start, min(start + chunk, len(self.states)))
            users = np.arange(len(part))
            scores = user_vectors(towers, part) @ towers.items.T
            own = scores[users, self.targets[start : start + len(part)]]
            scores[np.repeat(users, np.diff(part.seen_offsets)), part.seen_rows] = -np.inf
            gains.append(1 / np.log2(2 + (scores > own[:, None]).sum(axis=1)))
        return float(np.concatenate(gains).mean()) if len(self.states) else math.nan


def _hold_back(
    events: Events, attributes: Int32, wanted: int, rng: np.random.Generator
) -> tuple[_Validation, Events]:
    """The last event of at most so many users, where it is new to them, and the events without these.

    What shares its time with a last event is held back as well, but no target.
    """
    offsets = events.offsets()
    cut, last = offsets[1:].copy(), offsets[1:] - 1
    some = np.diff(offsets) > MIN_EVENTS_LEFT
    cut[some] = steps_of(events).first[last[some]]
    able = some & (cut - offsets[:-1] >= MIN_EVENTS_LEFT)
    able[able] = _first_times(events)[last[able]]
    users = np.sort(rng.permutation(np.flatnonzero(able))[:wanted])
    ends = offsets[1:].copy()
    ends[users] = cut[users]
    states = states_at(events, offsets[:-1][users], cut[users], attributes[users])
    return _Validation(states, events.item[last[users]]), before(events, ends)


@dataclass(frozen=True, slots=True)
class _Batch:
    inputs: Int64  # [B, L], padded on the right with n_items
    targets: Int64  # [B, L], MISSING where there is nothing to predict
    attributes: Int64  # [B, A]


class _Windows:
    """Cuts histories into windows, at other places in each epoch, and batches windows of like length."""

    def __init__(self, events: Events, attributes: Int32) -> None:
        self.events, self.attributes = events, attributes
        self.offsets = events.offsets()
        self.predictable = np.diff(self.offsets) - 1
        self.n_positions = int(np.maximum(self.predictable, 0).sum())
        self.targets = np.where(_first_times(events), events.item, MISSING).astype(np.int64)

    def batches(self, size: int) -> int:
        """How many batches an epoch has; every epoch has as many, whatever the cuts."""
        windows = int(np.ceil(np.maximum(self.predictable, 0) / HISTORY_LENGTH).sum())
        return math.ceil(windows / size)

    def several(self, passes: int, size: int, rng: np.random.Generator) -> Iterator[_Batch]:
        """Every position as often as there are passes."""
        for _ in range(passes):
            yield from self.epoch(size, rng)

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[_Batch]:
        """Every position once, in batches of about `size` windows."""
        starts, stops, users = self._cut(rng)
        order = np.lexsort((rng.random(len(starts)), (stops - starts) // 10))
        groups = np.array_split(order, self.batches(size))
        for g in rng.permutation(len(groups)):
            batch = (
                self._batch(starts[groups[g]], stops[groups[g]], users[groups[g]])
                if len(groups[g])
                else None
            )
            if batch is not None and (batch.targets != MISSING).any():  # there may be repeats alone
                yield batch

    def _cut(self, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
        starts, stops, users = [], [], []
        for user in np.flatnonzero(self.predictable > 0):
            n, base = int(self.predictable[user]), int(self.offsets[user])
            first = int(rng.integers(1, HISTORY_LENGTH + 1)) if n > HISTORY_LENGTH else n
            edges = [0, *range(first, n, HISTORY_LENGTH), n]
            starts += [base + e for e in edges[:-1]]
            stops += [base + e for e in edges[1:]]
            users += [int(user)] * (len(edges) - 1)
        return np.array(starts, np.int64), np.array(stops, np.int64), np.array(users, np.int64)

    def _batch(self, starts: Int64, stops: Int64, users: Int64) -> _Batch:
        length = int((stops - starts).max())
        rows = starts[:, None] + np.arange(length)[None, :]
        inside = rows < stops[:, None]
        rows = np.where(inside, rows, 0)
        inputs = np.where(inside, self.events.item[rows], self.events.n_items).astype(np.int64)
        targets = np.where(
            inside, self.targets[np.minimum(rows + 1, len(self.targets) - 1)], MISSING
        )
        return _Batch(inputs, targets, self.attributes[users].astype(np.int64))


def _first_times(events: Events) -> NDArray[np.bool_]:
    """bool[n]: whether an event is its user's first with that item."""
    key = events.user.astype(np.int64) * events.n_items + events.item
    first = np.zeros(len(key), np.bool_)
    first[np.unique(key, return_index=True)[1]] = True
    return first


class _Net(nn.Module):
    """The torch twin of `recsys.models.towers`, plus the item tower, which is exported as finished vectors.

    An item that nobody has had yet (not `warm`, bool[n_items]) is no negative, for it could not be
    taken, and nothing is
    learnt of its free embedding: its vector is made of its content alone.
    """

    def __init__(self, counts: Int64, content: Float32, n_tokens: int, params: TowerParams) -> None:
        super().__init__()
        warm = counts > 0
        n_items, d, width = len(warm), params.dimension, len(HALF_LIVES) * params.dimension
        self.params = params
        scale = params.embedding_scale
        self.history = nn.Parameter(torch.randn(n_items, d) * scale)
        self.free = nn.Parameter(torch.randn(n_items, d) * scale)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.content_history = nn.Parameter(torch.randn(content.shape[1], d) * scale)
        self.content_item = nn.Parameter(torch.randn(content.shape[1], d) * scale)
        self.content_bias = nn.Parameter(torch.zeros(content.shape[1]))
        self.attributes = nn.Parameter(torch.randn(n_tokens, d) * scale)
        self.skip = nn.Linear(width, d, bias=False)
        self.norm = nn.LayerNorm(width + d, eps=LAYER_NORM_EPSILON)
        self.hidden = nn.Linear(width + d, params.hidden)
        self.out = nn.Linear(params.hidden, d)
        self.content: Tensor
        self.decay: Tensor
        self.warm: Tensor
        self.warm_rows: Tensor
        self.log_counts: Tensor
        self.register_buffer("content", torch.from_numpy(content))
        self.register_buffer("warm", torch.from_numpy(warm.astype(np.float32)))
        self.register_buffer("warm_rows", torch.from_numpy(np.flatnonzero(warm)))
        self.register_buffer("decay", _causal_means())
        self.register_buffer(
            "log_counts", torch.from_numpy(np.log(np.maximum(counts, 1)).astype(np.float32))
        )
        with torch.no_grad():
            self.skip.weight.copy_(torch.eye(d).repeat(1, len(HALF_LIVES)) / len(HALF_LIVES))

    def groups(self) -> list[dict[str, object]]:
        """Parameters for the optimiser: biases and norms do not decay."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        return [
            {"params": decayed},
            {"params": [p for p in self.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]

    def users(self, batch: _Batch) -> Tensor:
        """[B, L, d]: the user vector after each position of the windows."""
        embeddings = self.past_table()[torch.from_numpy(batch.inputs)]  # [B, L, d]
        if self.training and self.params.history_dropout:
            keep = torch.rand(embeddings.shape[:2]) >= self.params.history_dropout
            embeddings = embeddings * keep[..., None]
        length = embeddings.shape[1]
        decay = self.decay[:, :length, :length].reshape(-1, length)  # [S * L, L]
        means = torch.matmul(decay, embeddings)  # [B, S * L, d]
        means = (
            means.view(len(embeddings), len(HALF_LIVES), length, -1).transpose(1, 2).flatten(2)
        )  # [B, L, S * d]
        told = self._attributes(batch)[:, None, :].expand(-1, length, -1)
        normal = self.norm(torch.cat((means, told), dim=2))
        hidden = functional.gelu(self.hidden(normal), approximate="tanh")
        hidden = functional.dropout(hidden, self.params.dropout, self.training)
        out: Tensor = self.skip(means) + self.out(hidden)
        return out

    def past_table(self) -> Tensor:
        """[n_items + 1, d]: the embeddings of items as history, the last row zero."""
        return functional.pad(
            self.history * self.warm[:, None] + self.content @ self.content_history, (0, 0, 0, 1)
        )

    def _attributes(self, batch: _Batch) -> Tensor:
        table = functional.pad(self.attributes, (0, 0, 0, 1))
        tokens = torch.from_numpy(
            np.where(batch.attributes == MISSING, len(self.attributes), batch.attributes)
        )
        told = table[tokens].sum(dim=1)
        if self.training:
            told = told * (torch.rand(len(told), 1) >= self.params.attribute_dropout)
        return told

    def items(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[m, d] vectors and [m] biases of items; in training some have only their content."""
        content = self.content[rows]
        keep = self.warm[rows]
        if self.training and self.params.content_only and content.shape[1]:
            keep = keep * (torch.rand(len(rows)) >= self.params.content_only)
        free, bias = self.free[rows] * keep[:, None], self.bias[rows] * keep
        return free + content @ self.content_item, bias + content @ self.content_bias

    @torch.no_grad()
    def export(self) -> Towers:
        """The weights as numpy arrays."""
        self.eval()
        vectors, bias = self.items(torch.arange(len(self.free)))
        if self.params.loss == "bpr":
            vectors, bias = (
                functional.normalize(vectors, dim=1) / self.params.temperature,
                torch.zeros_like(bias),
            )
        unknown = (self.warm == 0) & (self.content.abs().sum(dim=1) == 0)
        if len(self.warm_rows):
            bias[unknown] = bias[
                self.warm_rows
            ].min()  # of such an item nothing is known: it comes last
        return Towers(
            history=_array(self.past_table()),
            items=_array(torch.cat((vectors, bias[:, None]), dim=1)),
            attributes=_array(functional.pad(self.attributes, (0, 0, 0, 1))),
            skip_w=_array(self.skip.weight.T),
            norm_g=_array(self.norm.weight),
            norm_b=_array(self.norm.bias),
            hidden_w=_array(self.hidden.weight.T),
            hidden_b=_array(self.hidden.bias),
            out_w=_array(self.out.weight.T),
            out_b=_array(self.out.bias),
        )


def _array(tensor: Tensor) -> Float32:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)


def _causal_means() -> Tensor:
    """[S, N, N]: row t of each half-life averages positions 0..t."""
    age = torch.arange(HISTORY_LENGTH)[:, None] - torch.arange(HISTORY_LENGTH)[None, :]
    past = (age >= 0).double()
    rows = [
        (age == 0).double() if h == 0 else past * 0.5 ** (age.clamp(min=0).double() / h)
        for h in HALF_LIVES
    ]
    weights = torch.stack(rows)
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _step(
    net: _Net,
    batch: _Batch,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    params: TowerParams,
    rng: np.random.Generator,
) -> float:
    users = net.users(batch)
    targets = torch.from_numpy(batch.targets)
    real = targets != MISSING
    loss = _LOSSES[params.loss](net, users[real], targets[real], params, rng)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    schedule.step()
    return float(loss.detach())


def _softmax_loss(
    net: _Net, users: Tensor, targets: Tensor, params: TowerParams, rng: np.random.Generator
) -> Tensor:
    n = len(net.warm_rows)
    if n <= params.full_softmax_items:
        vectors, bias = net.items(net.warm_rows)
        return functional.cross_entropy(
            users @ vectors.T + bias, torch.searchsorted(net.warm_rows, targets)
        )
    sample = net.warm_rows[torch.from_numpy(rng.integers(0, n, params.negatives))]
    vectors, bias = net.items(sample)
    negative = (
        users @ vectors.T + bias + math.log(n / params.negatives)
    )  # each stands for n / m items
    negative = negative.masked_fill(sample[None, :] == targets[:, None], -math.inf)
    own, own_bias = net.items(targets)
    positive = (users * own).sum(dim=1) + own_bias
    logits = torch.cat((positive[:, None], negative), dim=1)
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def _bpr_loss(
    net: _Net, users: Tensor, targets: Tensor, params: TowerParams, rng: np.random.Generator
) -> Tensor:
    """Each target against other targets of the batch, which are drawn by popularity and corrected by its logarithm."""
    sample = torch.from_numpy(rng.integers(0, len(targets), params.negatives))
    users = functional.normalize(users, dim=1) / params.temperature
    vectors = functional.normalize(net.items(targets)[0], dim=1)
    own = (users * vectors).sum(dim=1) - net.log_counts[targets]
    others = users @ vectors[sample].T - net.log_counts[targets[sample]]  # [m, negatives]
    distinct = (targets[:, None] != targets[sample][None, :]).float()
    return -(functional.logsigmoid(own[:, None] - others) * distinct).sum() / distinct.sum().clamp(
        min=1
    )


_LOSSES = {"sampled_softmax": _softmax_loss, "bpr": _bpr_loss}
