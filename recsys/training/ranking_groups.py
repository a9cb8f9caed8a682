"""Makes the groups that the ranker learns from: states of users, their candidates, their labels.

Towers, neighbours and the item table know only the events before each user's first cut; the labels
are the events after it. Several positions of that window become one ranking group each: the state
is everything before the position. Labels are graded by the strength of the events' kinds. A group
needs a label of a kind to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models import own_events
from shortlist.recsys.models.features import FEATURES, Candidates, features
from shortlist.recsys.models.interactions import (
    MISSING,
    NEVER,
    Events,
    Float32,
    Int32,
    Int64,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ties import Steps, cuts_after_next, steps_of
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.split import before
from shortlist.recsys.training.targets import ranker_labels

GROUPS_AT_ONCE = 64
"""Groups whose candidates are retrieved together, which bounds the memory of their features."""

COLD_START_HORIZON = 10
"""Events that are the labels of a user of the held-out cohort, where the protocol names none."""

NEGATIVES_BESIDE_OWN = 2
"""So many times the negatives where users are offered what they had.

Those are all kept, and are to be ranked against the rest: fewer of the rest, and validation fell.
"""


@dataclass(frozen=True, slots=True)
class Grades:
    """What labels are worth: 0 is no label, and each further one is worth more or as much.

    gains: the gain of each; is_hit: whether it is of a kind to predict.
    """

    gains: tuple[float, ...] = (0.0, 1.0)
    is_hit: tuple[bool, ...] = (False, True)


BINARY = Grades()
"""The grades of events that are all alike."""


@dataclass(frozen=True, slots=True)
class RankingGroups:
    """Ranking groups, their rows in the retriever's order.

    rows: float32[m, F]; labels: float32[m], positions in the grades; sizes: int64[g], rows of each
    group; users: int64[g].
    """

    rows: Float32
    labels: Float32
    sizes: Int64
    users: Int64
    grades: Grades = BINARY

    @staticmethod
    def empty(grades: Grades = BINARY) -> RankingGroups:
        """No groups."""
        rows, labels = np.empty((0, len(FEATURES)), np.float32), np.empty(0, np.float32)
        return RankingGroups(rows, labels, np.empty(0, np.int64), np.empty(0, np.int64), grades)

    @staticmethod
    def joined(grades: Grades, groups: Iterable[RankingGroups]) -> RankingGroups:
        """The groups of all parts, which have these grades, in their order."""
        parts = [RankingGroups.empty(grades), *groups]
        return RankingGroups(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.users for part in parts]),
            grades,
        )

    def to_predict(self) -> RankingGroups:
        """The same groups, of which the labels of a kind to predict count, and all alike."""
        hits = np.array(self.grades.is_hit, np.float32)[self.labels.astype(np.int64)]
        return replace(self, labels=hits, grades=BINARY)

    def take(self, mask: NDArray[np.bool_]) -> RankingGroups:
        """The groups where `mask` (bool[g]) holds, in their order."""
        rows = np.repeat(mask, self.sizes)
        return replace(
            self,
            rows=self.rows[rows],
            labels=self.labels[rows],
            sizes=self.sizes[mask],
            users=self.users[mask],
        )

    @staticmethod
    def sampled(
        parts: Sequence[RankingGroups], most: int, rng: np.random.Generator
    ) -> RankingGroups:
        """At most so many of the groups of all parts, drawn at random, in their order."""
        ends = np.cumsum([len(part.sizes) for part in parts])
        drawn = np.ones(ends[-1], np.bool_)
        if len(drawn) > most:
            drawn[rng.permutation(len(drawn))[most:]] = False
        # Drawn before they are joined: rows are the largest thing that training holds.
        masks = np.split(drawn, ends[:-1])
        kept = [part.take(mask) for part, mask in zip(parts, masks, strict=True)]
        return RankingGroups.joined(parts[0].grades, kept)


@dataclass(frozen=True, slots=True)
class Block:
    """Users of some groups: at most GROUPS_AT_ONCE.

    states: of the users before their labels; users: int64[B] rows; labels: the items and the grades
    of each user's; rng: draws the candidates without a label.
    """

    states: UserStates
    users: Int64
    labels: list[tuple[Int32, Int64]]
    rng: np.random.Generator


MakeGroups = Callable[[Model, Sequence[Block], Grades, RankerParams], Iterable[RankingGroups]]
"""Makes the groups of each block by `block_groups`, in their order."""


def in_turn(
    model: Model, blocks: Sequence[Block], grades: Grades, params: RankerParams
) -> Iterator[RankingGroups]:
    """Makes the groups in this process."""
    return (block_groups(model, block, grades, params) for block in blocks)


def ranker_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    first: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
    make: MakeGroups = in_turn,
) -> RankingGroups:
    """Groups from the label windows first[u]:last[u] of each user, both int64[n_users].

    The model must know nothing at or after `first`. horizon: how many of the following events to
    predict are labels (with those in between, and those that share the last one's time), or None
    for the rest of the window. No state ends, and no labels end, inside a tie.
    """
    steps = steps_of(events)
    users, cuts = _positions(events, steps, first, last, params, rng)
    stops = last[users]
    if horizon is not None:
        stops = cuts_after_next(events, cuts, last[users], horizon)
    blocks, grades = _blocks(model, events, attributes, (users, cuts, stops), rng)
    return RankingGroups.joined(grades, make(model, blocks, grades, params))


def cold_start_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    users: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
    make: MakeGroups = in_turn,
) -> RankingGroups:
    """Groups from early positions of users whom the model never saw.

    last: int64[n_users], the row of each user at which the usable events end. Labels reach to the
    next `horizon` events to predict, or COLD_START_HORIZON. States and labels end at the border of
    a tie.
    """
    events = before(events, last)
    starts, ends = events.offsets()[:-1], events.offsets()[1:]
    lengths = ends - starts
    users = np.repeat(users[lengths[users] > 1], params.positions)
    if len(users) > params.max_groups:
        users = np.sort(rng.permutation(users)[: params.max_groups])
    # Evenly on a logarithmic scale: the first few events change a list most.
    known = np.floor(np.exp(rng.uniform(0, np.log(lengths[users])))).astype(np.int64)
    steps = steps_of(events)
    cuts = steps.border(starts[users] + known, starts[users])
    n_labels = COLD_START_HORIZON if horizon is None else horizon
    stops = cuts_after_next(events, cuts, ends[users], n_labels)
    blocks, grades = _blocks(model, events, attributes, (users, cuts, stops), rng)
    return RankingGroups.joined(grades, make(model, blocks, grades, params))


def _blocks(
    model: Model,
    events: Events,
    attributes: Int32,
    windows: tuple[Int64, Int64, Int64],
    rng: np.random.Generator,
) -> tuple[list[Block], Grades]:
    """The windows (user, cut, stop) in blocks: the state before the cut, the labels after it.

    All at once: states are small against the features of their candidates.
    """
    users, cuts, stops = windows
    starts = events.offsets()[:-1]
    grades, grade_of_kind = grades_of(events.kinds)
    is_label = ranker_labels(events, model.repeats) & (events.cancelled == NEVER)
    labels_of = np.where(is_label, grade_of_kind[events.kind], 0)
    chunks = [slice(at, at + GROUPS_AT_ONCE) for at in range(0, len(users), GROUPS_AT_ONCE)]
    blocks = []
    # A generator for each block: what one draws does not depend on who makes the others.
    for chunk, own_rng in zip(chunks, rng.spawn(len(chunks)), strict=True):
        user, cut = users[chunk], cuts[chunk]
        states = states_at(events, starts[user], cut, attributes[user], user)
        windows_of = list(map(slice, cut.tolist(), stops[chunk].tolist()))
        labels = [(events.item[rows], labels_of[rows]) for rows in windows_of]
        blocks.append(Block(replace(states, repeats=model.repeats), user, labels, own_rng))
    return blocks, grades


def grades_of(kinds: Sequence[EventKind]) -> tuple[Grades, Int64]:
    """The grades of labels, and int64[K] the grade of each kind.

    They ascend by strength. Of one strength the kinds to predict have a grade of their own.
    """
    distinct = sorted({(kind.strength, kind.is_target) for kind in kinds})
    grades = Grades(
        (0.0, *(strength for strength, _ in distinct)),
        (False, *(is_target for _, is_target in distinct)),
    )
    own = [distinct.index((kind.strength, kind.is_target)) + 1 for kind in kinds]
    return grades, np.array(own, np.int64)


def _positions(
    events: Events,
    steps: Steps,
    first: Int64,
    last: Int64,
    params: RankerParams,
    rng: np.random.Generator,
) -> tuple[Int64, Int64]:
    """Users, and rows within first[u]:last[u] at which their labels start.

    These are the start of the window and some further starts of steps, drawn at random, that have
    something to predict after them.
    """
    users, places = _steps_within(events, steps, first, last)
    draw = rng.random(len(users))
    draw[places == 0] = -1  # the start of the window is always taken
    order = np.lexsort((draw, users))
    users, places = users[order], places[order]
    kept = _rank_within(users, events.n_users) < params.positions
    users, places = users[kept], places[kept]
    sample = np.sort(rng.permutation(len(users))[: params.max_groups])
    users, places = users[sample], places[sample]
    return users.astype(np.int64), first[users] + places


def _steps_within(events: Events, steps: Steps, first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """Users, and the places within their windows at which a step starts, the first always."""
    length = last - first
    users = np.repeat(np.arange(events.n_users), length)
    places = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
    rows = first[users] + places
    wanted = np.append(0, np.cumsum(events.to_predict))
    starts = (places == 0) | steps.starts_at(rows)
    starts &= wanted[last[users]] > wanted[rows]
    return users[starts], places[starts]


def _rank_within(users: Int64, n_users: int) -> Int64:
    """int64[m]: the place of each entry among those of its user; users: non-decreasing."""
    counts = np.bincount(users, minlength=n_users)
    return np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)


def block_groups(model: Model, block: Block, grades: Grades, params: RankerParams) -> RankingGroups:
    """A group for each user of a block who has a label to predict among the candidates."""
    states = block.states
    candidates = retrieve(model, states)
    pairs = zip(candidates.items, block.labels, strict=True)
    n_items = len(model.table.popularity) - 1
    graded = np.stack([_graded(row, *label, n_items) for row, label in pairs])
    hit = graded > 0
    used: NDArray[np.bool_] = np.any(np.array(grades.is_hit)[graded], axis=1)
    present = candidates.items != MISSING
    # What the user had is always kept: its order among itself is what repeats are learnt from.
    certain = hit | own_events.had(states, candidates.items, n_items)
    # Ranked by the draw: what is certain first, then random negatives, then padding.
    draw = np.where(certain, -1, block.rng.random(hit.shape))
    draw[~present] = 2
    rank = np.argsort(np.argsort(draw, axis=1), axis=1)
    times = 1 if model.repeats is Repeats.NEVER else NEGATIVES_BESIDE_OWN
    kept = rank < certain.sum(axis=1, keepdims=True) + times * params.negatives
    kept &= present & used[:, None]
    if not used.any():
        return RankingGroups.empty(grades)
    offered = Candidates(candidates.items[used], candidates.scores[used]).only(kept[used])
    rows = features(states.take(used), offered, model.table)
    sizes = kept[used].sum(axis=1)
    labels = graded[kept].astype(np.float32)
    return RankingGroups(rows, labels, sizes, block.users[used], grades)


def _graded(candidates: Int32, items: Int32, grades: Int64, n_items: int) -> Int64:
    """int64[C]: the highest grade of each candidate, 0 for none and for padding."""
    best = np.zeros(n_items + 1, np.int64)  # padding reads the last entry
    np.maximum.at(best, items, grades)
    return best[candidates]
