"""Trains the two towers with torch into arrays.

Every position of every window of a user's events predicts the next one. The loss is a sampled
softmax with shared uniform negatives and the log-correction of Bengio and Senecal (2008), over the
whole catalogue where that is no larger than the sample. With `bpr` it ranks the next item above the
other targets of its batch (Rendle et al., 2009, on L2-normalised vectors). Which events are targets
is said by `targets`; each counts by its strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.ties import before_funnels, steps_of
from shortlist.recsys.models.towers import HALF_LIVES, LAYER_NORM_EPSILON, Towers, user_vectors
from shortlist.recsys.settings import Loss
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training.parameters import TowerParams
from shortlist.recsys.training.row_adam import RowTable
from shortlist.recsys.training.split import before
from shortlist.recsys.training.targets import are_new, tower_targets

TrainingProgress = Callable[[float, str], None]
"""Called with the share done and a short note."""

MIN_EVENTS_LEFT = 2
"""Fewest events left to learn from of a user whose last one is held out: a pair to predict."""

UNVALIDATED_ROUNDS = 8
"""Rounds of training where no user has enough events for validation."""

FEW_CELLS = 0.05
"""Share of non-zero cells up to which content is multiplied cell by cell, which is faster then."""

VALIDATION_CELLS = 2**22
"""Scores held at once in validation: 16 MiB."""


SIMILAR_LENGTHS = 10
"""Lengths of windows that count as alike in a batch; a quarter of the mean where that is less."""


class Round(NamedTuple):
    """loss: mean over a round's steps; validation: NDCG of the held-out events, NaN for none."""

    loss: float
    validation: float

    def note(self) -> str:
        """The figures in words."""
        if math.isnan(self.validation):
            return f"loss {self.loss:.3f}"
        return f"loss {self.loss:.3f}, validation {self.validation:.3f}"


class TrainedTowers(NamedTuple):
    """Trained towers, and the record of their training.

    towers: the weights of the best round; rounds: the figures of each; epochs: passes over the data
    up to the best round; events_digest: the digest of all events that training was given, by which
    an evaluation checks that none was of its hold-out.
    """

    towers: Towers
    rounds: list[Round]
    epochs: int
    events_digest: str


