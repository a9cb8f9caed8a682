"""AdamW by row, for tables of which a step reads few rows."""

from __future__ import annotations

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Those of torch's AdamW."""

SHRINKAGE = BETA_1 / BETA_2**0.5
"""By which AdamW's move of a row without a gradient is smaller than the one before."""

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
        for rows in torch.arange(len(self)).split(BLOCK):
            self._state.index_copy_(0, rows, self._as_of_now(rows))
        self._updated.fill_(self._steps)
        return self._state[:, 1]

    @torch.no_grad()
    def _as_of_now(self, rows: Tensor) -> Tensor:
        """[m, 4, d]: the state of distinct rows [m] after the steps since their own last one."""
        updated, state = self._updated[rows], self._state.index_select(0, rows)
        values, average, first, second = state.unbind(1)
        gap = (self._steps - updated)[:, None].double()
        kept = 1 - self._rate * self._decay
        # Step i of the gap multiplies by `kept` and subtracts move * SHRINKAGE^i: with
        # beyond = move * SHRINKAGE / (kept - SHRINKAGE) the value is
        # kept^i * (value - beyond) + SHRINKAGE^i * beyond.
        beyond = self._move(first, second, updated).mul_(SHRINKAGE / (kept - SHRINKAGE))
        lasting = values - beyond
        average.mul_((self._averaging**gap).float())
        average.addcmul_(lasting, self._averaged(kept, gap))
        average.addcmul_(beyond, self._averaged(SHRINKAGE, gap))
        values.copy_(lasting.mul_((kept**gap).float()))
        values.addcmul_(beyond, (SHRINKAGE**gap).float())
        first.mul_((BETA_1**gap).float())
        second.mul_((BETA_2**gap).float())
        return state

    def _move(self, first: Tensor, second: Tensor, updated: Tensor) -> Tensor:
        """[m, d]: what AdamW subtracts from rows with the moments of the steps `updated`, [m]."""
        step = updated[:, None].clamp(min=1).double()
        size = second.sqrt().mul_((1 - BETA_2**step).rsqrt().float()).add_(EPSILON)
        return first.div(size).mul_((self._rate / (1 - BETA_1**step)).float())

    def _averaged(self, factor: float, gap: Tensor) -> Tensor:
        """The weight in the average of a value that each step of a gap [m, 1] multiplies."""
        averaging = self._averaging
        if abs(factor - averaging) < EPSILON:  # the limit
            return ((1 - averaging) * gap * factor**gap).float()
        powers = factor**gap - averaging**gap
        return ((1 - averaging) * factor / (factor - averaging) * powers).float()
