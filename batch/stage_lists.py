"""Makes the lists of both stages from the same candidates.

The retriever alone is the baseline of the two stages, and the report says which source of
candidates a hit came from. All of it needs each user's candidates, which are retrieved once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shortlist.batch.by_model import results_by_model
from shortlist.batch.precompute import ReportProgress
from shortlist.recsys.evaluation.ranking_metrics import DEPTH, row_keys
from shortlist.recsys.evaluation.truth import Truth, pair_keys
from shortlist.recsys.models.features import Candidates
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Recommend, UserStates
from shortlist.recsys.models.pipeline import (
    CANDIDATE_SOURCES,
    HISTORY,
    USERS_AT_ONCE,
    Model,
    Recommended,
    recommend,
    retrieved,
)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of U users, best first.

    items: int32[U, DEPTH], MISSING-padded; scores: float32[U, DEPTH], -inf-padded.
    """

    items: Int32
    scores: Float32

    def as_method(self) -> Recommend:
        """A method that gives these lists, to users who come in their order, part by part."""
        place = 0

        def method(states: UserStates, k: int) -> tuple[Int32, Float32]:
            nonlocal place
            part = slice(place, place + len(states))
            place = part.stop
            if place > len(self.items):
                raise IndexError(f"users {part.start} to {place} of {len(self.items)}: ask once")
            return self.items[part, :k], self.scores[part, :k]

        return method


@dataclass(frozen=True, slots=True)
class StageLists:
    """What the two stages, and the first alone, list for the users of a truth.

    found: int32[held-out items], the source of each as an index into CANDIDATE_SOURCES, MISSING
    where it was no candidate; has_history: whether the history proposed anything.
    """

    retriever: Lists
    two_stage: Lists
    found: Int32
    has_history: bool

    def candidates_by_source(self, truth: Truth) -> dict[str, Int32]:
        """int32[U, most held-out items of a user] by source: the held-out items that it proposed.

        MISSING-padded. The history is only there where it proposed anything.
        """
        owner = np.repeat(np.arange(len(truth)), truth.counts)
        place = np.arange(len(owner)) - truth.offsets[owner]
        shape = len(truth), int(truth.counts.max(initial=0))
        by_source = {}
        for source, name in enumerate(CANDIDATE_SOURCES):
            if name == HISTORY and not self.has_history:
                continue
            rows = np.full(shape, MISSING, np.int32)
            rows[owner, place] = np.where(self.found == source, truth.items, MISSING)
            by_source[name] = rows
        return by_source


@dataclass(frozen=True, slots=True)
class _Part:
    """What a `StageLists` holds, of a block of users."""

    retriever: Recommended
    two_stage: Recommended
    found: Int32
    has_history: bool


def stage_lists(
    model: Model, truth: Truth, progress: ReportProgress, workers: int = 1
) -> StageLists:
    """The lists for the users of `truth`, with the model's ranker and without it.

    workers: the processes that make them, as `workers_for` takes them.

    Raises:
        InvalidSettings: a process was killed.
    """
    n_users, done, remark = len(truth), 0, ""

    def note(why: str) -> None:
        nonlocal remark
        remark = f", {why}"

    starts = range(0, n_users, USERS_AT_ONCE)
    blocks = [truth.slice(at, min(at + USERS_AT_ONCE, n_users)) for at in starts]
    tasks = [(block,) for block in blocks]
    parts: dict[int, _Part] = {}
    for place, part in results_by_model(_lists, model, tasks, workers, n_users, note):
        parts[place] = part
        done += len(blocks[place])
        progress(done / n_users, f"{done} of {n_users} users{remark}")
    ordered = [parts[place] for place in range(len(blocks))]
    return StageLists(
        _joined([_nobody(), *(part.retriever for part in ordered)]),
        _joined([_nobody(), *(part.two_stage for part in ordered)]),
        np.concatenate([np.empty(0, np.int32), *(part.found for part in ordered)]),
        any(part.has_history for part in ordered),
    )


def _lists(model: Model, block: Truth) -> _Part:
    candidates, sources = retrieved(model, block.states)
    first = replace(model, ranker=None)
    return _Part(
        recommend(first, block.states, DEPTH, candidates=candidates),
        recommend(model, block.states, DEPTH, candidates=candidates),
        _sources_of_held_out(candidates, sources, block, len(model.towers.items)),
        bool((sources == list(CANDIDATE_SOURCES).index(HISTORY)).any()),
    )


def _nobody() -> Recommended:
    """The lists of no users."""
    items, scores = np.empty((0, DEPTH), np.int32), np.empty((0, DEPTH), np.float32)
    return Recommended(items, scores, scores, np.empty(0, np.int32))


def _joined(parts: list[Recommended]) -> Lists:
    items, scores = ([getattr(part, name) for part in parts] for name in ("items", "scores"))
    return Lists(np.concatenate(items), np.concatenate(scores))


def _sources_of_held_out(
    candidates: Candidates, sources: Int32, truth: Truth, n_items: int
) -> Int32:
    """int32[held-out items]: the source that proposed each, MISSING where it is no candidate."""
    there = candidates.items != MISSING
    offered = row_keys(candidates.items, n_items)[there]
    wanted = pair_keys(truth.offsets, truth.items, n_items)
    _, at, place = np.intersect1d(offered, wanted, assume_unique=True, return_indices=True)
    found = np.full(len(wanted), MISSING, np.int32)
    found[place] = sources[there][at]
    return found