def fit_towers(
    events: Events,
    content: Float32,
    attributes: Int32,
    n_tokens: int,
    params: TowerParams,
    rng: np.random.Generator,
    progress: TrainingProgress | None = None,
    epochs: int | None = None,
    repeats: Repeats = Repeats.NEVER,
) -> TrainedTowers:
    """Towers trained on `events`, and nothing later.

    content: float32[n_items, M]; attributes: int32[n_users, A] tokens below n_tokens, or MISSING.
    repeats: whether a user's own items are to be predicted as well.
    The weights are running averages over the steps (Izmailov et al., 2018). Without `epochs`
    training stops early (Prechelt, 1998): some last events are held out, and the weights that
    predicted them best are kept. With `epochs` it passes over all events so many times.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    n_held_out = params.validation_users if epochs is None else 0
    validation, learnt = _hold_out_last(events, attributes, n_held_out, rng, repeats)
    net = _Net(np.bincount(learnt.item, minlength=events.n_items), content, n_tokens, params)
    windows = _Windows(learnt, attributes, repeats)
    size = windows.batch_size(params)
    batches = windows.batches(size)
    if batches == 0:  # nobody has two events
        return TrainedTowers(net.export(), [], UNVALIDATED_ROUNDS, events.digest())
    passes = math.ceil(params.round_steps / batches)
    optimisation = _begin(net, params, warm_up=passes * batches)
    if epochs is not None:
        n_rounds = max(1, round(epochs / passes))
    else:
        is_validated = len(validation.states) > 0
        n_rounds = _most_rounds(windows, passes, params) if is_validated else UNVALIDATED_ROUNDS
    best, best_round, rounds = optimisation.export(), 0, list[Round]()
    for number in range(n_rounds):
        loss = optimisation.run(windows.several(passes, size, rng), rng)
        towers = optimisation.export()
        rounds.append(Round(loss, validation.score(towers)))
        if progress is not None:
            progress((number + 1) / n_rounds, rounds[-1].note())
        # Without validation (NaN) no comparison holds, and the last round is the best.
        is_worse = rounds[-1].validation <= rounds[best_round].validation
        if number == 0 or not is_worse:
            best, best_round = towers, number
        if number - best_round >= params.patience:
            break
    return TrainedTowers(best, rounds, (best_round + 1) * passes, events.digest())


def _most_rounds(windows: _Windows, passes: int, params: TowerParams) -> int:
    affordable = params.max_positions // max(1, passes * windows.n_positions)
    return max(1, min(params.rounds, affordable))


@dataclass(frozen=True, slots=True)
class _Optimisation:
    """A net with its optimiser, learning-rate schedule and running average of the weights."""

    net: _Net
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    averaged: AveragedModel
    tables: dict[str, RowTable]
    """Those of the net that the optimiser does not train, by attribute."""
    params: TowerParams

    def run(self, batches: Iterator[_Batch], rng: np.random.Generator) -> float:
        """Takes a step for each batch; the mean loss, NaN for no batch."""
        self.net.train()
        losses = []
        for batch in batches:
            losses.append(self._step(batch, rng))
            self.averaged.update_parameters(self.net)
        return float(np.mean(losses)) if losses else math.nan

    def _step(self, batch: _Batch, rng: np.random.Generator) -> float:
        users = self.net.users(batch)
        targets = torch.from_numpy(batch.targets)
        real = targets != MISSING
        loss_of = _LOSSES[self.params.loss]
        weights = None if batch.weights is None else torch.from_numpy(batch.weights)[real]
        loss = loss_of(self.net, users[real], targets[real], weights, self.params, rng)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for table in self.tables.values():
            table.step(self.optimiser.param_groups[0]["lr"])
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    def export(self) -> Towers:
        """The averaged weights."""
        averaged = cast("_Net", self.averaged.module)
        for name, table in self.tables.items():
            setattr(averaged, name, table.average())
        return averaged.export()


def _begin(net: _Net, params: TowerParams, warm_up: int) -> _Optimisation:
    """The state before the first step; the learning rate rises over `warm_up` steps."""
    optimiser = torch.optim.AdamW(
        net.groups(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, total_iters=warm_up)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(params.averaging))  # type: ignore[no-untyped-call]
    return _Optimisation(net, optimiser, schedule, averaged, net.train_by_rows(), params)


@dataclass(frozen=True, slots=True)
class _Validation:
    """The last events to predict of some users, held out to decide when training stops.

    states: as of just before these and all that shares their time; targets: int32[V] item rows.
    """

    states: UserStates
    targets: Int32

    def score(self, towers: Towers) -> float:
        """NDCG without a cut-off: the mean of 1 / log2(1 + rank) of the targets.

        Ranks are among all items that may be offered. NaN for no users.
        """
        if not len(self.states):
            return math.nan
        gains = []
        chunk = max(1, VALIDATION_CELLS // len(towers.items))
        for start in range(0, len(self.states), chunk):
            stop = min(start + chunk, len(self.states))
            part, targets = self.states.slice(start, stop), self.targets[start:stop]
            users = np.arange(len(part))
            scores = user_vectors(towers, part) @ towers.items.T
            own = scores[users, targets]
            offsets, closed = part.seen_offsets, part.seen_rows
            if part.repeats is Repeats.ALLOW:
                offsets, closed = part.disliked_offsets, part.disliked_rows
            scores[np.repeat(users, np.diff(offsets)), closed] = -np.inf
            n_better = (scores > own[:, None]).sum(axis=1)
            gains.append(1 / np.log2(2 + n_better))
        return float(np.concatenate(gains).mean())


def _hold_out_last(
    events: Events, attributes: Int32, most: int, rng: np.random.Generator, repeats: Repeats
) -> tuple[_Validation, Events]:
    """The last events to predict of at most so many users, and all events before these.

    Only users of whom it is a target are drawn. What led to it, what shares its time and what comes
    later are held out as well, but are no target.
    """
    offsets = events.offsets()
    starts, ends = offsets[:-1], offsets[1:]
    wanted = np.flatnonzero(events.is_target)
    until = np.searchsorted(wanted, offsets)
    some = np.diff(until) > 0
    cut, last = ends.copy(), starts.copy()
    last[some] = wanted[until[1:][some] - 1]
    long = some & (last - starts >= MIN_EVENTS_LEFT)
    cut[long] = steps_of(events).first[before_funnels(events, np.flatnonzero(long), last[long])]
    eligible = long & (cut - starts >= MIN_EVENTS_LEFT)
    if repeats is Repeats.NEVER:
        eligible[eligible] = are_new(events)[last[eligible]]
    users = np.sort(rng.permutation(np.flatnonzero(eligible))[:most])
    learnt_until = ends.copy()
    learnt_until[users] = cut[users]
    states = states_at(events, starts[users], cut[users], attributes[users], users)
    validation = _Validation(replace(states, repeats=repeats), events.item[last[users]])
    return validation, before(events, learnt_until).standing()


@dataclass(frozen=True, slots=True)
class _Batch:
    inputs: Int64  # [B, L], padded on the right with n_items
    targets: Int64  # [B, L], MISSING where there is nothing to predict
    weights: Float32 | None  # [B, L], of the targets, with a mean of 1 over all; None for all 1
    attributes: Int64  # [B, A]


class _Windows:
    """Cuts histories into windows, at other places in each epoch, and batches them by length."""

    def __init__(self, events: Events, attributes: Int32, repeats: Repeats) -> None:
        self.events, self.attributes = events, attributes
        self.offsets = events.offsets()
        self.predictable = np.diff(self.offsets) - 1
        self.n_positions = int(np.maximum(self.predictable, 0).sum())
        is_target, strength = tower_targets(events, repeats)
        self.targets = np.where(is_target, events.item, MISSING).astype(np.int64)
        self.weights = _weights(is_target, strength)

    def batch_size(self, params: TowerParams) -> int:
        """Windows of a batch: as many as predict about `batch_positions` together.

        A step costs much that does not depend on its positions.
        """
        filling = math.ceil(params.batch_positions * self._n_windows() / max(1, self.n_positions))
        return max(params.batch_windows, filling)

    def batches(self, size: int) -> int:
        """The number of batches of an epoch, the same for every one, whatever the cuts."""
        return math.ceil(self._n_windows() / size)

    def _n_windows(self) -> int:
        return int(np.ceil(np.maximum(self.predictable, 0) / HISTORY_LENGTH).sum())

    def several(self, passes: int, size: int, rng: np.random.Generator) -> Iterator[_Batch]:
        """So many epochs after each other."""
        for _ in range(passes):
            yield from self.epoch(size, rng)

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[_Batch]:
        """Every position once, in batches of about `size` windows."""
        starts, stops, users = self._cut(rng)
        # By similar length, so that little of a batch is padding; at random within that.
        lengths = stops - starts
        alike = min(SIMILAR_LENGTHS, max(1, int(lengths.mean()) // 4))
        order = np.lexsort((rng.random(len(starts)), lengths // alike))
        parts = np.array_split(order, self.batches(size))
        if alike < SIMILAR_LENGTHS:
            # Short windows differ much in length: as many positions in each batch, or those of the
            # shortest would count for more.
            positions = np.cumsum(lengths[order])
            shares = np.arange(1, len(parts)) / len(parts)
            parts = np.split(order, np.searchsorted(positions, positions[-1] * shares))
        for number in rng.permutation(len(parts)):
            part = parts[number]
            if not len(part):
                continue
            batch = self._batch(starts[part], stops[part], users[part])
            if (batch.targets != MISSING).any():  # all may be no targets
                yield batch

    def _cut(self, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
        """Rows at which windows start and stop, and their users, each int64[windows]."""
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
        next_rows = np.minimum(rows + 1, len(self.targets) - 1)
        targets = np.where(inside, self.targets[next_rows], MISSING)
        weights = None if self.weights is None else self.weights[next_rows]
        return _Batch(inputs, targets, weights, self.attributes[users].astype(np.int64))


def _weights(is_target: NDArray[np.bool_], strength: Float32) -> Float32 | None:
    """float32[n]: the strengths of events, of which the targets have a mean of 1.

    None where all targets are of one strength.
    """
    own = strength[is_target]
    if len(np.unique(own)) < 2:  # noqa: PLR2004 - nothing to weigh against each other
        return None
    return (strength / own.mean(dtype=np.float64)).astype(np.float32)


class _Content:
    """What is known of the items, float32[n_items, M], to be multiplied with what is learnt.

    Categories are mostly zeros: where few cells are not, only these are multiplied.
    """

    def __init__(self, dense: Float32) -> None:
        self.n, self.width = dense.shape
        rows, columns = np.nonzero(dense)
        self._dense = None
        if len(rows) >= FEW_CELLS * dense.size:
            self._dense = torch.from_numpy(dense)
            return
        self._counts = np.bincount(rows, minlength=self.n)
        self._starts = np.cumsum(self._counts) - self._counts
        self._columns = torch.from_numpy(columns)
        self._values = torch.from_numpy(dense[rows, columns])

    def __deepcopy__(self, _memo: dict[int, object]) -> _Content:
        """Itself: it never changes, and the running average would hold it once more."""
        return self

    def times(self, table: Tensor, rows: Tensor) -> Tensor:
        """The product of these rows [m] with a table [M, d] or [M]: [m, d] or [m]."""
        if self._dense is not None:
            return self._dense[rows] @ table
        picked = rows.numpy()
        counts = self._counts[picked]
        offsets = np.cumsum(counts) - counts
        cells = np.arange(counts.sum()) + np.repeat(self._starts[picked] - offsets, counts)
        own = torch.from_numpy(cells)
        product = functional.embedding_bag(
            self._columns[own],
            table.view(self.width, -1),
            torch.from_numpy(offsets),
            mode="sum",
            per_sample_weights=self._values[own],
        )
        return product.view(len(rows), *table.shape[1:])

    def is_empty(self) -> Tensor:
        """Bool[n_items]: of which items nothing is known."""
        if self._dense is not None:
            return self._dense.abs().sum(dim=1) == 0
        return torch.from_numpy(self._counts == 0)


class _Net(nn.Module):
    """The torch twin of `recsys.models.towers`, with the item tower, exported as its vectors.

    An item that nobody has had yet (not `warm`, bool[n_items]) is no negative, for it could not be
    taken, and its free embedding is not trained: its vector is made of its content alone.
    """

    warm: Tensor  # [n_items], 1 or 0
    warm_rows: Tensor
    decay: Tensor  # [S, N, N]
    log_counts: Tensor  # [n_items]

    def __init__(self, counts: Int64, content: Float32, n_tokens: int, params: TowerParams) -> None:
        super().__init__()
        self.params = params
        n_items, d = len(counts), params.dimension
        width = len(HALF_LIVES) * d
        scale = params.embedding_scale
        self.history = self._of_items(torch.randn(n_items, d) * scale)
        self.free = self._of_items(torch.randn(n_items, d) * scale)
        self.bias = self._of_items(torch.zeros(n_items))
        self.content_history = nn.Parameter(torch.randn(content.shape[1], d) * scale)
        self.content_item = nn.Parameter(torch.randn(content.shape[1], d) * scale)
        self.content_bias = nn.Parameter(torch.zeros(content.shape[1]))
        self.attributes = nn.Parameter(torch.randn(n_tokens, d) * scale)
        self.skip = nn.Linear(width, d, bias=False)
        self.norm = nn.LayerNorm(width + d, eps=LAYER_NORM_EPSILON)
        self.hidden = nn.Linear(width + d, params.hidden)
        self.out = nn.Linear(params.hidden, d)
        self._keep_constants(counts, content)
        with torch.no_grad():  # begins as the mean over the half-lives
            self.skip.weight.copy_(torch.eye(d).repeat(1, len(HALF_LIVES)) / len(HALF_LIVES))

    def _keep_constants(self, counts: Int64, content: Float32) -> None:
        """Keeps what is not trained.

        As attributes: of buffers the running average would take a copy at each step, and the
        content of a large catalogue is most of a net.
        """
        warm = counts > 0
        log_counts = np.log(np.maximum(counts, 1)).astype(np.float32)
        self.content = _Content(content)
        self.warm = torch.from_numpy(warm.astype(np.float32))
        self.warm_rows = torch.from_numpy(np.flatnonzero(warm))
        self.decay = _causal_means()
        self.log_counts = torch.from_numpy(log_counts)

    def _of_items(self, values: Tensor) -> Tensor | RowTable:
        """A table with a row for each item, which the optimiser trains if it is small."""
        return values if self._is_large(len(values)) else nn.Parameter(values)

    def _is_large(self, n_items: int) -> bool:
        return n_items > self.params.full_softmax_items

    def train_by_rows(self) -> dict[str, RowTable]:
        """Makes the tables of a large catalogue such that a step changes the rows that it reads."""
        if not self._is_large(len(self.warm)):
            return {}
        decays = {
            "history": self.params.weight_decay,
            "free": self.params.weight_decay,
            "bias": 0.0,
        }
        tables = {
            name: RowTable(
                getattr(self, name).view(len(self.warm), -1), decay, self.params.averaging
            )
            for name, decay in decays.items()
        }
        for name, table in tables.items():
            setattr(self, name, table)
        return tables

    def groups(self) -> list[dict[str, object]]:
        """Parameters for the optimiser: biases and norms do not decay."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        undecayed = [p for p in self.parameters() if p.ndim == 1]
        return [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]

    def users(self, batch: _Batch) -> Tensor:
        """[B, L, d]: the user vector after each position of the windows."""
        embeddings = self._past(batch.inputs)  # [B, L, d]
        if self.training and self.params.history_dropout:
            keep = torch.rand(embeddings.shape[:2]) >= self.params.history_dropout
            embeddings = embeddings * keep[..., None]
        length = embeddings.shape[1]
        decay = self.decay[:, :length, :length].reshape(-1, length)  # [S * L, L]
        means = torch.matmul(decay, embeddings)  # [B, S * L, d]
        means = means.view(len(embeddings), len(HALF_LIVES), length, -1)
        means = means.transpose(1, 2).flatten(2)  # [B, L, S * d]
        attributes = self._attributes(batch)[:, None, :].expand(-1, length, -1)
        normal = self.norm(torch.cat((means, attributes), dim=2))
        hidden = functional.gelu(self.hidden(normal), approximate="tanh")
        hidden = functional.dropout(hidden, self.params.dropout, self.training)
        out: Tensor = self.skip(means) + self.out(hidden)
        return out

    def _past(self, inputs: Int64) -> Tensor:
        """[B, L, d]: the embeddings of items as history, [B, L] rows with n_items for padding."""
        if len(self.history) <= self.params.full_softmax_items:
            return self.past_table()[torch.from_numpy(inputs)]
        # Content is dense: its product with the whole of a large catalogue would be most of a step.
        rows, inverse = np.unique(inputs, return_inverse=True)
        table = self.past_table(torch.from_numpy(rows[rows < len(self.history)]))
        return table[torch.from_numpy(inverse.reshape(inputs.shape))]

    def past_table(self, rows: Tensor | None = None) -> Tensor:
        """[m + 1, d]: the embeddings of items as history, of `rows` [m] or all; then a zero row."""
        if rows is None:
            whole = cast("Tensor", self.history)
            free, rows = whole * self.warm[:, None], torch.arange(len(whole))
        else:
            free = self.history[rows] * self.warm[rows][:, None]
        of_content = self.content.times(self.content_history, rows)
        return functional.pad(free + of_content, (0, 0, 0, 1))

    def _attributes(self, batch: _Batch) -> Tensor:
        """[B, d]: the summed embeddings of each user's attributes."""
        table = functional.pad(self.attributes, (0, 0, 0, 1))  # the last row is that of MISSING
        rows = np.where(batch.attributes == MISSING, len(self.attributes), batch.attributes)
        summed = table[torch.from_numpy(rows)].sum(dim=1)
        if self.training:
            summed = summed * (torch.rand(len(summed), 1) >= self.params.attribute_dropout)
        return summed

    def items(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[m, d] vectors and [m] biases of items; in training some of content alone."""
        keep = self.warm[rows]
        if self.training and self.params.content_only and self.content.width:
            keep = keep * (torch.rand(len(rows)) >= self.params.content_only)
        free, bias = self.free[rows] * keep[:, None], self.bias[rows].view(-1) * keep
        of_content = self.content.times(self.content_item, rows)
        return free + of_content, bias + self.content.times(self.content_bias, rows)

    @torch.no_grad()
    def export(self) -> Towers:
        """The weights as numpy arrays."""
        self.eval()
        vectors, bias = self.items(torch.arange(len(self.free)))
        if self.params.loss == "bpr":  # trained on cosines, without biases
            vectors = functional.normalize(vectors, dim=1) / self.params.temperature
            bias = torch.zeros_like(bias)
        unknown = (self.warm == 0) & self.content.is_empty()
        if len(self.warm_rows):  # an item without events and content comes last
            bias[unknown] = bias[self.warm_rows].min()
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
    weights = torch.stack([_decayed(age, half_life) for half_life in HALF_LIVES])
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _decayed(age: Tensor, half_life: float) -> Tensor:
    """Weights of ages in events, 0 for the future; half-life 0 leaves the latest event alone."""
    if half_life == 0:
        return (age == 0).double()
    return (age >= 0).double() * 0.5 ** (age.clamp(min=0).double() / half_life)


def _softmax_loss(
    net: _Net,
    users: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    params: TowerParams,
    rng: np.random.Generator,
) -> Tensor:
    n = len(net.warm_rows)
    if n <= params.full_softmax_items:
        vectors, bias = net.items(net.warm_rows)
        classes = torch.searchsorted(net.warm_rows, targets)
        return _cross_entropy(users @ vectors.T + bias, classes, weights)
    sample = net.warm_rows[torch.from_numpy(rng.integers(0, n, params.negatives))]
    vectors, bias = net.items(torch.cat((sample, targets)))
    correction = math.log(n / params.negatives)  # each negative stands for n / m items
    own, own_bias = vectors[len(sample) :], bias[len(sample) :]
    negative = users @ vectors[: len(sample)].T + bias[: len(sample)] + correction
    negative = negative.masked_fill(sample[None, :] == targets[:, None], -math.inf)
    positive = (users * own).sum(dim=1) + own_bias
    logits = torch.cat((positive[:, None], negative), dim=1)
    return _cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), weights)


def _cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over the rows, of which each counts by its weight."""
    if weights is None:
        return functional.cross_entropy(logits, classes)
    losses = functional.cross_entropy(logits, classes, reduction="none")
    return (losses * weights).mean()


def _bpr_loss(
    net: _Net,
    users: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    params: TowerParams,
    rng: np.random.Generator,
) -> Tensor:
    """Ranks each target above others of the batch, which are negatives drawn by popularity.

    Subtracting the logarithm of the popularity corrects for the draw.
    """
    sample = torch.from_numpy(rng.integers(0, len(targets), params.negatives))
    users = functional.normalize(users, dim=1) / params.temperature
    vectors = functional.normalize(net.items(targets)[0], dim=1)
    own = (users * vectors).sum(dim=1) - net.log_counts[targets]
    others = users @ vectors[sample].T - net.log_counts[targets[sample]]  # [m, negatives]
    distinct = (targets[:, None] != targets[sample][None, :]).float()
    gains = functional.logsigmoid(own[:, None] - others) * distinct
    if weights is not None:
        gains = gains * weights[:, None]
    return -gains.sum() / distinct.sum().clamp(min=1)


_LossFunction = Callable[
    [_Net, Tensor, Tensor, Tensor | None, TowerParams, np.random.Generator], Tensor
]
"""(net, users [m, d], targets [m], weights [m] or None, params, rng) -> the mean loss."""

_LOSSES: dict[Loss, _LossFunction] = {"sampled_softmax": _softmax_loss, "bpr": _bpr_loss}
