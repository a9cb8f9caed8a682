"""Compares the lists of two releases on the same users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.release_admin import ensure_known
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import UserRecord


@dataclass(frozen=True, slots=True)
class Shift:
    """How the lists of two releases differ, over the same users.

    overlap: mean share of a list's items that are in the other; same_first: share of users whose
    first item is the same;
    score_shift: mean of the new score minus the old one over the items that are in both lists;
    old_scores, new_scores: their 5th, 50th and 95th percentile.
    """

    users: int
    k: int
    overlap: float
    same_first: float
    score_shift: float
    old_scores: tuple[float, float, float]
    new_scores: tuple[float, float, float]


def shadow(settings: Settings, version: str, users: int, k: int) -> tuple[str, Shift]:
    """Scores stored users with the serving release and with `version`.

    Gives the serving version and the difference.

    Raises:
        InvalidInput: no release serves, no user is stored, or the artefacts lack `version`.
    """
    ensure_known(settings, version)
    with batch_store(settings) as store:
        pointer, records = store.release(), store.some_users(users)
    if pointer is None or not records:
        raise InvalidInput("there is no serving release, or no user in Redis: run the batch first")
    with tempfile.TemporaryDirectory(prefix="shortlist-") as directory:
        artefacts = open_artefacts(settings.artefacts)
        old = bundle.load(artefacts.fetch(pointer.current, Path(directory)))
        new = bundle.load(artefacts.fetch(version, Path(directory)))
        old_lists = [_list(old, record, k) for record in records]
        new_lists = [_list(new, record, k) for record in records]
    return pointer.current, shift(old_lists, new_lists, k)


def shift(old: Iterable[dict[str, float]], new: Iterable[dict[str, float]], k: int) -> Shift:
    """Compares lists, each {item: score} with the best first.

    Raises:
        InvalidInput: no user has a list in both.
    """
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a and b]
    if not pairs:
        raise InvalidInput(
            "no user has a list in both releases: the catalogues have nothing in common"
        )
    overlaps = [len(a.keys() & b.keys()) / max(len(a), len(b)) for a, b in pairs]
    same_first = [next(iter(a)) == next(iter(b)) for a, b in pairs]
    differences = [b[item] - a[item] for a, b in pairs for item in a.keys() & b.keys()]
    return Shift(
        len(pairs),
        k,
        float(np.mean(overlaps)),
        float(np.mean(same_first)),
        float(np.mean(differences)) if differences else float("nan"),
        _percentiles(score for a, _ in pairs for score in a.values()),
        _percentiles(score for _, b in pairs for score in b.values()),
    )


def shift_table(serving: str, version: str, shift: Shift) -> Table:
    """The difference as a table."""
    title = f"{version} next to {serving}, {shift.users} users, first {shift.k} items"
    table = Table("what", "value", title=title)
    table.add_row("items in both lists", f"{shift.overlap:.1%}")
    table.add_row("same first item", f"{shift.same_first:.1%}")
    table.add_row("score, new minus old, items in both", f"{shift.score_shift:+.4f}")
    for name, scores in ((serving, shift.old_scores), (version, shift.new_scores)):
        figures = "  ".join(f"{score:.4f}" for score in scores)
        table.add_row(f"scores of {name}: 5%, 50%, 95%", figures)
    return table


def _list(loaded: Bundle, user: UserRecord, k: int) -> dict[str, float]:
    state, _ = bundle.state_of(loaded, user)
    recommendations = recommend(loaded.model, state, k)
    rows, scores = recommendations.items[0], recommendations.scores[0]
    return {
        loaded.catalogue.ids[row]: float(score)
        for row, score in zip(rows, scores, strict=True)
        if row != MISSING
    }


def _percentiles(scores: Iterable[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(scores), [5, 50, 95])
    return float(low), float(middle), float(high)
