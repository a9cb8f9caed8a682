"""Training a table by rows is AdamW on the whole table."""

import pytest
import torch
from torch import Tensor, nn

from shortlist.recsys.training.row_adam import RowTable

N, WIDTH, RATE, DECAY = 60, 4, 4e-3, 0.1


def trained(averaging: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The averages that the rows gave and that the whole table gave, and the start of both."""
    draw = torch.Generator().manual_seed(7)
    start, goal = (torch.randn(N, WIDTH, generator=draw) for _ in range(2))
    whole, table = nn.Parameter(start.clone()), RowTable(start.clone(), DECAY, averaging)
    optimiser = torch.optim.AdamW([whole], lr=RATE, weight_decay=DECAY)
    average = start.clone()
    for step in range(steps):
        # The last rows are read at the first step alone; some rows are read twice in a step.
        among = N if step == 0 else N - 10
        rows = torch.randint(0, among, (12,), generator=draw)
        for values in (whole[rows], table[rows]):
            (values - goal[rows]).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        table.step(RATE)
        average.lerp_(whole.detach(), 1 - averaging)
    return table.average(), average, start


@pytest.mark.parametrize("averaging", [0.0, 0.5, 0.99, 1 - RATE * DECAY])
def test_rows_are_trained_as_the_table(averaging) -> None:
    """Values and averages are those of AdamW at every row and step, also where nothing was read."""
    by_rows, by_table, start = trained(averaging, steps=400)
    moved = (by_table - start).norm()
    assert (by_rows - by_table).norm() < 0.02 * moved
    untouched = slice(N - 10, N)
    assert (by_rows[untouched] - by_table[untouched]).norm() < 0.02 * moved


def test_two_reads_are_refused() -> None:
    """The gradient of the first would be lost."""
    table = RowTable(torch.zeros(3, 1), 0.0, 0.9)
    table[torch.tensor([0])].sum().backward()
    with pytest.raises(RuntimeError, match="read all its rows at once"):
        table[torch.tensor([1])]
    table.step(RATE)
    table[torch.tensor([1])].sum().backward()


def test_gradients_of_repeated_rows_add_up() -> None:
    """A row that a batch has twice moves by the sum of its gradients, once."""
    once, twice = (RowTable(torch.zeros(3, 1), 0.0, 0.0) for _ in range(2))
    for scale in (1.0, 3.0):
        (once[torch.tensor([1])].sum() * 2 * scale).backward()
        (twice[torch.tensor([1, 1])].sum() * scale).backward()
        once.step(RATE)
        twice.step(RATE)
    assert torch.equal(once.average(), twice.average())
    assert once.average()[1] != 0
    assert once.average()[0] == 0
