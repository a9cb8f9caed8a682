"""Makes the ranker's groups by several processes."""

from __future__ import annotations

from collections.abc import Sequence

from shortlist.batch.by_model import results_by_model
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.ranking_groups import (
    Block,
    Grades,
    MakeGroups,
    RankingGroups,
    block_groups,
)


def groups_by(workers: int, reporter: ProgressReporter) -> MakeGroups:
    """Makes groups by so many processes, as `workers_for` takes them; the same for any number.

    reporter: says why one process makes them where several were wanted.
    """

    def note(why: str) -> None:
        reporter.say(f"  {why}")

    def make(
        model: Model, blocks: Sequence[Block], grades: Grades, params: RankerParams
    ) -> list[RankingGroups]:
        tasks = [(block, grades, params) for block in blocks]
        n_users = sum(len(block.users) for block in blocks)
        made = dict(results_by_model(block_groups, model, tasks, workers, n_users, note))
        return [made[place] for place in range(len(blocks))]

    return make
