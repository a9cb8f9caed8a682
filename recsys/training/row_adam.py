"""AdamW by row, for tables of which a step reads few rows."""

from __future__ import annotations

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Those of torch's AdamW."""

SHRINKAGE = BETA_1 / BETA_2**0.5
"""The factor from one move to the next of a row without a gradient."""

BLOCK = 2**15
"""Rows brought up to date at once, which bounds the memory."""


class RowTable:
    """A table [n, d] trained by AdamW (Loshchilov and Hutter, 2019) with a running average.

    Both change every row at every step, also where the gradient is 0: the row decays, and goes on
    with its momentum. The sum of such steps has a closed form, which is applied when the row is
    read again. So a step costs what it reads, whatever the size of the table. For those steps the
    bias corrections are taken as at the first of them, and the learning rate as at the last.
    """

    def __init__(self, values: Tensor, decay: float, averaging: float) -> None:
        """values: [n, d] before training; decay, averaging: as in `TowerParams`."""
        nothing = torch.zeros_like(values)
        self._state = torch.stack((values, values, nothing, nothing), dim=1)
        """[n, 4, d]: values, their running average, and AdamW's two moments."""
        self._updated = torch.zeros(len(values), dtype=torch.long)
        """[n]: the step that each row is as of."""
        self._steps, self._rate = 0, 0.0
        self._decay, self._averaging = decay, averaging
        self._read: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._updated)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """[m, d]: these rows [m], to be read once before each step, which takes their gradient."""
        if self._read is not None:
            raise RuntimeError("a table was read twice before a step: read all its rows at once")
        distinct, inverse = torch.unique(rows, return_inverse=True)
        state = self._as_of_now(distinct)
        leaf = state[:, 0].clone().requires_grad_()
        self._read = distinct, state, leaf
        return leaf[inverse]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Changes the rows that were read; rate: the learning rate."""
        self._steps, self._rate = self._steps + 1, rate
        if self._read is None:
            return
        rows, state, leaf = self._read
        gradient, self._read = leaf.grad, None
        if gradient is None:
            return
        values, average, first, second = state.unbind(1)
        first.lerp_(gradient, 1 - BETA_1)
        second.lerp_(gradient.square(), 1 - BETA_2)
        updated = torch.full_like(rows, self._steps)
        values.mul_(1 - rate * self._decay).sub_(self._move(first, second, updated))
        average.lerp_(values, 1 - self._averaging)
        self._state.index_copy_(0, rows, state)
        self._updated.index_copy_(0, rows, updated)

    @torch.no_grad()
    def average(self) -> Tensor:
        """[n, d]: the running average of the whole table."""
        out = torch.empty(len(self), self._state.shape[2])
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK)
            state, updated = self._state[block], self._updated[block]
            lasting, beyond = self._parts(state, updated)
            out[block] = self._averaged(state[:, 1], lasting, beyond, self._gap(updated))
        return out

    @torch.no_grad()
    def _as_of_now(self, rows: Tensor) -> Tensor:
        """[m, 4, d]: the state of distinct rows [m] after the steps since their own last one."""
        updated, state = self._updated[rows], self._state.index_select(0, rows)
        values, average, first, second = state.unbind(1)
        gap = self._gap(updated)
        lasting, beyond = self._parts(state, updated)
        average.copy_(self._averaged(average, lasting, beyond, gap))
        values.copy_(lasting.mul_((self._kept**gap).float()))
        values.addcmul_(beyond, (SHRINKAGE**gap).float())
        first.mul_((BETA_1**gap).float())
        second.mul_((BETA_2**gap).float())
        return state

    def _gap(self, updated: Tensor) -> Tensor:
        """[m, 1]: the steps since those of `updated`, [m]."""
        return (self._steps - updated)[:, None].double()

    @property
    def _kept(self) -> float:
        """What a step's decay leaves."""
        return 1 - self._rate * self._decay

    def _parts(self, state: Tensor, updated: Tensor) -> tuple[Tensor, Tensor]:
        """What decays alone and what shrinks alone of rows without gradients, both [m, d].

        Each step multiplies a value by `_kept` and subtracts move * SHRINKAGE^i, the i-th since the
        last gradient. With beyond = move * SHRINKAGE / (kept - SHRINKAGE) the value after i steps
        is kept^i * (value - beyond) + SHRINKAGE^i * beyond.
        """
        values, _, first, second = state.unbind(1)
        beyond = self._move(first, second, updated)
        beyond.mul_(SHRINKAGE / (self._kept - SHRINKAGE))
        return values - beyond, beyond

    def _averaged(self, average: Tensor, lasting: Tensor, beyond: Tensor, gap: Tensor) -> Tensor:
        """[m, d]: the running average after gap steps, of what it was before and of `_parts`."""
        now = average * (self._averaging**gap).float()
        now.addcmul_(lasting, self._weight(self._kept, gap))
        return now.addcmul_(beyond, self._weight(SHRINKAGE, gap))

    def _weight(self, factor: float, gap: Tensor) -> Tensor:
        """[m, 1]: the weight in the average of a value that each step of a gap multiplies."""
        averaging = self._averaging
        if abs(factor - averaging) < EPSILON:  # the limit
            return ((1 - averaging) * gap * factor**gap).float()
        powers = factor**gap - averaging**gap
        return ((1 - averaging) * factor / (factor - averaging) * powers).float()

    def _move(self, first: Tensor, second: Tensor, updated: Tensor) -> Tensor:
        """[m, d]: what AdamW subtracts from rows with the moments of the steps `updated`, [m]."""
        step = updated[:, None].clamp(min=1).double()
        size = second.sqrt().mul_((1 - BETA_2**step).rsqrt().float()).add_(EPSILON)
        return first.div(size).mul_((self._rate / (1 - BETA_1**step)).float())
